//! Files that roots share with the cache by hard links, where the user asks for that.
//!
//! A shared file must never change: whoever writes to it in one root writes to all of them. So only
//! what nobody is expected to edit is shared: files of root, without set-id bits or extended
//! attributes, outside of `etc` and `var`. A shared file is used only while size, mode, owner and
//! time are those it was made with, and writing to it changes its time: a root that was written to
//! after all spoils no other one made later. Who writes and sets the time back is found out when
//! the files are compared with their checksums, which is done once a day and after `cache verify`.
//! Reading all of them for every root would take as long as copying them.

use crate::format::tar::Header;
use crate::root::{Directory, RootError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes moved at once.
const BUFFER: usize = 128 << 10;

/// Says when the files beside it were compared with their checksums.
const CHECKED: &str = "checked";

/// How long that counts.
const CHECK_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The shared files of one unpacked package.
pub(super) struct Links {
    folder: PathBuf,
    /// The folder, open, once it is there.
    open: OnceCell<OwnedFd>,
    /// All of them were compared with their checksums not long ago.
    checked: bool,
    /// Owners can be set; without that right the files are the user's, like all of the root.
    owners: bool,
}

impl Links {
    /// Those of an unpacked package of the cache.
    pub(super) fn of(unpacked: &Path, usermode: bool) -> Self {
        let mut folder = unpacked.as_os_str().to_owned();
        folder.push(".links");
        let folder = PathBuf::from(folder);
        let at = std::fs::metadata(folder.join(CHECKED)).and_then(|meta| meta.modified());
        let age = at.ok().and_then(|at| at.elapsed().ok());
        Self {
            folder,
            open: OnceCell::new(),
            checked: age.is_some_and(|age| age < CHECK_AFTER),
            owners: !usermode,
        }
    }

    /// Notes that all files of the package were shared, and so compared where that was due.
    pub(super) fn finish(&self) {
        if !self.checked && self.folder.is_dir() {
            // Without it they are compared again next time.
            let _ = File::create(self.folder.join(CHECKED));
        }
    }

    /// Gives a shared file a name in a directory. Returns whether that was possible; else the
    /// content has to be copied.
    pub(super) fn share(
        &self,
        path: &str,
        header: &Header,
        content: (&File, u64, u64),
        directory: &Directory,
        name: &str,
    ) -> bool {
        let edited = path.starts_with("etc/") || path.starts_with("var/");
        let of_root = header.uname == "root" && header.gname == "root";
        let plain = header.mode & 0o7000 == 0 && header.xattrs.is_empty();
        if edited || !of_root || !plain || header.size == 0 {
            return false;
        }
        let shared = format!("{:x}", content.1);
        if !self.is_whole(&shared, header).unwrap_or(false)
            && self.make(&shared, header, content).is_err()
        {
            return false;
        }
        let Ok(folder) = self.open() else {
            return false;
        };
        let link = || directory.link_from(folder.as_fd(), &self.folder, &shared, name);
        let linked = link();
        let in_the_way = |error: &RootError| error.source.kind() == io::ErrorKind::AlreadyExists;
        match linked {
            Err(error) if in_the_way(&error) => {
                directory.remove_file(name).and_then(|()| link()).is_ok()
            }
            linked => linked.is_ok(),
        }
    }

    fn open(&self) -> io::Result<&OwnedFd> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(&self.folder, flags, Mode::empty())?;
        Ok(self.open.get_or_init(|| open))
    }

    fn is_whole(&self, shared: &str, header: &Header) -> io::Result<bool> {
        let folder = self.open()?;
        let stat = rustix::fs::statat(folder, shared, AtFlags::SYMLINK_NOFOLLOW)?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_size as u64 == header.size
            && stat.st_mode & 0o7777 == header.mode
            && (stat.st_mtime, stat.st_mtime_nsec as i64) == (header.mtime as i64, 0)
            && (!self.owners || (stat.st_uid, stat.st_gid) == (0, 0));
        if !same || self.checked {
            return Ok(same);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, shared, flags, Mode::empty())?);
        let mut hash = header.checksum.hash();
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        Ok(header.checksum.is_some() && hash.finish() == header.checksum)
    }

    /// Makes a shared file beside its name; one that is there is replaced, not changed.
    fn make(
        &self,
        shared: &str,
        header: &Header,
        (source, mut at, mut left): (&File, u64, u64),
    ) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(&self.folder)?;
        let mut made = tempfile::NamedTempFile::new_in(&self.folder)?;
        let mut buffer = vec![0; BUFFER];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            source.read_exact_at(&mut buffer[..most], at)?;
            made.write_all(&buffer[..most])?;
            (at, left) = (at + most as u64, left - most as u64);
        }
        let file = made.as_file();
        if self.owners {
            rustix::fs::fchown(file, Some(Uid::ROOT), Some(Gid::ROOT))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(header.mode))?;
        let time = Timespec {
            tv_sec: header.mtime as i64,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(file, &times)?;
        made.persist(self.folder.join(shared))
            .map_err(|error| error.error)?;
        Ok(())
    }
}
