//! Hands one page out over HTTP/1.1: `GET /metrics`, for Prometheus. Knows nothing of what stands in it.
//!
//! It has a thread of its own: a scraper that is slow, or sends rubbish, keeps nobody waiting but those who scrape. Each connection gets one
//! answer and is closed; they are a few at a time, and each has an end. While all places are taken, a connection that does not use its place
//! gives way to a new one, so that silent connections keep no scraper out.

mod places;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::mpsc::sync_channel,
    thread::Builder,
    time::{Duration, Instant},
};

use c1m_sys::{
    clock::wall_seconds,
    errno,
    process::{block_signals, drop_capabilities},
};
use c1m_text::address::in_url;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{self, TcpStream},
    runtime::Runtime,
    select,
    task::{LocalSet, spawn_local, yield_now},
    time::{sleep, timeout},
};

use self::places::{Place, Places, Stage};
use crate::http::{self, Date, Head, Method, Parsed};

/// The only path.
pub const PATH: &str = "/metrics";

/// Until a request is there, until its answer is taken, and until the other side has closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an accept that failed, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 512 << 10;

/// What making pages has taken, and what kept scrapers from them.
#[derive(Debug, Clone)]
pub struct Scrapes {
    /// Pages made so far.
    pub count: u64,
    /// What the last one took.
    pub last: Option<Duration>,
    /// Connections that got no page, by operation and name: the kernel's errors of `accept`; of a `connection`, those, [`EVICTED`] and [`UNREAD`];
    /// the status that a `request` got. Those to be expected are 0 from the start.
    pub errors: BTreeMap<(&'static str, &'static str), u64>,
}

/// A connection without a whole request, closed because a new one needed its place.
pub const EVICTED: &str = "evicted";
/// A connection that did not take its answer in time.
pub const UNREAD: &str = "unread";

const ERRORS: [(&str, &[&str]); 3] = [
    ("accept", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
    ("connection", &["ECONNRESET", "EPIPE", EVICTED, UNREAD]),
    ("request", &["400", "404", "405", "408", "431", "501", "505"]),
];

impl Default for Scrapes {
    fn default() -> Self {
        let names = ERRORS
            .iter()
            .flat_map(|(operation, names)| names.iter().map(|name| (*operation, *name)));
        Self { count: 0, last: None, errors: names.map(|name| (name, 0)).collect() }
    }
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
    let page = Rc::new(Page { content_type, render, scrapes: RefCell::default() });
    let places = Rc::new(Places::default());
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // What waits meanwhile waits in the accept queue.
                    let (place, evicted) = places.take().await;
                    if evicted == Some(Stage::Reading) {
                        page.error("connection", EVICTED);
                    }
                    let page = page.clone();
                    spawn_local(async move { converse(stream, place, &page).await });
                    // What has come on it is read before the next one can take its place.
                    yield_now().await;
                }
                Err(error) => {
                    page.error("accept", errno::of(&error));
                    sleep(PAUSE).await;
                }
            }
        }
    };
    LocalSet::new().run_until(accept).await;
}

struct Page<R> {
    content_type: &'static str,
    render: R,
    scrapes: RefCell<Scrapes>,
}

impl<R: Render> Page<R> {
    fn make(&self) -> String {
        let start = Instant::now();
        let before = self.scrapes.borrow().clone();
        let page = (self.render)(before);
        let mut scrapes = self.scrapes.borrow_mut();
        (scrapes.count, scrapes.last) = (scrapes.count + 1, Some(start.elapsed()));
        page
    }

    fn error(&self, operation: &'static str, name: &'static str) {
        *self.scrapes.borrow_mut().errors.entry((operation, name)).or_default() += 1;
    }

    /// The whole answer. Refusals are counted.
    fn answer(&self, asked: Asked) -> String {
        let (content_type, body) = match asked.status {
            200 => (self.content_type, self.make()),
            status => {
                let (code, reason) = http::status(status);
                self.error("request", code);
                ("text/plain; charset=utf-8", format!("{code} {reason}; metrics are at {PATH}\n"))
            }
        };
        response(asked, content_type, &body)
    }
}

/// One answer, unless the connection has to give way before.
async fn converse<R: Render>(mut stream: TcpStream, mut place: Place, page: &Page<R>) {
    let asked = select! {
        biased;
        () = place.evicted() => {
            // A single attempt: it is not waited for.
            let _ = stream.try_write(response(TIMED_OUT, "text/plain; charset=utf-8", "").as_bytes());
            return;
        }
        asked = timeout(PATIENCE, read_request(&mut stream)) => asked,
    };
    let asked = match asked {
        Ok(Ok(Some(asked))) => asked,
        // Nothing was asked.
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return page.error("connection", errno::of(&error)),
        Err(_) => TIMED_OUT,
    };
    place.enter(Stage::Answering);
    match timeout(PATIENCE, write(&mut stream, &page.answer(asked))).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return page.error("connection", errno::of(&error)),
        Err(_) => return page.error("connection", UNREAD),
    }
    place.enter(Stage::Closing);
    select! {
        () = place.evicted() => {}
        // One that does not close gets no more than its answer.
        _ = timeout(PATIENCE, discard(&mut stream)) => {}
    }
}

async fn write(stream: &mut TcpStream, answer: &str) -> io::Result<()> {
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads until the peer has closed: what is closed with something unread is reset, and the answer with it.
async fn discard(stream: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    status: u16,
    /// HEAD: the same headers, without the body.
    head_only: bool,
}

const TIMED_OUT: Asked = Asked { status: 408, head_only: false };

/// `None`: the peer has closed without a byte.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok((!head.is_empty()).then_some(Asked { status: 400, head_only: false }));
        }
        head.extend_from_slice(&buffer[..count]);
        match http::parse(&head, |head| Ok(interpret(head))) {
            Parsed::Partial => {}
            Parsed::Request(asked) => return Ok(Some(asked)),
            Parsed::Refused(status) => {
                // Whatever is wrong with a head, its method says whether a body may follow.
                let head_only = head.trim_ascii_start().starts_with(b"HEAD ");
                return Ok(Some(Asked { status, head_only }));
            }
        }
    }
}

fn interpret(head: &Head<'_>) -> Asked {
    let status = match head.method {
        Method::Unknown => 501,
        // Those that can have a target which is no path.
        Method::Connect | Method::Options => 405,
        _ if head.path != PATH => 404,
        Method::Get | Method::Head => 200,
        Method::Post | Method::Put | Method::Known => 405,
    };
    Asked { status, head_only: head.method == Method::Head }
}

fn response(asked: Asked, content_type: &str, body: &str) -> String {
    let (code, reason) = http::status(asked.status);
    // A clock before 1970 has no date: RFC 9110, 6.6.1, wants none then.
    let date = wall_seconds().map(Date::of);
    let date = date.map_or(String::new(), |date| format!("Date: {date}\r\n"));
    let allow = if asked.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let body = if asked.head_only { "" } else { body };
    format!(
        "HTTP/1.1 {code} {reason}\r\n{date}{allow}Content-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests;
