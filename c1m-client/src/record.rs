//! What `--json` prints: one record a line, each inside [`c1m_record::Line`].

use std::collections::BTreeMap;

use c1m_record::{Verdict, Warning};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How connections end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// SO_LINGER with 0 seconds from the start, so that it holds after a kill as well
    Reset,
    /// The usual close, which leaves TIME_WAIT on this side
    Fin,
}

/// What c1m-client reports, in this order; `progress` once a second during the ramp, `waiting` and `lost` when there is something to say,
/// `sample` when asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ClientRecord {
    Plan(Box<Plan>),
    Progress(Progress),
    Waiting(Waiting),
    Lost(Lost),
    Ramped(Ramped),
    Sample(Sample),
    /// Something that the user should know while it runs, such as lines that are missing in this output.
    Warning(Warning),
    /// Once, directly before the summary.
    Verdict(Verdict),
    Summary(Box<Summary>),
}

/// What will be done, before the first connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    pub target: String,
    pub connections: u64,
    /// Connections that the 4-tuples suffice for.
    pub capacity: u64,
    pub sources: u64,
    /// Destination ports.
    pub destinations: u64,
    /// Source ports of one source address to one destination.
    pub ports_per_source: u64,
    pub workers: usize,
    /// Connections that are being opened at the same time, at most, over all workers.
    pub in_flight: u64,
    /// `null` without `--pin`
    pub pin: Option<Pin>,
    /// Where metrics are handed out; `null` without `--metrics-addr`.
    pub metrics: Option<String>,
    /// `null`: the whole run.
    pub shard: Option<Shard>,
    pub asked: Asked,
}

/// Which part of a run this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shard {
    /// Counted from 0.
    pub index: u64,
    pub of: u64,
    /// Connections of all parts together.
    pub connections: u64,
    /// The connection of all parts that is this part's first one, counted from 0.
    pub first_connection: u64,
    /// Source addresses of all parts together; `null`: each host takes its own.
    pub sources: Option<u64>,
}

/// What the flags say of the whole run, the same for all parts of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asked {
    /// As given; none: those of the host, or of 127.0.0.0/8 for a loopback target.
    pub source: Vec<String>,
    pub per_source: u64,
    /// The path that each connection asks for first; `null` with `--idle` and with `--pin`.
    pub request: Option<String>,
    /// The path that samples and heartbeats ask for; `null` without them.
    pub check: Option<String>,
    /// Answers stay unread.
    pub unread: bool,
    pub pin_bytes: Option<u64>,
    /// New connections per second, of all parts together.
    pub rate_per_s: Option<u64>,
    /// Connections of all parts together.
    pub sample: Option<u64>,
    pub heartbeat_s: Option<f64>,
    /// `null`: until a signal.
    pub hold_s: Option<f64>,
    pub timeout_s: f64,
    pub give_up_s: f64,
    pub end: End,
    /// RFC 3339, UTC, microseconds.
    pub start_at: Option<String>,
}

/// What `--pin` makes the connections hold, as measured and planned before the ramp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pin {
    /// The average that was asked for.
    pub bytes_per_connection: u64,
    /// What the kernel charges for one skb besides its payload, measured.
    pub overhead_bytes: u64,
    pub plan: Vec<PinStep>,
    /// Pages of all connections together.
    pub planned_pages: u64,
}

/// Connections that hold the same number of pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PinStep {
    pub pages: u64,
    /// Length of the whole response; 0 for those that leave nothing unread.
    pub response_bytes: u64,
    pub connections: u64,
}

/// Once a second during the ramp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Progress {
    pub established: u64,
    pub answered: u64,
    pub failed: u64,
    /// Established since the last such record.
    pub rate_per_s: f64,
}

/// Nothing answers: after some time of that, and again each time that it has lasted twice as long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Waiting {
    /// Nothing has come from the server for so long.
    pub unanswered_s: f64,
    /// Connections that are being opened; `null` while a sample is asked.
    pub in_flight: Option<u64>,
    /// Connections that are neither established nor given up; `null` while a sample is asked.
    pub left: Option<u64>,
    /// `null`: the server is on another host, or the kernel does not say.
    pub accept_queue: Option<AcceptQueue>,
    /// The run ends when nothing has come for so long.
    pub give_up_s: f64,
}

/// The accept queues of the listeners on the target's ports, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcceptQueue {
    pub listeners: u64,
    /// Listeners whose queue is full: the kernel drops handshakes to them.
    pub full: u64,
    /// Connections that wait for accept.
    pub queued: u64,
    /// A queue is full when more than its part of this wait.
    pub most: u64,
}

/// Established connections were ended by the peer or the network. At most once a second, and once before the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lost {
    /// Since the last such record.
    pub connections: u64,
    /// Connections that are left.
    pub held: u64,
    /// By name, such as `reset by peer`.
    pub reasons: BTreeMap<String, u64>,
}

/// Why a run ended. Later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The time of `--hold` was over.
    Hold,
    /// A signal.
    Signal,
    /// No connection was established: there was nothing to hold.
    NoneConnected,
    /// Every connection was lost.
    AllLost,
    /// Nothing answered for the time of `--give-up`.
    NoAnswer,
    /// A worker could not go on.
    Failure,
}

/// Every connection was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ramped {
    pub established: u64,
    pub answered: u64,
    pub failed: u64,
    pub ramp_s: f64,
    /// Connections established a second, from the first planned instant to the last one that was established; `null`: fewer than two were.
    pub rate_per_s: Option<f64>,
    pub connect_us: Latency,
    pub first_byte_us: Latency,
    /// `null` without `--pin`
    pub pin: Option<Accounted>,
}

/// Planned pages beside those that the kernel accounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accounted {
    /// Pages of the connections whose answer has come.
    pub planned_pages: u64,
    /// By how much `mem` in /proc/net/sockstat has changed since before the ramp. It is the whole host's.
    pub accounted_pages: i64,
    /// How far the two may differ without meaning anything: what the CPUs may keep apart from the kernel's counter, before
    /// the ramp and after it.
    pub tolerance_pages: u64,
}

/// A sample of the held connections was asked for a response.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sample {
    pub asked: u64,
    /// Right, complete, and within `--timeout`.
    pub answered: u64,
    /// Answered within `--timeout`, but with a status other than 2xx, a body of another length, cut off, or not by RFC 9112.
    pub wrong: u64,
    /// Neither: timed out, lost with the connection, or not sent. `asked` is the sum of the three.
    pub missed: u64,
    /// From the order to ask until the last one was through.
    pub took_s: f64,
    /// From each request until its answer was complete; of those that were answered so.
    pub latency_us: Latency,
}

/// The last line: the result, of a run, of one part of it, or of all parts merged. It stands for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// As in the first line. Merged: of all parts together, with the largest `overhead_bytes` of `pin`.
    pub plan: Plan,
    /// RFC 3339, UTC, microseconds: when the first connection was due. Merged: of the part that began first.
    pub started_at: String,
    /// `null`: not merged.
    pub merged: Option<Merged>,
    /// Established in all.
    pub connected: u64,
    /// When the end began, before the client closed anything itself.
    pub held_at_end: u64,
    /// Established, and ended by the peer or the network before the end began.
    pub lost: u64,
    /// Merged: the worst one of the parts.
    pub ended_by: EndedBy,
    /// Connections whose first byte came within `--timeout`, before the end began.
    pub answered: u64,
    /// Connections that could not be established.
    pub failed: u64,
    /// By name, such as `connect ECONNREFUSED`. A name can count more than once for one connection, and a connection can
    /// be established in spite of one, on its next 4-tuple.
    pub errors: BTreeMap<String, u64>,
    /// `null`: none was asked for, or the run ended before.
    pub sample: Option<Sample>,
    /// `null` without `--heartbeat`
    pub heartbeats: Option<Heartbeats>,
    pub connect_us: Latency,
    pub first_byte_us: Latency,
    /// `null`: the run ended before every connection was tried. Merged: from the first part's start to the end of the last part's ramp.
    pub ramp_s: Option<f64>,
    /// From the start to the last connection that was established; `null`: none was. Merged: from the first part's start.
    pub last_established_s: Option<f64>,
    /// Connections established a second, until `last_established_s`; `null`: fewer than two were.
    pub rate_per_s: Option<f64>,
    /// Merged: from the first part's start to the last part's end.
    pub elapsed_s: f64,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub histograms: Histograms,
    /// One for each `--require`, in this order.
    pub requirements: Vec<Requirement>,
    /// Lines of this output that were dropped because nobody read them in time.
    #[serde(default)]
    pub lines_dropped: u64,
}

/// What a merged result is of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Merged {
    pub shards: u64,
    /// From the first part's start to the last part's, by the clocks of their hosts.
    pub started_apart_s: f64,
}

/// All that was measured, in microseconds: HdrHistogram's format V2, deflated, in base64. Histograms of several hosts add up without loss.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Histograms {
    pub connect: String,
    pub first_byte: String,
    /// `null` as `sample` is.
    pub sample: Option<String>,
    /// `null` as `heartbeats` is.
    pub heartbeat: Option<String>,
}

/// A `--require`, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Requirement {
    /// As given.
    pub require: String,
    pub metric: String,
    /// `==`, `!=`, `<`, `<=`, `>` or `>=`
    pub operator: String,
    pub threshold: f64,
    /// Of `threshold` and `actual`.
    pub unit: Unit,
    /// `null`: unknown, and so not held.
    pub actual: Option<f64>,
    /// Why it is unknown.
    pub unknown: Option<String>,
    pub held: bool,
}

/// What a requirement counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Count,
    Percent,
    Ns,
    Us,
    Ms,
    S,
}

/// Requests at planned instants on connections that were held.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Heartbeats {
    /// Planned instants of all connections that were held when the hold began, those that are gone included, up to the planned
    /// end of the hold; that includes what was not sent because the one before is unanswered. Where the run ends before, or
    /// the hold has no end: up to the end of the run, without what could still be answered within `--timeout` then.
    pub due: u64,
    /// Right, complete, and within `--timeout` of the planned instant.
    pub answered: u64,
    /// Of the answered ones, those that took longer than from one heartbeat to the next.
    pub late: u64,
    /// Answered within `--timeout`, but with a status other than 2xx, a body of another length, cut off, or not by RFC 9112.
    pub wrong: u64,
    /// Neither: timed out, or the connection was gone. `due` is the sum of `answered`, `wrong` and `missed`.
    pub missed: u64,
    /// From the planned instant to the end of the answer: what a heartbeat waits behind a late one counts.
    pub latency_us: Latency,
}

/// A distribution of times, microseconds. With `--rate` those of the ramp count from the planned time of each connection, so that an opening that had
/// to wait for room (`--in-flight`) is as late as it was.
///
/// Percentiles are of `count` and `unanswered` together. What was not answered counts as longer than all that was, so a percentile
/// that falls among it is `null`: it is not known. Without any of both all of them are `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Latency {
    /// Those that have a time.
    pub count: u64,
    /// Those without a right answer within `--timeout`. Of `connect_us`: connections that were not established, whether they
    /// were refused, timed out, or could not be asked for.
    pub unanswered: u64,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub max: Option<u64>,
}
