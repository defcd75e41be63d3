//! Hands one page out over HTTP/1.1: `GET /metrics`, for Prometheus. Knows nothing of what stands in it.
//!
//! It has a thread of its own: a scraper that is slow, or sends rubbish, keeps nobody waiting but those who scrape. Each connection gets one
//! answer and is closed; they are a few at a time, and each has an end.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, mpsc::sync_channel},
    thread::Builder,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{self, TcpStream},
    runtime::Runtime,
    sync::Semaphore,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    address::in_url,
    sys::process::{block_signals, drop_capabilities},
};

/// The only path.
pub const PATH: &str = "/metrics";

/// Connections at a time; further ones wait in the accept queue.
const CONNECTIONS_MAX: usize = 16;
/// Of the head of a request.
const REQUEST_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// Until a request is there, until its answer is taken, and until the other side has closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an accept that failed, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 512 << 10;

/// What making pages has taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scrapes {
    /// Pages made so far.
    pub count: u64,
    /// What the last one took.
    pub last: Option<Duration>,
}

/// Makes a page. It is called in the exporter's thread, once a scrape.
pub trait Render: Fn(Scrapes) -> String + Send + 'static {}
impl<F: Fn(Scrapes) -> String + Send + 'static> Render for F {}

/// An address that is bound, and not answered at yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    /// Of port 0 with the port that it became.
    pub address: SocketAddr,
}

/// What a program says that was given an address which is not to be had.
#[derive(Debug, Error)]
#[error("cannot bind {address} for metrics ({error}): choose another --metrics-addr")]
pub struct CannotBind {
    address: SocketAddr,
    error: io::Error,
}

impl Bound {
    /// Binds the address of `--metrics-addr`, where there is one, before anything else is started.
    ///
    /// # Errors
    /// It can't be bound.
    pub fn of(address: Option<SocketAddr>) -> Result<Option<Self>, CannotBind> {
        let bind = |address| Self::new(address).map_err(|error| CannotBind { address, error });
        address.map(bind).transpose()
    }

    fn new(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// As people type it into a browser.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", in_url(&self.address))
    }

    /// Answers from now on, until the process ends.
    ///
    /// # Errors
    /// The thread can't be had, or can't give its privileges up, or has no descriptor left for what it waits with.
    pub fn serve(self, content_type: &'static str, render: impl Render) -> io::Result<()> {
        // The thread inherits the mask: signals are for those who wait for them.
        let _mask = block_signals()?;
        let (ready, is_ready) = sync_channel(1);
        let body = move || {
            // Whoever starts the thread waits for this word.
            match prepare(self.listener) {
                Ok((runtime, listener)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(serve(listener, content_type, render));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        Builder::new().name("metrics".into()).stack_size(STACK_BYTES).spawn(body)?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    }
}

/// What can fail before the first scraper comes.
fn prepare(listener: TcpListener) -> io::Result<(Runtime, net::TcpListener)> {
    // What reads from strangers needs no privilege.
    drop_capabilities()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        net::TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}

async fn serve(listener: net::TcpListener, content_type: &'static str, render: impl Render) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let page = Rc::new(Page { content_type, render, scrapes: Cell::default() });
    let connections = LocalSet::new();
    let accept = async {
        // Nobody closes the semaphore.
        while let Ok(slot) = slots.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let page = page.clone();
                    spawn_local(async move {
                        // A scraper that left needs no answer.
                        let _ = converse(stream, &page).await;
                        drop(slot);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    };
    connections.run_until(accept).await;
}

struct Page<R> {
    content_type: &'static str,
    render: R,
    scrapes: Cell<Scrapes>,
}

impl<R: Render> Page<R> {
    fn make(&self) -> String {
        let start = Instant::now();
        let before = self.scrapes.get();
        let page = (self.render)(before);
        self.scrapes.set(Scrapes { count: before.count + 1, last: Some(start.elapsed()) });
        page
    }
}

async fn converse<R: Render>(mut stream: TcpStream, page: &Page<R>) -> io::Result<()> {
    let mut head = Vec::new();
    let verdict = match timeout(PATIENCE, read_head(&mut stream, &mut head)).await {
        Ok(verdict) => verdict?,
        Err(_) => Verdict::Refused("408 Request Timeout", ""),
    };
    let answer = match verdict {
        Verdict::Gone => return Ok(()),
        Verdict::Page => {
            let body = page.make();
            response("200 OK", page.content_type, "", &body)
        }
        Verdict::Refused(status, header) => {
            response(status, "text/plain; charset=utf-8", header, &format!("{status}\n"))
        }
    };
    let say = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed with something unread is reset, and the answer with it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok(())
    };
    timeout(PATIENCE, say).await.unwrap_or(Ok(()))
}

enum Verdict {
    Page,
    /// A status, and a header of its own.
    Refused(&'static str, &'static str),
    /// Nothing was asked.
    Gone,
}

async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<Verdict> {
    loop {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(if head.is_empty() { Verdict::Gone } else { BAD });
        }
        head.extend_from_slice(&buffer[..count]);
        if let Some(verdict) = judge(head) {
            return Ok(verdict);
        }
        if head.len() > REQUEST_MAX {
            return Ok(TOO_LARGE);
        }
    }
}

const BAD: Verdict = Verdict::Refused("400 Bad Request", "");
const TOO_LARGE: Verdict = Verdict::Refused("431 Request Header Fields Too Large", "");

/// `None`: the head goes on.
fn judge(head: &[u8]) -> Option<Verdict> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Some(TOO_LARGE),
        Err(_) => return Some(BAD),
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Some(match request.method {
        _ if path != PATH => Verdict::Refused("404 Not Found", ""),
        Some("GET") => Verdict::Page,
        _ => Verdict::Refused("405 Method Not Allowed", "Allow: GET\r\n"),
    })
}

fn response(status: &str, content_type: &str, header: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{header}Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        net::{IpAddr, Ipv4Addr, TcpStream},
    };

    use super::*;
    use crate::sys::thread::spawn_with_own_table;

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

    fn started() -> SocketAddr {
        let bound = Bound::new(ANY).unwrap();
        let address = bound.address;
        assert_eq!(bound.url(), format!("http://{address}/metrics"));
        bound.serve("text/x-test", |scrapes| format!("page {}\n", scrapes.count)).unwrap();
        address
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn one_path_has_a_page_and_nothing_else_has() {
        let address = started();
        let answer = ask(address, GET);
        let body = "\r\nContent-Type: text/x-test\r\nContent-Length: 7\r\nConnection: close\r\n\r\npage 0\n";
        assert_eq!(answer, format!("HTTP/1.1 200 OK{body}"));
        assert!(ask(address, b"GET /metrics?a=b HTTP/1.0\r\n\r\n").ends_with("\r\n\r\npage 1\n"));
        let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 2 * REQUEST_MAX]].concat();
        let many =
            [b"GET /metrics HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(HEADERS_MAX + 1)].concat();
        for (request, status) in [
            (b"GET / HTTP/1.1\r\n\r\n".as_slice(), "404 Not Found"),
            (b"POST / HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "405 Method Not Allowed"),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"),
            (&long, "431 Request Header Fields Too Large"),
            (&many, "431 Request Header Fields Too Large"),
        ] {
            let answer = ask(address, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{status}\n")), "{answer}");
        }
        assert!(ask(address, b"HEAD /metrics HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET\r\n"));
        // Refusals are no scrapes.
        assert!(ask(address, GET).ends_with("page 2\n"));
    }

    #[test]
    fn who_is_slow_keeps_nobody_waiting() {
        let address = started();
        // All but one place are taken by those that never end their request.
        let slow: Vec<TcpStream> = (1..CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
                stream
            })
            .collect();
        assert!(ask(address, GET).ends_with("page 0\n"));
        drop(slow);
        assert!(ask(address, GET).ends_with("page 1\n"));
    }

    #[test]
    fn an_address_in_use_is_told() {
        let taken = started();
        let error = Bound::new(taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
