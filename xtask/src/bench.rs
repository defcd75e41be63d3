//! The bench: what c1m exists for, in figures, each held against a baseline or a peer in the same run.
//!
//! - [`cli`], [`run`]: the flags, and the run from first to last.
//! - [`catalog`]: every figure in one table; [`board`], [`series`]: what was measured, and what it comes to.
//! - [`child`], [`ends`], [`host`]: programs, both ends of many connections, and what the kernel says of them.
//! - [`floor`]: accept4 and connect with nothing in them; [`nginx`]: a peer.
//! - [`rounds`], [`look`], [`trace`], [`requests`]: what is measured.
//! - [`curve`]: how cost grows.
//! - [`record`], [`report`]: what is told, to programs and to people.

mod board;
mod catalog;
mod child;
mod cli;
mod curve;
mod ends;
pub(crate) mod floor;
mod host;
mod look;
mod nginx;
mod record;
mod report;
mod requests;
mod rounds;
mod run;
mod series;
mod trace;

pub(crate) use cli::Args;
pub(crate) use record::BenchRecord;
pub(crate) use run::main;
