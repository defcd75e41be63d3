//! Requests: what was asked for, as far as this server cares. Pure.

use c1m_program::http::{
    self, Head, Method,
    field::{decimal, members},
};

pub(super) use c1m_program::http::MAX_HEAD_BYTES;

/// The largest body of `/bytes/N`.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Headers of a chunked response whose body stays open.
    Stream,
    /// So many bytes.
    Bytes(u64),
    /// Nothing that there is, or in a way that there is not: 404, 405 or 501. The connection can go on.
    Refused(u16),
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

pub(super) type Parsed = http::Parsed<Request>;

/// Looks for one request at the start of `input`.
pub(super) fn parse(input: &[u8]) -> Parsed {
    http::parse(input, interpret)
}

/// What of `input` is no complete request: behind the first `body_bytes`, which are the rest of a body, and behind each complete head with
/// its body.
pub(super) fn last_head(mut input: &[u8], mut body_bytes: u64) -> &[u8] {
    loop {
        let body = usize::try_from(body_bytes).unwrap_or(usize::MAX);
        input = input.get(body..).unwrap_or_default();
        match parse(input) {
            Parsed::Request(request) => {
                input = &input[request.head_bytes..];
                body_bytes = request.body_bytes;
            }
            Parsed::Partial | Parsed::Refused(_) => return input,
        }
    }
}

fn interpret(head: &Head<'_>) -> Result<Request, u16> {
    let mut body_bytes = None;
    let mut transfer_encoding: Option<&[u8]> = None;
    let (mut close, mut keep) = (false, false);
    let mut expects_continue = false;
    for field in head.fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length = decimal(field.value).ok_or(400u16)?;
            if body_bytes.is_some_and(|before| before != length) {
                return Err(400);
            }
            body_bytes = Some(length);
        } else if is("transfer-encoding") {
            // Two of them are one list, which is none that is known here.
            transfer_encoding = Some(if transfer_encoding.is_none() { field.value } else { b"" });
        } else if is("connection") {
            close |= has_token(field.value, b"close");
            keep |= has_token(field.value, b"keep-alive");
        } else if is("expect") {
            expects_continue |= has_token(field.value, b"100-continue");
        }
    }
    if let Some(coding) = transfer_encoding {
        // Both at once is how requests are smuggled past a proxy, and HTTP/1.0 has no codings: RFC 9112, 6.1. Alone it is only more than this
        // server needs to read: it asks for a length instead. Each of them ends the connection.
        return Err(match coding.eq_ignore_ascii_case(b"chunked") {
            _ if body_bytes.is_some() || head.http_1_0 => 400,
            true => 411,
            false => 501,
        });
    }
    let target = match head.method {
        Method::Get | Method::Head | Method::Post | Method::Put => target(head.path),
        Method::Connect | Method::Options | Method::Known => Target::Refused(405),
        Method::Unknown => Target::Refused(501),
    };
    // What follows CONNECT is no request.
    let close = close || head.method == Method::Connect;
    Ok(Request {
        head_bytes: head.bytes,
        body_bytes: body_bytes.unwrap_or(0),
        target,
        head_only: head.method == Method::Head,
        http_1_0: head.http_1_0,
        keep_alive: !close && (!head.http_1_0 || keep),
        expects_continue: expects_continue && !head.http_1_0 && body_bytes.unwrap_or(0) > 0,
    })
}

fn target(path: &str) -> Target {
    let Some(rest) = path.strip_prefix("/bytes") else { return Target::Stream };
    let Some(digits) = rest.strip_prefix('/') else {
        return if rest.is_empty() { Target::Refused(404) } else { Target::Stream };
    };
    match decimal(digits.as_bytes()) {
        Some(bytes) if bytes <= MAX_BYTES => Target::Bytes(bytes),
        _ => Target::Refused(404),
    }
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_FIELDS: usize = c1m_program::http::MAX_FIELDS;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request) => request,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_last_head_is_behind_complete_heads_and_their_bodies() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        for (input, body_bytes, expected) in [
            ("".into(), 0, ""),
            (get.into(), 0, ""),
            (format!("xy{get}{post}abcGET /"), 2, "GET /"),
            (format!("{post}ab"), 0, ""),
            ("ab".into(), 3, ""),
            (format!("{get}\0nonsense\r\n\r\n"), 0, "\0nonsense\r\n\r\n"),
        ] {
            assert_eq!(last_head(input.as_bytes(), body_bytes), expected.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn targets() {
        for (path, expected) in [
            ("/", Target::Stream),
            ("/bytesx", Target::Stream),
            ("/a/bytes/1", Target::Stream),
            ("http://b/bytes/7", Target::Bytes(7)),
            ("http://b", Target::Stream),
            ("/bytes", Target::Refused(404)),
            ("/bytes/", Target::Refused(404)),
            ("/bytes/12x", Target::Refused(404)),
            ("/bytes/-1", Target::Refused(404)),
            ("/bytes/+1", Target::Refused(404)),
            ("/bytes/1/", Target::Refused(404)),
            ("/bytes/0", Target::Bytes(0)),
            ("/bytes/1234?seed=9", Target::Bytes(1234)),
            ("/bytes/1073741824", Target::Bytes(1 << 30)),
            ("/bytes/1073741825", Target::Refused(404)),
            ("/bytes/99999999999999999999999", Target::Refused(404)),
        ] {
            assert_eq!(
                request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).target,
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn methods_are_answered_or_refused() {
        let of = |method: &str| request(&format!("{method} /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n"));
        for method in ["GET", "HEAD", "POST", "PUT"] {
            assert_eq!(of(method).target, Target::Bytes(3), "{method}");
        }
        for method in ["DELETE", "OPTIONS", "PATCH", "TRACE"] {
            let request = of(method);
            assert_eq!((request.target, request.keep_alive), (Target::Refused(405), true));
        }
        for method in ["BREW", "get", "GETS"] {
            assert_eq!(of(method).target, Target::Refused(501), "{method}");
        }
        let tunnel = request("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n");
        assert_eq!((tunnel.target, tunnel.keep_alive), (Target::Refused(405), false));
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        let keeps = |text: &str| request(text).keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn bodies_are_measured_or_refused() {
        let parsed =
            |fields: &str| parse(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        assert_eq!(
            request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n").body_bytes,
            12
        );
        for wrong in ["-1", "+1", "1 2", "99999999999999999999", "0x1", ""] {
            let fields = format!("Content-Length: {wrong}\r\n");
            assert_eq!(parsed(&fields), Parsed::Refused(400), "{wrong:?}");
        }
        assert_eq!(
            parsed("Content-Length: 1\r\nContent-Length: 2\r\n"),
            Parsed::Refused(400),
            "two lengths"
        );
        assert_eq!(parsed("Transfer-Encoding: Chunked\r\n"), Parsed::Refused(411));
        for unknown in ["gzip, chunked", "identity", "xchunked", ""] {
            let fields = format!("Transfer-Encoding: {unknown}\r\n");
            assert_eq!(parsed(&fields), Parsed::Refused(501), "{unknown:?}");
        }
        let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
        assert_eq!(parsed(&twice), Parsed::Refused(501));
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old.as_bytes()), Parsed::Refused(400));
        assert_eq!(
            parsed("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            Parsed::Refused(400)
        );
        let text = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        assert!(request(text).expects_continue);
        assert!(
            !request("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expects_continue
        );
    }

    #[test]
    fn heads_have_a_limit() {
        let head = |padding: usize| {
            format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "a".repeat(padding))
        };
        let rest = head(0).len();
        let largest = head(MAX_HEAD_BYTES - rest);
        assert_eq!(request(&largest).head_bytes, MAX_HEAD_BYTES);
        assert_eq!(parse(&largest.as_bytes()[..MAX_HEAD_BYTES - 1]), Parsed::Partial);
        assert_eq!(parse(head(MAX_HEAD_BYTES - rest + 1).as_bytes()), Parsed::Refused(431));
        assert_eq!(
            parse(&head(2 * MAX_HEAD_BYTES).as_bytes()[..=MAX_HEAD_BYTES]),
            Parsed::Refused(431)
        );
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        assert_eq!(parse(many.as_bytes()), Parsed::Refused(431));
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        for text in
            ["\x16\x03\x01\x02", "GET /\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"]
        {
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
        fn no_request_is_longer_than_its_bytes(bytes: Vec<u8>) {
            if let Parsed::Request(request) = parse(&bytes) {
                prop_assert!(request.head_bytes <= bytes.len(), "{bytes:?}");
            }
        }
    }
}
