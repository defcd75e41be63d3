//! Responses: a few counts from which every byte follows, so that a response half sent needs no buffer.

use std::io::{IoSlice, Write as _};

use c1m_program::http::{self, Date};

use super::http::{Request, Target};

const PATTERN_BYTES: usize = 1 << 16;

/// The content of all bodies: byte `i` of a body is `PATTERN[i % 65536]`.
static PATTERN: [u8; PATTERN_BYTES] = pattern();

const fn pattern() -> [u8; PATTERN_BYTES] {
    const LINE: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";
    let mut bytes = [0; PATTERN_BYTES];
    let mut at = 0;
    while at < PATTERN_BYTES {
        bytes[at] = LINE[at % LINE.len()];
        at += 1;
    }
    bytes
}

/// Pieces of the body that one call sends at most: 256 KiB.
const PIECES: usize = 4;
const LAST_CHUNK: &str = "0\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Chunked, open.
    Open,
    /// Chunked, and over with the headers.
    Over,
    /// So many bytes, of which `Response::body_bytes` are really sent.
    Length(u64),
}

/// What came of one call of `send` in [`Response::rest`].
#[derive(Debug)]
pub(super) struct Part<R> {
    pub(super) result: R,
    /// Bytes that `send` was given.
    pub(super) bytes: usize,
    /// Nothing comes behind them.
    pub(super) is_last: bool,
}

/// One response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    /// Kept here, so that a head that is sent in two parts is one.
    date: Date,
    body: Body,
    /// Bytes of the pattern after the headers; 0 for HEAD.
    body_bytes: u64,
    /// The connection's last response left a chunked body open: end it first.
    ends_open_body: bool,
    continues: bool,
    /// Says `Connection: keep-alive`, which an HTTP/1.0 client waits for.
    says_keep_alive: bool,
    /// The connection ends after this response.
    pub(super) closes: bool,
}

impl Response {
    /// The answer to `request`. `ends_open_body`: the response before it on this connection is still open.
    pub(super) fn to(request: &Request, ends_open_body: bool, date: Date) -> Self {
        let closes = !request.keep_alive;
        let (status, body) = match request.target {
            Target::Bytes(bytes) => (200, Body::Length(bytes)),
            Target::Refused(status) => (status, Body::Length(0)),
            // A client of HTTP/1.0 does not know chunks.
            Target::Stream if request.http_1_0 => (200, Body::Length(0)),
            Target::Stream if closes => (200, Body::Over),
            Target::Stream => (200, Body::Open),
        };
        let body_bytes = match body {
            Body::Length(bytes) if !request.head_only => bytes,
            _ => 0,
        };
        let body = match body {
            // The response to HEAD has the headers of a chunked body, and neither chunk nor end.
            Body::Over if request.head_only => Body::Open,
            body => body,
        };
        Self {
            status,
            date,
            body,
            body_bytes,
            ends_open_body,
            continues: request.expects_continue,
            says_keep_alive: request.http_1_0 && request.keep_alive,
            closes,
        }
    }

    /// The last word on a connection whose request was refused.
    pub(super) fn refusal(status: u16, ends_open_body: bool, date: Date) -> Self {
        Self {
            status,
            date,
            body: Body::Length(0),
            body_bytes: 0,
            ends_open_body,
            continues: false,
            says_keep_alive: false,
            closes: true,
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Whether a body stays open behind this response to `request`.
    pub(super) fn leaves_body_open(&self, request: &Request) -> bool {
        self.body == Body::Open && !request.head_only
    }

    /// Calls `send` with what comes after the first `sent` bytes, at most 256 KiB of the body. `None`: nothing is left.
    pub(super) fn rest<R>(
        &self,
        sent: u64,
        send: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> Option<Part<R>> {
        let mut head = Head::default();
        self.write_head(&mut head);
        let head = head.bytes();
        let head_bytes = head.len() as u64;
        let mut slices = [IoSlice::new(&[]); PIECES + 1];
        let mut count = 0;
        if sent < head_bytes {
            let start = usize::try_from(sent).unwrap_or(head.len());
            slices[0] = IoSlice::new(&head[start..]);
            count = 1;
        }
        let mut offset = sent.saturating_sub(head_bytes);
        for slice in slices.iter_mut().skip(count).take(PIECES) {
            let left = self.body_bytes.saturating_sub(offset);
            if left == 0 {
                break;
            }
            let start = usize::try_from(offset % PATTERN_BYTES as u64).unwrap_or(0);
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(PATTERN_BYTES - start);
            *slice = IoSlice::new(&PATTERN[start..start + bytes]);
            offset += bytes as u64;
            count += 1;
        }
        let slices = &slices[..count];
        (count > 0).then(|| Part {
            result: send(slices),
            bytes: slices.iter().map(|slice| slice.len()).sum(),
            is_last: offset >= self.body_bytes,
        })
    }

    fn write_head(&self, head: &mut Head) {
        if self.ends_open_body {
            head.push(LAST_CHUNK);
        }
        if self.continues {
            head.push("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let (code, reason) = http::status(self.status);
        for part in ["HTTP/1.1 ", code, " ", reason, "\r\n"] {
            head.push(part);
        }
        if self.status == 405 {
            head.push("Allow: GET, HEAD, POST, PUT\r\n");
        }
        head.push("Date: ");
        head.push_bytes(self.date.as_bytes());
        head.push("\r\n");
        if self.closes {
            head.push("Connection: close\r\n");
        } else if self.says_keep_alive {
            head.push("Connection: keep-alive\r\n");
        }
        match self.body {
            Body::Length(bytes) => head.push_length(bytes),
            Body::Open => head.push("Transfer-Encoding: chunked\r\n\r\n"),
            Body::Over => {
                head.push("Transfer-Encoding: chunked\r\n\r\n");
                head.push(LAST_CHUNK);
            }
        }
    }
}

/// Room for the longest headers that this file writes.
const HEAD_BYTES: usize = 224;

struct Head {
    bytes: [u8; HEAD_BYTES],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; HEAD_BYTES], len: 0 }
    }
}

impl Head {
    fn push(&mut self, text: &str) {
        self.push_bytes(text.as_bytes());
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_length(&mut self, bytes: u64) {
        let mut room = &mut self.bytes[self.len..];
        let before = room.len();
        // Writing to a slice fails only when it is full, which the test of the longest head excludes.
        let _ = write!(room, "Content-Length: {bytes}\r\n\r\n");
        self.len += before - room.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::serve::http::{MAX_BYTES, Parsed, parse};

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn collect(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    fn all(response: &Response) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = response.rest(bytes.len() as u64, collect) {
            assert_eq!(part.result.len(), part.bytes);
            bytes.extend(part.result);
            if part.is_last {
                break;
            }
        }
        assert!(response.rest(bytes.len() as u64, collect).is_none());
        bytes
    }

    fn text(response: &Response) -> String {
        String::from_utf8(all(response)).unwrap()
    }

    #[test]
    fn a_stream_is_headers_and_stays_open() {
        let request = request("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = Response::to(&request, false, Date::of(0));
        assert_eq!(
            text(&response),
            "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert!(response.leaves_body_open(&request) && !response.closes);
        let next = text(&Response::to(&request, true, Date::of(0)));
        assert!(next.starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"));
    }

    #[test]
    fn a_stream_that_closes_is_complete() {
        let closing = request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let response = Response::to(&closing, false, Date::of(0));
        assert!(response.closes && !response.leaves_body_open(&closing));
        assert!(text(&response).ends_with("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
        let old = Response::to(&request("GET / HTTP/1.0\r\n\r\n"), false, Date::of(0));
        assert!(text(&old).ends_with("Connection: close\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn head_has_the_headers_alone() {
        let head = request("HEAD /bytes/7 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            text(&Response::to(&head, false, Date::of(0))).ends_with("Content-Length: 7\r\n\r\n")
        );
        let head = request("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = Response::to(&head, false, Date::of(0));
        assert!(!response.leaves_body_open(&head));
        assert!(text(&response).ends_with("chunked\r\n\r\n"));
    }

    #[test]
    fn the_longest_head_fits() {
        let longest = format!(
            "GET /bytes/{MAX_BYTES} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        );
        let mut head = Head::default();
        Response::to(&request(&longest), true, Date::of(0)).write_head(&mut head);
        assert!(head.bytes().ends_with(b"Content-Length: 1073741824\r\n\r\n"));
        let longest = request(
            "BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        );
        for status in [400, 404, 405, 408, 411, 431, 501, 505] {
            let refused = Request { target: Target::Refused(status), ..longest };
            for response in [
                Response::to(&refused, true, Date::of(0)),
                Response::refusal(status, true, Date::of(0)),
            ] {
                let text = text(&response);
                assert!(text.contains(&format!("HTTP/1.1 {status} ")), "{text}");
                assert!(text.ends_with("Connection: close\r\nContent-Length: 0\r\n\r\n"), "{text}");
                assert!(!text.contains("Transfer-Encoding"), "{text}");
                assert_eq!(text.contains("Allow: "), status == 405, "{text}");
            }
        }
    }

    #[test]
    fn one_call_carries_a_response_of_64_kib() {
        let response = Response::to(
            &request("GET /bytes/65536 HTTP/1.1\r\nHost: a\r\n\r\n"),
            false,
            Date::of(0),
        );
        let part = response.rest(0, collect).unwrap();
        assert!(part.is_last);
        assert_eq!(part.result, all(&response));
    }

    proptest! {
        /// Whatever part was sent, what follows is the same as in the response sent at once.
        #[test]
        fn a_response_can_be_cut_anywhere(bytes in 0u64..600_000, cut in 0u64..600_000) {
            let response = Response::to(&request(&format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: a\r\n\r\n")), true, Date::of(0));
            let whole = all(&response);
            let body = &whole[whole.len() - usize::try_from(bytes).unwrap()..];
            prop_assert!(body.iter().enumerate().all(|(at, byte)| *byte == PATTERN[at % PATTERN_BYTES]));
            let cut = usize::try_from(cut).unwrap().min(whole.len());
            match response.rest(cut as u64, collect) {
                Some(part) => {
                    prop_assert!(whole[cut..].starts_with(&part.result) && part.bytes > 0);
                    prop_assert_eq!(part.is_last, cut + part.bytes == whole.len());
                }
                None => prop_assert_eq!(cut, whole.len()),
            }
        }
    }
}
