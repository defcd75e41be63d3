//! One file a command; the only place where the other rooms meet.

mod counts;
mod diagnosis;
pub mod doctor;
pub mod holders;
mod measure;
pub mod metrics;
mod namespace;
pub mod page;
mod replace;
pub mod report;
pub mod serve;
pub mod states;
pub mod streams;
mod subject;
mod told;
mod tracing;
pub mod version;
pub mod watch;

use std::io;

use c1m_probe::TraceError;
use c1m_sys::stream::Stream;
use thiserror::Error;

use crate::{
    output::{lines::Printer, writer::WriteError},
    serve::{Blame, ServeError},
};

/// The host does not give what the command needs; the text says what, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct EnvironmentRefused(pub String);

/// What was asked for can't be; the text says why, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageRefused(pub String);

/// Standard output of a command that answers once.
fn printer(json: bool) -> Result<Printer<Stream>, EnvironmentRefused> {
    let out = Stream::stdout()
        .map_err(|error| EnvironmentRefused(format!("cannot write standard output: {error}")))?;
    Ok(Printer::new(out, json))
}

/// The exit code of a command that ended with this error: 0 for an output that nobody reads any more, 2 usage, 3 the
/// environment refused, 4 internal.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        return 0;
    }
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<ServeError>() {
            return match error.blame() {
                Blame::Usage => 2,
                Blame::Environment => 3,
                Blame::Internal => 4,
            };
        }
        if cause.is::<UsageRefused>() {
            return 2;
        }
        if cause.is::<WriteError>() || cause.is::<EnvironmentRefused>() || cause.is::<TraceError>()
        {
            return 3;
        }
    }
    4
}

/// Nobody reads the output any more, which is no error.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::PlanError;

    #[test]
    fn each_error_has_its_code() {
        let code = |error: anyhow::Error| exit_code(&error.context("while testing"));
        assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe).into()), 0);
        assert_eq!(code(ServeError::Keepalive(std::time::Duration::ZERO).into()), 2);
        assert_eq!(code(ServeError::from(PlanError::NofileTooSmall { nofile: 3 }).into()), 3);
        let refused = |kind: io::ErrorKind| WriteError::refused("standard output", kind.into());
        assert_eq!(code(refused(io::ErrorKind::BrokenPipe).into()), 0);
        assert_eq!(code(refused(io::ErrorKind::StorageFull).into()), 3);
        assert_eq!(code(WriteError::Unread { name: "x".into(), lines: 1 }.into()), 3);
        assert_eq!(code(UsageRefused("no".into()).into()), 2);
        assert_eq!(code(EnvironmentRefused("no".into()).into()), 3);
        assert_eq!(code(TraceError::NoHook("no".into()).into()), 3);
        assert_eq!(code(ServeError::Internal(io::Error::other("x")).into()), 4);
        assert_eq!(code(anyhow::anyhow!("x")), 4);
    }
}
