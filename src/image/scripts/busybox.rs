//! The links that busybox makes of itself.
//!
//! Newer packages list the paths in `etc/busybox-paths.d`. Older ones do not, but the names of the
//! applets are in the program, one after another and sorted, on every architecture; where each
//! belongs has hardly ever changed and is in a table here.

use crate::root::{Root, RootError, split};

const PATHS: &str = "etc/busybox-paths.d";

/// Where applets are, for programs without a list: everything that is not in `usr/bin`.
const BIN: &str = "arch ash base64 bbconfig cat chattr chgrp chmod chown cp date dd df dmesg dnsdomainname \
    dumpkmap echo ed egrep false fatattr fdflush fgrep fsync getopt grep gunzip gzip hostname \
    ionice iostat ipcalc kbd_mode kill link linux32 linux64 ln login ls lsattr lzop makemime mkdir \
    mknod mktemp more mount mountpoint mpstat mv netstat nice pidof ping ping6 pipe_progress \
    printenv ps pwd reformime rev rm rmdir run-parts sed setpriv setserial sh sleep stat stty su \
    sync tar touch true umount uname usleep watch zcat";
const SBIN: &str = "acpid adjtimex arp blkid blockdev depmod fbsplash fdisk findfs fsck fstrim getty halt hwclock \
    ifconfig ifdown ifenslave ifup init inotifyd insmod ip ipaddr iplink ipneigh iproute iprule \
    iptunnel klogd loadkmap logread losetup lsmod mdev mkdosfs mkfs.vfat mkswap modinfo modprobe \
    nameif nologin pivot_root poweroff raidautorun reboot rmmod route setconsole slattach swapoff \
    swapon switch_root sysctl syslogd tunctl udhcpc vconfig watchdog zcip";
const USR_SBIN: &str = "add-shell addgroup adduser arping brctl chat chpasswd chroot crond delgroup deluser ether-wake \
    fbset killall5 loadfont nanddump nandwrite nbd-client ntpd partprobe rdate rdev readahead \
    readprofile remove-shell rfkill sendmail setfont setlogcons";

/// Makes the links of every busybox program in a tree; what is there already is left.
pub(super) fn install(root: &Root) -> Result<(), RootError> {
    suid(root)?;
    for program in ["busybox-extras", "busybox"] {
        let Some(path) = find(root, program)? else {
            continue;
        };
        let mut links = Vec::new();
        let listed = root.read(&format!("{PATHS}/{program}"))?;
        if let Some(text) = listed {
            let text = String::from_utf8_lossy(&text);
            links.extend(
                text.lines()
                    .map(|line| line.trim().trim_matches('/').to_owned()),
            );
        } else if program == "busybox" {
            let content = root.read(&path)?.unwrap_or_default();
            links.extend(applets(&content).into_iter().map(|name| place(&name)));
        }
        for link in links
            .iter()
            .filter(|link| crate::root::RelPath::new(link).is_ok())
        {
            if root.stat(link)?.is_none() {
                make(root, link, &path)?;
            }
        }
    }
    Ok(())
}

/// Returns where a program is: in `bin`, or `usr/bin` where that is one directory.
fn find(root: &Root, program: &str) -> Result<Option<String>, RootError> {
    for folder in ["bin", "usr/bin"] {
        let path = format!("{folder}/{program}");
        if root.stat(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn make(root: &Root, link: &str, program: &str) -> Result<(), RootError> {
    let (parent, name) = split(link);
    root.create_directories(parent)?;
    root.directory(parent)?
        .create_symlink(&format!("/{program}"), name)
}

/// Makes the links of the set-uid helper, which take the place of busybox's own.
fn suid(root: &Root) -> Result<(), RootError> {
    const PROGRAM: &str = "bin/bbsuid";
    let Some(content) = root.read(PROGRAM)? else {
        return Ok(());
    };
    for text in texts(&content) {
        let Some(path) = text.strip_prefix('/') else {
            continue;
        };
        let known = ["bin", "sbin", "usr/bin", "usr/sbin"].contains(&split(path).0);
        if !known || matches!(path, "bin/busybox" | PROGRAM) {
            continue;
        }
        let (parent, name) = split(path);
        root.create_directories(parent)?;
        let directory = root.directory(parent)?;
        let busybox = directory
            .read_link(name)
            .is_ok_and(|target| target == b"/bin/busybox");
        if busybox {
            directory.remove_file(name)?;
        }
        if busybox || directory.stat(name)?.is_none() {
            directory.create_symlink("/bin/bbsuid", name)?;
        }
    }
    Ok(())
}

/// Returns the texts between NUL bytes that look like paths or names.
fn texts(content: &[u8]) -> impl Iterator<Item = &str> {
    let plain = |byte: &u8| byte.is_ascii_graphic();
    let pieces = content.split(|byte| *byte == 0);
    let pieces = pieces.filter(move |piece| !piece.is_empty() && piece.iter().all(plain));
    pieces.filter_map(|piece| std::str::from_utf8(piece).ok())
}

/// Returns the names of the applets that a busybox program has.
fn applets(content: &[u8]) -> Vec<String> {
    // The list begins with `[` and `[[`, is sorted, and ends where the order does.
    let Some(start) = memchr::memmem::find(content, b"\0[\0[[\0") else {
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    for piece in content[start + 1..].split(|byte| *byte == 0) {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"[-_.".contains(byte);
        let name = std::str::from_utf8(piece)
            .ok()
            .filter(|_| piece.iter().all(plain));
        match name {
            Some(name) if !name.is_empty() && names.last().is_none_or(|last| **last < *name) => {
                names.push(name.to_owned());
            }
            _ => break,
        }
    }
    names
}

fn place(name: &str) -> String {
    let tables = [("bin", BIN), ("sbin", SBIN), ("usr/sbin", USR_SBIN)];
    let folder = tables
        .iter()
        .find(|(_, names)| names.split_whitespace().any(|known| known == name));
    format!("{}/{name}", folder.map_or("usr/bin", |(folder, _)| folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_a_program() {
        let program = b"\x7fELF\0text\0[\0[[\0acpid\0ash\0zcip\0add\0\0more";
        assert_eq!(applets(program), ["[", "[[", "acpid", "ash", "zcip"]);
        assert_eq!(applets(b"nothing"), Vec::<String>::new());
        for (name, path) in [
            ("ash", "bin/ash"),
            ("acpid", "sbin/acpid"),
            ("awk", "usr/bin/awk"),
        ] {
            assert_eq!(place(name), path);
        }
    }
}
