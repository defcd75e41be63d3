//! What the running host says of itself, /proc and /sys as values; and the guard that puts back
//! what was changed.

pub mod cgroup;
pub mod conntrack;
pub mod cpus;
pub mod descriptors;
pub mod files;
pub mod guard;
mod inet_diag;
pub mod listeners;
pub mod meminfo;
pub mod namespaces;
pub mod netstat;
pub mod ports;
pub mod process;
pub mod settings;
pub mod slab;
pub mod slabinfo;
pub mod sock_diag;
pub mod sockstat;
pub mod sysctl;
pub mod target;
pub mod task;
pub mod vmstat;
