//! What is half done on a connection.

use std::time::Instant;

use super::response::Response;
use crate::sys::epoll;

/// What an idle connection is watched for.
pub(super) const READ: u32 = epoll::IN | epoll::PEER_CLOSED;

/// What is half done on a connection. The default is an idle one, which is not stored.
#[derive(Debug)]
pub(super) struct Partial {
    /// Read and not yet understood, or waiting behind `write`. Bounded: nothing is read while a response waits.
    pub(super) input: Vec<u8>,
    /// Bytes of a request's body still to be read and dropped.
    pub(super) discard_bytes: u64,
    /// A response and how much of it was sent.
    pub(super) write: Option<(Response, u64)>,
    /// Bytes that may still be dropped before the connection is closed in any case.
    pub(super) drain_bytes: Option<u64>,
    pub(super) due: Option<Instant>,
    /// What epoll was told to watch for.
    pub(super) interest: u32,
}

impl Default for Partial {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            discard_bytes: 0,
            write: None,
            drain_bytes: None,
            due: None,
            interest: READ,
        }
    }
}

impl Partial {
    pub(super) fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.discard_bytes == 0
            && self.write.is_none()
            && self.drain_bytes.is_none()
            && self.due.is_none()
    }

    pub(super) fn wanted_interest(&self) -> u32 {
        match (&self.write, self.due) {
            (None, _) => READ,
            (Some(_), None) => epoll::OUT,
            // Retried by the clock; errors are reported all the same.
            (Some(_), Some(_)) => 0,
        }
    }
}
