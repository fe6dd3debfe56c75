//! How much a reader accepts: the one place where the bounds are.
//!
//! Sizes in files are claims. Each is checked against a bound before anything is allocated, and
//! what is read is counted against it, too. The content of files is streamed and never in memory
//! as a whole. All bounds are far above what real packages need, and the user can move each with
//! `--limits NAME=SIZE` or in `etc/apk/config`.

/// Bounds on what is read; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `header`: one extended header (PAX) or GNU long name.
    pub header: u64,
    /// `signature`: one signature; larger ones are skipped, as in apk.
    pub signature: u64,
    /// `signatures`: number of signatures of one file; more are skipped.
    pub signatures: u64,
    /// `pkginfo`: the `.PKGINFO` of a package.
    pub pkginfo: u64,
    /// `script`: one script.
    pub script: u64,
    /// `index-file`: an index as it is stored or sent.
    pub index_file: u64,
    /// `index`: the text of an index, inflated.
    pub index: u64,
    /// `description`: the description of an index; apk's bound.
    pub description: u64,
    /// `control`: the control part of a package, inflated, headers included.
    pub control: u64,
    /// `entries`: number of entries in the data part, extended headers included.
    pub entries: u64,
    /// `path`: a path or a link target.
    pub path: u64,
    /// `names`: all paths and link targets of one archive together.
    pub names: u64,
    /// `unpacked`: the files of one package together, inflated.
    pub unpacked: u64,
    /// `response`: one answer of a server.
    pub response: u64,
    /// `excess`: how many times as large as it announces a package may be, 64 MiB aside. Sizes
    /// are measured in blocks, or on a file system that compresses, so this cannot be 1.
    pub excess: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: 256 * KIB,
            signature: 64 * KIB,
            signatures: 64,
            pkginfo: 4 * MIB,
            script: 4 * MIB,
            index_file: 64 * MIB,
            index: 512 * MIB,
            description: 160,
            control: 64 * MIB,
            entries: 512 * KIB,
            path: 4085,
            names: 64 * MIB,
            unpacked: 32 * GIB,
            response: 8 * GIB,
            excess: 16,
        }
    }
}

/// A word of `--limits` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not of the form `NAME=SIZE`, with `K`, `M` or `G` behind the number.
    #[error("'{0}' is no limit (NAME=SIZE, such as index=1G)")]
    Form(String),
    /// No limit has this name.
    #[error("there is no limit '{name}' (there are {})", names())]
    Unknown {
        /// The name.
        name: String,
    },
}

fn names() -> String {
    let mut limits = Limits::default();
    let names: Vec<&str> = limits.fields().into_iter().map(|(name, _)| name).collect();
    names.join(", ")
}

impl Limits {
    /// Returns each bound with its name.
    fn fields(&mut self) -> [(&'static str, &mut u64); 15] {
        [
            ("header", &mut self.header),
            ("signature", &mut self.signature),
            ("signatures", &mut self.signatures),
            ("pkginfo", &mut self.pkginfo),
            ("script", &mut self.script),
            ("index-file", &mut self.index_file),
            ("index", &mut self.index),
            ("description", &mut self.description),
            ("control", &mut self.control),
            ("entries", &mut self.entries),
            ("path", &mut self.path),
            ("names", &mut self.names),
            ("unpacked", &mut self.unpacked),
            ("response", &mut self.response),
            ("excess", &mut self.excess),
        ]
    }

    /// Moves bounds: a list of `NAME=SIZE`, separated by commas.
    ///
    /// # Errors
    /// [`LimitError`]; bounds before the wrong word are moved then.
    pub fn set(&mut self, list: &str) -> Result<(), LimitError> {
        for word in list.split(',').filter(|word| !word.is_empty()) {
            let form = || LimitError::Form(word.to_owned());
            let (name, size) = word.split_once('=').ok_or_else(form)?;
            let size = parse_size(size).ok_or_else(form)?;
            let field = self.fields().into_iter().find(|(known, _)| *known == name);
            let unknown = || LimitError::Unknown {
                name: name.to_owned(),
            };
            *field.ok_or_else(unknown)?.1 = size;
        }
        Ok(())
    }

    /// Returns how many bytes a package may unpack to that announces this size.
    pub fn unpacked_of(&self, announced: u64) -> u64 {
        announced
            .saturating_mul(self.excess)
            .saturating_add(64 * MIB)
            .min(self.unpacked)
    }
}

/// Reads a number of bytes, with `K`, `M` or `G` behind it; `None` if it is none.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], KIB),
        b'm' | b'M' => (&text[..text.len() - 1], MIB),
        b'g' | b'G' => (&text[..text.len() - 1], GIB),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_can_be_moved() {
        let mut limits = Limits::default();
        for (name, _) in Limits::default().fields() {
            limits.set(&format!("{name}=7")).unwrap();
        }
        assert!(limits.fields().into_iter().all(|(_, value)| *value == 7));
        limits.set("index=2G,path=3k").unwrap();
        assert_eq!((limits.index, limits.path), (2 * GIB, 3 * KIB));
        for wrong in [
            "index",
            "index=",
            "index=-1",
            "index=1T",
            "index=1.5M",
            "index=99999999999G",
        ] {
            assert_eq!(limits.set(wrong), Err(LimitError::Form(wrong.into())));
        }
        let unknown = limits.set("nothing=1").unwrap_err().to_string();
        assert!(
            unknown.starts_with("there is no limit 'nothing' (there are header, "),
            "{unknown}"
        );
    }

    #[test]
    fn what_a_package_announces_bounds_what_it_unpacks_to() {
        let limits = Limits::default();
        assert_eq!(limits.unpacked_of(0), 64 * MIB);
        assert_eq!(limits.unpacked_of(MIB), 80 * MIB);
        assert_eq!(limits.unpacked_of(u64::MAX), 32 * GIB);
    }
}
