//! What can stop a connection. Pure: takes samples and observations, answers what they mean; no I/O, no clock, no unsafe.
//!
//! - [`limits`]: one file for each limit, with all that c1m knows of it, and their registry. What follows goes over it.
//! - [`reading`]: a sample, and one limit's usage beside its ceiling; [`forecast`]: the connection and the time at which each is hit.
//! - [`evidence`]: what was observed; [`verdict`]: which limit it was, and what to do about it; [`client`]: the same by the load client's own
//!   errors.
//! - [`preflight`]: before a run, what it needs of each limit and where each stops it; [`footprint`]: the memory that connections take.
//! - [`configured`]: configured settings, and their assessment; [`raise`]: a remedy never takes away what is set.
//! - [`crossing`]: when usage of tcp_mem went past a limit; [`pressure`]: how long memory pressure has lasted.
//! - [`page`]: the limits as documentation.

pub mod case;
pub mod client;
pub mod configured;
pub mod crossing;
pub mod evidence;
mod finding;
pub mod footprint;
pub mod forecast;
mod history;
pub mod limits;
pub mod page;
pub mod preflight;
pub mod pressure;
pub mod raise;
pub mod reading;
pub mod verdict;
