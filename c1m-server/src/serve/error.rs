//! Why a server does not start, or does not go on.

use std::{io, net::SocketAddr, time::Duration};

use c1m_preflight::plan::PlanError;
use c1m_sys::errno;
use c1m_text::address::needs_scope;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ServeError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("--keepalive {}s: TCP_KEEPIDLE takes 1s to 32767s", .0.as_secs_f64())]
    Keepalive(Duration),
    // Not a `source`: the message says it already.
    #[error("cannot listen on {address}: {}{}", errno::of(error), bind_advice(address, error))]
    Bind { address: SocketAddr, error: io::Error },
    /// A thread or a descriptor could not be had.
    #[error("cannot start the workers: {0} (see `ulimit -u` and `ulimit -n`)")]
    Start(io::Error),
    /// Something that should not happen did.
    #[error("a worker failed: {0}")]
    Internal(io::Error),
}

/// Who can do something about an error: decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Usage,
    Environment,
    Internal,
}

impl ServeError {
    pub(super) fn bind(address: SocketAddr, error: io::Error) -> Self {
        Self::Bind { address, error }
    }

    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Plan(error) if error.is_usage() => Blame::Usage,
            Self::Keepalive(_) => Blame::Usage,
            Self::Plan(_) | Self::Bind { .. } | Self::Start(_) => Blame::Environment,
            Self::Internal(_) => Blame::Internal,
        }
    }
}

fn bind_advice(address: &SocketAddr, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            " (something listens there already: stop it, or use --listen with another port)"
        }
        Some(libc::EADDRNOTAVAIL) if needs_scope(address.ip()) => {
            " (this interface does not have the address, or still looks for duplicates of it: see `ip address`)"
        }
        Some(libc::EADDRNOTAVAIL) => {
            " (no interface has this address: see `ip address`, or use --listen 127.0.0.1:8000)"
        }
        Some(libc::EACCES) => {
            " (this port needs CAP_NET_BIND_SERVICE: use one from 1024 on, or start as root)"
        }
        Some(libc::EAFNOSUPPORT) => " (the kernel runs without this kind of address)",
        Some(libc::EMFILE) => " (the limit of open files is used up: raise it with ulimit -n)",
        _ => "",
    }
}
