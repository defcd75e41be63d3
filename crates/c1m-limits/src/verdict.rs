//! Which limit was it? From what was counted and read to causes, the root of them first.
//!
//! The rules stand in one table, in the order of roots before what follows from them. Each says what was seen and how sure that is;
//! none of them knows of the others but by what [`Case`] tells.

use super::{
    advice::advise, case::Case, catalog::Limit, evidence::Evidence as Counted, forecast::History,
    reading::Peak, rules,
};
use c1m_record::{Cause, Confidence, Evidence, LimitName, Tier, Verdict};

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
