//! What a run found, in the form in which it is printed as JSON; and whether that is what had to be found.

use std::collections::BTreeMap;

use c1m_record::{FileNr, LOST_CROSSINGS, Level, NOT_UNDERSTOOD, Refused, Resolution, Sockstat};
use serde::{Deserialize, Serialize};

use super::{expect, progress::grouped};

/// The records of `reproduce --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReproduceRecord {
    /// After each act.
    Act(Box<Act>),
    /// The last line.
    Reproduction(Reproduction),
}

/// What an act is played for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActName {
    /// The `tcp_mem` that the article's server had, with pinned bytes.
    Default,
    /// The `tcp_mem` with which it went on, with pinned bytes.
    Cure,
    /// Nothing pinned.
    Idle,
}

/// One act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Act {
    pub(crate) name: ActName,
    /// low, pressure, high, in pages
    pub(crate) tcp_mem: [u64; 3],
    /// Bytes of a page of the kernel that ran: the unit of tcp_mem. `null`: not known, as in records of before it was told.
    #[serde(default)]
    pub(crate) page_bytes: Option<u64>,
    /// `default`: at which connection high was crossed, counted in the kernel. Else: connections held.
    pub(crate) connections: Option<u64>,
    /// `default`: at which one it had to be, from the plan. Else: connections wanted.
    pub(crate) expected: Option<u64>,
    pub(crate) error_percent: Option<f64>,
    /// By how many connections it may be off.
    pub(crate) tolerance: u64,
    /// `default`: what the kernel's counter held at the crossing. Else: what it held with all connections open.
    pub(crate) pages: Option<u64>,
    pub(crate) limit_pages: u64,
    /// Connections open in the server at the end of the ramp.
    pub(crate) held: u64,
    /// Of `sampled` connections that were asked for a response then.
    pub(crate) answered: u64,
    pub(crate) sampled: u64,
    pub(crate) ramp_s: f64,

    /// The first crossing of each level, upwards.
    pub(crate) crossings: Vec<ActCrossing>,
    /// Pages of TCP before the act, without what can be a residue of the kernel's per-CPU reserve.
    pub(crate) baseline_pages: u64,
    /// Pages that the client's plan charges; `null` when nothing is pinned.
    pub(crate) planned_pages: Option<u64>,
    /// truesize of one skb beyond its payload, measured by the client's probe
    pub(crate) overhead_bytes: Option<u64>,
    /// tcp_mem pages with all connections open.
    pub(crate) held_pages: u64,
    pub(crate) refused: Option<Refused>,
    /// The kernel's own counters (TcpExt) that moved during the act.
    pub(crate) kernel: BTreeMap<String, u64>,
    /// Caches that hold at least half an object for each connection, both ends together.
    pub(crate) slab: Option<Vec<SlabShare>>,
    /// Sum of `slab`.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// By how much used memory grew since before the first act, by connection: everything, both ends and both programs.
    pub(crate) memory_bytes_per_connection: f64,
    /// PSS of the server by connection, its own baseline and tracing included.
    pub(crate) server_user_bytes_per_connection: Option<f64>,
    pub(crate) server_cpu_user_s: f64,
    pub(crate) server_cpu_system_s: f64,
    pub(crate) sockstat: Sockstat,
    pub(crate) file_nr: FileNr,
    pub(crate) dropped: Option<u64>,
    /// Where: `ring buffer`, `ring buffer: crossing`, `not understood`, or a hook.
    #[serde(default)]
    pub(crate) dropped_by: BTreeMap<String, u64>,
    pub(crate) suppressed: Option<u64>,
}

/// The first crossing of one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ActCrossing {
    pub(crate) level: Level,
    pub(crate) connections: Option<u64>,
    pub(crate) expected: Option<u64>,
    pub(crate) error_percent: Option<f64>,
    pub(crate) pages: Option<u64>,
    pub(crate) limit_pages: u64,
    pub(crate) hook: Option<String>,
    #[serde(alias = "precision")]
    pub(crate) resolution: Option<Resolution>,
}

/// What one slab cache holds for a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlabShare {
    pub(crate) cache: String,
    pub(crate) objects_per_connection: f64,
    pub(crate) bytes_per_connection: f64,
}

/// The whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reproduction {
    /// `uname -r`
    pub(crate) kernel: String,
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) connections: u64,
    pub(crate) acts: Vec<Act>,
    /// Of the last act.
    pub(crate) ramp_s: f64,
    /// Of the last act: idle connections.
    pub(crate) server_user_bytes_per_connection: Option<f64>,
    /// Of the last act, both ends of a connection.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    /// Events lost, of all acts.
    pub(crate) dropped: Option<u64>,
    /// Are all settings as they were before?
    pub(crate) restored: bool,
    pub(crate) elapsed_s: f64,
    /// Every target that was missed, in words.
    pub(crate) missed: Vec<String>,
    /// What was not counted without a target being missed, with its share, in words.
    #[serde(default)]
    pub(crate) uncounted: Vec<String>,
}

impl Act {
    /// Every target that this act missed.
    pub(super) fn missed(&self, connections: u64) -> Vec<String> {
        let mut missed = match self.name {
            ActName::Default => self.missed_crossing(),
            ActName::Cure | ActName::Idle => self.missed_hold(connections),
        };
        missed.extend(self.missed_events());
        missed
    }

    /// Events without which the act can be wrong: a crossing, or one that could have been one.
    fn missed_events(&self) -> Option<String> {
        let Some(dropped) = self.dropped else {
            return Some("the server does not say how many events were lost".into());
        };
        let by = |name: &str| self.dropped_by.get(name).copied().unwrap_or(0);
        let crossings = by(LOST_CROSSINGS);
        if crossings > 0 {
            return Some(format!("{} crossings were lost", grouped(crossings)));
        }
        let told: u64 = self.dropped_by.values().sum();
        let unknown = by(NOT_UNDERSTOOD) + dropped.saturating_sub(told);
        (unknown > 0).then(|| format!("{} events were lost", grouped(unknown)))
    }

    /// What was not counted, or not shown, although it happened.
    pub(super) fn uncounted(&self) -> Vec<String> {
        let is_missed = |name: &str| matches!(name, LOST_CROSSINGS | NOT_UNDERSTOOD);
        let lost = self.dropped_by.iter().filter(|(name, count)| !is_missed(name) && **count > 0);
        lost.map(|(name, count)| self.uncounted_of(name, *count)).collect()
    }

    fn uncounted_of(&self, name: &str, count: u64) -> String {
        let refused = self.refused.as_ref();
        let (what, counted) = match name {
            "ring buffer" => ("events were counted and not shown", None),
            "tp_btf/sock_exceed_buf_limit" => {
                ("refusals not counted", refused.map(Refused::refusals))
            }
            "tp_btf/kfree_skb" => {
                ("dropped segments not counted", refused.and_then(|it| it.dropped_skb))
            }
            _ => return format!("{} calls of {name} not seen", grouped(count)),
        };
        let Some(counted) = counted else { return format!("{} {what}", grouped(count)) };
        let all = counted + count;
        let share = expect::as_f64(count) / expect::as_f64(all.max(1)) * 100.0;
        format!("{} of {} {what} ({share:.3} %)", grouped(count), grouped(all))
    }

    fn missed_crossing(&self) -> Vec<String> {
        match (self.connections, self.expected) {
            (Some(at), Some(expected)) if at.abs_diff(expected) <= self.tolerance => Vec::new(),
            (Some(at), Some(expected)) => vec![format!(
                "high was crossed at connection {}, expected at {} ± {}",
                grouped(at),
                grouped(expected),
                grouped(self.tolerance),
            )],
            (None, Some(expected)) => vec![format!(
                "no crossing of high was reported, expected at connection {}",
                grouped(expected)
            )],
            (_, None) => vec!["the client's plan does not reach high".into()],
        }
    }

    fn missed_hold(&self, connections: u64) -> Vec<String> {
        let mut missed = Vec::new();
        if self.held != connections {
            missed.push(format!(
                "{} of {} connections were held",
                grouped(self.held),
                grouped(connections)
            ));
        }
        if self.answered != self.sampled || self.sampled == 0 {
            missed.push(format!(
                "{} of {} connections that were asked answered",
                grouped(self.answered),
                grouped(self.sampled)
            ));
        }
        missed
    }

    pub(super) fn crossing(&self, wanted: Level) -> Option<&ActCrossing> {
        self.crossings.iter().find(|crossing| crossing.level == wanted)
    }
}

impl ActCrossing {
    /// `connection 990,643, expected 990,613 (0.003 %)`
    pub(super) fn told(&self) -> String {
        let at = self
            .connections
            .map_or("not reported".into(), |at| format!("connection {}", grouped(at)));
        match (self.expected, self.error_percent) {
            (Some(expected), Some(error)) => {
                format!("{at}, expected {} ({error:.3} %)", grouped(expected))
            }
            (Some(expected), None) => format!("{at}, expected {}", grouped(expected)),
            (None, _) => format!("{at}, none expected"),
        }
    }
}

impl Reproduction {
    /// Puts a run together, and finds out what it missed.
    pub(super) fn new(
        host: (String, u64, u64),
        connections: u64,
        acts: Vec<Act>,
        restored: bool,
        elapsed_s: f64,
    ) -> Self {
        let mut missed: Vec<String> = acts
            .iter()
            .enumerate()
            .flat_map(|(index, act)| {
                act.missed(connections)
                    .into_iter()
                    .map(move |text| format!("act {}: {text}", index + 1))
            })
            .collect();
        if !restored {
            missed.push("a kernel setting is not as it was before".into());
        }
        let uncounted = acts.iter().enumerate().flat_map(|(index, act)| {
            act.uncounted().into_iter().map(move |text| format!("act {}: {text}", index + 1))
        });
        let uncounted = uncounted.collect();
        let last = acts.last();
        Self {
            kernel: host.0,
            cpus: host.1,
            memory_bytes: host.2,
            connections,
            ramp_s: last.map_or(0.0, |act| act.ramp_s),
            server_user_bytes_per_connection: last
                .and_then(|act| act.server_user_bytes_per_connection),
            kernel_bytes_per_connection: last.and_then(|act| act.kernel_bytes_per_connection),
            dropped: acts.iter().map(|act| act.dropped).sum(),
            acts,
            restored,
            elapsed_s,
            missed,
            uncounted,
        }
    }
}

/// Three decimals are as much as anybody reads.
#[must_use]
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A sum, by connection.
#[must_use]
pub(super) fn per_connection(total: u64, connections: u64) -> f64 {
    rounded(expect::as_f64(total) / expect::as_f64(connections.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first act of the run that is kept, with these events lost.
    fn act(dropped: &[(&str, u64)]) -> Act {
        let kept = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/reproduction/run.jsonl");
        let kept = std::fs::read_to_string(kept).unwrap();
        let ReproduceRecord::Reproduction(run) =
            serde_json::from_str(kept.lines().last().unwrap()).unwrap()
        else {
            panic!("the last line is of another kind")
        };
        let mut act = run.acts[0].clone();
        act.dropped_by = dropped.iter().map(|(name, count)| ((*name).into(), *count)).collect();
        act.dropped = Some(act.dropped_by.values().sum());
        act
    }

    #[test]
    fn a_refusal_that_was_not_counted_is_told_and_does_not_fail() {
        let mut act = act(&[("tp_btf/sock_exceed_buf_limit", 4), ("ring buffer", 2)]);
        let refused = act.refused.as_mut().unwrap();
        let others = refused.refusals() - refused.high_send;
        refused.high_send = 99_043 - others;
        assert_eq!(act.missed(1_024_000), Vec::<String>::new());
        assert_eq!(
            act.uncounted(),
            ["2 events were counted and not shown", "4 of 99,047 refusals not counted (0.004 %)"]
        );
        let run = Reproduction::new((String::new(), 2, 0), 1_024_000, vec![act], true, 1.0);
        assert_eq!(run.missed, Vec::<String>::new());
        assert!(run.uncounted[1].starts_with("act 1: 4 of 99,047 refusals"), "{run:?}");
    }

    #[test]
    fn a_crossing_that_was_lost_fails() {
        let lost = act(&[(LOST_CROSSINGS, 1), ("tp_btf/kfree_skb", 1)]);
        assert_eq!(lost.missed(1_024_000), ["1 crossings were lost"]);
        assert!(lost.uncounted()[0].contains("dropped segments not counted"), "{lost:?}");
        let unknown = act(&[(NOT_UNDERSTOOD, 3)]);
        assert_eq!(unknown.missed(1_024_000), ["3 events were lost"]);
        let mut untold = act(&[]);
        untold.dropped = Some(2);
        assert_eq!(untold.missed(1_024_000), ["2 events were lost"]);
        untold.dropped = None;
        assert_eq!(untold.missed(1_024_000).len(), 1);
    }
}
