//! Who holds the memory, beside a watch. In a thread of its own: a walk over two million sockets takes seconds, in which keys and events
//! must not wait.

use std::{
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{
    cli::{GroupBy, NetnsChoice},
    command::holders::{self, gather::Look},
    output::{
        record::{Crossing, Direction, Holder, HolderRow, Holders, Level, Record},
        view,
    },
    trace::snapshot::Which,
};

/// Rows of a record, and of the view.
const TOP: usize = 10;
/// A look that is for the view alone may take one part in so many of the time, one that is asked for one in fewer.
const REST: u32 = 100;
const REST_WHEN_ASKED: u32 = 10;

/// The other end of the thread. It ends when this is dropped.
pub(super) struct Holding {
    wanted: SyncSender<()>,
    found: UnboundedReceiver<Found>,
}

/// What a look found.
pub(super) struct Found {
    /// Somebody asked for it, and it is to be told.
    pub(super) was_asked: bool,
    /// `Err`: there is no way to look, and no further one will come.
    pub(super) holders: Result<Holders, String>,
}

impl Holding {
    /// `every`: the shortest time between two looks that nobody asks for; `None`: there are none.
    pub(super) fn begin(every: Option<Duration>) -> Self {
        // One that waits is enough: what is asked for meanwhile is answered by the same look.
        let (wanted, requests) = sync_channel(1);
        let (sender, found) = unbounded_channel();
        thread::spawn(move || {
            let mut look = match Look::begin(NetnsChoice::All) {
                Ok(look) => look,
                Err(error) => {
                    // Who left needs no answer.
                    let holders = Err(format!("{error:#}"));
                    let _ = sender.send(Found { was_asked: true, holders });
                    return;
                }
            };
            let mut next = every.map(|_| Instant::now());
            loop {
                let was_asked = match next {
                    None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(next) => {
                        requests.recv_timeout(next.saturating_duration_since(Instant::now()))
                    }
                };
                let was_asked = match was_asked {
                    Ok(()) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let start = Instant::now();
                // Idle sockets stay in the kernel: they hold nothing.
                let holders = holders::look(&mut look, Which::Holding, GroupBy::Process, TOP)
                    .map_err(|error| format!("{error:#}"));
                let (took, is_over) = (start.elapsed(), holders.is_err());
                if sender.send(Found { was_asked, holders }).is_err() || is_over {
                    return;
                }
                next = every.map(|every| Instant::now() + every.max(took * REST));
                if was_asked {
                    thread::sleep(took * REST_WHEN_ASKED);
                }
            }
        });
        Self { wanted, found }
    }

    /// Asks for a look when usage has come above pressure or high.
    pub(super) fn ask_after(&self, record: &Record) {
        if let Record::Crossing(Crossing { level, direction: Direction::Up, .. }) = record
            && *level != Level::Low
        {
            // One that waits already is as good.
            let _ = self.wanted.try_send(());
        }
    }

    /// The next look; none comes any more once the thread has ended.
    pub(super) async fn found(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

/// As the view shows it.
pub(super) fn shown(holders: &Holders) -> view::Holders {
    let known = |pages: Option<u64>| pages.map_or("unknown from here".into(), |it| it.to_string());
    view::Holders {
        title: format!(
            "top holders: {} pages found, {} accounted; looked for {:.0} ms",
            holders.found_pages,
            known(holders.accounted_pages),
            holders.took_ms
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
