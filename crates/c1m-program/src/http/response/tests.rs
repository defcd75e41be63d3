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

/// All of it, and then the end of the connection: the responses, or why they are none.
fn read_all(input: &[u8], piece: usize) -> Result<Vec<(u16, u64)>, Malformed> {
    let mut reader = Reader::from(Rest::Between);
    let mut ended = read(&mut reader, input, piece)?;
    ended.extend(reader.finish()?.map(|r| (r.status, r.body_bytes)));
    Ok(ended)
}

fn with_header(line: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n")
}

fn chunked(body: &str) -> String {
    with_header("Transfer-Encoding: chunked") + body
}

#[test]
fn responses_follow_each_other() {
    let mut input = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    input.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    input.extend(OPEN);
    input.extend(b"5 ;x=y\r\nhello\r\n1f\r\n0123456789012345678901234567890\r\n0\r\nA: b\r\n\r\n");
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
fn what_is_incomplete_does_not_rest_and_is_cut_off_by_the_end() {
    for input in [
        &b"HTTP/1.1 2"[..],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        let mut reader = Reader::from(Rest::Between);
        assert_eq!(read(&mut reader, input, 100).unwrap(), []);
        assert_eq!(reader.rest(), None);
        assert_eq!(reader.finish(), Err(Malformed::CutOff));
    }
    // An open body rests, and is cut off all the same.
    assert_eq!(read_all(OPEN, 100), Err(Malformed::CutOff));
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    for head in
        ["", "Connection: close", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, gzip"]
    {
        let head =
            if head.is_empty() { "HTTP/1.0 200 OK\r\n\r\n".into() } else { with_header(head) };
        let input = head + "ab";
        let mut reader = Reader::from(Rest::Between);
        assert_eq!(read(&mut reader, input.as_bytes(), 3).unwrap(), []);
        assert_eq!(reader.rest(), None);
        assert_eq!(reader.finish().unwrap(), Some(Response { status: 200, body_bytes: 2 }));
    }
    assert_eq!(Reader::from(Rest::Between).finish(), Ok(None));
}

#[test]
fn each_broken_rule_has_a_name() {
    use Malformed as M;
    let long = "b".repeat(20_000);
    let many: String = (0..200).map(|n| format!("A{n}: b\r\n")).collect();
    for (input, expected) in [
        ("SSH-2.0-OpenSSH\r\n".into(), M::StatusLine),
        ("HTTP/2 200\r\n\r\n".into(), M::StatusLine),
        ("HTTP/1.1 20 OK\r\n\r\n".into(), M::StatusLine),
        ("HTTP/1.1 +20 OK\r\n\r\n".into(), M::StatusLine),
        ("HTTP/1.1 099 OK\r\n\r\n".into(), M::StatusLine),
        ("HTTP/1.1 200 O\u{0}K\r\n\r\n".into(), M::StatusLine),
        ("HTTP/1.1 200 O\rK\r\n\r\n".into(), M::StatusLine),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n".into(), M::StatusLine),
        (with_header("no colon"), M::Header),
        (with_header("A : b"), M::Header),
        (with_header(" A: b"), M::Header),
        (with_header("A: b\r\n folded"), M::Header),
        (with_header("A: b\rc"), M::Header),
        (with_header("A: b\u{0}c"), M::Header),
        (with_header(&format!("A: {long}")), M::HeadTooLong),
        (with_header(many.trim_end()), M::TooManyHeaders),
        ("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17), M::TooManyInterim),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".into(), M::Switched),
        (with_header("Content-Length: +5"), M::ContentLength),
        (with_header("Content-Length: -1"), M::ContentLength),
        (with_header("Content-Length: 0x5"), M::ContentLength),
        (with_header("Content-Length: 5 5"), M::ContentLength),
        (with_header("Content-Length:"), M::ContentLength),
        (with_header("Content-Length: 5,"), M::ContentLength),
        (with_header("Content-Length: 99999999999999999999"), M::ContentLength),
        (with_header("Content-Length: 5\r\nContent-Length: 6"), M::ContentLengths),
        (with_header("Content-Length: 5, 6"), M::ContentLengths),
        (with_header("Content-Length: 5\r\nTransfer-Encoding: chunked"), M::LengthAndCoding),
        (with_header("Transfer-Encoding: gzip\r\nContent-Length: 5"), M::LengthAndCoding),
        (with_header("Transfer-Encoding: chunked, chunked"), M::Coding),
        (with_header("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), M::Coding),
        (with_header("Transfer-Encoding: chunked;q=1"), M::Coding),
        (with_header("Transfer-Encoding:"), M::Coding),
        (with_header("Transfer-Encoding: a b"), M::Coding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), M::Coding),
        (chunked("x\r\n"), M::ChunkSize),
        (chunked("\r\n"), M::ChunkSize),
        (chunked("+1\r\na\r\n"), M::ChunkSize),
        (chunked("-1\r\na\r\n"), M::ChunkSize),
        (chunked("0x1\r\na\r\n"), M::ChunkSize),
        (chunked("1 \r\na\r\n"), M::ChunkSize),
        (chunked("1 1\r\na\r\n"), M::ChunkSize),
        (chunked("1;a\rb\r\na\r\n"), M::ChunkSize),
        (chunked("10000000000000000\r\n"), M::ChunkTooLarge),
        (chunked("ffffffffffffffff\r\n"), M::ChunkTooLarge),
        (chunked(&"1".repeat(20_000)), M::ChunkLineTooLong),
        (chunked("1\na\r\n"), M::ChunkEnd),
        (chunked("1\r\nab\r\n"), M::ChunkEnd),
        (chunked("1\r\na\n"), M::ChunkEnd),
        (chunked("1\r\na\r\r\n"), M::ChunkEnd),
        (chunked("0\r\nno colon\r\n\r\n"), M::Trailer),
        (chunked("0\r\nA: b\n\r\n"), M::Trailer),
        (chunked("0\r\nA : b\r\n\r\n"), M::Trailer),
        (chunked("0\r\nA: b\rc\r\n\r\n"), M::Trailer),
        (chunked(&format!("0\r\n{}", "A: b\r\n".repeat(5000))), M::TrailersTooLong),
        (chunked(&format!("0\r\nA: {long}")), M::TrailersTooLong),
    ] {
        for piece in [usize::MAX, 7, 1] {
            let name = read_all(input.as_bytes(), piece.min(input.len()));
            assert_eq!(name, Err(expected), "{input:.60?} in pieces of {piece}");
        }
    }
}

#[test]
fn what_is_unusual_and_allowed_is_read() {
    for (input, expected) in [
        ("HTTP/1.1 200 OK\nContent-Length: 1\n\na".into(), (200, 1)),
        ("HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na".into(), (200, 1)),
        ("HTTP/1.7 200 OK\r\nContent-Length: 1\r\n\r\na".into(), (200, 1)),
        (with_header("Content-Length: 2, 2") + "ab", (200, 2)),
        (with_header("Content-Length: 2\r\ncontent-length:\t2 ") + "ab", (200, 2)),
        (with_header("TRANSFER-ENCODING: gzip , Chunked") + "1\r\na\r\n0\r\n\r\n", (200, 1)),
        (chunked("00000000000000000000001\r\na\r\n000\r\n\r\n"), (200, 1)),
        (chunked("1;a=\"b\tc\" ; d\r\na\r\n0;e\r\nF: g\r\n\r\n"), (200, 1)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n".into(), (304, 0)),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(16) + &with_header("Content-Length: 0"),
            (200, 0),
        ),
    ] {
        for piece in [usize::MAX, 7, 1] {
            let read = read_all(input.as_bytes(), piece.min(input.len()));
            assert_eq!(read, Ok(vec![expected]), "{input:.60?} in pieces of {piece}");
        }
    }
}

/// Bytes near to what is read, so that more than the first line is reached.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("HTTP/1.1 200 OK\r\n".into()),
        Just("HTTP/1.0 200 OK\r\n".into()),
        Just("HTTP/1.1 100 Continue\r\n\r\n".into()),
        Just("Content-Length: ".into()),
        Just("Transfer-Encoding: ".into()),
        Just("chunked".into()),
        Just("\r\n".into()),
        Just("\r\n\r\n".into()),
        Just("0\r\n\r\n".into()),
        Just("A: b\r\n".into()),
        "[0-9a-f]{1,17}",
        "[ -~]{0,5}",
        "[\\x00-\\x20]{1,2}",
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn pieces_do_not_matter(input in nearly(), piece in 1usize..20) {
        prop_assert_eq!(read_all(&input, piece), read_all(&input, input.len().max(1)));
    }

    #[test]
    fn any_bytes_are_answered(input: Vec<u8>, piece in 1usize..50) {
        let _ = read(&mut Reader::from(Rest::Between), &input, piece);
        let _ = read(&mut Reader::from(Rest::OpenBody), &input, piece);
    }

    #[test]
    fn what_is_written_by_the_rules_is_read(
        bodies in prop::collection::vec((any::<bool>(), prop::collection::vec(1usize..300, 0..6)), 1..6),
        piece in 1usize..400,
    ) {
        let (mut input, mut expected) = (Vec::new(), Vec::new());
        for (is_chunked, parts) in &bodies {
            let length: usize = parts.iter().sum();
            if *is_chunked {
                input.extend(OPEN);
                for part in parts {
                    input.extend(format!("{part:X}\r\n{}\r\n", "\n".repeat(*part)).bytes());
                }
                input.extend(b"0\r\n\r\n");
            } else {
                let head = with_header(&format!("Content-Length: {length}"));
                input.extend((head + &"\r".repeat(length)).bytes());
            }
            expected.push((200, length as u64));
        }
        prop_assert_eq!(read_all(&input, piece), Ok(expected));
    }
}
