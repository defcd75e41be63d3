//! How many whole pages of tcp_mem each connection holds, and how long a response does that.
//!
//! The kernel charges tcp_mem by the page and by the socket: a socket that keeps `n` bytes of skb
//! holds ceil(n / page) pages (net/ipv4/tcp_input.c, tcp_try_rmem_schedule, and include/net/sock.h,
//! sk_mem_pages; 6.18). An average that is no whole number of pages is therefore a mixture of
//! sockets, spread evenly.
//!
//! A response must be one skb. Then the receiver acknowledges it at once, being the first data of
//! its connection (tcp_event_data_recv raises the quick acknowledgements, 6.18), and the sender's
//! copy is gone before its `send` returns. The second skb of a response would be acknowledged late,
//! and be charged twice until then. A sender makes no skb longer than half the largest window it
//! has seen (include/net/tcp.h, tcp_bound_to_half_wnd, 6.18).

use std::{
    io::{self, Write as _},
    ops::Range,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use c1m_host::{cpus, sockstat};
use c1m_limits::footprint::payload_of;
use c1m_program::http::response::{Reader, Rest, request};
use c1m_sys::{
    process::page_bytes,
    socket::{MemInfo, mem_info, peek},
};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::{target::Target, tuple::Tuple};

/// What may be asked for. Whether one skb takes it here is for the probe to say: with the usual
/// window of 64 KiB, 32 KiB.
const MOST_BYTES: u64 = 48 << 10;

/// Why bytes can't be pinned, and what would do.
#[derive(Debug, Error)]
pub enum PinError {
    #[error(
        "--pin {0} is more than {most} bytes a connection: then one response would not be one skb",
        most = MOST_BYTES
    )]
    TooMuch(u64),
    #[error("the kernel's page size is not known: {0}")]
    Page(io::Error),
    #[error("--pin 0 pins nothing: leave it out")]
    Nothing,
    #[error("the probe connection to {target} failed: {error}")]
    Probe { target: Target, error: io::Error },
    #[error(
        "a response of {response_bytes} bytes charged {got} bytes of tcp_mem instead of {wanted}: this kernel's overhead leaves no room in {pages} pages"
    )]
    NoRoom { pages: u64, response_bytes: u64, got: u64, wanted: u64 },
    #[error(
        "a response of {response_bytes} bytes did not stay one skb on the way from {target} (overhead {got} bytes, {one} for a short one): use a smaller --pin (32K is the most with the usual window of 64 KiB), or a path whose MSS takes it, such as loopback"
    )]
    SeveralSkbs { response_bytes: u64, target: Target, got: i64, one: i64 },
}

/// Whole pages for each connection, `bytes` on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    bytes: u64,
    /// Of a page, the unit of tcp_mem.
    page_bytes: u64,
}

impl Pages {
    /// `bytes` of tcp_mem per connection, on average, in this kernel's pages.
    pub fn new(bytes: u64) -> Result<Self, PinError> {
        Self::of_size(bytes, page_bytes().map_err(PinError::Page)?)
    }

    fn of_size(bytes: u64, page_bytes: u64) -> Result<Self, PinError> {
        match bytes {
            0 => Err(PinError::Nothing),
            _ if bytes > MOST_BYTES => Err(PinError::TooMuch(bytes)),
            _ => Ok(Self { bytes, page_bytes }),
        }
    }

    /// Pages of the first `connections` together: the exact share, rounded to the nearest page.
    #[must_use]
    pub fn of_first(&self, connections: u64) -> u64 {
        let exact = u128::from(connections) * u128::from(self.bytes);
        let page = u128::from(self.page_bytes);
        u64::try_from((exact + page / 2) / page).unwrap_or(u64::MAX)
    }

    /// Of the skb of a connection, on average, in bytes.
    #[must_use]
    pub fn payload(&self) -> u64 {
        payload_of(self.bytes, self.page_bytes)
    }

    /// Pages of connection `index`: what is left over by the ones before goes into it.
    #[must_use]
    pub fn of(&self, index: u64) -> u64 {
        self.of_first(index + 1) - self.of_first(index)
    }

    /// Pages of these connections together.
    #[must_use]
    pub fn of_all(&self, indices: &Range<u64>) -> u64 {
        self.of_first(indices.end) - self.of_first(indices.start)
    }

    /// (pages, how many of these connections hold so many), without those that nobody holds.
    #[must_use]
    pub fn mixture(&self, indices: &Range<u64>) -> Vec<(u64, u64)> {
        let low = self.bytes / self.page_bytes;
        let connections = indices.end - indices.start;
        let higher = self.of_all(indices) - low * connections;
        [(low, connections - higher), (low + 1, higher)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

/// A response that charges a whole number of pages, and how many connections ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub pages: u64,
    /// The body to ask for. 0 pages ask for nothing.
    pub body_bytes: u64,
    /// The whole response, head and body.
    pub response_bytes: u64,
    pub connections: u64,
}

/// What every connection asks for, with what was measured for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinPlan {
    pub bytes_per_connection: u64,
    pub pages: Pages,
    /// The connection of all parts of the run that is this part's first one.
    pub first: u64,
    /// What the kernel charges for one skb besides its payload.
    pub overhead_bytes: u64,
    /// One or two, ascending in pages.
    pub steps: Vec<Step>,
    pub planned_pages: u64,
}

impl PinPlan {
    /// Measures the overhead with one connection, plans the responses, and checks each with one
    /// more connection.
    pub fn measure(
        bytes: u64,
        indices: &Range<u64>,
        tuple: &Tuple,
        target: &Target,
        timeout: Duration,
    ) -> Result<Self, PinError> {
        let ask = |body_bytes| {
            probe(tuple, body_bytes, timeout)
                .map_err(|error| PinError::Probe { target: *target, error })
        };
        Self::plan(Pages::new(bytes)?, indices, target, ask)
    }

    /// `ask` has a connection of its own for each response.
    fn plan(
        pages: Pages,
        indices: &Range<u64>,
        target: &Target,
        ask: impl Fn(u64) -> Result<Answer, PinError>,
    ) -> Result<Self, PinError> {
        const SHORT_BODY: u64 = 512;
        let short = ask(SHORT_BODY)?;
        let overhead_bytes = u64::try_from(short.overhead()).unwrap_or(0);
        let mut steps = Vec::new();
        let page = pages.page_bytes;
        for (pages, connections) in pages.mixture(indices) {
            let mut step = Step { pages, body_bytes: 0, response_bytes: 0, connections };
            if pages > 0 {
                let head_bytes = short.response_bytes - SHORT_BODY;
                let wanted = middle_of(pages, page, overhead_bytes, head_bytes);
                step.body_bytes = wanted.saturating_sub(head_bytes).max(1);
                let answer = ask(step.body_bytes)?;
                step.response_bytes = answer.response_bytes;
                answer.check(pages, page, short.overhead(), target)?;
            }
            steps.push(step);
        }
        Ok(Self {
            bytes_per_connection: pages.bytes,
            pages,
            first: indices.start,
            overhead_bytes,
            steps,
            planned_pages: pages.of_all(indices),
        })
    }
}

/// The response length in the middle of those that charge `pages`, as far from both edges as
/// possible; no longer than one skb can be.
fn middle_of(pages: u64, page_bytes: u64, overhead_bytes: u64, head_bytes: u64) -> u64 {
    let last = (pages * page_bytes).min(MOST_BYTES).saturating_sub(overhead_bytes);
    let first = ((pages - 1) * page_bytes + 1).saturating_sub(overhead_bytes).max(head_bytes + 1);
    u64::midpoint(first, last)
}

/// What one unread response does to its socket.
#[derive(Debug, Clone, Copy)]
struct Answer {
    response_bytes: u64,
    memory: MemInfo,
}

impl Answer {
    /// What its skbs take besides the payload.
    fn overhead(&self) -> i64 {
        i64::from(self.memory.rmem_alloc) - i64::try_from(self.response_bytes).unwrap_or(i64::MAX)
    }

    fn check(
        &self,
        pages: u64,
        page_bytes: u64,
        one: i64,
        target: &Target,
    ) -> Result<(), PinError> {
        let response_bytes = self.response_bytes;
        if self.overhead() != one {
            let got = self.overhead();
            return Err(PinError::SeveralSkbs { response_bytes, target: *target, got, one });
        }
        let (got, wanted) = (charged(&self.memory), pages * page_bytes);
        match got == wanted {
            true => Ok(()),
            false => Err(PinError::NoRoom { pages, response_bytes, got, wanted }),
        }
    }
}

/// Bytes of tcp_mem that a socket holds: what it uses, and what it has bought for later.
fn charged(memory: &MemInfo) -> u64 {
    u64::from(memory.rmem_alloc) + u64::from(memory.wmem_queued) + u64::from(memory.fwd_alloc)
}

/// Asks for a body on a connection of its own, leaves the response unread, and ends it by reset.
fn probe(tuple: &Tuple, body_bytes: u64, timeout: Duration) -> io::Result<Answer> {
    let mut source = tuple.source;
    // Any port: the planned ones stay free.
    source.set_port(0);
    let kind = Type::STREAM.cloexec();
    let socket = Socket::new_raw(Domain::for_address(source), kind, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&source.into())?;
    socket.connect_timeout(&tuple.destination.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    let deadline = Instant::now() + timeout;
    (&socket).write_all(&request(&format!("/bytes/{body_bytes}"), &tuple.destination))?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match peek(socket.as_raw_fd(), &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(held_back()),
            other => other?,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let memory = mem_info(socket.as_raw_fd())?;
        let response =
            Reader::from(Rest::Between).feed(&buffer[..count]).map_err(io::Error::other)?.1;
        match response {
            Some(response) if (response.status, response.body_bytes) != (200, body_bytes) => {
                return Err(io::Error::other(format!(
                    "it answers GET /bytes/{body_bytes} with status {} and {} bytes: --pin needs c1m-server",
                    response.status, response.body_bytes
                )));
            }
            // The request's skb leaves the write queue with the acknowledgement, which may come a
            // moment later.
            Some(_) if memory.wmem_queued == 0 => {
                return Ok(Answer { response_bytes: count as u64, memory });
            }
            _ if Instant::now() > deadline => return Err(held_back()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A probe without its whole answer, or with its request unacknowledged: nothing else is on that
/// connection.
fn held_back() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "no complete answer in time; if `mem` in /proc/net/sockstat is above net.ipv4.tcp_mem, the kernel holds data back",
    )
}

/// Pages that TCP sockets of the whole host hold, from /proc/net/sockstat. It lags by up to 255
/// pages a CPU, either way, since Linux 6.0 (net.core.mem_pcpu_rsv).
pub fn host_pages() -> io::Result<u64> {
    Ok(sockstat::sockstat()?.tcp_mem_pages)
}

/// By how much a difference of two readings of the kernel's counter may be wrong. Each CPU keeps up
/// to one page less than net.core.mem_pcpu_rsv apart from it, either way, at each of the two
/// readings (include/net/sock.h, sk_memory_allocated_add, 6.18). Kernels without that sysctl have
/// 256 built in, or keep none.
pub fn tolerance_pages() -> io::Result<u64> {
    let reserve = cpus::reserve_pages();
    Ok(2 * reserve.ok_or_else(|| io::Error::other("/proc/stat is not understood"))?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn page() -> impl Strategy<Value = u64> {
        prop_oneof![Just(PAGE), Just(65_536)]
    }

    #[test]
    fn with_pages_of_64_kib_one_connection_in_nine_has_one() {
        let pages = Pages::of_size(7711, 65_536).unwrap();
        assert_eq!(pages.mixture(&(0..65_536)), [(0, 57_825), (1, 7_711)]);
        assert_eq!(middle_of(1, 65_536, 832, 80), (81 + (48 << 10) - 832) / 2);
    }

    /// A whole plan on a kernel of such pages, whose skbs take 832 bytes besides 80 bytes of head and the body.
    fn planned(bytes: u64, page: u64, connections: u64) -> PinPlan {
        let target: Target = "127.0.0.1:80".parse().unwrap();
        let ask = |body_bytes| {
            let response_bytes = body_bytes + 80;
            let skb = u32::try_from(response_bytes + 832).unwrap();
            let charged = skb.next_multiple_of(u32::try_from(page).unwrap());
            let memory =
                MemInfo { rmem_alloc: skb, fwd_alloc: charged - skb, ..MemInfo::default() };
            Ok(Answer { response_bytes, memory })
        };
        let pages = Pages::of_size(bytes, page).unwrap();
        PinPlan::plan(pages, &(0..connections), &target, ask).unwrap()
    }

    #[test]
    fn a_plan_pins_the_same_bytes_with_pages_of_any_size() {
        for (page, mixture) in
            [(4_096, vec![(1, 120_250), (2, 903_750)]), (65_536, vec![(0, 903_516), (1, 120_484)])]
        {
            let plan = planned(7_711, page, 1_024_000);
            let steps: Vec<_> = plan.steps.iter().map(|it| (it.pages, it.connections)).collect();
            assert_eq!(steps, mixture, "{page}");
            let off = (plan.planned_pages * page).abs_diff(7_711 * 1_024_000);
            assert!(off <= page / 2, "{off} bytes are missing with pages of {page}");
            for step in &plan.steps {
                assert_eq!(step.pages == 0, step.body_bytes == 0, "{step:?}");
                assert!(step.response_bytes <= MOST_BYTES);
            }
        }
    }

    #[test]
    fn an_average_between_one_and_two_pages_is_a_mixture() {
        // 7711 / 4096 = 1.88256...
        let pages = Pages::of_size(7711, PAGE).unwrap();
        assert_eq!(pages.mixture(&(0..1_024_000)), [(1, 120_250), (2, 903_750)]);
        assert_eq!(pages.of_first(1_024_000), 1_927_750);
    }

    #[test]
    fn whole_pages_need_no_mixture_and_less_than_one_leaves_some_idle() {
        assert_eq!(Pages::of_size(8192, PAGE).unwrap().mixture(&(0..1000)), [(2, 1000)]);
        assert_eq!(Pages::of_size(1024, PAGE).unwrap().mixture(&(0..1000)), [(0, 750), (1, 250)]);
        assert!(Pages::of_size(0, PAGE).is_err());
        assert!(Pages::of_size(12 * PAGE, PAGE).is_ok());
        assert!(Pages::of_size(12 * PAGE + 1, PAGE).unwrap_err().to_string().contains("49152"));
    }

    #[test]
    fn responses_keep_away_from_the_edges_of_a_page() {
        assert_eq!(middle_of(2, PAGE, 832, 80), 5312);
        assert_eq!(middle_of(1, PAGE, 832, 80), (81 + 3264) / 2);
        for overhead in [576, 832, 896, 1280, 2304] {
            for pages in 1..=12 {
                let charged = middle_of(pages, PAGE, overhead, 100) + overhead;
                assert_eq!(charged.div_ceil(PAGE), pages);
                assert!((charged % PAGE).min(PAGE - charged % PAGE) > 500);
            }
        }
    }

    #[test]
    fn sockstat_is_read() {
        assert!(host_pages().is_ok());
    }

    proptest! {
        #[test]
        fn any_prefix_is_exact_to_one_page(bytes in 1u64..=12 * 4096, page in page(), connections in 1u64..2000) {
            let pages = Pages::of_size(bytes, page).unwrap();
            let mut sum = 0;
            let mut counts = std::collections::BTreeMap::new();
            for index in 0..connections {
                let own = pages.of(index);
                prop_assert!(own == bytes / page || own == bytes / page + 1);
                *counts.entry(own).or_insert(0u64) += 1;
                sum += own;
                prop_assert!((sum * page).abs_diff((index + 1) * bytes) < page);
            }
            prop_assert_eq!(pages.mixture(&(0..connections)), counts.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn parts_together_are_the_whole_mixture(bytes in 1u64..=12 * 4096, page in page(), parts in prop::collection::vec(1u64..500, 1..6)) {
            let pages = Pages::of_size(bytes, page).unwrap();
            let (mut start, mut counts) = (0, std::collections::BTreeMap::new());
            for part in &parts {
                for (pages, connections) in pages.mixture(&(start..start + part)) {
                    *counts.entry(pages).or_insert(0) += connections;
                }
                start += part;
            }
            prop_assert_eq!(pages.mixture(&(0..start)), counts.into_iter().collect::<Vec<_>>());
        }
    }
}
