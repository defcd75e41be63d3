//! What the programs share at their edges: the writers of their streams, files that are written whole or not at all, the page of metrics over HTTP,
//! and how they end.

pub mod exporter;
pub mod http;
pub mod lines;
pub mod metrics;
pub mod replace;
pub mod streams;
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

/// Nobody reads the output any more, which is no error.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is))
}
