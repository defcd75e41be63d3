//! What a rule says.

use c1m_record::{Confidence, Evidence, LimitName};

use crate::{
    case::{Case, Errno},
    reading::Peak,
};

/// A limit that stopped something, or that was reached.
#[derive(Debug, Clone)]
pub struct Finding {
    pub(crate) limit: LimitName,
    pub(crate) confidence: Confidence,
    /// Something was refused, lost, killed or kept waiting; else the limit was only reached.
    pub(crate) harm: bool,
    pub(crate) text: String,
    pub(crate) evidence: Vec<Evidence>,
    /// What would raise the confidence.
    pub(crate) to_confirm: Option<&'static str>,
    /// The limit whose finding, if there is one, comes before this one, whatever the order of the registry.
    pub(crate) behind: Option<LimitName>,
}

impl Finding {
    pub(crate) fn new(limit: LimitName, confidence: Confidence, text: impl Into<String>) -> Self {
        Self {
            limit,
            confidence,
            harm: true,
            text: text.into(),
            evidence: Vec::new(),
            to_confirm: None,
            behind: None,
        }
    }

    /// One of several signs of `limit`: the first one, with the evidence of all. Those of other limits are left out.
    pub(crate) fn merged<const N: usize>(
        limit: LimitName,
        signs: [Option<Self>; N],
    ) -> Option<Self> {
        signs.into_iter().flatten().filter(|found| found.limit == limit).reduce(
            |mut first, more| {
                first.evidence.extend(more.evidence);
                first
            },
        )
    }

    /// The limit was only reached.
    pub(crate) fn harmless(mut self) -> Self {
        self.harm = false;
        self
    }

    pub(crate) fn behind(mut self, limit: LimitName) -> Self {
        self.behind = Some(limit);
        self
    }

    /// Adds a count as evidence, unless it is 0.
    pub(crate) fn saw(self, source: &str, what: &str, value: u64) -> Self {
        if value > 0 { self.with(source, what, value, None) } else { self }
    }

    /// Adds a count of 0 as evidence, where that is what decides.
    pub(crate) fn saw_none(self, source: &str, what: &str) -> Self {
        self.with(source, what, 0, None)
    }

    /// Adds the calls that open a connection and failed with that error.
    pub(crate) fn saw_opening_failed(mut self, case: &Case<'_>, error: Errno) -> Self {
        for (call, name) in error.opening() {
            self =
                self.saw(&name, "calls of any process", case.observed.failed(call, error.number));
            self = self.saw(&name, "own calls", case.observed.own(&name));
        }
        self
    }

    /// Adds usage beside its limit, where it was read.
    pub(crate) fn beside(self, source: &str, what: &str, peak: Option<Peak>) -> Self {
        match peak {
            Some(Peak { used, ceiling }) => self.with(source, what, used, Some(ceiling)),
            None => self,
        }
    }

    pub(crate) fn confirmed_by(mut self, to_confirm: &'static str) -> Self {
        self.to_confirm = Some(to_confirm);
        self
    }

    fn with(mut self, source: &str, what: &str, value: u64, limit: Option<u64>) -> Self {
        self.evidence.push(Evidence { source: source.into(), what: what.into(), value, limit });
        self
    }
}
