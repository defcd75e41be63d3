//! c1m-server: holds a million TCP connections, and says which kernel limit was hit, when, and by what.
//!
//! The map of this crate, one sentence a module:
//!
//! - [`address`]: addresses as people type them.
//! - [`cli`]: every flag, in one place.
//! - [`command`]: one file a command; the only place where the rooms below meet.
//! - [`escape`]: text of others, made harmless for terminals and logs.
//! - [`exporter`]: one page over HTTP, for Prometheus.
//! - [`serve`]: the epoll server; knows nothing of eBPF.
//! - [`trace`]: kernel to Rust values: BTF offsets, the eBPF object, ring buffer, counters; prints nothing.
//! - `http`: request heads as RFC 9112 has them, and dates.
//! - [`limits`]: what can stop a connection; pure, without I/O, clock or unsafe.
//! - [`host`]: what /proc, /sys and sysctl say, and the guard that puts back what was changed.
//! - [`output`]: records and how they are printed; asks nothing of the kernel.
//! - [`sources`]: addresses that connections come from, as people type them.
//! - [`sys`]: the system calls that neither std nor socket2 wraps, shared with the client.
//! - [`units`]: the numbers that people type: `1m`, `7.53K`, `60s`.

pub mod cli;
pub mod command;
pub mod output;
pub mod serve;
