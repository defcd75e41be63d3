//! Requests and responses.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use c1m_server::serve::Running;

use crate::support::*;

fn server() -> (Running, TcpStream) {
    let server = start(1, None);
    let stream = connect(server.address());
    (server, stream)
}

fn bytes_response(bytes: usize) -> String {
    const LINE: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";
    let body: String = LINE.chars().cycle().take(bytes).collect();
    format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: {bytes}\r\n\r\n{body}")
}

#[test]
fn a_stream_stays_open_and_ends_before_the_next_response() {
    let (_server, mut stream) = server();
    ask(&mut stream);
    assert!(is_silent(&mut stream));
    ask_again(&mut stream);
    stream.write_all(b"GET /bytes/3 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, "0\r\n\r\n");
    expect(&mut stream, &bytes_response(3));
    stream.write_all(b"GET /bytes/0 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &bytes_response(0));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (_server, mut stream) = server();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /bytes/5 HTTP/1.1\r\nHost: test\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
        // Not needed for the result; makes it likely that the bytes arrive apart.
        std::thread::sleep(Duration::from_millis(1));
    }
    expect(&mut stream, &bytes_response(5));
}

#[test]
fn requests_may_come_all_at_once() {
    let (server, mut stream) = server();
    let sizes = [1, 70_000, 0, 65_536, 12, 300_000, 7];
    let requests: String =
        sizes.iter().map(|n| format!("GET /bytes/{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    // And the beginning of one more, whose rest comes later.
    stream.write_all((requests + "GET /bytes/9 HT").as_bytes()).unwrap();
    for bytes in sizes {
        expect(&mut stream, &bytes_response(bytes));
    }
    stream.write_all(b"TP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &bytes_response(9));
    assert_eq!(server.snapshot().requests, sizes.len() as u64 + 1);
    assert_eq!(server.snapshot().held, 1);
}

#[test]
fn more_pipelined_requests_than_one_read_holds_are_answered_in_order() {
    let (_server, stream) = server();
    const COUNT: usize = 5000;
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let requests: String = (0..COUNT)
            .map(|n| format!("GET /bytes/{} HTTP/1.1\r\nHost: test\r\n\r\n", n % 2000))
            .collect();
        writer.write_all(requests.as_bytes()).unwrap();
    });
    let mut stream = stream;
    for n in 0..COUNT {
        expect(&mut stream, &bytes_response(n % 2000));
    }
    writing.join().unwrap();
}

#[test]
fn a_slow_reader_gets_every_byte_and_holds_nobody_up() {
    let (server, mut slow) = server();
    // More than both sockets' buffers ever take.
    const BYTES: usize = 50_000_000;
    slow.write_all(
        format!("GET /bytes/{BYTES} HTTP/1.1\r\nHost: test\r\n\r\nGET /bytes/4 HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes(),
    )
    .unwrap();
    let mut other = connect(server.address());
    ask(&mut other);
    assert_eq!(server.snapshot().requests, 2, "the second request waits behind the response");

    let expected = bytes_response(BYTES);
    let mut received = Vec::with_capacity(expected.len());
    let mut piece = vec![0; 100_000];
    while received.len() < expected.len() {
        let room = piece.len().min(expected.len() - received.len());
        let count = slow.read(&mut piece[..room]).unwrap();
        assert!(count > 0, "ended after {} bytes", received.len());
        received.extend_from_slice(&piece[..count]);
    }
    let received = undated(&String::from_utf8(received).unwrap());
    assert!(received == expected, "the content is wrong");
    expect(&mut slow, &bytes_response(4));
    ask_again(&mut other);
}

#[test]
fn a_peer_that_is_gone_in_the_middle_of_a_response_is_forgotten() {
    let (server, mut stream) = server();
    stream.write_all(b"GET /bytes/100000000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    drop(stream);
    until("the connection is closed", || server.snapshot().held == 0);
    let errors = server.snapshot().errors;
    let count: u64 = errors.values().sum();
    assert_eq!(count, 1, "{errors:?}");
    assert!(errors.keys().all(|name| name.starts_with("connection E")), "{errors:?}");
}

#[test]
fn nonsense_is_answered_with_400_and_closed() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n",
        "\0\0\0\0",
    ] {
        let (server, mut stream) = server();
        stream.write_all(nonsense.as_bytes()).unwrap();
        let text = read_all(&mut stream);
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{nonsense:?}: {text}");
        assert!(text.contains("Connection: close\r\n"));
        assert_eq!(server.snapshot().errors.get("400"), Some(&1));
        drop(stream);
        until("the connection is closed", || server.snapshot().held == 0);
    }
}

#[test]
fn each_status_has_its_reason() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400 Bad Request"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nnot a request", "405 Method Not Allowed"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501 Not Implemented"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505 HTTP Version Not Supported"),
    ] {
        let (server, mut stream) = server();
        stream.write_all(request.as_bytes()).unwrap();
        let text = read_all(&mut stream);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {text}");
        assert!(text.ends_with("Connection: close\r\nContent-Length: 0\r\n\r\n"), "{text}");
        assert!(text.contains(DATE) && !text.contains("Transfer-Encoding"), "{text}");
        assert_eq!(server.snapshot().requests, 1, "{request:?}");
    }
    // After these the connection goes on, behind a body that is no request.
    let (server, mut stream) = server();
    let body = "Content-Length: 5\r\n\r\nhello";
    for (line, status) in [
        ("DELETE /", "405 Method Not Allowed\r\nAllow: GET, HEAD, POST, PUT"),
        ("OPTIONS *", "405 Method Not Allowed\r\nAllow: GET, HEAD, POST, PUT"),
        ("BREW /", "501 Not Implemented"),
        ("GET /bytes/x", "404 Not Found"),
        ("GET /bytes/99999999999999999999", "404 Not Found"),
    ] {
        stream.write_all(format!("{line} HTTP/1.1\r\nHost: a\r\n{body}").as_bytes()).unwrap();
        expect(&mut stream, &format!("HTTP/1.1 {status}\r\n{DATE}Content-Length: 0\r\n\r\n"));
    }
    ask(&mut stream);
    assert_eq!(server.snapshot().held, 1);
}

#[test]
fn a_client_that_takes_it_for_a_proxy_gets_the_same_resource() {
    let (_server, mut stream) = server();
    stream.write_all(b"GET http://test/bytes/3 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &bytes_response(3));
    stream.write_all(b"GET /bytes/4 HTTP/1.2\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &bytes_response(4));
}

#[test]
fn a_date_is_that_of_now() {
    let (_server, mut stream) = server();
    for _ in 0..3 {
        let before = httpdate();
        stream.write_all(b"HEAD /bytes/0 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut head = vec![0; "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".len() + DATE.len()];
        stream.read_exact(&mut head).unwrap();
        let head = String::from_utf8(head).unwrap();
        let date = head.split("Date: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let (second, after) = (date.to_owned(), httpdate());
        assert!((before..=after).contains(&time_of_day(&second)), "{head}");
        std::thread::sleep(Duration::from_millis(600));
    }
}

/// Seconds of this day, in UTC. The clock that is cheap is up to 10 ms late.
fn httpdate() -> u64 {
    let now = std::time::SystemTime::now() - Duration::from_millis(10);
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() % 86_400
}

fn time_of_day(date: &str) -> u64 {
    let time: Vec<u64> = date[17..25].split(':').map(|part| part.parse().unwrap()).collect();
    time[0] * 3600 + time[1] * 60 + time[2]
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (server, mut stream) = server();
    ask(&mut stream);
    let mut bytes = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.resize(100_000, b'x');
    stream.write_all(&bytes).unwrap();
    let text = read_all(&mut stream);
    assert!(text.starts_with("0\r\n\r\nHTTP/1.1 411 Length Required\r\n"), "{text}");
    drop(stream);
    until("the connection is closed", || server.snapshot().held == 0);
}

#[test]
fn a_refused_client_that_does_not_close_is_closed() {
    let (server, mut stream) = server();
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    read_all(&mut stream);
    until("the connection is closed", || server.snapshot().held == 0);
    // Likewise one that goes on sending for ever, and so never lets it be quiet.
    let mut stream = connect(server.address());
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    until("the connection is closed", || stream.write_all(&[b'x'; 10_000]).is_err());
}

#[test]
fn a_head_over_8_kib_is_answered_with_431_and_closed() {
    let head = |bytes: usize| {
        let frame = "GET /bytes/1 HTTP/1.1\r\nHost: test\r\nX: \r\n\r\n".len();
        format!("GET /bytes/1 HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "y".repeat(bytes - frame))
    };
    let (server, mut stream) = server();
    stream.write_all(head(8192).as_bytes()).unwrap();
    expect(&mut stream, &bytes_response(1));
    stream.write_all(head(8193).as_bytes()).unwrap();
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 431 "));
    // One that never ends is not collected for ever.
    let mut endless = connect(server.address());
    endless.write_all(&head(20_000).as_bytes()[..9000]).unwrap();
    assert!(read_all(&mut endless).starts_with("HTTP/1.1 431 "));
    assert_eq!(server.snapshot().errors.get("431"), Some(&2));
}

#[test]
fn bodies_are_read_and_dropped() {
    let (_server, stream) = server();
    const BODY: usize = 1_000_000;
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let head =
            format!("POST /bytes/2 HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY}\r\n\r\n");
        writer.write_all(head.as_bytes()).unwrap();
        // Nothing of this may be taken for a request.
        let body = "GET /bytes/8 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(BODY / 37 + 1);
        writer.write_all(&body.as_bytes()[..BODY]).unwrap();
        writer.write_all(b"GET /bytes/6 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    });
    let mut stream = stream;
    expect(&mut stream, &bytes_response(2));
    expect(&mut stream, &bytes_response(6));
    writing.join().unwrap();
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let (_server, mut stream) = server();
    let head =
        b"PUT /bytes/1 HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    stream.write_all(head).unwrap();
    expect(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    expect(&mut stream, &bytes_response(1));
}

#[test]
fn connections_end_when_the_request_says_so() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", "chunked\r\n\r\n0\r\n\r\n"),
        ("GET / HTTP/1.0\r\n\r\n", "Connection: close\r\nContent-Length: 0\r\n\r\n"),
        ("GET /bytes/2 HTTP/1.0\r\n\r\n", "Connection: close\r\nContent-Length: 2\r\n\r\n01"),
    ] {
        let (server, mut stream) = server();
        stream.write_all(request.as_bytes()).unwrap();
        let text = read_all(&mut stream);
        assert!(text.ends_with(expected), "{request:?}: {text}");
        drop(stream);
        until("the connection is closed", || server.snapshot().held == 0);
    }
    let (_server, mut stream) = server();
    stream.write_all(b"GET /bytes/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    expect(
        &mut stream,
        &format!("HTTP/1.1 200 OK\r\n{DATE}Connection: keep-alive\r\nContent-Length: 1\r\n\r\n0"),
    );
    stream.write_all(b"HEAD /bytes/5 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 5\r\n\r\n"));
    assert!(is_silent(&mut stream));
}

#[test]
fn too_many_bytes_are_not_found() {
    let (_server, mut stream) = server();
    stream.write_all(b"GET /bytes/1073741825 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(&mut stream, &format!("HTTP/1.1 404 Not Found\r\n{DATE}Content-Length: 0\r\n\r\n"));
    ask(&mut stream);
}

#[test]
fn a_client_that_ends_its_side_is_answered_and_closed() {
    let (server, mut stream) = server();
    stream.write_all(b"GET /bytes/5 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), bytes_response(5));
    until("the connection is closed", || server.snapshot().held == 0);
    assert!(server.snapshot().errors.is_empty());
}
