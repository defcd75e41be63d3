//! How each fault is tripped: one file a kind of limit.
//!
//! A driver proves by the kernel's own counters that its fault is there, or says that it was not tripped.

pub(crate) mod buffers;
pub(crate) mod cgroup;
pub(crate) mod closed;
pub(crate) mod conntrack;
pub(crate) mod files;
pub(crate) mod orphans;
pub(crate) mod ports;
pub(crate) mod queues;
pub(crate) mod quiet;
pub(crate) mod tcp_mem;
