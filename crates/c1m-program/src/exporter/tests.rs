use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{places::PLACES, *};
use c1m_sys::thread::spawn_with_own_table;

#[test]
fn a_thread_that_cannot_answer_is_an_error() {
    let refused = spawn_with_own_table("full".into(), 2 << 20, Vec::new(), || {
        let bound = Bound::new(ANY).unwrap();
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        bound.serve("text/x-test", |_| String::new())
    });
    let refused = refused.unwrap().join().unwrap().unwrap().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE), "{refused}");
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Pages made, and then the errors that have happened.
fn render(scrapes: Scrapes) -> String {
    let happened = scrapes.errors.into_iter().filter(|(_, count)| *count > 0);
    let errors: String = happened
        .map(|((operation, name), count)| format!("{operation} {name} {count}\n"))
        .collect();
    format!("page {}\n{errors}", scrapes.count)
}

fn started() -> SocketAddr {
    let bound = Bound::new(ANY).unwrap();
    let address = bound.address;
    assert_eq!(bound.url(), format!("http://{address}/metrics"));
    bound.serve("text/x-test", render).unwrap();
    address
}

/// A connection on which so much is sent.
fn sent(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The whole answer but its date, which is checked: a second between two others.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let answer = answer(sent(address, request));
    let after = now();
    let (start, rest) = answer.split_once("Date: ").unwrap_or_else(|| panic!("{answer}"));
    let (date, rest) = rest.split_once("\r\n").unwrap();
    // The cheap clock may be a little late.
    assert!((before - 1..=after).any(|second| Date::of(second).to_string() == date), "{date}");
    format!("{start}{rest}")
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn one_path_has_a_page_and_nothing_else_has() {
    let address = started();
    let head = "Content-Type: text/x-test\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(address, GET), format!("HTTP/1.1 200 OK\r\n{head}page 0\n"));
    for (number, request) in [
        b"GET /metrics?a=b HTTP/1.0\r\n\r\n".as_slice(),
        b"GET http://a:1/metrics?b HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"GET /metrics HTTP/1.2\r\nHost: [::1]\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let answer = ask(address, request);
        assert!(answer.ends_with(&format!("\r\n\r\npage {}\n", number + 1)), "{answer}");
    }
    // The same head, and no page behind it.
    let answer = ask(address, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer, format!("HTTP/1.1 200 OK\r\n{head}"));
}

#[test]
fn what_is_no_request_for_the_page_is_refused_with_a_status_and_counted() {
    let address = started();
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 2 * http::MAX_HEAD_BYTES]];
    let many = [b"GET /metrics HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(http::MAX_FIELDS + 1)];
    for (request, status) in [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), "404 Not Found"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "405 Method Not Allowed"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", "405 Method Not Allowed"),
        (b"BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "501 Not Implemented"),
        (b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n", "505 HTTP Version Not Supported"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nHost: x y\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"),
        (&long.concat(), "431 Request Header Fields Too Large"),
        (&many.concat(), "431 Request Header Fields Too Large"),
    ] {
        let answer = ask(address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let allows = answer.contains("\r\nAllow: GET, HEAD\r\n");
        assert_eq!(allows, status.starts_with("405"), "{answer}");
        let body = format!("{status}; metrics are at /metrics\n");
        let end = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        assert!(answer.ends_with(&end), "{answer}");
    }
    // No body may follow HEAD, whatever is wrong.
    for request in [b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"HEAD / HTTP/1.1\r\n\r\n"] {
        let answer = ask(address, request);
        assert!(answer.ends_with("Connection: close\r\n\r\n"), "{answer}");
    }
    // A request that ends in its middle.
    let half = sent(address, b"GET /metr");
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(answer(half).starts_with("HTTP/1.1 400 Bad Request\r\n"));
    // Refusals are no scrapes.
    let counted = "request 400 6\nrequest 404 4\nrequest 405 3\nrequest 431 2\nrequest 501 1\nrequest 505 1\n";
    let answer = ask(address, GET);
    assert!(answer.ends_with(&format!("\r\n\r\npage 0\n{counted}")), "{answer}");
}

/// Of the errors that a page lists.
fn count(page: &str, name: &str) -> usize {
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

#[test]
fn who_is_silent_keeps_nobody_waiting() {
    for silent in [PLACES, 200] {
        let address = started();
        let requests = [b"".as_slice(), b"G", b"GET /metrics HTTP/1.1\r\n"];
        let held: Vec<TcpStream> =
            (0..silent).map(|index| sent(address, requests[index % requests.len()])).collect();
        let page = ask(address, GET);
        assert!(page.contains("\r\n\r\npage 0\n"), "{page}");
        let evicted = count(&page, "connection evicted");
        // On a machine that stands still for seconds some time out before.
        let over = evicted + count(&page, "request 408");
        assert!(evicted > 0 && over > silent - PLACES, "{page}");
        // The first one was told why.
        let mut first = held.into_iter().next().unwrap();
        let mut said = Vec::new();
        // A connection that was closed with something unread is reset.
        let _ = first.read_to_end(&mut said);
        let said = String::from_utf8(said).unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{said}");
    }
}

#[test]
fn who_has_an_answer_and_stays_keeps_nobody_waiting() {
    let address = started();
    // They have asked, and never close.
    let held: Vec<TcpStream> = (0..2 * PLACES).map(|_| sent(address, GET)).collect();
    // None of them was cut: each has its answer.
    for mut stream in &held {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let page = ask(address, GET);
    assert!(page.ends_with(&format!("\r\n\r\npage {}\n", 2 * PLACES)), "{page}");
}

#[test]
fn a_whole_request_is_read_before_others_take_its_place() {
    let bound = Bound::new(ANY).unwrap();
    let address = bound.address;
    // All of them are in the accept queue before the first one is looked at.
    let before: Vec<_> = (0..2 * PLACES).map(|_| sent(address, b"G")).collect();
    let good = sent(address, GET);
    let behind: Vec<_> = (0..2 * PLACES).map(|_| sent(address, b"G")).collect();
    bound.serve("text/x-test", render).unwrap();
    let answer = answer(good);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop((before, behind));
}

#[test]
fn an_address_in_use_is_told() {
    let taken = started();
    let error = Bound::new(taken).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
