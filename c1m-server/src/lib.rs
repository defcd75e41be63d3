//! c1m-server: holds a million TCP connections, and says which kernel limit was hit, when, and by what.
//!
//! The map of this crate, one sentence a module. A command is a folder, or a file where it is short: it takes parsed flags, opens what it
//! needs, runs its loop, and ends with a value or an error that has an exit code.
//!
//! - [`cli`]: every flag, in one place.
//! - [`run`]: the command without a name, the server with its reporter; [`serve`]: the epoll server itself, which knows nothing of eBPF.
//! - [`watch`], [`holders`], [`states`], [`doctor`], [`report`]: the other commands.
//! - [`diagnose`]: observations and samples of a running target, and the verdict that they come to; for the server and for `watch`.
//! - [`output`]: the live view, and records as metrics; asks nothing of the kernel.
//! - [`exit`]: the exit code of an error.
//! - `metrics`: the page that a running command serves.
//! - `ticks`: the interval and the end that a command waits for.

pub mod cli;
pub mod diagnose;
pub mod doctor;
pub mod exit;
pub mod holders;
mod metrics;
pub mod output;
pub mod report;
pub mod run;
pub mod serve;
pub mod states;
mod ticks;
pub mod watch;
