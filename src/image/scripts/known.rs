//! Scripts that were looked at and need nothing done in an image, by what they are to the byte
//! (image.md, 6.2). Anything that can be carried out is not here: that is done for any script that
//! says so.

use super::super::store::sha256_hex;

/// Origin of the package, SHA-256 of the script, and why nothing is to be done.
const SCRIPTS: [(&str, &str, &str); 3] = [
    (
        "dbus",
        // dbus-uuidgen --ensure=/etc/machine-id
        "c8bce42a6db7e1ee4861effa66278f123c7f6224ed897e081f54234b4325475b",
        "a machine gets its identity when it first starts; containers must not share one",
    ),
    (
        "dbus",
        // dbus-send … org.freedesktop.DBus.ReloadConfig
        "9f514127b6fac999ea96df83ec8f6a96954cbaa2afeeb20d003b8b4531ff7bd2",
        "it speaks to a service that runs; in an image none does",
    ),
    (
        "eudev",
        // udevadm control --reload, if there is a socket
        "104ae036a067c31b743544e7c19815579673387cf1fc4724db6e75774358333b",
        "it speaks to a service that runs; in an image none does",
    ),
];

/// Returns why nothing is to be done for a script, if that is known.
pub(super) fn find(origin: &str, text: &[u8]) -> Option<&'static str> {
    if !SCRIPTS.iter().any(|(known, ..)| *known == origin) {
        return None;
    }
    let digest = sha256_hex(text);
    let found = SCRIPTS
        .iter()
        .find(|(known, script, _)| *known == origin && *script == digest);
    found.map(|(.., reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_very_script_of_that_origin_is_known() {
        let script = b"#!/bin/sh\n\nexec dbus-uuidgen --ensure=/etc/machine-id\n";
        assert!(find("dbus", script).is_some());
        assert_eq!(find("eudev", script), None);
        assert_eq!(find("dbus", &script[1..]), None);
        assert_eq!(find("dbus", b""), None);
    }
}
