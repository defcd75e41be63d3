//! The server with real sockets on loopback: in this process where its state matters, as a program where its limits,
//! signals and output do.

mod addresses;
mod capacity;
mod ends;
mod http;
mod lifecycle;
mod metrics;
mod output;
mod support;
mod verdict;
