//! What a page is made of: the latest records, and counts of those that are events.

use std::time::SystemTime;

use c1m_record::{
    Direction, Holders, Hooks, Level, Limits, Record, Refused, Summary, Usage, Verdict,
};

/// What was taken so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The unit of tcp_mem.
    pub page_bytes: Option<u64>,
    pub(super) looked: Option<SystemTime>,
    pub(super) hooks: Option<Hooks>,
    pub(super) limits: Option<Limits>,
    pub(super) usage: Option<Usage>,
    pub(super) refused: Option<Refused>,
    /// By level, up and down.
    pub(super) crossings: [[u64; 2]; 3],
    pub(super) suppressed: u64,
    /// The longest that a look has told: two looks may see the end of a period differently, and a counter never falls.
    pub(super) pressure_ms: Option<f64>,
    pub(super) verdict: Option<Verdict>,
    pub(super) holders: Option<(SystemTime, Holders)>,
    /// Of the own server.
    pub(super) served: Option<Summary>,
}

impl Seen {
    #[must_use]
    pub fn new(page_bytes: Option<u64>) -> Self {
        Self { page_bytes, ..Self::default() }
    }

    /// Takes a record, told or not. Without one of the hooks nothing of what tracing counts is known.
    pub fn take(&mut self, time: SystemTime, record: &Record) {
        match record {
            Record::Hooks(hooks) => self.hooks = Some(hooks.clone()),
            Record::Limits(limits) => {
                self.looked = Some(time);
                self.limits = Some(limits.clone());
            }
            Record::Usage(usage) => {
                self.looked = Some(time);
                let total = usage.host.pressure.total_ms;
                self.pressure_ms = total.map(|total| total.max(self.pressure_ms.unwrap_or(0.0)));
                self.usage = Some(usage.clone());
            }
            Record::Refused(refused) => self.refused = Some(refused.clone()),
            Record::Crossing(crossing) => {
                let direction = usize::from(crossing.direction == Direction::Down);
                self.crossings[crossing.level as usize][direction] += 1;
                self.suppressed += crossing.suppressed;
            }
            Record::Verdict(verdict) => self.verdict = Some(verdict.clone()),
            Record::Holders(holders) => self.holders = Some((time, holders.clone())),
            Record::Summary(summary) => self.served = Some(summary.clone()),
            _ => {}
        }
    }

    /// Until the next record of them, nothing is known of the holders.
    pub fn forget_holders(&mut self) {
        self.holders = None;
    }

    pub(super) fn bytes(&self, pages: Option<u64>) -> Option<u64> {
        pages?.checked_mul(self.page_bytes?)
    }

    /// Usage of tcp_mem, as the most exact reading has it.
    pub(super) fn tcp_mem_pages(&self) -> Option<u64> {
        let looked = self.usage.as_ref().and_then(|usage| usage.host.tcp_mem_pages);
        looked.or_else(|| self.limit_of_tcp_mem(Level::High)?.used)
    }

    /// Its three values.
    pub(super) fn tcp_mem(&self) -> [Option<u64>; 3] {
        match self.usage.as_ref().and_then(|usage| usage.host.tcp_mem) {
            Some(limits) => limits.map(Some),
            None => Level::ALL.map(|level| self.limit_of_tcp_mem(level)?.ceiling),
        }
    }

    fn limit_of_tcp_mem(&self, level: Level) -> Option<&c1m_record::LimitReading> {
        let name = level.limit()?;
        self.limits.as_ref()?.limits.iter().find(|reading| reading.limit == name)
    }
}
