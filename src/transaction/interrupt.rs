//! Signals that ask a transaction to stop.
//!
//! Between promise and end of a transaction a signal must not end the process: what was promised
//! would be left to the next one. Whoever runs the process connects its signal handlers to this;
//! the library installs none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What signal handlers say to a transaction, and what it says to them.
#[derive(Clone, Debug)]
pub struct Interrupt {
    wanted: Arc<AtomicUsize>,
    idle: Arc<AtomicBool>,
}

impl Default for Interrupt {
    fn default() -> Self {
        Self {
            wanted: Arc::default(),
            idle: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl Interrupt {
    /// Returns where a handler stores the number of its signal.
    pub fn flag(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.wanted)
    }

    /// Returns what is true while a signal should do what it does by default.
    pub fn idle(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.idle)
    }

    /// Returns the signal that asked to stop.
    pub fn wanted(&self) -> Option<i32> {
        match self.wanted.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// From now on signals only ask.
    pub(super) fn hold(&self) -> Held {
        self.idle.store(false, Ordering::SeqCst);
        Held(self.idle())
    }
}

/// While this is there, signals only ask.
#[derive(Debug)]
pub(super) struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
