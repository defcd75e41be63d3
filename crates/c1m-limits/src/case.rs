//! What a rule judges from.

use c1m_record::{LimitName, Tier};

use crate::{
    evidence::{Call, Evidence, errno},
    history::History,
    reading::{Peak, Readings},
};

/// All that a rule may use.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub observed: &'a Evidence,
    pub history: &'a History,
    pub now: Readings,
    pub tier: Tier,
}

/// An error by number and name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errno {
    pub(crate) number: i32,
    name: &'static str,
}

pub(crate) const EMFILE: Errno = Errno { number: errno::EMFILE, name: "EMFILE" };
pub(crate) const ENFILE: Errno = Errno { number: errno::ENFILE, name: "ENFILE" };

impl Errno {
    /// The calls that make a connection, with the names of their own errors. Others that fail with EMFILE have limits of their own
    /// (inotify_init: max_user_instances), or are programs that try how far they come.
    pub(crate) fn opening(self) -> [(Call, String); 2] {
        [(Call::Accept, "accept"), (Call::Socket, "socket")]
            .map(|(call, name)| (call, format!("{name} {}", self.name)))
    }
}

impl Case<'_> {
    pub(crate) fn peak(&self, limit: LimitName) -> Option<Peak> {
        self.history.peak(limit)
    }

    pub(crate) fn was_past(&self, limit: LimitName) -> bool {
        self.peak(limit).is_some_and(|peak| peak.is_past())
    }

    /// The hook that this tier has for it.
    pub(crate) fn hook(&self, functions: &'static str, tracepoints: &'static str) -> &'static str {
        if self.tier == Tier::Functions { functions } else { tracepoints }
    }

    /// Failed calls of these kinds with that error, of any process.
    pub(crate) fn failed(&self, calls: &[Call], errno: i32) -> u64 {
        calls.iter().map(|call| self.observed.failed(*call, errno)).sum()
    }

    /// Failed calls by which a connection could not be had, as the probe counts them, and as calls of c1m itself returned.
    pub(crate) fn opening_failed(&self, error: Errno) -> u64 {
        let (mut any, mut own) = (0, 0);
        for (call, name) in error.opening() {
            any += self.observed.failed(call, error.number);
            own += self.observed.own(&name);
        }
        any.max(own)
    }

    /// SYNs that a listener dropped for another reason than a full accept or SYN queue (include/net/tcp.h, tcp_listendrop, 6.18), as
    /// far as the counters tell.
    pub(crate) fn unexplained_drops(&self) -> u64 {
        if self.observed.listeners.dropped_nothing() {
            return 0;
        }
        let counter = |name| self.observed.counter(name);
        counter("ListenDrops")
            .saturating_sub(counter("ListenOverflows"))
            .saturating_sub(counter("TCPReqQFullDrop"))
    }
}
