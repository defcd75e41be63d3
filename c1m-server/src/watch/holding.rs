//! Who holds the memory, beside a watch. In a thread of its own: a walk over two million sockets takes seconds, in which keys and events
//! must not wait.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use c1m_host::namespaces::NetnsArgument;
use c1m_probe::{
    holders::{self, GroupBy},
    snapshot::Which,
    sockets::SocketReader,
};
use c1m_record::{Crossing, Direction, Holder, HolderRow, Holders, Level, Record};
use c1m_sys::process::page_bytes;
use c1m_text::units::{quantity, span_ms};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::output::view;

/// Rows of a record, and of the view.
const TOP: usize = 10;
/// After a walk that nobody asked for the thread waits this many times as long as the walk took; after one that was asked for, this many.
const REST: u32 = 100;
const REST_WHEN_ASKED: u32 = 10;
/// How long it waits after a failure; each further failure doubles it, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// The other end of the thread. It ends when this is dropped.
pub(super) struct Holding {
    wanted: SyncSender<()>,
    found: UnboundedReceiver<Found>,
}

/// What one walk came to.
#[derive(Debug)]
pub(super) enum Found {
    /// `was_asked`: a crossing asked for it, and it is to be printed.
    Holders { was_asked: bool, holders: Box<Holders> },
    /// What was known of the holders is out of date; the text says why and when the next attempt is.
    Failed(String),
    /// A walk succeeded again, after so many failures. Its holders come next.
    Recovered { failures: u32 },
}

impl Holding {
    /// `every`: the shortest time between two walks that nobody asks for; `None`: there are none.
    pub(super) fn begin(every: Option<Duration>) -> Self {
        let mut kept = None;
        let walk = move || {
            let mut reader = match kept.take() {
                Some(reader) => reader,
                None => SocketReader::open(NetnsArgument::All)?,
            };
            // Idle sockets stay in the kernel: they hold nothing.
            let holders = holders::read(&mut reader, Which::Holding, GroupBy::Process, TOP)
                .context("cannot look at the sockets")?;
            // One that failed is made anew.
            kept = Some(reader);
            Ok(holders)
        };
        Self::begin_with(every, RETRY_FIRST, walk)
    }

    fn begin_with(
        every: Option<Duration>,
        retry: Duration,
        walk: impl FnMut() -> anyhow::Result<Holders> + Send + 'static,
    ) -> Self {
        // One that waits is enough: what is asked for meanwhile is answered by the same walk.
        let (wanted, requests) = sync_channel(1);
        let (sender, found) = unbounded_channel();
        let walks = Walks { every, retry, requests, sender, failures: 0, walk };
        thread::spawn(move || walks.run());
        Self { wanted, found }
    }

    /// Asks for a walk when usage has come above pressure or high.
    pub(super) fn ask_after(&self, record: &Record) {
        if let Record::Crossing(Crossing { level, direction: Direction::Up, .. }) = record
            && *level != Level::Low
        {
            self.ask();
        }
    }

    fn ask(&self) {
        // One that waits already is as good.
        let _ = self.wanted.try_send(());
    }

    /// What comes next.
    pub(super) async fn found(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

/// The thread.
struct Walks<W> {
    every: Option<Duration>,
    /// After the first failure.
    retry: Duration,
    requests: Receiver<()>,
    sender: UnboundedSender<Found>,
    /// Since the last walk that succeeded.
    failures: u32,
    walk: W,
}

impl<W: FnMut() -> anyhow::Result<Holders>> Walks<W> {
    /// Until the other end is dropped.
    fn run(mut self) {
        let mut next = self.every.map(|_| Instant::now());
        // Somebody asked, and got no answer yet.
        let mut is_asked = false;
        loop {
            is_asked |= match self.wait(next) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let start = Instant::now();
            let walked = (self.walk)();
            let took = start.elapsed();
            let rest = match self.tell(walked, is_asked) {
                Err(()) => return,
                Ok(Some(retry)) => {
                    // An attempt that is due needs no request.
                    next = Some(Instant::now() + retry);
                    retry
                }
                Ok(None) => {
                    next = self
                        .every
                        .and_then(|every| Instant::now().checked_add(every.max(took * REST)));
                    if std::mem::take(&mut is_asked) {
                        took * REST_WHEN_ASKED
                    } else {
                        Duration::ZERO
                    }
                }
            };
            // Requests wait meanwhile.
            thread::sleep(rest);
        }
    }

    fn wait(&self, next: Option<Instant>) -> Result<(), RecvTimeoutError> {
        match next {
            None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(next) => {
                self.requests.recv_timeout(next.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// Hands over what a walk came to. `Ok(Some)`: it failed, and this is how long to wait; `Err`: nobody listens any more.
    fn tell(
        &mut self,
        walked: anyhow::Result<Holders>,
        was_asked: bool,
    ) -> Result<Option<Duration>, ()> {
        let send = |found| self.sender.send(found).map_err(drop);
        match walked {
            Ok(holders) => {
                let failures = std::mem::take(&mut self.failures);
                if failures > 0 {
                    send(Found::Recovered { failures })?;
                }
                send(Found::Holders { was_asked, holders: Box::new(holders) })?;
                Ok(None)
            }
            Err(error) => {
                let retry = self.retry * 2u32.saturating_pow(self.failures.min(16));
                let retry = retry.min(RETRY_LONGEST);
                self.failures = self.failures.saturating_add(1);
                let text = format!(
                    "who holds the memory is not known: {error:#}; the next attempt is in {} s",
                    retry.as_secs_f64()
                );
                send(Found::Failed(text))?;
                Ok(Some(retry))
            }
        }
    }
}

/// As the view shows it.
pub(super) fn shown(holders: &Holders) -> view::Holders {
    let page_bytes = page_bytes().ok();
    let memory = |pages| quantity(pages, "pages", page_bytes);
    view::Holders {
        title: format!(
            "top holders: {} found, {} by the kernel's count; took {}",
            memory(holders.found_pages),
            holders.accounted_pages.map_or("unknown".into(), memory),
            span_ms(holders.took_ms)
        ),
        rows: holders.rows.iter().map(shown_row).collect(),
    }
}

fn shown_row(row: &HolderRow) -> view::Holder {
    let name = match (row.holder, row.pid) {
        (_, Some(pid)) => format!("{}[{pid}]", row.comm.as_deref().unwrap_or("?")),
        (holder, None) => holder.map_or("unknown", Holder::name).into(),
    };
    view::Holder {
        name,
        sockets: row.memory.sockets,
        receive_bytes: row.memory.receive_bytes,
        send_bytes: row.memory.send_bytes,
    }
}

/// What the view shows instead while they are not known.
pub(super) fn unknown(why: &str) -> view::Holders {
    view::Holders { title: format!("top holders unknown: {why}"), rows: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use super::*;
    use c1m_record::{HoldersScope, Source};

    fn nobody() -> Holders {
        Holders {
            source: Source::Iterators,
            scope: HoldersScope::Host,
            rows: Vec::new(),
            rows_omitted: 0,
            pages_omitted: 0,
            total: c1m_record::Memory::default(),
            accounted_pages: Some(0),
            found_pages: 0,
            unexplained_pages: None,
            accounted_sockets: None,
            unlisted_sockets: None,
            reserve_pages: None,
            unseen: Vec::new(),
            took_ms: 0.0,
        }
    }

    /// Fails so often at first. How often it was tried is counted.
    fn failing(times: u32) -> (Arc<AtomicU32>, impl FnMut() -> anyhow::Result<Holders> + Send) {
        let tried = Arc::new(AtomicU32::new(0));
        let counter = tried.clone();
        let walk = move || match counter.fetch_add(1, Relaxed) {
            before if before < times => Err(anyhow::anyhow!("no more descriptors")),
            _ => Ok(nobody()),
        };
        (tried, walk)
    }

    fn take(holding: &mut Holding) -> Found {
        holding.found.blocking_recv().expect("the thread goes on")
    }

    #[test]
    fn a_walk_that_fails_is_tried_again_and_both_is_said() {
        let (tried, walk) = failing(2);
        let mut holding =
            Holding::begin_with(Some(Duration::from_millis(1)), Duration::from_millis(1), walk);
        for next in ["0.001 s", "0.002 s"] {
            let Found::Failed(text) = take(&mut holding) else { panic!("it does not fail") };
            assert!(text.contains("no more descriptors") && text.ends_with(next), "{text}");
        }
        assert!(matches!(take(&mut holding), Found::Recovered { failures: 2 }));
        assert!(matches!(take(&mut holding), Found::Holders { was_asked: false, .. }));
        // Another one comes without a further word.
        assert!(matches!(take(&mut holding), Found::Holders { .. }));
        assert!(tried.load(Relaxed) >= 4);
    }

    #[test]
    fn what_was_asked_for_is_answered_after_failures() {
        let (_, walk) = failing(1);
        let mut holding = Holding::begin_with(None, Duration::from_millis(1), walk);
        holding.ask();
        assert!(matches!(take(&mut holding), Found::Failed(_)));
        assert!(matches!(take(&mut holding), Found::Recovered { failures: 1 }));
        assert!(matches!(take(&mut holding), Found::Holders { was_asked: true, .. }));
    }

    #[test]
    fn the_time_between_attempts_grows_to_its_bound() {
        let (_, requests) = sync_channel(1);
        let (sender, _found) = unbounded_channel();
        let walk = || -> anyhow::Result<Holders> { unreachable!() };
        let mut walks =
            Walks { every: None, retry: RETRY_FIRST, requests, sender, failures: 0, walk };
        let waits: Vec<u64> = (0..40)
            .map(|_| walks.tell(Err(anyhow::anyhow!("no")), true).unwrap().unwrap().as_secs())
            .collect();
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[39], 60);
    }
}
