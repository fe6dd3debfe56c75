//! The trusted keys of a root (formats.md, 8.1).

use super::Settings;
use crate::root::{Root, RootError};
use crate::trust::Keyring;
use std::collections::HashSet;

/// The directories, the first hiding the second.
const FOLDERS: [&str; 2] = ["etc/apk/keys", "lib/apk/keys"];

/// A key file is a few hundred bytes; anything much larger is none.
const LARGEST: u64 = 64 << 10;

impl Settings {
    /// Reads the keys of `--keys-dir`, or of the root's key directories. What is no usable key is
    /// left out.
    ///
    /// # Errors
    /// [`RootError`] if a directory cannot be read.
    pub fn keyring(&self, root: &Root) -> Result<Keyring, RootError> {
        let mut keyring = Keyring::new();
        if let Some(directory) = &self.keys_dir {
            let path = root.path().join(directory);
            // A missing directory holds no keys; what it should have verified is then untrusted.
            let Ok(entries) = std::fs::read_dir(path) else {
                return Ok(keyring);
            };
            let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
            for file in files {
                let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                let small = std::fs::metadata(&file).is_ok_and(|meta| meta.len() <= LARGEST);
                if let (false, true, Ok(pem)) = (name.starts_with('.'), small, std::fs::read(&file))
                {
                    // Not a key: apk skips it silently, too.
                    let _ = keyring.add(name, &pem);
                }
            }
            return Ok(keyring);
        }
        let mut seen = HashSet::new();
        for folder in FOLDERS {
            for name in root.list(folder)? {
                let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                    continue;
                };
                let path = format!("{folder}/{name}");
                let small = root.stat(&path)?.is_some_and(|stat| stat.size <= LARGEST);
                // A name in the first directory hides the second even if it is no valid key.
                if seen.insert(name.to_owned())
                    && small
                    && let Some(pem) = root.read(&path)?
                {
                    let _ = keyring.add(name, &pem);
                }
            }
        }
        Ok(keyring)
    }
}
