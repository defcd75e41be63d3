//! Waits: as long as something moves, and not for ever.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes without a step forward, also under emulation.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Steps that lead nowhere are waited for no longer than this.
pub const CEILING: Duration = Duration::from_secs(600);
/// How often a wait looks for a signal.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
pub(crate) const STEP: Duration = Duration::from_millis(5);

/// For a program that handles signals: once it is set, every wait ends with an error.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// An error of the kind `Interrupted` once a signal has come.
pub fn check_interrupted() -> io::Result<()> {
    match INTERRUPTED.load(Relaxed) {
        true => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
        false => Ok(()),
    }
}

/// Waits until `done`: whether that came within [`PATIENCE`].
pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    tried("", || io::Result::Ok(done())).is_ok()
}

/// Waits until `done`.
///
/// # Panics
/// `what` does not come within [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(eventually(done), "{what}: this did not come within {PATIENCE:?}");
}

/// Waits until `done`.
///
/// # Errors
/// That of `done`, a signal, or `problem` after [`PATIENCE`].
pub fn tried<E: From<io::Error>>(
    problem: &str,
    mut done: impl FnMut() -> Result<bool, E>,
) -> Result<(), E> {
    let end = Instant::now() + PATIENCE;
    while !done()? {
        check_interrupted()?;
        if Instant::now() > end {
            return Err(io::Error::other(problem).into());
        }
        thread::sleep(STEP);
    }
    Ok(())
}

/// The time until `end`.
pub(crate) fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// Ends a wait that nothing has helped for too long.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    last_step: Instant,
    ceiling: Instant,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self { limit, last_step: now, ceiling: now + CEILING.max(limit) }
    }

    /// Something moved.
    pub(crate) fn step(&mut self) {
        self.last_step = Instant::now();
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        left((self.last_step + self.limit).min(self.ceiling))
    }
}
