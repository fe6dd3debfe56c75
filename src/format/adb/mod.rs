//! The v3 container, ADB: framing, blocks, values and schemas (formats.md, chapters 4 and 5).
//!
//! ```text
//! block.rs   the stream: compression, file header, blocks in their order
//! value.rs   the payload of the ADB block: tagged words, blobs, slots
//! schema.rs  what the slots of packages and indexes mean
//! reader.rs  a file up to its data: payload and signatures
//! ```
//!
//! Nothing in a file decides how much memory or time is used: lengths are compared with what is
//! there, what refers to one thing many times is counted each time, and the schemas have a fixed
//! depth, so that values that contain themselves lead nowhere. What is out of place is an error,
//! never an empty value. No signature is judged here.

pub mod block;
pub mod reader;
pub mod schema;
pub mod value;

/// Why bytes are not a good v3 file; the texts are apk's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdbError {
    /// A compression that is not known.
    #[error("ADB compression not supported")]
    Compression,
    /// The file does not begin as one of this kind.
    #[error("ADB header error")]
    Header,
    /// It was written for newer readers only.
    #[error("incompatible ADB version")]
    Version,
    /// Values are not what the schema wants.
    #[error("ADB schema error")]
    Schema {
        /// What is wrong.
        reason: String,
    },
    /// Blocks of the wrong kind, order or size.
    #[error("ADB block error")]
    Block,
    /// A signature block that is too large.
    #[error("ADB signature block error")]
    Signature,
    /// The file is not the one that the index lists.
    #[error("ADB integrity error")]
    Integrity,
    /// The content of a file is not what its hash says.
    #[error("file integrity error")]
    Content {
        /// The path.
        path: String,
    },
}

impl AdbError {
    /// Makes the error for values that are not as they should be.
    pub fn schema(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Schema { reason }
    }

    /// Returns more than the text says, where there is more.
    pub fn explanation(&self) -> Option<String> {
        match self {
            Self::Schema { reason } => Some(reason.escape_debug().to_string()),
            Self::Content { path } => {
                let path = path.escape_debug();
                Some(format!("{path} is not what its hash says"))
            }
            _ => None,
        }
    }
}
