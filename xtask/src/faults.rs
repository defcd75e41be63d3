//! The fault matrix: trips each limit on purpose, with real sockets on a real kernel, and holds the verdict against it.
//!
//! - [`cli`], [`run`]: the flags, and the runs from first to last.
//! - [`guests`]: the same on other kernels.
//! - [`catalog`]: every fault in one table; [`drive`]: how each is tripped.
//! - [`fixture`], [`program`]: what a driver has in its hands, and c1m-server as a program.
//! - [`other`]: servers of others, beside which c1m only observes.
//! - [`judge`]: what is right. Pure.
//! - [`record`], [`report`]: what is printed, for programs and for people.

mod catalog;
pub(crate) mod cli;
mod drive;
mod fixture;
mod guests;
mod judge;
mod other;
mod program;
mod record;
mod report;
mod run;

pub(crate) use cli::Args;
pub(crate) use other::nginx;
pub(crate) use record::FaultsRecord;
pub(crate) use run::main;
