//! One folder for all that a command needs for a while; it goes when the command ends, also by a
//! signal.
//!
//! Signals that are ignored, as below `nohup`, stay so.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::Path;
use std::time::Duration;

/// How often emptying the folder is tried while others still write into it.
const TRIES: u32 = 20;

/// The wait between two tries.
const WAIT: Duration = Duration::from_millis(5);

/// The folder, as long as it is kept.
pub(crate) struct Temporary {
    _folder: tempfile::TempDir,
}

impl Temporary {
    /// Makes the folder, and has everything temporary made in it from now on; `None` where that is
    /// not possible: then there is nothing to take away.
    pub(crate) fn begin() -> Option<Self> {
        let made = tempfile::Builder::new().prefix("ibex-").tempdir().ok()?;
        let path = made.path().to_owned();
        let mut signals = Signals::new(wanted()).ok()?;
        tempfile::env::override_temp_dir(&path).ok()?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                remove(&path);
                // Ends the process as if nobody had listened.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        Some(Self { _folder: made })
    }
}

fn remove(path: &Path) {
    for _ in 0..TRIES {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            // Something was made in it meanwhile.
            Err(_) => std::thread::sleep(WAIT),
        }
    }
}

/// Returns the signals that would end this process.
fn wanted() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let ignored = ignored.unwrap_or(0);
    let mut signals = vec![SIGHUP, SIGINT, SIGTERM];
    signals.retain(|signal| ignored >> (signal - 1) & 1 == 0);
    signals
}
