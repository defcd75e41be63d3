//! What is told on standard error while it runs: lines, and on a terminal one live line below them.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

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

    /// One line that stays.
    pub(super) fn say(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.live_shown) { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr(), "{clear}{text}");
    }

    /// How far it is: the live line, or now and then a line that stays.
    pub(super) fn live(&mut self, text: &str) {
        if self.terminal {
            self.live_shown = true;
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        } else if Instant::now() >= self.plain_due {
            self.say(text);
            self.plain_due = Instant::now() + PLAIN_INTERVAL;
        }
    }

    /// A question; what is typed after it stands in the same line.
    pub(super) fn ask(&mut self, text: &str) {
        let _ = write!(io::stderr(), "{text} ");
    }
}

/// 1024000 as 1,024,000.
#[must_use]
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people read them, in binary units.
#[must_use]
pub(super) fn bytes(count: f64) -> String {
    match count.abs() {
        size if size >= 1_073_741_824.0 => format!("{:.2} GiB", count / 1_073_741_824.0),
        size if size >= 1_048_576.0 => format!("{:.1} MiB", count / 1_048_576.0),
        size if size >= 1_024.0 => format!("{:.2} KiB", count / 1_024.0),
        _ => format!("{count:.1} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (64_000, "64,000"), (1_024_000, "1,024,000")]
        {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!(bytes(17.26), "17.3 B");
        assert_eq!(bytes(8_601.6), "8.40 KiB");
        assert_eq!(bytes(-2_097_152.0), "-2.0 MiB");
        assert_eq!(bytes(17_179_869_184.0), "16.00 GiB");
    }
}
