//! How a guest's first process hands up what the command writes: lines on a serial port of their own, each marked with its stream,
//! the last one with the verdict. The kernel's messages go to the other port.

use std::io::{self, BufRead, Write};

/// The last line begins with it; the exit code follows.
const VERDICT: &str = "c1m-guest: exit ";
const STDOUT: u8 = b'1';
const STDERR: u8 = b'2';

/// Which of a command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One line that came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Without its end.
    Line(Stream, Vec<u8>),
    /// The command ended with this code.
    Verdict(i32),
    /// Nothing of ours: a firmware or a kernel wrote to the wrong port.
    Foreign(Vec<u8>),
}

/// Hands up each line of `from` until its end.
pub(super) fn relay(
    stream: Stream,
    mut from: impl BufRead,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mark = match stream {
        Stream::Stdout => STDOUT,
        Stream::Stderr => STDERR,
    };
    let mut line = vec![mark];
    while from.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        send(&line)?;
        line.truncate(1);
    }
    Ok(())
}

/// Hands up the verdict.
pub(super) fn verdict(mut to: impl Write, code: i32) -> io::Result<()> {
    writeln!(to, "{VERDICT}{code}")?;
    to.flush()
}

/// What a line means. A terminal puts a carriage return before the end of each line; it is taken away.
pub(super) fn parse(line: &[u8]) -> Message {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let verdict = || std::str::from_utf8(line).ok()?.strip_prefix(VERDICT)?.parse().ok();
    match line {
        [STDOUT, text @ ..] => Message::Line(Stream::Stdout, text.to_vec()),
        [STDERR, text @ ..] => Message::Line(Stream::Stderr, text.to_vec()),
        _ => verdict().map_or_else(|| Message::Foreign(line.to_vec()), Message::Verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(stream: Stream, text: &str) -> Vec<u8> {
        let mut all = Vec::new();
        relay(stream, text.as_bytes(), |line| {
            all.extend_from_slice(line);
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_goes_up_comes_back_line_by_line() {
        let sent = up(Stream::Stderr, "one\n\nthree without an end");
        // As a terminal makes it.
        let seen = String::from_utf8(sent).unwrap().replace('\n', "\r\n");
        let lines: Vec<Message> = seen.split_inclusive('\n').map(|l| parse(l.as_bytes())).collect();
        let line = |text: &str| Message::Line(Stream::Stderr, text.into());
        assert_eq!(lines, [line("one"), line(""), line("three without an end")]);
    }

    #[test]
    fn a_command_cannot_give_the_verdict() {
        let mut written = Vec::new();
        verdict(&mut written, 42).unwrap();
        assert_eq!(parse(&written), Message::Verdict(42));
        let forged = up(Stream::Stdout, "c1m-guest: exit 0\n");
        assert_eq!(parse(&forged), Message::Line(Stream::Stdout, b"c1m-guest: exit 0".to_vec()));
        assert_eq!(parse(b"SeaBIOS\r\n"), Message::Foreign(b"SeaBIOS".to_vec()));
        assert_eq!(parse(b"c1m-guest: exit \n"), Message::Foreign(b"c1m-guest: exit ".to_vec()));
    }
}
