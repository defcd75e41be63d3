//! Programs that run beside the bench, and the lines that they print, each with the time at which it was read.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use c1m_record::Line;
pub(crate) use c1m_testkit::{
    Child,
    child::Printed,
    wait::{INTERRUPTED, check_interrupted},
};
use serde::de::DeserializeOwned;

/// How often a pause looks for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than anything takes that moves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Starts a program that the kernel ends with the calling thread.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    let child = Child::with_input(command);
    let child =
        child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(child.patience(PATIENCE))
}

/// Lets time pass; a signal ends it.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        check_interrupted()?;
        thread::sleep(left.min(LOOK));
    }
    Ok(check_interrupted()?)
}

/// The record of a line of c1m-server or c1m-client.
pub(crate) fn record<R: DeserializeOwned>(line: &Printed) -> Result<R> {
    let line: Line<R> = serde_json::from_str(&line.text)
        .with_context(|| format!("`{}` is not understood", line.text))?;
    Ok(line.record)
}

/// Waits for the end of a program, which has to end well: the lines that are left.
pub(crate) fn rest(child: &mut Child) -> Result<Vec<Printed>> {
    let outcome = child.end()?;
    let said = outcome.stderr.trim();
    ensure!(outcome.status.success(), "{} ended with {}: {said}", child.name(), outcome.status);
    Ok(outcome.lines)
}
