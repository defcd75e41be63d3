//! Which limit was it? From what was counted and read to causes, the root of them first.
//!
//! The rules stand in one table, in the order of roots before what follows from them. Each says what was seen and how sure that is;
//! none of them knows of the others but by what [`Case`] tells.

use super::{
    advice::advise,
    catalog::Limit,
    evidence::{Call, Evidence as Counted},
    forecast::History,
    reading::{Peak, Readings},
    rules,
};
use c1m_record::{Cause, Confidence, Evidence, LimitName, Tier, Verdict};

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

/// What a rule says.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) limit: LimitName,
    pub(super) confidence: Confidence,
    /// Something was refused, lost, killed or kept waiting; else the limit was only reached.
    pub(super) harm: bool,
    pub(super) text: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) settle: Option<&'static str>,
}

impl Finding {
    pub(super) fn new(limit: LimitName, confidence: Confidence, text: impl Into<String>) -> Self {
        Self {
            limit,
            confidence,
            harm: true,
            text: text.into(),
            evidence: Vec::new(),
            settle: None,
        }
    }

    /// The limit was only reached.
    pub(super) fn harmless(mut self) -> Self {
        self.harm = false;
        self
    }

    /// Adds what was seen; nothing where it was not.
    pub(super) fn saw(mut self, source: &str, what: &str, value: u64) -> Self {
        if value > 0 {
            self.evidence.push(Evidence {
                source: source.into(),
                what: what.into(),
                value,
                limit: None,
            });
        }
        self
    }

    /// Adds what was looked for and not seen, where that is what decides.
    pub(super) fn saw_none(mut self, source: &str, what: &str) -> Self {
        let (source, what) = (source.into(), what.into());
        self.evidence.push(Evidence { source, what, value: 0, limit: None });
        self
    }

    /// Adds usage beside its limit, where it was read.
    pub(super) fn beside(mut self, source: &str, what: &str, peak: Option<Peak>) -> Self {
        if let Some(Peak { used, ceiling }) = peak {
            self.evidence.push(Evidence {
                source: source.into(),
                what: what.into(),
                value: used,
                limit: Some(ceiling),
            });
        }
        self
    }

    pub(super) fn settled_by(mut self, settle: &'static str) -> Self {
        self.settle = Some(settle);
        self
    }
}

type Rule = fn(&Case<'_>) -> Vec<Finding>;

/// Roots first: descriptors that are used up let the accept queue fill, a process that was killed leaves orphans, tcp_mem that is used
/// up resets orphans and closes windows.
const RULES: [Rule; 9] = [
    rules::files::descriptors,
    rules::memory::memory,
    rules::tcp_mem::tcp_mem,
    rules::orphans::orphans,
    rules::queues::queues,
    rules::calls::ports,
    rules::calls::epoll,
    rules::buffers::buffers,
    rules::calls::time_wait,
];

/// Judges what was counted since the start, beside the readings since then.
#[must_use]
pub fn judge(seen: &Counted, history: &History) -> Verdict {
    let tier = seen.tier.unwrap_or(Tier::Counters);
    let case = Case { seen, history, now: history.now(), tier };
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&case)).collect();
    // Stable: within each group the order is that of the table.
    findings.sort_by_key(|found| (found.confidence == Confidence::Possible, !found.harm));
    let causes: Vec<Cause> = findings.into_iter().map(|found| cause(found, &case)).collect();
    Verdict { quiet: causes.is_empty(), tier, causes }
}

fn cause(found: Finding, case: &Case<'_>) -> Cause {
    Cause {
        limit: found.limit,
        scope: Limit::of(found.limit).scope,
        confidence: found.confidence,
        text: found.text,
        evidence: found.evidence,
        settle: found.settle.map(Into::into),
        advice: advise(found.limit, case),
    }
}

/// What was judged before the server closed anything, and what only came while it closed: the latter can't be the root of the former.
#[must_use]
pub fn followed_by(before: Verdict, after: Verdict) -> Verdict {
    let mut causes = before.causes;
    for late in after.causes {
        if !causes.iter().any(|cause| cause.limit == late.limit) {
            causes.push(late);
        }
    }
    Verdict { quiet: causes.is_empty(), tier: after.tier, causes }
}
