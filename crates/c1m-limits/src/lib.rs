//! What can stop a connection. Pure: takes readings, answers what they mean; no I/O, no clock, no unsafe.
//!
//! - [`crossing`]: when usage of tcp_mem went past a limit.
//! - [`pressure`]: how long memory pressure has lasted.
//! - [`reading`], [`catalog`]: every limit, with its usage beside its ceiling.
//! - [`evidence`]: what was counted.
//! - [`forecast`]: the connection and the time at which each is hit.
//! - [`footprint`]: the memory that connections take.
//! - [`walls`]: before a run, what it needs of each limit and where each stops it; [`configured`]: configured settings, and their assessment.
//! - [`raise`]: a remedy never takes away what is set.
//! - [`verdict`], by the rules in `rules`: which limit it was; `advice`: what to do about it.

mod advice;
pub mod case;
pub mod catalog;
pub mod configured;
pub mod crossing;
pub mod evidence;
pub mod footprint;
pub mod forecast;
pub mod pressure;
pub mod raise;
pub mod reading;
mod rules;
pub mod verdict;
pub mod walls;
