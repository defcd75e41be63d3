//! What the tests, the bench and the faults share. No program that is shipped depends on it.
//!
//! - [`wait`]: how long anything may take without a step forward.
//! - [`child`]: programs that are started and waited for; [`program`]: those that print JSON records.
//! - [`net`]: connections on loopback; [`namespace`]: a test in a network namespace of its own; [`nft`]: connection tracking.
//! - [`host`]: settings of the kernel, which are put back, and its counters; [`cgroup`]: a memory cgroup.
//! - [`trip`]: how a limit is met with real sockets.
//! - [`retry`]: tests whose figures are a whole host's.
//! - [`usage`]: command lines with hostile values.
//! - [`schema`], [`scrape`], [`figures`]: JSON lines, metrics and pages that are compared with what they must say.

pub mod cgroup;
pub mod child;
pub mod figures;
pub mod host;
pub mod namespace;
pub mod net;
pub mod nft;
pub mod program;
pub mod retry;
pub mod schema;
pub mod scrape;
pub mod trip;
pub mod usage;
pub mod wait;

pub use child::{Child, Outcome};
pub use host::{Settings, Skip};
pub use program::Program;
pub use retry::undisturbed;
pub use wait::{PATIENCE, eventually, until};
