//! What a rule judges from.

use c1m_record::{LimitName, Tier};

use crate::{
    evidence::{Call, Evidence as Counted},
    forecast::History,
    reading::{Peak, Readings},
};

/// All that a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub seen: &'a Counted,
    pub history: &'a History,
    pub now: Readings,
    pub tier: Tier,
}

impl Case<'_> {
    pub(super) fn peak(&self, limit: LimitName) -> Option<Peak> {
        self.history.peak(limit)
    }

    pub(super) fn was_past(&self, limit: LimitName) -> bool {
        self.peak(limit).is_some_and(|peak| peak.is_past())
    }

    /// The hook that this tier has for it.
    pub(super) fn hook(&self, functions: &'static str, tracepoints: &'static str) -> &'static str {
        if self.tier == Tier::Functions { functions } else { tracepoints }
    }

    /// Failed calls of these kinds with that error, of any process.
    pub(super) fn failed(&self, calls: &[Call], errno: i32) -> u64 {
        calls.iter().map(|call| self.seen.failed(*call, errno)).sum()
    }

    /// Whether tcp_mem kept anybody waiting, or might have: then what stalls may stall for that.
    pub(super) fn tcp_mem_was_short(&self) -> bool {
        let seen = self.seen;
        seen.refused_high() + seen.refused_fair_share() > 0
            || seen.counter("TCPMemoryPressures") > 0
            || seen.pressure_entries.unwrap_or(0) > 0
            || seen.crossed_pressure.unwrap_or(0) > 0
            || seen.past_pressure == Some(true)
            || self.was_past(LimitName::TcpMemPressure)
    }
}
