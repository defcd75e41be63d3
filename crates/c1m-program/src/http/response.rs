//! Reads HTTP/1.1 responses, whatever pieces they come in, without keeping bodies.
//!
//! As strict as RFC 9112: a response whose end two readers could see in different places is not an answer, and says by
//! [`Malformed`] which rule it breaks.

mod head;

use std::net::SocketAddr;

use c1m_text::address::without_scope;
use thiserror::Error;

use self::head::{Body, Head};
use super::field::is_text;

/// Bytes of a response head. As many of trailers, and of one line of a chunked body.
const LONGEST_HEAD: usize = 16 << 10;
/// Interim responses (1xx) before a final one. No server sends more than a few; without a bound they could go on for ever.
const MOST_INTERIM: u8 = 16;
/// The largest chunk: what a signed 64-bit number holds. A larger size is an overflow somewhere.
const LARGEST_CHUNK: u64 = i64::MAX.cast_unsigned();

/// A GET request on a connection that stays open. Its Host has no scope, which means something on this host alone, and which a client has to remove
/// (RFC 6874).
#[must_use]
pub fn request(path: &str, host: &SocketAddr) -> Vec<u8> {
    let host = without_scope(host);
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// One response that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Bytes of the body, without what chunks add.
    pub body_bytes: u64,
}

/// The rule of RFC 9112 (or the bound of this reader) that a response breaks. The text is the name that it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Malformed {
    /// Section 4: `HTTP/1.` digit, a space, three digits from 100 on.
    #[error("bad status line")]
    StatusLine,
    /// Section 5: a name without blanks, a colon, a value without control characters.
    #[error("bad header")]
    Header,
    #[error("head too long")]
    HeadTooLong,
    #[error("too many headers")]
    TooManyHeaders,
    #[error("too many interim responses")]
    TooManyInterim,
    /// RFC 9110, 15.2.2: status 101 to a request without Upgrade.
    #[error("unasked switch of protocols")]
    Switched,
    /// RFC 9110, 8.6: digits, nothing else, that fit 64 bits.
    #[error("bad Content-Length")]
    ContentLength,
    /// Section 6.3: repeated, or a list, with values that are not the same.
    #[error("conflicting Content-Length")]
    ContentLengths,
    /// Section 6.3: the two may name different ends.
    #[error("Content-Length with Transfer-Encoding")]
    LengthAndCoding,
    /// Section 6.1: a coding without a name, `chunked` twice, or any coding of HTTP/1.0.
    #[error("bad Transfer-Encoding")]
    Coding,
    /// Section 7.1: hexadecimal digits, then extensions or the line's end.
    #[error("bad chunk size")]
    ChunkSize,
    #[error("chunk size too large")]
    ChunkTooLarge,
    #[error("chunk line too long")]
    ChunkLineTooLong,
    /// Section 7.1: CR and LF after a chunk's data, and after its size.
    #[error("bad chunk end")]
    ChunkEnd,
    /// Section 7.1.2: header fields.
    #[error("bad trailer")]
    Trailer,
    #[error("trailers too long")]
    TrailersTooLong,
    /// Section 8: the connection ended before the response.
    #[error("cut off")]
    CutOff,
    /// Section 9.2: bytes to which there was no request.
    #[error("unasked")]
    Unasked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// A body of which so many bytes are still to come
    Length(u64),
    /// A line with a chunk's size
    ChunkSize,
    /// A chunk of which so many bytes are still to come
    Chunk(u64),
    /// The line end after a chunk's data. `true`: its CR has come
    ChunkEnd(bool),
    /// Lines after the last chunk, up to an empty one; so many bytes of them have come
    Trailer(usize),
    /// A body that ends with the connection
    ToEnd,
}

/// Where a connection can wait for long. It stands for a [`Reader`] in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Between two responses.
    Between,
    /// Inside a chunked body, before the next chunk.
    OpenBody,
}

/// A line without its end, and what follows it.
type Line<'a> = (Vec<u8>, &'a [u8]);

/// Reads the responses of one connection, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    state: State,
    /// Interim responses of the response that is being read.
    interim: u8,
    /// The part of a head or of a line that has come so far; empty, and without memory, most of the time.
    partial: Vec<u8>,
    response: Response,
}

impl From<Rest> for Reader {
    fn from(rest: Rest) -> Self {
        let state = match rest {
            Rest::Between => State::Head,
            Rest::OpenBody => State::ChunkSize,
        };
        let response = Response { status: 0, body_bytes: 0 };
        Self { state, interim: 0, partial: Vec::new(), response }
    }
}

impl Reader {
    /// Where the connection waits, if a byte can say it.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        match self.state {
            _ if !self.partial.is_empty() || self.interim > 0 => None,
            State::Head => Some(Rest::Between),
            State::ChunkSize => Some(Rest::OpenBody),
            _ => None,
        }
    }

    /// The status of the response that is being read; 0 before its head is complete.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status
    }

    /// Takes bytes from the front of `input`, up to the end of a response or of `input`. Returns what is left, and the
    /// response if one has ended. Call it again while something is left.
    ///
    /// # Errors
    /// What came is not a response. Nothing more can be read on this connection.
    pub fn feed<'a>(
        &mut self,
        mut input: &'a [u8],
    ) -> Result<(&'a [u8], Option<Response>), Malformed> {
        loop {
            let (rest, ended) = self.step(input)?;
            if ended {
                let response = self.response;
                *self = Rest::Between.into();
                return Ok((rest, Some(response)));
            }
            if rest.is_empty() {
                return Ok((rest, None));
            }
            input = rest;
        }
    }

    /// The peer has ended the connection, in order. Returns the response whose body that end is; `None` between two responses.
    ///
    /// # Errors
    /// The end is inside a response.
    pub fn finish(self) -> Result<Option<Response>, Malformed> {
        match (self.state, self.rest()) {
            (State::ToEnd, _) => Ok(Some(self.response)),
            (_, Some(Rest::Between)) => Ok(None),
            _ => Err(Malformed::CutOff),
        }
    }

    /// Takes at least one byte of `input`, unless it is empty. `true`: a response has ended.
    fn step<'a>(&mut self, input: &'a [u8]) -> Result<(&'a [u8], bool), Malformed> {
        match self.state {
            State::Head => self.head(input),
            State::Length(left) => {
                let (rest, left) = self.body(input, left);
                self.state = State::Length(left);
                Ok((rest, left == 0))
            }
            State::ChunkSize => {
                let Some((line, rest)) = self.line(input)? else { return Ok((&[], false)) };
                self.state = match chunk_size(&line)? {
                    0 => State::Trailer(0),
                    size => State::Chunk(size),
                };
                Ok((rest, false))
            }
            State::Chunk(left) => {
                let (rest, left) = self.body(input, left);
                self.state = if left == 0 { State::ChunkEnd(false) } else { State::Chunk(left) };
                Ok((rest, false))
            }
            State::ChunkEnd(cr_came) => {
                let Some((first, rest)) = input.split_first() else { return Ok((&[], false)) };
                self.state = match (cr_came, first) {
                    (false, b'\r') => State::ChunkEnd(true),
                    (true, b'\n') => State::ChunkSize,
                    _ => return Err(Malformed::ChunkEnd),
                };
                Ok((rest, false))
            }
            State::Trailer(so_far) => self.trailer(input, so_far),
            State::ToEnd => {
                self.response.body_bytes += input.len() as u64;
                Ok((&[], false))
            }
        }
    }

    /// Takes up to `left` bytes of a body. Returns what follows them, and how many are still to come.
    fn body<'a>(&mut self, input: &'a [u8], left: u64) -> (&'a [u8], u64) {
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.response.body_bytes += taken as u64;
        (&input[taken..], left - taken as u64)
    }

    fn trailer<'a>(
        &mut self,
        input: &'a [u8],
        so_far: usize,
    ) -> Result<(&'a [u8], bool), Malformed> {
        let line = self.line(input).map_err(|error| match error {
            Malformed::ChunkLineTooLong => Malformed::TrailersTooLong,
            _ => Malformed::Trailer,
        })?;
        let Some((line, rest)) = line else { return Ok((&[], false)) };
        let so_far = so_far + line.len() + 2;
        self.state = State::Trailer(so_far);
        match line.is_empty() {
            true => Ok((rest, true)),
            false if so_far > LONGEST_HEAD => Err(Malformed::TrailersTooLong),
            false if head::is_field(&line) => Ok((rest, false)),
            false => Err(Malformed::Trailer),
        }
    }

    /// Takes a line without its end, CR and LF. `None`: it has not come whole yet, and all of `input` is kept.
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<Line<'a>>, Malformed> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let (now, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        self.partial.extend_from_slice(now);
        if self.partial.len() > LONGEST_HEAD {
            return Err(Malformed::ChunkLineTooLong);
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.pop();
        match line.pop() {
            Some(b'\r') => Ok(Some((line, rest))),
            _ => Err(Malformed::ChunkEnd),
        }
    }

    fn head<'a>(&mut self, input: &'a [u8]) -> Result<(&'a [u8], bool), Malformed> {
        // Nearly always the head comes whole, and needs no memory.
        let before = self.partial.len();
        let parsed = if before == 0 {
            head::parse(input)?
        } else {
            self.partial.extend_from_slice(input);
            head::parse(&self.partial)?
        };
        let Some(Head { length, status, body }) = parsed else {
            if before == 0 {
                self.partial.extend_from_slice(input);
            }
            return match self.partial.len() {
                0..=LONGEST_HEAD => Ok((&[], false)),
                _ => Err(Malformed::HeadTooLong),
            };
        };
        if length > LONGEST_HEAD {
            return Err(Malformed::HeadTooLong);
        }
        self.partial = Vec::new();
        let rest = &input[length - before..];
        if status < 200 {
            // The response that counts follows.
            self.interim += 1;
            return match status {
                101 => Err(Malformed::Switched),
                _ if self.interim > MOST_INTERIM => Err(Malformed::TooManyInterim),
                _ => Ok((rest, false)),
            };
        }
        self.interim = 0;
        self.response = Response { status, body_bytes: 0 };
        self.state = match body {
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::ChunkSize,
            Body::ToEnd => State::ToEnd,
        };
        Ok((rest, self.state == State::Length(0)))
    }
}

/// The size in a chunk's first line. Extensions behind it mean nothing here, but must not hide a line end.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extensions) = line.split_at(end);
    let mut after_blanks = extensions.iter().skip_while(|byte| matches!(byte, b' ' | b'\t'));
    let is_extension = after_blanks.next() == Some(&b';');
    let is_clean = extensions.iter().all(|byte| is_text(*byte));
    if digits.is_empty() || !is_clean || !(extensions.is_empty() || is_extension) {
        return Err(Malformed::ChunkSize);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::ChunkSize)?;
    // Digits alone: all that is left to go wrong is that there are too many.
    let size = u64::from_str_radix(text, 16).map_err(|_| Malformed::ChunkTooLarge)?;
    if size > LARGEST_CHUNK { Err(Malformed::ChunkTooLarge) } else { Ok(size) }
}

#[cfg(test)]
mod tests;
