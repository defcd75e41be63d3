//! Which limit was it? From what was observed to causes, the root of them first.
//!
//! Each limit is judged by its own file. The order is that of the registry: roots before what follows from them.

#[cfg(test)]
mod tests;

use c1m_record::{Cause, Confidence, Tier, Verdict};

use crate::{
    case::Case,
    evidence::Evidence,
    finding::Finding,
    forecast::History,
    limits::{REGISTRY, of},
};

/// Judges what was observed since the start, beside the samples since then.
#[must_use]
pub fn judge(observed: &Evidence, history: &History) -> Verdict {
    let tier = observed.tier.unwrap_or(Tier::Counters);
    let case = Case { observed, history, now: history.now(), tier };
    let mut findings = in_order(REGISTRY.iter().filter_map(|limit| limit.judge(&case)));
    // Stable: within each group the order stays.
    findings.sort_by_key(|found| (found.confidence == Confidence::Possible, !found.harm));
    let causes: Vec<Cause> = findings.into_iter().map(|found| cause(found, &case)).collect();
    Verdict { quiet: causes.is_empty(), tier, causes }
}

/// Puts each finding that is behind a later one's directly behind that.
fn in_order(findings: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = findings.collect();
    for index in (0..all.len()).rev() {
        let root = all[index].behind;
        if let Some(at) =
            all.iter().rposition(|found| Some(found.limit) == root).filter(|at| *at > index)
        {
            all[index..=at].rotate_left(1);
        }
    }
    all
}

fn cause(found: Finding, case: &Case<'_>) -> Cause {
    let limit = of(found.limit);
    Cause {
        limit: found.limit,
        scope: limit.about().scope,
        confidence: found.confidence,
        text: found.text,
        evidence: found.evidence,
        to_confirm: found.to_confirm.map(Into::into),
        remedy: Some(limit.remedy(case)),
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
