//! What is told on standard error while it runs: lines, and on a terminal one live line below them.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use c1m_text::escape::{line, paragraph};
pub(super) use c1m_text::units::{bytes, grouped};

/// Without a terminal the state is told this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Standard error. It may be gone at any time together with its terminal, which must not end a run: errors are ignored.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    live_shown: bool,
    plain_due: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            live_shown: false,
            plain_due: Instant::now() + PLAIN_INTERVAL,
        }
    }

    /// One line that stays. It may have names and lines of other programs: they are escaped.
    pub(super) fn say(&mut self, text: &str) {
        self.say_to(&mut io::stderr(), text);
    }

    fn say_to(&mut self, out: &mut impl io::Write, text: &str) {
        let clear = if std::mem::take(&mut self.live_shown) { "\r\x1b[K" } else { "" };
        let _ = writeln!(out, "{clear}{}", paragraph(text));
    }

    /// How far it is: the live line, or now and then a line that stays.
    pub(super) fn live(&mut self, text: &str) {
        if self.terminal {
            self.live_shown = true;
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(text));
        } else if Instant::now() >= self.plain_due {
            self.say(text);
            self.plain_due = Instant::now() + PLAIN_INTERVAL;
        }
    }

    /// A question; what is typed after it stands in the same line.
    pub(super) fn ask(&mut self, text: &str) {
        let _ = write!(io::stderr(), "{} ", line(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_program_moves_no_cursor_and_forges_no_line() {
        let mut progress = Progress { terminal: true, live_shown: true, plain_due: Instant::now() };
        let mut out = Vec::new();
        progress.say_to(&mut out, "client: x\x1b[2J\u{9b}1A\r\nserver: forged");
        progress.say_to(&mut out, "act 1: 16,000 connections");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\r\x1b[Kclient: x\\u{1b}[2J\\u{9b}1A\\r\n    server: forged\nact 1: 16,000 connections\n"
        );
    }
}
