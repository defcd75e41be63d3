//! A stream that a thread of its own writes, so that whoever does not read it stops nothing but that thread.
//!
//! Lines wait in a queue of bounded size. What does not fit is dropped and counted, and a line says so where lines are missing, once it can be
//! written. The last lines of a program have room of their own, and the end waits for them in bounded time.

mod queue;

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Builder,
    time::{Duration, Instant},
};

use thiserror::Error;

use self::queue::{Item, State};

/// Bytes that wait to be written, besides those of the last lines.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Bytes that the last lines of a program may take besides.
const RESERVE_BYTES: usize = 1 << 20;
/// Written at a time: PIPE_BUF, so that each piece that a pipe takes shows that somebody reads.
const PIECE_BYTES: usize = 4096;
const STACK_BYTES: usize = 256 << 10;

/// Why lines were not written.
#[derive(Debug, Error)]
pub enum WriteError {
    #[error("cannot write {name}")]
    Refused { name: String, source: io::Error },
    #[error("nobody read {name} for too long: {lines} lines were not written")]
    Unread { name: String, lines: u64 },
}

impl WriteError {
    /// An error of this stream.
    pub fn refused(name: impl Into<String>, source: io::Error) -> Self {
        Self::Refused { name: name.into(), source }
    }
}

/// What is written to.
pub trait Destination: Send + 'static {
    /// Writes some of the bytes, and blocks until it can.
    ///
    /// # Errors
    /// Those of the stream.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Takes back the beginning of a line whose rest could not be written, where that is possible.
    fn take_back(&mut self, _written: usize) {}
}

/// What an error does to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is the last: nothing is written any more, and whoever prints gets it.
    Stop,
    /// The line is lost and counted, and the next one is tried.
    GoOn,
}

/// Which room a line waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    Ordinary,
    /// One of the last lines of a program: there is room for it.
    Last,
}

/// How long an end waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a piece to be taken.
    pub piece: Duration,
    /// For all lines; then ordinary ones are dropped, and the last ones have the same time.
    pub all: Duration,
}

impl Patience {
    /// Longer than a reader sleeps that is merely slow, shorter than what service managers wait before they kill.
    pub const END: Self = Self { piece: Duration::from_secs(3), all: Duration::from_secs(8) };
    /// For a word to people.
    pub const WORD: Self = Self { piece: Duration::from_secs(1), all: Duration::from_secs(1) };
}

/// What a line says in place of lines that are missing.
#[derive(Debug, Clone, Copy)]
pub enum Missing<'a> {
    /// They were dropped: nobody took them.
    Unread,
    /// They could not be written.
    Refused(&'a io::Error),
}

/// What became of a stream since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It can't be written; lines are lost and counted from here on.
    Refused(String),
    /// Nobody takes what is written; lines are dropped and counted from here on.
    Unread,
    /// It is written again, without so many lines.
    Resumed { lines: u64 },
}

impl Change {
    /// For people. `name`: of the stream.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        match self {
            Self::Refused(why) => format!(
                "cannot write {name} ({why}): its lines are lost and counted until it can be written again"
            ),
            Self::Unread => format!(
                "nobody takes what is written to {name}: its lines are dropped and counted until somebody does"
            ),
            Self::Resumed { lines } => {
                format!("{name} is written again; lines missing in it: {lines}")
            }
        }
    }
}

/// How a wait for the thread has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    Done,
    TooLong,
    /// Nobody took anything.
    Stalled,
}

type Locked<'a> = MutexGuard<'a, State>;

/// A stream and the thread that writes it. Dropping it waits as [`Writer::finish`] does.
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    on_error: OnError,
    state: Mutex<State>,
    /// Something has come, or no more will.
    filled: Condvar,
    /// A piece was taken.
    taken: Condvar,
}

impl Writer {
    /// Starts the thread. It runs `begin` first, and the start fails with it. `notice` makes the line that stands for missing ones.
    ///
    /// # Errors
    /// The thread can't be had, or what `begin` said.
    pub fn start(
        name: impl Into<String>,
        mut destination: impl Destination,
        on_error: OnError,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
        notice: impl Fn(u64, Missing<'_>) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            on_error,
            state: Mutex::default(),
            filled: Condvar::new(),
            taken: Condvar::new(),
        });
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let own = shared.clone();
        Builder::new().name("writer".into()).stack_size(STACK_BYTES).spawn(move || {
            let begun = begin();
            let failed = begun.is_err();
            // Whoever starts the thread waits for this word.
            let _ = ready.send(begun);
            if !failed {
                own.run(&mut destination, notice);
            }
        })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { shared })
    }

    /// Hands over whole lines, and never waits.
    ///
    /// # Errors
    /// The one that has ended the stream, unless its reader has closed it: see [`Self::is_closed`].
    pub fn print(&self, text: String, rank: Rank) -> Result<(), WriteError> {
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() as u64;
        self.shared.push(text.into_bytes(), lines, rank)
    }

    /// Hands over what is no line, such as a picture for a terminal; it is never counted as missing.
    ///
    /// # Errors
    /// The one that has ended the stream.
    pub fn raw(&self, bytes: Vec<u8>) -> Result<(), WriteError> {
        self.shared.push(bytes, 0, Rank::Last)
    }

    /// Is all written that was handed over?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.state().is_idle()
    }

    /// Lines that were dropped or lost so far.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.shared.state().missing
    }

    /// What has become of the stream, since this was last asked.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.shared.state().changes.drain(..).collect()
    }

    /// The reader of a standard stream has closed the pipe: nothing that is handed over is written any more, which is no error of whoever prints.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed(&self.shared.state())
    }

    /// # Errors
    /// The one that has ended the stream.
    pub fn check(&self) -> Result<(), WriteError> {
        self.shared.check(&self.shared.state())
    }

    /// Calls `told`, once, when an error or its reader ends the stream; at once if one has.
    pub fn on_failure(&self, told: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        if state.has_ended(self.shared.on_error) {
            drop(state);
            told();
        } else {
            state.on_failure = Some(Box::new(told));
        }
    }

    /// Waits until all is written, in bounded time. Nothing can be handed over afterwards.
    ///
    /// # Errors
    /// The one that keeps lines from being written, or that nobody took them.
    pub fn finish(&self, patience: Patience) -> Result<(), WriteError> {
        let shared = &self.shared;
        let mut state = shared.state();
        state.closed = true;
        shared.filled.notify_all();
        let mut waited;
        (state, waited) = shared.wait(state, patience);
        if waited == Waited::TooLong {
            state.drop_ordinary();
            (state, waited) = shared.wait(state, patience);
        }
        match waited {
            Waited::Done => shared.check(&state),
            Waited::TooLong | Waited::Stalled => {
                Err(WriteError::Unread { name: shared.name.clone(), lines: state.unwritten() })
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.shared.state().closed {
            // Whoever wants to know asks by `finish`.
            let _ = self.finish(Patience::END);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self, state: &State) -> bool {
        let closed = |error: &io::Error| {
            self.on_error == OnError::Stop && error.kind() == io::ErrorKind::BrokenPipe
        };
        state.failure.as_ref().is_some_and(closed)
    }

    fn check(&self, state: &State) -> Result<(), WriteError> {
        if self.is_closed(state) {
            return Ok(());
        }
        state.failure.as_ref().map_or(Ok(()), |error| {
            Err(WriteError::Refused { name: self.name.clone(), source: copy(error) })
        })
    }

    fn push(&self, bytes: Vec<u8>, lines: u64, rank: Rank) -> Result<(), WriteError> {
        let mut state = self.state();
        if state.has_ended(self.on_error) {
            state.missing += lines;
            return self.check(&state);
        }
        let room = match rank {
            Rank::Ordinary => QUEUE_BYTES,
            Rank::Last => QUEUE_BYTES + RESERVE_BYTES,
        };
        if state.closed || (state.bytes + bytes.len() > room && !state.queue.is_empty()) {
            state.drop_lines(lines);
            return Ok(());
        }
        state.bytes += bytes.len();
        state.queue.push_back(Item::Text { bytes, lines, rank });
        self.filled.notify_one();
        Ok(())
    }

    /// Until all is written, the stream has ended, or patience has.
    fn wait<'a>(&self, mut state: Locked<'a>, patience: Patience) -> (Locked<'a>, Waited) {
        let is_done = |state: &State| state.is_idle() || state.has_ended(self.on_error);
        let end = Instant::now() + patience.all;
        loop {
            if is_done(&state) {
                return (state, Waited::Done);
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return (state, Waited::TooLong);
            }
            let pieces = state.pieces;
            let still = |state: &mut State| state.pieces == pieces && !is_done(state);
            let (guard, timeout) = self
                .taken
                .wait_timeout_while(state, rest.min(patience.piece), still)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() && rest >= patience.piece {
                return (state, Waited::Stalled);
            }
        }
    }

    /// The thread: until the stream has ended, or no more comes.
    fn run(&self, destination: &mut impl Destination, notice: impl Fn(u64, Missing<'_>) -> String) {
        while let Some(item) = self.next() {
            let (bytes, lines) = match &item {
                Item::Text { bytes, lines, .. } => (bytes.as_slice(), *lines),
                Item::Gap(lines) => (&notice(*lines, Missing::Unread).into_bytes()[..], *lines),
            };
            // Only this thread changes what was lost.
            let before = self.state().lost_notice(&notice);
            let whole = [before.as_bytes(), bytes].concat();
            let result = self.write(destination, &whole);
            if !self.written(result, &item, lines) {
                return;
            }
        }
    }

    /// `None`: nothing more comes.
    fn next(&self) -> Option<Item> {
        let state = self.state();
        let waits = |state: &mut State| state.queue.is_empty() && !state.closed;
        let mut state =
            self.filled.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        let item = state.queue.pop_front()?;
        if let Item::Text { bytes, .. } = &item {
            state.bytes -= bytes.len();
        }
        state.in_hand = Some(item.lines());
        Some(item)
    }

    /// Piece by piece.
    fn write(&self, destination: &mut impl Destination, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let piece = &bytes[at..bytes.len().min(at + PIECE_BYTES)];
            let error = match destination.write(piece) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    at += count;
                    self.state().pieces += 1;
                    self.taken.notify_all();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            destination.take_back(at);
            return Err(error);
        }
        Ok(())
    }

    /// `false`: the stream has ended.
    fn written(&self, result: io::Result<()>, item: &Item, lines: u64) -> bool {
        let mut state = self.state();
        state.in_hand = None;
        let told = match result {
            Ok(()) => {
                state.resume(item);
                None
            }
            Err(error) => state.fail(error, item, lines, self.on_error),
        };
        let goes_on = !state.has_ended(self.on_error);
        drop(state);
        self.taken.notify_all();
        if let Some(told) = told {
            told();
        }
        goes_on
    }
}

/// The same error, for somebody else.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests;
