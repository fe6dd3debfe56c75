//! Files of the catalogue as memory.
//!
//! Reading ten megabytes into fresh memory costs a command more than everything it does with them,
//! so the kernel's own copy is used instead. This must only ever be used for files that are
//! written once under another name and then renamed: a file that shrinks while it is mapped ends
//! the program.

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;

/// Maps a whole file that nobody changes in place.
///
/// # Errors
/// Those of `mmap`; an empty file is none.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    let mut options = MmapOptions::new();
    // The pages are there already; one call fetches them all.
    options.populate();
    #[expect(
        unsafe_code,
        reason = "memory that another process can change is outside the language's rules"
    )]
    // SAFETY: the file is in a directory of this user alone, was complete before it got its name,
    // and is only ever replaced or removed, which leaves this mapping as it is. The bytes are
    // read as plain numbers and checked text, so that even a change could give only wrong values.
    let map: Mmap = unsafe { options.map(file)? };
    Ok(Bytes::from_owner(map))
}
