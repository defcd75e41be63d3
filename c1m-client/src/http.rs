//! Reads HTTP/1.1 responses, whatever pieces they come in, without keeping bodies.

use thiserror::Error;

/// A response head that is longer than this is refused; so is a line of a chunked body.
const LONGEST_HEAD: usize = 16 << 10;
const MOST_HEADERS: usize = 64;

/// One response that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Bytes of the body, without what chunks add.
    pub body_bytes: u64,
}

/// What came is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed response: {0}")]
pub struct Malformed(pub &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// A body of which so many bytes are still to come
    Length(u64),
    /// A line with a chunk's size
    ChunkSize,
    /// A chunk of which so many bytes are still to come, its line end included
    Chunk(u64),
    /// Lines after the last chunk, up to an empty one
    Trailer,
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
        Self { state, partial: Vec::new(), response: Response { status: 0, body_bytes: 0 } }
    }
}

impl Reader {
    /// Where the connection waits, if a byte can say it.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        match self.state {
            State::Head if self.partial.is_empty() => Some(Rest::Between),
            State::ChunkSize if self.partial.is_empty() => Some(Rest::OpenBody),
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

    /// Takes at least one byte of `input`, unless it is empty. `true`: a response has ended.
    fn step<'a>(&mut self, input: &'a [u8]) -> Result<(&'a [u8], bool), Malformed> {
        match self.state {
            State::Head => self.head(input),
            State::Length(left) => {
                let (rest, left) = self.body(input, left, left);
                self.state = State::Length(left);
                Ok((rest, left == 0))
            }
            State::Chunk(left) => {
                let (rest, left) = self.body(input, left, left.saturating_sub(2));
                self.state = if left == 0 { State::ChunkSize } else { State::Chunk(left) };
                Ok((rest, false))
            }
            State::ChunkSize => {
                let Some((line, rest)) = self.line(input)? else { return Ok((&[], false)) };
                self.state = match chunk_size(&line)? {
                    0 => State::Trailer,
                    size => State::Chunk(size.saturating_add(2)),
                };
                Ok((rest, false))
            }
            State::Trailer => {
                let Some((line, rest)) = self.line(input)? else { return Ok((&[], false)) };
                Ok((rest, line.is_empty()))
            }
            State::ToEnd => {
                self.response.body_bytes += input.len() as u64;
                Ok((&[], false))
            }
        }
    }

    /// Takes up to `left` bytes, of which the first `counted` are the body's.
    fn body<'a>(&mut self, input: &'a [u8], left: u64, counted: u64) -> (&'a [u8], u64) {
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.response.body_bytes += counted.min(taken as u64);
        (&input[taken..], left - taken as u64)
    }

    /// Takes a line without its end. `None`: it has not come whole yet, and all of `input` is kept.
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<Line<'a>>, Malformed> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let (now, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        self.partial.extend_from_slice(now);
        if self.partial.len() > LONGEST_HEAD {
            return Err(Malformed("a line is too long"));
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some((line, rest)))
    }

    fn head<'a>(&mut self, input: &'a [u8]) -> Result<(&'a [u8], bool), Malformed> {
        // Nearly always the head comes whole, and needs no memory.
        let before = self.partial.len();
        let parsed = if before == 0 {
            parse_head(input)?
        } else {
            self.partial.extend_from_slice(input);
            parse_head(&self.partial)?
        };
        let Some((length, status, body)) = parsed else {
            if before == 0 {
                self.partial.extend_from_slice(input);
            }
            return match self.partial.len() {
                0..=LONGEST_HEAD => Ok((&[], false)),
                _ => Err(Malformed("the head is too long")),
            };
        };
        self.partial = Vec::new();
        let rest = &input[length - before..];
        if status < 200 {
            // An interim response, such as 100: the one that counts follows.
            return Ok((rest, false));
        }
        self.response = Response { status, body_bytes: 0 };
        self.state = body;
        Ok((rest, body == State::Length(0)))
    }
}

/// (length of the head, status, what follows). `None`: incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(usize, u16, State)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed("no HTTP/1.1 response head")),
    };
    let status = response.code.unwrap_or(0);
    let value = |name: &str| {
        response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    };
    let body = if status < 200 || status == 204 || status == 304 {
        State::Length(0)
    } else if let Some(coding) = value("transfer-encoding") {
        match coding.to_ascii_lowercase().ends_with(b"chunked") {
            true => State::ChunkSize,
            false => State::ToEnd,
        }
    } else if let Some(length) = value("content-length") {
        let text = std::str::from_utf8(length).unwrap_or("");
        State::Length(text.trim().parse().map_err(|_| Malformed("Content-Length is no number"))?)
    } else {
        State::ToEnd
    };
    Ok(Some((length, status, body)))
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    // After `;` come extensions, which mean nothing here.
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(Malformed("a chunk's size is no number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    /// Feeds `input` in pieces of at most `piece` bytes.
    fn read(reader: &mut Reader, input: &[u8], piece: usize) -> Result<Vec<(u16, u64)>, Malformed> {
        let mut ended = Vec::new();
        for mut part in input.chunks(piece) {
            while !part.is_empty() {
                let (rest, response) = reader.feed(part)?;
                ended.extend(response.map(|r| (r.status, r.body_bytes)));
                part = rest;
            }
        }
        Ok(ended)
    }

    #[test]
    fn responses_follow_each_other() {
        let mut input = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
        input.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
        input.extend(OPEN);
        input.extend(
            b"5;x=y\r\nhello\r\n1f\r\n0123456789012345678901234567890\r\n0\r\nA: b\r\n\r\n",
        );
        input.extend(
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        );
        for piece in 1..input.len() {
            let mut reader = Reader::from(Rest::Between);
            let ended = read(&mut reader, &input, piece).unwrap();
            assert_eq!(ended, [(200, 3), (200, 36), (204, 0), (404, 0)], "in pieces of {piece}");
            assert_eq!(reader.rest(), Some(Rest::Between));
        }
    }

    #[test]
    fn an_open_body_rests_and_goes_on() {
        let mut reader = Reader::from(Rest::Between);
        assert_eq!(read(&mut reader, OPEN, 100).unwrap(), []);
        assert_eq!((reader.rest(), reader.status()), (Some(Rest::OpenBody), 200));
        let mut reader = Reader::from(Rest::OpenBody);
        let answer = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        let ended = read(&mut reader, answer, 7).unwrap();
        assert_eq!(ended[1], (200, 2));
        assert_eq!(ended.len(), 2);
    }

    #[test]
    fn what_is_incomplete_does_not_rest() {
        for input in [
            &b"HTTP/1.1 2"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\n\r\nab",
        ] {
            let mut reader = Reader::from(Rest::Between);
            assert_eq!(read(&mut reader, input, 100).unwrap(), []);
            assert_eq!(reader.rest(), None);
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let head = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
        for input in [
            "SSH-2.0-OpenSSH\r\n".into(),
            head("Content-Length: -1"),
            head("Content-Length: 99999999999999999999"),
            head("Transfer-Encoding: chunked") + "x\r\n",
            head("Transfer-Encoding: chunked") + "\r\n",
            head("Transfer-Encoding: chunked") + "+1\r\n",
            format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(20_000)),
            head("Transfer-Encoding: chunked") + &"1".repeat(20_000),
        ] {
            let mut reader = Reader::from(Rest::Between);
            assert!(read(&mut reader, input.as_bytes(), 4096).is_err(), "{input:.60}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(input: Vec<u8>, piece in 1usize..50) {
            let _ = read(&mut Reader::from(Rest::Between), &input, piece);
            let _ = read(&mut Reader::from(Rest::OpenBody), &input, piece);
        }
    }
}
