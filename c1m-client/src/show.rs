//! Facts on standard output, as lines for people or JSON lines; progress on standard error.

mod text;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use c1m_program::{
    lines::STDOUT,
    streams, unless_closed,
    writer::{Patience, Rank, WriteError, Writer},
};
use c1m_record::Line;
use c1m_sys::stream::Stream;

pub use self::text::lines;
use crate::record::{ClientRecord, Progress};

/// Back to the beginning of the line, which is emptied: ECMA-48, EL.
const CLEAR: &str = "\r\x1b[2K";
/// Of the bar, in columns.
const BAR: usize = 20;

/// Where records and progress go. Threads of their own write them, so nobody who does not read
/// holds up a run.
pub struct Show {
    json: bool,
    quiet: bool,
    out: Arc<Writer>,
    /// Progress for people, and the live line: standard error, unless both streams are terminals.
    /// Then one thread writes both, in order.
    progress: Option<Arc<Writer>>,
    /// Only on a terminal.
    live: Option<Live>,
}

impl Show {
    /// `connections`: the end of the live line.
    ///
    /// # Errors
    /// There is no thread to write.
    pub fn new(json: bool, quiet: bool, connections: u64) -> Result<Self, WriteError> {
        let out = Arc::new(streams::stdout(json, || Ok(()))?);
        let wants_progress = !json && !quiet;
        let is_live = wants_progress && io::stderr().is_terminal();
        let progress = match wants_progress {
            true if is_live && io::stdout().is_terminal() => Some(out.clone()),
            true => Some(Arc::new(streams::stderr(json)?)),
            false => None,
        };
        let live = is_live.then(|| Live::new(connections));
        Ok(Self { json, quiet, out, progress, live })
    }

    /// Hands a record over, whole.
    ///
    /// # Errors
    /// The one that has ended standard output.
    pub fn record(&self, record: &ClientRecord) -> Result<(), WriteError> {
        let text = text(self.json, record)?;
        let rank = match record {
            ClientRecord::Verdict(_) | ClientRecord::Summary(_) => Rank::Last,
            _ => Rank::Ordinary,
        };
        self.clear();
        self.out.print(text, rank)
    }

    /// Moves the live line. `tried`: connections that were established or given up.
    pub fn live(&self, tried: u64) {
        if let (Some(live), Some(to)) = (&self.live, &self.progress)
            && to.is_idle()
        {
            // A live line that can't be written is no reason to stop.
            let _ = to.raw(live.line(tried).into_bytes());
        }
    }

    /// Prints progress where there is no live line.
    ///
    /// # Errors
    /// The one that has ended standard output.
    pub fn progress(&self, progress: &Progress) -> Result<(), WriteError> {
        if self.quiet || self.live.is_some() {
            return Ok(());
        }
        let record = ClientRecord::Progress(progress.clone());
        match &self.progress {
            // For people progress is no fact, and it must not stop the run.
            Some(to) => drop(to.print(text(self.json, &record)?, Rank::Ordinary)),
            None => self.record(&record)?,
        }
        Ok(())
    }

    /// Takes the live line away.
    pub fn ramp_over(&mut self) {
        self.clear();
        self.live = None;
    }

    fn clear(&self) {
        if let (Some(_), Some(to)) = (&self.live, &self.progress) {
            let _ = to.raw(CLEAR.into());
        }
    }

    /// # Errors
    /// The one that has ended standard output.
    pub fn check(&self) -> Result<(), WriteError> {
        self.out.check()
    }

    /// The reader of standard output has closed the pipe. Nothing can be told any more, and what
    /// comes of the run is in the exit code alone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    /// Calls `told` when an error or its reader ends standard output.
    pub fn on_failure(&self, told: impl FnOnce() + Send + 'static) {
        self.out.on_failure(told);
    }

    /// Lines that were dropped so far because nobody read them.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.out.missing()
    }

    /// Waits until all is written, in bounded time.
    ///
    /// # Errors
    /// As of [`Writer::finish`], for standard output.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.ramp_over();
        let finished = self.out.finish(Patience::END);
        if let Some(progress) = self.progress.take().filter(|it| !Arc::ptr_eq(it, &self.out)) {
            // It is no fact.
            let _ = progress.finish(Patience::WORD);
        }
        finished
    }
}

/// Prints the one record of a command that answers once, and waits for as long as it takes.
///
/// # Errors
/// Those of standard output.
pub fn once(json: bool, record: &ClientRecord) -> Result<(), WriteError> {
    let text = text(json, record)?;
    let print = || Stream::stdout()?.write_all(text.as_bytes());
    unless_closed(print()).map_err(|error| WriteError::refused(STDOUT, error))
}

/// Whole lines.
fn text(json: bool, record: &ClientRecord) -> Result<String, WriteError> {
    let now = SystemTime::now();
    let text = match json {
        true => serde_json::to_string(&Line::at(now, record))
            .map_err(|error| WriteError::refused(STDOUT, error.into()))?,
        false => lines(now, record),
    };
    Ok(text + "\n")
}

/// The line of a terminal that shows how far the ramp is.
struct Live {
    start: Instant,
    connections: u64,
}

impl Live {
    fn new(connections: u64) -> Self {
        Self { start: Instant::now(), connections }
    }

    fn line(&self, tried: u64) -> String {
        CLEAR.to_owned() + &live_text(tried, self.connections, self.start.elapsed())
    }
}

fn live_text(tried: u64, connections: u64, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let (tried_f, all_f) = (tried as f64, connections as f64);
    let rate = tried_f / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let to_go = match Duration::try_from_secs_f64((all_f - tried_f).max(0.0) / rate) {
        Ok(time) => format!("{}s", time.as_secs()),
        // Nothing was tried yet.
        Err(_) => "?".into(),
    };
    let full = usize::try_from(tried.min(connections) * BAR as u64 / connections.max(1));
    let bar = "#".repeat(full.unwrap_or(BAR));
    format!(
        "[{bar:-<BAR$}] {tried}/{connections}  {rate:.0}/s  {}s gone, {to_go} to go",
        elapsed.as_secs()
    )
}
