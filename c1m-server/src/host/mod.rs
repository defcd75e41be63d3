//! (stub)
pub mod guard;
pub mod meminfo;
pub mod netstat;
pub mod slabinfo;
pub mod sysctl;
