//! The epoll server. Knows nothing of eBPF, of the command line, and of how anything is printed.
//!
//! One thread a worker, each with a descriptor table of its own: so one process holds more connections than the limit of
//! open files allows one table, and no table's lock is shared. Each worker has its own listener in one SO_REUSEPORT group
//! and its own epoll; an idle connection costs no user-space memory beyond a bit.
//!
//! - [`plan`]: how many workers, and what each can hold.
//! - `bind`: the listeners.
//! - [`server`]: start, look, stop.
//! - `worker`: the loop; `accept`: what each error of accept means.
//! - `room`, `group`: which workers get new connections; `slots`: the most that are held.
//! - `connection`: reading, answering, ending, with `partial` for what is half done; `http`, `response`: what is asked and
//!   what is answered.
//! - `bits`, `timers`, `counters`, `shared`: what these are made of.

mod accept;
mod bind;
mod bits;
mod connection;
mod counters;
mod error;
mod group;
mod http;
mod partial;
mod response;
mod room;
pub mod server;
mod shared;
mod slots;
mod timers;
mod worker;

pub use bind::with_port;
pub use counters::Snapshot;
pub use error::{Blame, ServeError};
pub use server::{Config, Running, Server};
pub use shared::{Ending, Notice};
