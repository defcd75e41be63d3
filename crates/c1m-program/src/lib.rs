//! What the programs share at their edges: the writers of their streams, files that are written whole or not at all, the page of metrics over HTTP,
//! and how they end.

pub mod exporter;
pub mod http;
pub mod lines;
pub mod metrics;
pub mod replace;
pub mod streams;
pub mod usage;
pub mod version;
pub mod writer;

use std::io;

use thiserror::Error;

/// The host does not give what the command needs; the text says what, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct EnvironmentRefused(pub String);

/// What was asked for can't be; the text says why, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageRefused(pub String);

/// What came of writing a standard stream. That its reader has closed the pipe is no error, and no success either: the exit code is that of the
/// result, which `| head` must not change.
///
/// # Errors
/// Any other.
pub fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
