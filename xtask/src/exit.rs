//! Errors that know their exit code: 1 the check failed, 3 the environment refused, 130 a signal; any other error is 4, internal.

use std::{fmt, io, process::ExitCode};

use c1m_text::escape::paragraph;

/// An error with the exit code that it stands for.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Exit {}

/// The command did its work, and the answer is no: exit code 1.
pub(crate) fn failed(text: impl Into<String>) -> anyhow::Error {
    Exit { code: 1, text: text.into() }.into()
}

/// Something is missing on this machine: exit code 3. The text says what to do.
pub(crate) fn refused(text: impl Into<String>) -> anyhow::Error {
    Exit { code: 3, text: text.into() }.into()
}

/// A step ended with a code of its own, which becomes that of xtask.
pub(crate) fn step(code: u8, text: impl Into<String>) -> anyhow::Error {
    Exit { code, text: text.into() }.into()
}

/// Prints the error, if there is one, and turns the result into an exit code.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {}", paragraph(&format!("{error:#}")));
    ExitCode::from(code_of(&error))
}

/// The exit code that an error stands for, wherever in its chain the code is.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    let is_interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
    match error.downcast_ref::<Exit>() {
        Some(exit) => exit.code,
        None if error.downcast_ref::<io::Error>().is_some_and(is_interrupted) => 130,
        None => 4,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_code_survives_context_and_other_errors_are_internal() {
        let refused: anyhow::Result<()> = Err(refused("no compiler")).context("step build-ebpf");
        assert_eq!(code_of(&refused.unwrap_err()), 3);
        assert_eq!(code_of(&failed("differs")), 1);
        assert_eq!(code_of(&anyhow!("bug")), 4);
        assert_eq!(code_of(&io::Error::from(io::ErrorKind::Interrupted).into()), 130);
        assert_eq!(code_of(&io::Error::from(io::ErrorKind::NotFound).into()), 4);
    }
}
