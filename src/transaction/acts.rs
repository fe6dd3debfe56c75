//! What is done to the files of one package, as values that can be written down and repeated.
//!
//! An act decides nothing: what it does was settled before the first one of its package. Doing it a
//! second time, after a stop anywhere, leaves the same tree.

use super::stage::StagedPackage;
use crate::root::{Directory, Root, RootError, Stat, is_missing, split};
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// One change of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Act {
    /// A directory is there, with this owner and mode; missing parents are made as 0755.
    Directory {
        path: String,
        uid: u32,
        gid: u32,
        mode: u32,
    },
    /// A waiting file gets another owner than it was unpacked with.
    Own {
        /// Position among the staged files.
        file: u32,
        uid: u32,
        gid: u32,
    },
    /// A waiting file gets its final name, or that with `.apk-new` behind it.
    Place {
        /// Position among the staged files.
        file: u32,
        apk_new: bool,
    },
    /// A waiting file is not wanted.
    Discard { file: u32 },
    /// A name goes, if it still is what was seen.
    Remove { path: String, seen: Seen },
    /// An empty directory goes, and those above it that nobody has any more either.
    RemoveDirectory { path: String, above: Vec<String> },
    /// A directory is there, with this owner and mode and all its files: the folder in which they
    /// wait gets its name.
    Adopt {
        /// Position among the staged directories.
        directory: u32,
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

/// What was at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, u32),
}

impl Seen {
    pub(super) fn new(stat: &Stat) -> Self {
        Self {
            inode: stat.inode.1,
            size: stat.size,
            modified: stat.modified,
        }
    }

    /// Returns whether this is what was seen. Some file systems number anew at each start, so what
    /// looks the same is taken for the same.
    fn is(self, stat: &Stat) -> bool {
        let now = Self::new(stat);
        self.inode == now.inode || (self.size, self.modified) == (now.size, now.modified)
    }
}

/// What acts need to know of their package.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) root: &'a Root,
    pub(super) usermode: bool,
    pub(super) staged: Option<&'a StagedPackage>,
    /// Some of it may have been done before.
    pub(super) again: bool,
}

impl Context<'_> {
    fn file(&self, position: u32) -> (&super::stage::StagedFile, String) {
        let staged = self.staged.expect("only packages with files place any");
        let file = &staged.files[position as usize];
        (file, staged.path(file))
    }
}

impl Act {
    /// Does it.
    ///
    /// # Errors
    /// [`RootError`]; what was there is as before, or the act is half done and can be repeated.
    pub(super) fn perform(&self, context: Context<'_>) -> Result<(), RootError> {
        let root = context.root;
        match self {
            Self::Directory {
                path,
                uid,
                gid,
                mode,
            } => {
                let (parent, name) = split(path);
                root.create_directories(parent)?;
                let directory = root.directory(parent)?;
                directory.create_directory(name, 0o755)?;
                attributes(context, &directory, name, (*uid, *gid), *mode)
            }
            Self::Own { file, uid, gid } => own(context, *file, *uid, *gid),
            Self::Place { file, apk_new } => place(context, *file, *apk_new),
            Self::Discard { file } => {
                let Some(waiting) = &context.file(*file).0.staged else {
                    return Ok(());
                };
                let (directory, name) = root.parent(waiting)?;
                directory.remove_file(name)
            }
            Self::Remove { path, seen } => {
                let (directory, name) = match root.parent(path) {
                    Ok(found) => found,
                    Err(error) if is_missing(&error.source) => return Ok(()),
                    Err(error) => return Err(error),
                };
                match directory.stat(name)? {
                    Some(stat) if !stat.is_dir() && seen.is(&stat) => {
                        directory.remove_file(name)?;
                        // What was opened through a link is not what will have its name.
                        if stat.kind == FileType::Symlink {
                            root.forget_directories();
                        }
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            Self::RemoveDirectory { path, above } => {
                for path in std::iter::once(path).chain(above) {
                    let (parent, name) = match root.parent(path) {
                        Ok(found) => found,
                        Err(error) if is_missing(&error.source) => continue,
                        Err(error) => return Err(error),
                    };
                    if !parent.try_remove_directory(name)? {
                        break;
                    }
                    root.forget_directories();
                }
                Ok(())
            }
            Self::Adopt {
                directory,
                uid,
                gid,
                mode,
            } => adopt(context, *directory, (*uid, *gid), *mode),
        }
    }

    /// Returns the path that is concerned.
    pub(super) fn path(&self, staged: Option<&StagedPackage>) -> String {
        match self {
            Self::Directory { path, .. }
            | Self::Remove { path, .. }
            | Self::RemoveDirectory { path, .. } => path.clone(),
            Self::Own { file, .. } | Self::Place { file, .. } | Self::Discard { file } => staged
                .map(|staged| staged.path(&staged.files[*file as usize]))
                .unwrap_or_default(),
            Self::Adopt { directory, .. } => staged
                .map(|staged| staged.directories[*directory as usize].path.clone())
                .unwrap_or_default(),
        }
    }
}

fn own(context: Context<'_>, file: u32, uid: u32, gid: u32) -> Result<(), RootError> {
    let (file, _) = context.file(file);
    let Some(waiting) = &file.staged else {
        return Ok(());
    };
    let owned = || -> Result<(), RootError> {
        let (directory, name) = context.root.parent(waiting)?;
        directory.set_owner(name, uid, gid)?;
        // Changing the owner clears the set-id bits.
        match !file.is_link && file.attributes.mode & 0o7000 != 0 {
            true => directory.set_mode(name, file.attributes.mode),
            false => Ok(()),
        }
    };
    match owned() {
        // It does not wait any more: it was owned and put in place the first time.
        Err(error) if context.again && is_missing(&error.source) => Ok(()),
        other => other,
    }
}

fn place(context: Context<'_>, file: u32, apk_new: bool) -> Result<(), RootError> {
    let (file, path) = context.file(file);
    let Some(waiting) = &file.staged else {
        return Ok(());
    };
    let (from, temporary) = match context.root.parent(waiting) {
        Ok(found) => found,
        Err(error) if context.again && is_missing(&error.source) => return Ok(()),
        Err(error) => return Err(error),
    };
    let placed = || -> Result<(), RootError> {
        let (to, name) = context.root.parent(&path)?;
        match apk_new {
            true => from.rename_to(temporary, &to, &format!("{name}.apk-new")),
            false => from.rename_to(temporary, &to, name),
        }
    };
    match placed() {
        // It does not wait any more: it is in place since the first time.
        Err(error)
            if context.again && is_missing(&error.source) && from.stat(temporary)?.is_none() =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Gives a directory its owner and mode.
fn attributes(
    context: Context<'_>,
    at: &Directory,
    name: &str,
    (uid, gid): (u32, u32),
    mode: u32,
) -> Result<(), RootError> {
    // After a power cut the disk may have less than what is seen now.
    if !context.again
        && let Some(stat) = at.stat(name)?
        && stat.is_dir()
        && stat.mode == mode
        && (context.usermode || (stat.uid, stat.gid) == (uid, gid))
    {
        return Ok(());
    }
    if !context.usermode {
        at.set_owner(name, uid, gid)?;
    }
    at.set_mode(name, mode)
}

fn adopt(
    context: Context<'_>,
    directory: u32,
    (uid, gid): (u32, u32),
    mode: u32,
) -> Result<(), RootError> {
    let staged = context.staged.expect("only packages with files bring any");
    let directory = &staged.directories[directory as usize];
    let Some(folder) = &directory.folder else {
        return Ok(());
    };
    let root = context.root;
    let look = |at: &Directory, name: &str| attributes(context, at, name, (uid, gid), mode);
    let (parent, own) = split(&directory.path);
    if context.again && root.stat(folder)?.is_none() {
        // It has its name since the first time; a power cut may have kept that and no more.
        return match root.stat(&directory.path)? {
            Some(stat) if stat.is_dir() => look(&*root.directory(parent)?, own),
            _ => Ok(()),
        };
    }
    let (from, name) = root.parent(folder)?;
    look(&from, name)?;
    root.create_directories(parent)?;
    from.rename_to(name, &*root.directory(parent)?, own)
}

/// Returns whether an error is about the disk or the system, not about one name: going on would
/// leave a package that nobody asked for.
pub(super) fn is_serious(error: &RootError) -> bool {
    let Some(number) = error.source.raw_os_error() else {
        return true;
    };
    [
        Errno::IO,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::STALE,
        Errno::NODEV,
        Errno::NXIO,
        Errno::TIMEDOUT,
    ]
    .iter()
    .any(|errno| errno.raw_os_error() == number)
}
