//! Requests: what was asked for, as far as this server cares. Pure.

/// Heads that are longer are refused with 431.
pub(super) const MAX_HEAD_BYTES: usize = 8192;
/// The largest body of `/bytes/N`.
pub(super) const MAX_BYTES: u64 = 1 << 30;
/// With more header fields than this a head is refused with 431.
const MAX_FIELDS: usize = 64;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Headers of a chunked response whose body stays open.
    Stream,
    /// So many bytes.
    Bytes(u64),
    /// `/bytes/N` with an N that is too large.
    TooMany,
}

/// One complete request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) head_bytes: usize,
    /// Bytes of the request's own body, which follow the head.
    pub(super) body_bytes: u64,
    pub(super) target: Target,
    /// HEAD: the same headers, without a body.
    pub(super) head_only: bool,
    pub(super) http_1_0: bool,
    /// The connection stays open after the response.
    pub(super) keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(super) expects_continue: bool,
}

/// What the bytes read so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More is needed.
    Partial,
    Request(Request),
    /// Refused with this status; the connection cannot go on, because nobody knows where the next request starts.
    Refused(u16),
}

/// Looks for one request at the start of `input`.
pub(super) fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(input) {
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes > MAX_HEAD_BYTES => {
            Parsed::Refused(431)
        }
        Ok(httparse::Status::Complete(head_bytes)) => match interpret(&head, head_bytes) {
            Ok(request) => Parsed::Request(request),
            Err(status) => Parsed::Refused(status),
        },
        Ok(httparse::Status::Partial) if input.len() > MAX_HEAD_BYTES => Parsed::Refused(431),
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => Parsed::Refused(431),
        Err(_) => Parsed::Refused(400),
    }
}

fn interpret(head: &httparse::Request<'_, '_>, head_bytes: usize) -> Result<Request, u16> {
    let http_1_0 = head.version == Some(0);
    let mut body_bytes = None;
    let mut transfer_encoding = false;
    let (mut close, mut keep) = (false, false);
    let mut expects_continue = false;
    for field in &*head.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length = decimal(field.value).ok_or(400u16)?;
            if body_bytes.is_some_and(|before| before != length) {
                return Err(400);
            }
            body_bytes = Some(length);
        } else if is("transfer-encoding") {
            transfer_encoding = true;
        } else if is("connection") {
            close |= has_token(field.value, b"close");
            keep |= has_token(field.value, b"keep-alive");
        } else if is("expect") {
            expects_continue |= has_token(field.value, b"100-continue");
        }
    }
    if transfer_encoding {
        // Both at once is how requests are smuggled past a proxy: RFC 9112, 6.1. Alone it is only more than this server
        // needs to read: it asks for a length instead.
        return Err(if body_bytes.is_some() { 400 } else { 411 });
    }
    Ok(Request {
        head_bytes,
        body_bytes: body_bytes.unwrap_or(0),
        target: target(head.path.unwrap_or("")),
        head_only: head.method == Some("HEAD"),
        http_1_0,
        keep_alive: !close && (!http_1_0 || keep),
        expects_continue: expects_continue && !http_1_0 && body_bytes.unwrap_or(0) > 0,
    })
}

fn target(path: &str) -> Target {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    match path.strip_prefix("/bytes/") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            match digits.parse() {
                Ok(bytes) if bytes <= MAX_BYTES => Target::Bytes(bytes),
                _ => Target::TooMany,
            }
        }
        _ => Target::Stream,
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    // `parse` alone would take a sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request) => request,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn targets() {
        for (path, expected) in [
            ("/", Target::Stream),
            ("/bytes/", Target::Stream),
            ("/bytes/12x", Target::Stream),
            ("/bytes/-1", Target::Stream),
            ("/bytes/+1", Target::Stream),
            ("/bytes/0", Target::Bytes(0)),
            ("/bytes/1234?seed=9", Target::Bytes(1234)),
            ("/bytes/1073741824", Target::Bytes(1 << 30)),
            ("/bytes/1073741825", Target::TooMany),
            ("/bytes/99999999999999999999999", Target::TooMany),
        ] {
            assert_eq!(request(&format!("GET {path} HTTP/1.1\r\n\r\n")).target, expected, "{path}");
        }
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        let keeps = |text: &str| request(text).keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn bodies_are_measured_or_refused() {
        let parsed = |fields: &str| parse(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        assert_eq!(request("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n").body_bytes, 12);
        for wrong in ["-1", "+1", "1 2", "99999999999999999999", "0x1", ""] {
            let fields = format!("Content-Length: {wrong}\r\n");
            assert_eq!(parsed(&fields), Parsed::Refused(400), "{wrong:?}");
        }
        assert_eq!(
            parsed("Content-Length: 1\r\nContent-Length: 2\r\n"),
            Parsed::Refused(400),
            "two lengths"
        );
        assert_eq!(parsed("Transfer-Encoding: chunked\r\n"), Parsed::Refused(411));
        assert_eq!(
            parsed("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            Parsed::Refused(400)
        );
        let text = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        assert!(request(text).expects_continue);
        assert!(!request("PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n").expects_continue);
    }

    #[test]
    fn heads_have_a_limit() {
        let head = |padding: usize| format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(padding));
        let rest = head(0).len();
        let largest = head(MAX_HEAD_BYTES - rest);
        assert_eq!(request(&largest).head_bytes, MAX_HEAD_BYTES);
        assert_eq!(parse(&largest.as_bytes()[..MAX_HEAD_BYTES - 1]), Parsed::Partial);
        assert_eq!(parse(head(MAX_HEAD_BYTES - rest + 1).as_bytes()), Parsed::Refused(431));
        assert_eq!(
            parse(&head(2 * MAX_HEAD_BYTES).as_bytes()[..=MAX_HEAD_BYTES]),
            Parsed::Refused(431)
        );
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(431));
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        for text in ["\x16\x03\x01\x02", "GET /\r\n\r\n", "GET / HTTP/1.1\r\n: x\r\n\r\n"] {
            assert_eq!(parse(text.as_bytes()), Parsed::Refused(400), "{text:?}");
        }
    }

    proptest! {
        /// However a valid request is cut, its first part alone is never answered and never refused.
        #[test]
        fn every_prefix_of_a_request_is_partial(cut in 0usize..70, n in 0u64..MAX_BYTES) {
            let text = format!("GET /bytes/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
            let cut = cut.min(text.len() - 1);
            prop_assert_eq!(parse(&text.as_bytes()[..cut]), Parsed::Partial);
            prop_assert_eq!(request(&text).head_bytes, text.len());
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
