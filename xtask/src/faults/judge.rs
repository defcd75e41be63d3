//! What is right about one run. Pure: from what was seen to what was wrong.

use std::collections::BTreeMap;

use c1m_probe::plan::PROGRAMS;
use c1m_record::{LimitName, Record, Refused, Tier, Verdict};

use super::record::{Counter, Fault, Run};

/// What the verdict has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// This limit is the first cause.
    First(LimitName),
    /// Nothing limited anything.
    Quiet,
}

impl Expect {
    pub(crate) fn limit(self) -> Option<LimitName> {
        match self {
            Self::First(limit) => Some(limit),
            Self::Quiet => None,
        }
    }
}

/// What the kernel counts, and under which names (members of `refused`) the observer counts the same.
///
/// Both are sums; a twin of which this kernel or this tier lacks a member is left out.
const TWINS: [(&[&str], &[&str]); 7] = [
    (&["TCPRcvQDrop", "TCPOFODrop"], &["dropped_skb"]),
    (&["TCPRcvCollapsed"], &["collapsed"]),
    (&["OfoPruned"], &["ofo_pruned"]),
    (&["TCPAbortOnMemory"], &["orphans_aborted_too_many", "orphans_aborted_out_of_memory"]),
    (&["TCPMemoryPressures"], &["pressure_entries", "pressure_entries_allocator"]),
    (&["ListenOverflows"], &["accept_queue_syn", "accept_queue_ack"]),
    (&["TCPReqQFullDrop", "TCPReqQFullDoCookies"], &["syn_queue_full"]),
];

/// What the driver counted itself, and under which name the observer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Such as `connect: EADDRNOTAVAIL`.
    pub(crate) name: &'static str,
    pub(crate) value: u64,
    /// A JSON pointer into `refused`.
    pub(crate) ebpf: &'static str,
}

/// The end of what the observer printed: a server's summary, or the end of a watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) refused: Option<Refused>,
    /// `None`: it did not say what was dropped.
    pub(crate) dropped_by: Option<BTreeMap<String, u64>>,
}

impl Told {
    pub(crate) fn from(records: &[Record]) -> Self {
        let mut told = Self::default();
        for record in records {
            match record {
                Record::Verdict(verdict) => told.verdict = Some(verdict.clone()),
                Record::Summary(summary) => {
                    told.refused = summary.refused.as_deref().cloned();
                    told.dropped_by = summary.dropped.map(|_| summary.dropped_by.clone());
                }
                Record::Ended(ended) => {
                    told.refused = Some((*ended.refused).clone());
                    told.dropped_by = Some(ended.dropped_by.clone());
                }
                _ => {}
            }
        }
        told
    }

    pub(crate) fn tier(&self) -> Option<Tier> {
        self.verdict.as_ref().map(|verdict| verdict.tier)
    }

    pub(crate) fn first(&self) -> Option<LimitName> {
        self.verdict.as_ref()?.causes.first().map(|cause| cause.limit)
    }
}

/// Each sentence is something wrong.
pub(crate) fn judge(expect: Expect, told: &Told, counters: &[Counter]) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(wrong_verdict(expect, told.verdict.as_ref()));
    for counter in counters.iter().filter(|counter| counter.kernel != counter.ebpf) {
        let Counter { kernel_name, kernel, ebpf_name, ebpf } = counter;
        wrong.push(format!("{kernel_name} is {kernel}, but {ebpf_name} is {ebpf}"));
    }
    match &told.dropped_by {
        None => wrong.push("the observer did not say what it dropped".into()),
        Some(dropped_by) => wrong.extend(
            dropped_by
                .iter()
                .filter(|(by, _)| !is_skip(by))
                .map(|(by, count)| format!("{count} events were lost by the observer: {by}")),
        ),
    }
    wrong
}

/// The kernel skips a program that an interrupt finds running, which under emulation is not rare, and which nobody can help: it is told, and
/// what was counted has to be right all the same. Anything else that is lost is the observer's fault.
fn is_skip(by: &str) -> bool {
    PROGRAMS
        .iter()
        .any(|program| by.split_once('/') == Some((program.attachment.name(), program.target)))
}

fn wrong_verdict(expect: Expect, verdict: Option<&Verdict>) -> Option<String> {
    let Some(verdict) = verdict else { return Some("there was no verdict".into()) };
    let said = match verdict.causes.first() {
        None if verdict.quiet => "quiet".to_owned(),
        None => "neither quiet nor a cause".to_owned(),
        Some(cause) => format!("{:?} ({:?}: {})", cause.limit, cause.confidence, cause.text),
    };
    let is_right = match expect {
        Expect::Quiet => verdict.quiet && verdict.causes.is_empty(),
        Expect::First(limit) => {
            !verdict.quiet && verdict.causes.first().is_some_and(|cause| cause.limit == limit)
        }
    };
    (!is_right).then(|| format!("the verdict had to be {expect:?}, but was {said}"))
}

/// The counters that this kernel and this tier have both of.
pub(crate) fn counters(refused: &Refused, counted: &[Counted]) -> Vec<Counter> {
    // By name: a member that the tier does not have is `null`, and one that another version does not have is not there.
    let ebpf = serde_json::to_value(refused).unwrap_or_default();
    let twins = TWINS.iter().filter_map(|(names, members)| {
        Some(Counter {
            kernel_name: names.join(" + "),
            kernel: sum(names, |name| refused.kernel.get(name).copied())?,
            ebpf_name: members.join(" + "),
            ebpf: sum(members, |member| ebpf.get(member)?.as_u64())?,
        })
    });
    let own = counted.iter().filter_map(|own| {
        Some(Counter {
            kernel_name: own.name.into(),
            kernel: own.value,
            ebpf_name: own.ebpf.trim_start_matches('/').into(),
            ebpf: ebpf.pointer(own.ebpf)?.as_u64()?,
        })
    });
    twins.chain(own).collect()
}

fn sum(names: &[&str], value: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    names.iter().map(|name| value(name)).sum()
}

/// Adds up the runs, fault by fault and kernel by kernel, in the order in which they came.
pub(crate) fn add_up(runs: &[Run]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for run in runs {
        let place = faults.iter().position(|it| it.name == run.name && it.kernel == run.kernel);
        let fault = match place {
            Some(place) => &mut faults[place],
            None => {
                faults.push(Fault {
                    name: run.name.clone(),
                    kernel: run.kernel.clone(),
                    tier: None,
                    runs: 0,
                    right: 0,
                    wrong: 0,
                    counters_equal: None,
                    dropped: 0,
                    skipped_because: None,
                });
                let last = faults.len() - 1;
                &mut faults[last]
            }
        };
        fault.tier = fault.tier.or(run.tier);
        fault.dropped += run.dropped_by.values().sum::<u64>();
        match run.right {
            None => fault.skipped_because.clone_from(&run.skipped_because),
            Some(is_right) => {
                fault.runs += 1;
                fault.right += u64::from(is_right);
                fault.wrong += u64::from(!is_right);
                if !run.counters.is_empty() {
                    let are_equal = run.counters.iter().all(|it| it.kernel == it.ebpf);
                    fault.counters_equal = Some(fault.counters_equal.unwrap_or(true) && are_equal);
                }
            }
        }
    }
    faults
}

/// 0 all right, 1 something was wrong, 3 nothing could be run.
pub(crate) fn exit_code(faults: &[Fault]) -> u8 {
    if faults.iter().any(|fault| fault.wrong > 0) {
        1
    } else if faults.iter().all(|fault| fault.runs == 0) {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
