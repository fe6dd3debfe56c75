//! Writing the database: arch, world, installed, scripts and triggers, as a set
//! (commit.md, chapter 13).

use super::{Options, TransactionError};
use crate::format::{FormatError, installed, scripts, triggers};
use crate::package::{InstalledDb, World};
use crate::root::{Root, RootError};

/// Every file of the database, made in memory before the first one is written.
pub(super) struct DatabaseFiles {
    files: Vec<(&'static str, Vec<u8>)>,
}

impl DatabaseFiles {
    /// Renders the database.
    pub(super) fn render(
        root: &Root,
        db: &InstalledDb,
        world: &World,
        options: &Options,
    ) -> Result<Self, TransactionError> {
        let wrong = |error: FormatError| TransactionError::Database {
            cause: error.to_string(),
        };
        let mut files = Vec::new();
        if let Some(architectures) = &options.write_arch {
            let text: String = architectures
                .iter()
                .map(|arch| format!("{arch}\n"))
                .collect();
            files.push(("etc/apk/arch", text.into_bytes()));
        }
        let text = world.to_text();
        // The text must say what was meant, or it would ask for something else (commit.md, W2).
        if World::parse(&text).ok().as_ref() != Some(world) {
            let cause = "the world would not be read back as it is".to_owned();
            return Err(TransactionError::Database { cause });
        }
        files.push(("etc/apk/world", text.into_bytes()));
        files.push(("lib/apk/db/installed", installed::write(db).map_err(wrong)?));
        let plain = root.stat("lib/apk/db/scripts.tar")?.is_some();
        let name = if plain {
            "lib/apk/db/scripts.tar"
        } else {
            "lib/apk/db/scripts.tar.gz"
        };
        files.push((name, scripts::write(db, !plain)));
        files.push(("lib/apk/db/triggers", triggers::write(db)));
        Ok(Self { files })
    }

    /// Replaces the files one by one, each as a whole.
    pub(super) fn write(self, root: &Root, sync: bool) -> Result<(), RootError> {
        for (path, content) in self.files {
            root.replace(path, &content, 0o644, sync)?;
        }
        Ok(())
    }
}
