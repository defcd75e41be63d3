//! The live view of a watch: a state that records and keys change, and a picture that is a function of it alone.
//!
//! Everything is bounded: what is kept of the past, of the events, and of what is drawn.

mod draw;
mod keys;
mod table;

use std::collections::VecDeque;

use c1m_record::*;
use c1m_text::{escape, records};
pub use draw::draw;
pub use keys::{Action, Key};

/// Looks that are kept for the charts: more than any terminal is wide.
const HISTORY: usize = 512;
/// Lines of events that are kept.
const EVENTS: usize = 256;

/// Who holds most of the memory, as somebody else found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// What was looked at, and when, in words.
    pub title: String,
    pub rows: Vec<Holder>,
}

/// One process or cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder {
    pub name: String,
    pub sockets: u64,
    pub receive_bytes: u64,
    pub send_bytes: u64,
}

/// How the limits are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// The fullest first.
    #[default]
    Usage,
    /// What comes first.
    Time,
    Name,
    Scope,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Usage => Self::Time,
            Self::Time => Self::Name,
            Self::Name => Self::Scope,
            Self::Scope => Self::Usage,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Time => "time",
            Self::Name => "name",
            Self::Scope => "scope",
        }
    }
}

/// All that the picture is made of.
#[derive(Debug, Clone, Default)]
pub struct View {
    kernel: String,
    watching: Option<Watching>,
    usage: Option<Usage>,
    /// Pages of tcp_mem, newest last.
    pages: VecDeque<u64>,
    /// New and closed connections per second, newest last.
    opened: VecDeque<u64>,
    closed: VecDeque<u64>,
    limits: Option<Limits>,
    verdict: Option<Verdict>,
    events: VecDeque<String>,
    /// Absent until somebody has looked.
    pub holders: Option<Holders>,
    sort: Sort,
    filter: String,
    /// The filter is being typed.
    is_typing: bool,
    /// Events that are passed over from the newest on.
    scrolled: usize,
}

impl View {
    /// Takes a record, with the time of day at which it happened.
    pub fn take(&mut self, clock: &str, record: &Record) {
        match record {
            Record::Hooks(hooks) => self.kernel.clone_from(&hooks.kernel),
            Record::Watching(watching) => self.watching = Some(watching.clone()),
            Record::Usage(usage) => self.take_usage(usage),
            Record::Limits(limits) => self.limits = Some(limits.clone()),
            Record::Verdict(verdict) => {
                self.verdict = Some(verdict.clone());
                self.event(clock, record);
            }
            // Totals of what is shown one by one; the holders have a pane.
            Record::Refused(_) | Record::Ended(_) | Record::Holders(_) => {}
            _ => self.event(clock, record),
        }
    }

    /// The limits at every look, which are no record each time.
    pub fn take_limits(&mut self, limits: Limits) {
        self.limits = Some(limits);
    }

    fn take_usage(&mut self, usage: &Usage) {
        if let Some(pages) = usage.host.tcp_mem_pages {
            push(&mut self.pages, HISTORY, pages);
        }
        for (past, rate) in [
            (&mut self.opened, usage.watched.opened_per_s),
            (&mut self.closed, usage.watched.closed_per_s),
        ] {
            if let Some(rate) = rate {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate of the chart"
                )]
                push(past, HISTORY, rate.max(0.0) as u64);
            }
        }
        self.usage = Some(usage.clone());
    }

    fn event(&mut self, clock: &str, record: &Record) {
        for line in records::lines(record) {
            push(&mut self.events, EVENTS, format!("{clock}  {}", escape::line(&line)));
        }
    }
}

fn push<T>(past: &mut VecDeque<T>, most: usize, item: T) {
    if past.len() == most {
        past.pop_front();
    }
    past.push_back(item);
}
