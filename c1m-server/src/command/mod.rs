//! One file a command; the only place where the other rooms meet.

mod counts;
mod diagnosis;
pub mod doctor;
pub mod holders;
mod measure;
pub mod metrics;
pub mod page;
pub mod report;
pub mod serve;
pub mod states;
mod subject;
mod told;
mod tracing;
pub mod version;
pub mod watch;

use std::io;

use thiserror::Error;

use crate::{
    serve::{Blame, ServeError},
    trace::TraceError,
};

/// The host does not give what the command needs; the text says what, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct EnvironmentRefused(pub String);

/// What was asked for can't be; the text says why, and what to do.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageRefused(pub String);

/// The exit code of a command that ended with this error: 0 for an output that nobody reads any more, 2 usage, 3 the
/// environment refused, 4 internal.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return 0;
        }
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
        if cause.is::<EnvironmentRefused>() || cause.is::<TraceError>() {
            return 3;
        }
    }
    4
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
        assert_eq!(code(UsageRefused("no".into()).into()), 2);
        assert_eq!(code(EnvironmentRefused("no".into()).into()), 3);
        assert_eq!(code(TraceError::NoHook("no".into()).into()), 3);
        assert_eq!(code(ServeError::Internal(io::Error::other("x")).into()), 4);
        assert_eq!(code(anyhow::anyhow!("x")), 4);
    }
}
