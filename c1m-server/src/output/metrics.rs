//! Records as metrics for Prometheus: tables of what is exported. Asks nothing of the kernel: a page is a function of what was taken before.
//!
//! What is not known has no sample. It is never 0.

mod counts;
mod limits;
mod seen;
mod table;

pub use self::{counts::CALL_ERRORS, seen::Seen, table::tables};
