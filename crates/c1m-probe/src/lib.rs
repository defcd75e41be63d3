//! Kernel to Rust values: what the running kernel lets us attach, what its programs report, and
//! what they count. Prints nothing.
//!
//! - [`layout`]: what the programs need of them: offsets, argument positions, numbers of reasons.
//! - [`plan`]: what a probe is, and a method to it.
//! - [`probes`]: the table of all probes.
//! - [`calls`]: which number is which system call.
//! - `methods`: takes the best method to each probe, and says why a better one is refused.
//! - [`attach`]: loads the object, and holds what is attached.
//! - [`decode`]: an entry of the ring buffer as a Rust value.
//! - [`snapshot`]: every socket of this moment, by iterators.
//! - [`sockets`]: snapshots of what `--netns` names; without iterators by sock_diag and /proc.
//! - [`holders`]: a snapshot grouped by what holds the memory.
//! - [`sample`]: usage and memory pressure at a time of our choice; what was there before.
//! - [`lost`]: what did not reach us.
//! - [`refused`]: counters as what they mean, each from the best hook that counts it.
//! - [`counters`]: what is counted in the kernel, read without a system call.

use std::{io, path::PathBuf};

use c1m_host::namespaces::NamespaceError;
use thiserror::Error;

pub mod attach;
pub mod calls;
pub mod counters;
pub mod decode;
pub mod holders;
pub mod layout;
mod log;
pub mod lost;
mod methods;
mod options;
pub mod plan;
pub mod probes;
pub mod refused;
pub mod sample;
pub mod snapshot;
pub mod sockets;

pub use attach::{CAPABILITIES, Tracer};
pub use options::Options;

/// The eBPF object that is built in.
#[must_use]
pub fn object() -> &'static [u8] {
    attach::OBJECT
}

/// Why tracing can't start: one cause and one remedy.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error(
        "tracing needs {missing}, which this process does not have: start it with sudo, or give it these capabilities"
    )]
    NotPermitted { missing: String },
    #[error(
        "tracing needs CAP_BPF and CAP_PERFMON of the host, and this process has those of its own user namespace (a rootless container) alone: start \
         it on the host with sudo"
    )]
    UserNamespace,
    #[error(
        "tracing needs the kernel's type information, and {path} can't be read ({error}): use a kernel built with \
         CONFIG_DEBUG_INFO_BTF; a server without --trace runs on this one"
    )]
    NoBtf { path: &'static str, error: io::Error },
    #[error(
        "the kernel's type information in {path} is not understood ({error}): please report it, with the kernel's version"
    )]
    BadBtf { path: &'static str, error: c1m_btf::BtfError },
    #[error(
        "this kernel's types have no `{0}`, which tracing reads: c1m needs Linux 5.10 or later"
    )]
    NoMember(&'static str),
    #[error(
        "can't read the eBPF object {path} ({error}): check --ebpf-object, or leave it out to use the one built in"
    )]
    Object { path: PathBuf, error: io::Error },
    #[error(
        "the kernel refused the eBPF maps or the object is not c1m's ({0}): with --ebpf-object, build it by `cargo xtask build-ebpf`"
    )]
    Load(String),
    #[error("no hook could be attached: {0}")]
    NoHook(String),
    #[error(
        "another network namespace takes eBPF iterators, and there are none ({0}): use --netns \
         self, or start it with sudo"
    )]
    OtherNamespace(String),
    #[error(
        "the sockets can't be looked at: no eBPF iterators, since {why}, and no sock_diag \
         ({error}): start it with sudo, outside of a sandbox"
    )]
    NoSockets { why: String, error: io::Error },
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("tracing failed: {0}")]
    Io(#[from] io::Error),
}

/// An error with its causes, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
