//! c1m-client: opens a million TCP connections from many addresses, and does to a server what hurts
//! it.
//!
//! The map of this crate, one sentence a module:
//!
//! - [`cli`]: every flag, in one place.
//! - `manual`: what the manual page has besides the flags.
//! - [`target`]: where they go: an address, and one port or several.
//! - [`tuple`]: the plan of 4-tuples: sources x ports x destinations, exact and without searching.
//! - [`shard`]: which part of a run this host has.
//! - [`start`]: when it begins, so that hosts begin together.
//! - [`ramp`]: how fast, and by how many workers.
//! - [`pin`]: how many whole pages of tcp_mem each connection holds, and how long a response does
//!   that.
//! - [`workload`]: what each connection asks for: the opening request, samples and heartbeats.
//! - [`table`]: the connections of one worker, a few bytes each.
//! - [`worker`]: one epoll thread with its own descriptor table.
//! - [`prepare`]: everything that can be refused, refused before the first connection.
//! - [`run`]: starts the workers, takes their reports, and says when each part of the run begins.
//! - [`record`]: what `--json` prints.
//! - [`metrics`]: what is counted while it runs, for Prometheus.
//! - [`summary`]: what came of it: histograms, counts, errors by name.
//! - [`require`]: what a run has to reach, and whether it did.
//! - [`merge`]: makes one result of those of all parts.
//! - [`verdict`]: which limit kept connections from being opened.
//! - [`show`]: lines for people, JSON lines, and the live line of a terminal.

pub mod buckets;
pub mod cli;
mod manual;
pub mod merge;
pub mod metrics;
pub mod pin;
pub mod prepare;
pub mod ramp;
pub mod record;
pub mod require;
pub mod run;
pub mod shard;
pub mod show;
pub mod start;
pub mod summary;
pub mod table;
pub mod target;
pub mod tuple;
pub mod verdict;
pub mod worker;
pub mod workload;
