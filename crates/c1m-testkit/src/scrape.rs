//! A page of metrics, asked for over HTTP.

pub mod page;

use std::io::{Read as _, Write as _};

pub use page::Samples;

use crate::net::connect;

/// Asks for the page at `url`.
#[track_caller]
pub fn scrape(url: &str) -> Samples {
    let answer = get(url);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    page::parse(body)
}

/// The whole answer to a GET.
#[track_caller]
pub fn get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = connect(host.parse().unwrap()).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
