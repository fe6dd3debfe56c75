//! Which file systems are mounted below a directory, as the system lists them (proc(5), mountinfo).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What the kernel makes up; nobody installs anything there.
const FLEETING: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Returns the mount points below a directory, relative to it; lines that say nothing are left out.
pub(super) fn below(root: &Path, mountinfo: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let kind = words.iter().position(|word| *word == b"-");
        let kind = kind.and_then(|at| words.get(at + 1));
        let (Some(point), Some(kind)) = (words.get(4), kind) else {
            continue;
        };
        let is_fleeting = FLEETING.iter().any(|name| name.as_bytes() == *kind);
        let point = PathBuf::from(OsString::from_vec(unescaped(point)));
        let relative = point.strip_prefix(root).ok().and_then(Path::to_str);
        if let Some(relative) = relative.filter(|path| !path.is_empty())
            && !is_fleeting
            && !found.iter().any(|known| known == relative)
        {
            found.push(relative.to_owned());
        }
    }
    found
}

/// Undoes the octal escapes of blanks and the like.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let value = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match value {
            Some(value) => {
                text.push(value);
                rest = &tail[3..];
            }
            None => {
                text.push(*first);
                rest = tail;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_below_a_directory() {
        let text = b"22 1 0:20 / / rw - ext4 /dev/sda1 rw\n\
            23 22 0:21 / /srv/root rw shared:1 - ext4 /dev/sdb1 rw\n\
            24 23 0:22 / /srv/root/usr rw shared:2 master:1 - xfs /dev/sdc1 rw\n\
            25 23 0:23 / /srv/root/proc rw - proc proc rw\n\
            26 23 0:24 / /srv/root/a\\040b rw - btrfs /dev/sdd1 rw\n\
            27 23 0:25 / /srv/root/usr rw - ext4 /dev/sde1 rw\n\
            28 23 0:26 / /srv/rooted rw - ext4 /dev/sdf1 rw\n\
            29 23\n";
        assert_eq!(below(Path::new("/srv/root"), text), ["usr", "a b"]);
        let all = ["srv/root", "srv/root/usr", "srv/root/a b", "srv/rooted"];
        assert_eq!(below(Path::new("/"), text), all);
        assert!(below(Path::new("/srv/root"), b"").is_empty());
    }
}
