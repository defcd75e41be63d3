//! The server with real sockets on loopback: in this process where its state matters, as a program where its limits,
//! signals and output do.

mod addresses;
mod capacity;
mod ends;
#[path = "../figures/mod.rs"]
mod figures;
mod http;
mod lifecycle;
mod metrics;
#[path = "../namespace/mod.rs"]
mod namespace;
mod output;
#[path = "../schema/mod.rs"]
mod schema;
#[path = "../scrape/mod.rs"]
mod scrape;
mod support;
mod verdict;
