//! The exit code that an error stands for, of every command.

use c1m_host::{namespaces::NamespaceError, target::TargetError};
use c1m_probe::TraceError;
use c1m_program::{EnvironmentRefused, UsageRefused, writer::WriteError};

use crate::serve::{Blame, ServeError};

/// The exit code of a command that ended with this error: 2 usage, 3 the environment refused, 4 internal.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<ServeError>() {
            return match error.blame() {
                Blame::Usage => 2,
                Blame::Environment => 3,
                Blame::Internal => 4,
            };
        }
        if let Some(error) = cause.downcast_ref::<TargetError>() {
            return if error.is_usage() { 2 } else { 3 };
        }
        if cause.is::<UsageRefused>() {
            return 2;
        }
        if cause.is::<WriteError>()
            || cause.is::<EnvironmentRefused>()
            || cause.is::<NamespaceError>()
            || cause.is::<TraceError>()
        {
            return 3;
        }
    }
    4
}

#[cfg(test)]
mod tests {
    use c1m_preflight::plan::PlanError;

    use std::io;

    use super::*;

    #[test]
    fn each_error_has_its_code() {
        let code = |error: anyhow::Error| exit_code(&error.context("while testing"));
        assert_eq!(code(ServeError::Keepalive(std::time::Duration::ZERO).into()), 2);
        assert_eq!(code(ServeError::from(PlanError::NofileTooSmall { nofile: 3 }).into()), 3);
        let refused = |kind: io::ErrorKind| WriteError::refused("standard output", kind.into());
        // Of a file: that of a standard stream never gets here.
        assert_eq!(code(refused(io::ErrorKind::BrokenPipe).into()), 3);
        assert_eq!(code(refused(io::ErrorKind::StorageFull).into()), 3);
        assert_eq!(code(WriteError::Unread { name: "x".into(), lines: 1 }.into()), 3);
        assert_eq!(code(UsageRefused("no".into()).into()), 2);
        assert_eq!(code(EnvironmentRefused("no".into()).into()), 3);
        assert_eq!(code(NamespaceError::NotFound { inode: 1 }.into()), 3);
        assert_eq!(code(TargetError::NoPort.into()), 2);
        assert_eq!(code(TargetError::Ports(io::Error::other("x")).into()), 3);
        assert_eq!(code(TraceError::NoHook("no".into()).into()), 3);
        assert_eq!(code(ServeError::Internal(io::Error::other("x")).into()), 4);
        assert_eq!(code(anyhow::anyhow!("x")), 4);
    }
}
