//! What is kept of one run: the last of what is a state, the first of what is an event, numbers of
//! the rest.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Kept,
    acts::Act,
    say::{self, foreign},
    series::{Point, Series},
};
use c1m_record::*;
use c1m_text::records;

/// Events that are kept from the beginning, and as many from the end.
pub(super) const EVENTS: usize = 250;
/// The longest line of an event, in characters, is as long as any foreign text may be; and it has
/// at most so many lines.
const EVENT_LINES: usize = 4;
/// Periods of memory pressure that are drawn, and times that tcp_mem was written.
const PERIODS: usize = 128;
const WRITES: usize = 16;
/// Warnings of different names.
const WARNINGS: usize = 32;
const KILLS: usize = 16;

/// One server, one watch, or one act.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Times of the first and the last record.
    pub(super) times: Option<(u64, u64)>,
    pub(super) hooks: Option<Kept<Hooks>>,
    pub(super) listening: Option<Kept<Listening>>,
    pub(super) watching: Option<Kept<Watching>>,
    pub(super) series: Series,
    pub(super) tcp_mem: TcpMem,
    pub(super) crossings: Crossings,
    pub(super) pressure: Periods,
    pub(super) limits: Option<Kept<Limits>>,
    pub(super) verdict: Option<Kept<Verdict>>,
    pub(super) refused: Option<Kept<Refused>>,
    pub(super) summary: Option<Kept<Summary>>,
    pub(super) ended: Option<Kept<Ended>>,
    pub(super) usage: Option<Kept<Usage>>,
    /// The one that found the most pages.
    pub(super) holders: Option<Kept<Holders>>,
    pub(super) kills: Vec<Kept<OomKill>>,
    pub(super) warnings: BTreeMap<String, Warned>,
    pub(super) events: Events,
    /// Records by kind.
    pub(super) kinds: BTreeMap<&'static str, u64>,
    pub(super) act: Option<Kept<Act>>,
}

/// A warning that came once or more.
#[derive(Debug)]
pub(super) struct Warned {
    pub(super) times: u64,
    pub(super) first: Kept<Warning>,
}

/// What tcp_mem was, each time that it was another one. Of a level that no record told nothing is
/// known.
#[derive(Debug, Default)]
pub(super) struct TcpMem {
    pub(super) values: Vec<(u64, [Option<u64>; 3])>,
    /// There were more of them.
    pub(super) is_cut: bool,
}

/// The first crossing of each level in each direction, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Crossings {
    pub(super) first: Vec<Kept<Crossing>>,
    pub(super) counts: BTreeMap<(Level, bool), u64>,
    /// Counted in the kernel but not reported.
    pub(super) suppressed: u64,
}

/// Times under the kernel's memory pressure; one without an end lasts to the end of the run.
#[derive(Debug, Default)]
pub(super) struct Periods {
    pub(super) spans: Vec<(u64, Option<u64>)>,
    pub(super) seen: u64,
}

/// Events as lines for people: the first and the last ones.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) first: Vec<Event>,
    pub(super) last: VecDeque<Event>,
    pub(super) seen: u64,
}

#[derive(Debug)]
pub(super) struct Event {
    pub(super) line: u64,
    pub(super) at: u64,
    pub(super) text: Vec<String>,
}

impl Run {
    /// Bytes of a page of the kernel that ran, never of the one that makes the page; with line and
    /// place. `None`: no record has it.
    pub(super) fn page_bytes(&self) -> Option<(u64, String, u64)> {
        let root = || "/page_bytes".to_owned();
        let of_listening = || {
            let listening = self.listening.as_ref()?;
            Some((listening.line, root(), listening.record.page_bytes?))
        };
        let of_watching = || {
            let watching = self.watching.as_ref()?;
            Some((watching.line, root(), watching.record.page_bytes?))
        };
        let of_act = || {
            let act = self.act.as_ref()?;
            Some((act.line, format!("{}/page_bytes", act.record.place), act.record.page_bytes?))
        };
        of_listening().or_else(of_watching).or_else(of_act)
    }

    /// Is `record` the first one of another run?
    pub(super) fn is_over_before(&self, record: &Record) -> bool {
        let has_begun = self.listening.is_some() || self.watching.is_some();
        match record {
            Record::Hooks(_) => has_begun || self.hooks.is_some() || self.act.is_some(),
            Record::Listening(_) | Record::Watching(_) => has_begun || self.act.is_some(),
            _ => false,
        }
    }

    pub(super) fn is_over_before_act(&self) -> bool {
        self.act.is_some()
    }

    pub(super) fn take(&mut self, line: u64, at: u64, record: &Record) {
        let (begin, end) = self.times.unwrap_or((at, at));
        self.times = Some((begin.min(at), end.max(at)));
        *self.kinds.entry(record.kind()).or_default() += 1;
        if is_event(record) {
            self.events.push(line, at, record);
        }
        self.keep(line, at, record);
        self.measure(line, at, record);
    }

    /// States: the last one is true.
    fn keep(&mut self, line: u64, at: u64, record: &Record) {
        fn kept<R: Clone>(line: u64, at: u64, record: &R) -> Option<Kept<R>> {
            Some(Kept { line, at, record: record.clone() })
        }
        match record {
            Record::Hooks(hooks) => self.hooks = kept(line, at, hooks),
            Record::Listening(listening) => self.listening = kept(line, at, listening),
            Record::Watching(watching) => self.watching = kept(line, at, watching),
            Record::Limits(limits) => self.limits = kept(line, at, limits),
            Record::Verdict(verdict) => self.verdict = kept(line, at, verdict),
            Record::Refused(refused) => self.refused = kept(line, at, refused),
            Record::Summary(summary) => self.summary = kept(line, at, summary),
            Record::Ended(ended) => self.ended = kept(line, at, ended),
            Record::Usage(usage) => self.usage = kept(line, at, usage),
            Record::Holders(holders) => {
                let most = self.holders.as_ref().map(|kept| kept.record.found_pages);
                if most.is_none_or(|most| holders.found_pages >= most) {
                    self.holders = kept(line, at, holders);
                }
            }
            Record::OomKill(kill) if self.kills.len() < KILLS => {
                self.kills.extend(kept(line, at, kill));
            }
            Record::Warning(warning) => self.warn(line, at, warning),
            _ => {}
        }
    }

    fn warn(&mut self, line: u64, at: u64, warning: &Warning) {
        if let Some(warned) = self.warnings.get_mut(&warning.name) {
            warned.times += 1;
        } else if self.warnings.len() < WARNINGS {
            let first = Kept { line, at, record: warning.clone() };
            self.warnings.insert(warning.name.clone(), Warned { times: 1, first });
        }
    }

    /// What the plots are made of.
    fn measure(&mut self, line: u64, at: u64, record: &Record) {
        match record {
            Record::Online(online) => {
                let connections = Some(online.connections.unwrap_or(online.online));
                self.series.push(Point { at, connections, pages: online.tcp_mem_pages });
            }
            Record::Usage(usage) => {
                let (connections, host) = (usage.watched.connections, &usage.host);
                self.series.push(Point { at, connections, pages: host.tcp_mem_pages });
                if let Some(tcp_mem) = host.tcp_mem {
                    self.tcp_mem.take(at, tcp_mem.map(Some));
                }
                if let Some(now) = host.pressure.now {
                    self.pressure.look(at, now);
                }
            }
            Record::Crossing(crossing) => {
                let (connections, pages) = (Some(crossing.connections), Some(crossing.pages));
                self.series.push(Point { at, connections, pages });
                self.tcp_mem.take(at, crossing.tcp_mem.map(Some));
                self.crossings.take(line, at, crossing);
            }
            Record::Refusal(refusal) => self.tcp_mem.take(at, refusal.tcp_mem.map(Some)),
            Record::Pressure(pressure) => {
                self.pressure.look(at, pressure.direction == Direction::Up);
            }
            Record::Limits(limits) => {
                let ceiling = |level: Level| {
                    let name = level.limit()?;
                    limits.limits.iter().find(|reading| reading.limit == name)?.ceiling
                };
                self.tcp_mem.take(at, Level::ALL.map(ceiling));
            }
            _ => {}
        }
    }

    /// What tcp_mem was last, as far as it is known. Where nothing was crossed no server has told
    /// low; an act knows what it wrote.
    pub(super) fn levels(&self) -> [Option<u64>; 3] {
        let read = self.tcp_mem.values.last().map_or([None; 3], |(_, levels)| *levels);
        let written = self.act.as_ref().map_or([None; 3], |act| act.record.tcp_mem.map(Some));
        std::array::from_fn(|level| read[level].or(written[level]))
    }

    /// Readings in the order of time; events are told a moment late.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = self.series.points().to_vec();
        points.sort_by_key(|point| point.at);
        points
    }

    /// The most pages that any reading saw, with the reading.
    pub(super) fn most_pages(&self) -> Option<Point> {
        let points = self.series.points().iter().filter(|point| point.pages.is_some());
        points.max_by_key(|point| point.pages).copied()
    }

    /// Events lost, and where, as the last record that speaks of it says.
    pub(super) fn lost(&self) -> Option<(u64, u64, &BTreeMap<String, u64>)> {
        if let Some(summary) = &self.summary {
            return Some((summary.line, summary.record.dropped?, &summary.record.dropped_by));
        }
        let ended = self.ended.as_ref()?;
        Some((ended.line, ended.record.dropped, &ended.record.dropped_by))
    }
}

impl TcpMem {
    /// A level that this record does not tell is as it was, unless others show that all was written
    /// anew.
    fn take(&mut self, at: u64, levels: [Option<u64>; 3]) {
        let Some((_, last)) = self.values.last_mut() else {
            if levels.iter().any(Option::is_some) {
                self.values.push((at, levels));
            }
            return;
        };
        let is_same =
            last.iter().zip(levels).all(|(old, new)| old.is_none() || new.is_none() || *old == new);
        if is_same {
            for (old, new) in last.iter_mut().zip(levels) {
                *old = old.or(new);
            }
        } else if self.values.len() < WRITES {
            self.values.push((at, levels));
        } else {
            self.is_cut = true;
        }
    }
}

impl Crossings {
    fn take(&mut self, line: u64, at: u64, crossing: &Crossing) {
        let is_up = crossing.direction == Direction::Up;
        let count = self.counts.entry((crossing.level, is_up)).or_default();
        *count += 1;
        self.suppressed += crossing.suppressed;
        if *count == 1 {
            self.first.push(Kept { line, at, record: crossing.clone() });
        }
    }
}

impl Periods {
    fn look(&mut self, at: u64, is_under_pressure: bool) {
        let is_open = matches!(self.spans.last(), Some((_, None)));
        match (is_open, is_under_pressure) {
            (false, true) => {
                self.seen += 1;
                if self.spans.len() < PERIODS {
                    self.spans.push((at, None));
                }
            }
            (true, false) => {
                if let Some((_, end)) = self.spans.last_mut() {
                    *end = Some(at);
                }
            }
            _ => {}
        }
    }
}

impl Events {
    fn push(&mut self, line: u64, at: u64, record: &Record) {
        self.seen += 1;
        let lines = records::lines(record);
        let text = lines.iter().take(EVENT_LINES).map(|line| say::foreign(line)).collect();
        let event = Event { line, at, text };
        if self.first.len() < EVENTS {
            self.first.push(event);
            return;
        }
        if self.last.len() == EVENTS {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// Neither of the first nor of the last ones.
    pub(super) fn left_out(&self) -> u64 {
        self.seen - (self.first.len() + self.last.len()) as u64
    }
}

/// Something happened, as opposed to how things stand.
fn is_event(record: &Record) -> bool {
    matches!(
        record,
        Record::Crossing(_)
            | Record::Refusal(_)
            | Record::Aborted(_)
            | Record::OomKill(_)
            | Record::Pressure(_)
            | Record::Overflow(_)
            | Record::Ports(_)
            | Record::CallError(_)
            | Record::Warning(_)
    )
}

/// What the run was of.
pub(crate) fn title(run: &Run) -> String {
    if let Some(act) = &run.act {
        return foreign(act.record.title());
    }
    if let Some(listening) = &run.listening {
        return format!("Server on {}", foreign(&listening.record.address));
    }
    match &run.watching {
        Some(watching) => watch(&watching.record),
        None => "Records without their beginning".into(),
    }
}

fn watch(watching: &Watching) -> String {
    if let Some(command) = &watching.command {
        return format!("Watch of the command {}", foreign(&command.join(" ")));
    }
    let mut of = match (watching.pid, &watching.comm, &watching.cgroup) {
        (Some(pid), Some(comm), _) => vec![format!("{} (process {pid})", foreign(comm))],
        (Some(pid), None, _) => vec![format!("process {pid}")],
        (None, _, Some(cgroup)) => vec![format!("cgroup {}", foreign(cgroup))],
        (None, _, None) => Vec::new(),
    };
    if !watching.ports.is_empty() {
        let ports: Vec<String> = watching.ports.iter().map(u16::to_string).collect();
        of.push(format!("port {}", ports.join(", ")));
    }
    if of.is_empty() {
        "Watch of the whole host".into()
    } else {
        format!("Watch of {}", of.join(", "))
    }
}
