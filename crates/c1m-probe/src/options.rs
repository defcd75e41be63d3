//! What a caller decides about tracing.

use std::path::PathBuf;

use crate::sample::Place;

/// What to trace, and with which object.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections to these local ports are counted, at most [`c1m_ebpf::WATCHED_PORTS`]; none: to
    /// every port.
    pub ports: Vec<u16>,
    /// Inode of the network namespace in which they are counted; `None`: in each.
    pub netns: Option<u32>,
    /// Where connections that are there already are counted first; `Err`: they are not, and why.
    pub present: Result<Vec<Place>, String>,
    /// Instead of the object built in.
    pub object: Option<PathBuf>,
    /// Tracepoints and functions that are not to be hooked.
    pub without: Vec<String>,
    /// Of the ring buffer, a power of two and at least a page; `None`: as the object has it.
    pub ring_bytes: Option<u32>,
    /// 0: the cause of a refusal; 1: with the verifier's last lines; 2: with all of them.
    pub verbosity: u8,
}
