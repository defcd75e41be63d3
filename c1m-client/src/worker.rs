//! One epoll thread with its own descriptor table.
//!
//! With a table of its own each thread holds as many connections as RLIMIT_NOFILE allows one table,
//! and no thread waits for another's lock on it. The thread keeps what it inherits from the main
//! thread's table, a handful of descriptors: so the numbers that it was handed stay true in it, and
//! nothing has to be closed behind anybody's back.

mod beats;
mod exchange;
mod open;
mod shared;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    os::fd::AsRawFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use c1m_sys::{
    epoll::{self, Epoll, Events},
    errno, process,
    socket::{peek, receive, take_error},
};

pub use self::shared::{Broken, Closing, Command, Counters, Outcome, Report, Shared};
use self::{
    beats::Beating,
    exchange::{Exchange, Sampling},
};
use crate::{
    summary::{Errors, Tally},
    table::{Stage, Table},
};

/// The token of the waker; slots are below it.
const WAKER: u64 = u64::MAX;
/// How often timeouts are looked for while something is waited for.
const TICK: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 64 << 10;

/// Starts the worker number `id`.
pub fn spawn(
    shared: Arc<Shared>,
    id: usize,
    commands: Receiver<Command>,
    reports: Sender<(usize, Report)>,
) -> io::Result<JoinHandle<()>> {
    let _until_spawned = process::block_signals()?;
    std::thread::Builder::new().name(format!("worker {id}")).spawn(move || {
        let work = || {
            process::unshare_files()?;
            let mut worker = Worker::new(shared.clone(), id, commands, reports.clone())?;
            worker.run()?;
            Ok(worker.close())
        };
        let last = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(outcome)) => Report::Done(Box::new(outcome)),
            Ok(Err(error)) => Report::Broken(Broken::Refused(error)),
            Err(_) => Report::Broken(Broken::Panicked),
        };
        // A main thread that is gone needs no report.
        let _ = reports.send((id, last));
        shared.to_main.wake();
    })
}

struct Worker {
    shared: Arc<Shared>,
    id: usize,
    /// The connections to open, as indices of the plan.
    share: Range<u64>,
    commands: Receiver<Command>,
    reports: Sender<(usize, Report)>,
    epoll: Epoll,
    table: Table,
    ramping: bool,
    /// Slots that are sent for and not answered, and stale ones of which that is no longer true.
    pending: Vec<usize>,
    in_flight: usize,
    /// By how many microseconds the openings of `pending` were later than planned. Empty without
    /// `--rate`.
    late_us: HashMap<usize, u64>,
    /// Connections that wait for more than a byte can say.
    exchanges: HashMap<usize, Exchange>,
    sampling: Option<Sampling>,
    beating: Option<Beating>,
    tally: Tally,
    /// Connections lost since the last report of it.
    lost: Errors,
    buffer: Vec<u8>,
    /// When timeouts are looked for next, microseconds since the start of the run.
    next_tick_us: u64,
}

impl Worker {
    fn new(
        shared: Arc<Shared>,
        id: usize,
        commands: Receiver<Command>,
        reports: Sender<(usize, Report)>,
    ) -> io::Result<Self> {
        let share = shared.crew.share(id);
        let epoll = Epoll::new()?;
        epoll.add(shared.to_workers.as_raw_fd(), epoll::IN | epoll::EDGE, WAKER)?;
        let capacity = usize::try_from(share.end - share.start).unwrap_or(usize::MAX);
        Ok(Self {
            shared,
            id,
            share,
            commands,
            reports,
            epoll,
            table: Table::with_capacity(capacity),
            ramping: true,
            pending: Vec::new(),
            in_flight: 0,
            late_us: HashMap::new(),
            exchanges: HashMap::new(),
            sampling: None,
            beating: None,
            tally: Tally::default(),
            lost: Errors::default(),
            buffer: vec![0; BUFFER_BYTES],
            next_tick_us: 0,
        })
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters[self.id]
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn report(&self, report: Report) {
        // A main thread that is gone needs no report.
        let _ = self.reports.send((self.id, report));
        self.shared.to_main.wake();
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(512);
        loop {
            let wait = self.work();
            self.epoll.wait(&mut events, wait)?;
            for (token, flags) in events.iter() {
                match usize::try_from(token) {
                    Ok(slot) if token != WAKER => self.on_event(slot, flags),
                    _ => {
                        if self.obey() {
                            return Ok(());
                        }
                    }
                }
            }
            self.tick();
            self.report_losses();
        }
    }

    /// The main thread may wait without a timeout, so it is woken: once for all that one batch of
    /// events has ended.
    fn report_losses(&mut self) {
        if !self.lost.is_empty() {
            let lost = std::mem::take(&mut self.lost);
            self.report(Report::Lost(lost));
        }
    }

    /// Sends what is due. Returns how long nothing has to be done unless something happens.
    fn work(&mut self) -> Option<Duration> {
        if self.shared.closing.has_begun() {
            return None;
        }
        let open_wait = self.open_some();
        self.counters().in_flight.store(self.in_flight as u64, Relaxed);
        let beat_wait = self.beat();
        self.ask_samples();
        if self.exchanges.is_empty() {
            self.look_for_last_answers();
        }
        let waits_for_something = !self.pending.is_empty() || !self.exchanges.is_empty();
        let tick = waits_for_something.then_some(TICK);
        [open_wait, beat_wait, tick].into_iter().flatten().min()
    }

    /// Takes all commands. `true`: it is to end.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Sample { wanted, before, held, all } => {
                    self.begin_sample(wanted, before, held, all);
                }
                Command::Hold { began_us, until_us } => self.begin_beats(began_us, until_us),
                Command::End => return true,
            }
        }
        false
    }

    /// Closes every connection; what the worker saw is left.
    fn close(mut self) -> Outcome {
        let (end_us, plan_until_us) = self.shared.closing.at_us(self.now_us());
        self.expire_openings(end_us);
        self.expire_asks(end_us);
        let beats = self.end_beats(end_us, plan_until_us);
        Outcome { tally: std::mem::take(&mut self.tally), beats }
    }

    fn on_event(&mut self, slot: usize, flags: u32) {
        if self.shared.closing.has_begun() {
            // What other connections' end brings about is not an answer of the server to this one.
            return;
        }
        match self.table.stage(slot) {
            // An event of the same batch as the connection's end.
            Stage::Gone | Stage::Lost => {}
            Stage::Connecting => self.on_connect(slot, flags),
            Stage::Waiting | Stage::Overdue if self.opening(slot).unread => {
                self.on_unread(slot, flags);
            }
            Stage::Unread => self.on_unread(slot, flags),
            _ => self.read(slot, flags),
        }
    }

    /// Something happened on a connection whose answer is to stay unread.
    fn on_unread(&mut self, slot: usize, flags: u32) {
        let Some(fd) = self.table.fd(slot) else { return };
        let ended = flags & (epoll::PEER_CLOSED | epoll::ERROR | epoll::HANGUP) != 0;
        // An end of stream is readable too: then only a byte proves an answer.
        if flags & epoll::IN != 0 && (!ended || matches!(peek(fd, &mut [0]), Ok(1))) {
            self.heard();
            self.first_byte(slot);
            self.table.set_stage(slot, Stage::Unread);
        }
        if ended {
            let error = take_error(fd).ok().flatten();
            self.lose(slot, error.as_ref());
        }
    }

    /// Reads all that is there.
    fn read(&mut self, slot: usize, flags: u32) {
        let Some(fd) = self.table.fd(slot) else { return };
        let ended = flags & (epoll::PEER_CLOSED | epoll::ERROR | epoll::HANGUP) != 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            match receive(fd, &mut buffer) {
                Ok(0) => {
                    self.finish_response(slot);
                    self.lose(slot, None);
                    break;
                }
                Ok(count) => {
                    self.heard();
                    let opening = self.first_byte(slot);
                    self.consume(slot, &buffer[..count], opening);
                    // A short read has emptied the queue: what comes after makes an event of its
                    // own. But an end that was announced with this event does not come again.
                    let more = count == buffer.len() || ended;
                    if !more || !self.table.stage(slot).is_held() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.lose(slot, Some(&error));
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// The peer, or the network, has ended an established connection.
    fn lose(&mut self, slot: usize, error: Option<&io::Error>) {
        let name = match error.map(errno::of) {
            None => "closed by peer".into(),
            Some("ECONNRESET") => "reset by peer".into(),
            Some(name) => format!("connection {name}"),
        };
        self.tally.errors.count(&name);
        self.lost.count(&name);
        self.heard();
        self.drop_connection(slot);
        self.counters().lost.fetch_add(1, Release);
    }

    /// Something came from the server.
    fn heard(&self) {
        self.counters().answers.fetch_add(1, Relaxed);
    }

    /// Ends an established connection, and all that waits for it.
    fn drop_connection(&mut self, slot: usize) {
        match self.table.stage(slot) {
            Stage::Waiting => {
                self.in_flight -= 1;
                self.first_byte_missed();
            }
            Stage::Overdue => {}
            _ => drop(self.counters().pages.fetch_sub(self.opening(slot).pages, Relaxed)),
        }
        self.counters().held.fetch_sub(1, Relaxed);
        self.table.lose(slot);
        self.abandon(slot);
    }

    /// Looks for timeouts, once a [`TICK`] at most.
    fn tick(&mut self) {
        let now_us = self.now_us();
        if now_us < self.next_tick_us || self.shared.closing.has_begun() {
            return;
        }
        self.next_tick_us = now_us + micros(TICK);
        self.expire_openings(now_us);
        self.expire_asks(now_us);
        self.look_for_last_answers();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
