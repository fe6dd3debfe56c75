//! How much a reader accepts.

/// Bounds on what is read into memory, in bytes. Content of files is streamed and has no bound
/// here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One extended header (PAX) or GNU long name.
    pub header: u64,
    /// One signature; apk skips larger ones, too.
    pub signature: u64,
    /// Number of signatures of one file.
    pub signatures: usize,
    /// The `.PKGINFO` of a package.
    pub pkginfo: u64,
    /// One script; apk drops larger ones.
    pub script: u64,
    /// The text of an index.
    pub index: u64,
    /// The description of an index.
    pub description: u64,
    /// Decompressed bytes of the control part, headers included.
    pub control: u64,
    /// Number of entries in the data part.
    pub entries: u64,
    /// A path or a link target.
    pub path: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: 256 << 10,
            signature: 64 << 10,
            signatures: 64,
            pkginfo: 4 << 20,
            script: 4 << 20,
            index: 512 << 20,
            description: 160,
            control: 64 << 20,
            entries: 4 << 20,
            path: 4085,
        }
    }
}
