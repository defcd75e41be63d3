//! What the client adds to its errors for the verdict: its plan, and what its host's counters say.

use std::collections::BTreeMap;

use c1m_host::{conntrack, netstat, settings};
use c1m_limits::client::{Counters, Outcome};
use c1m_sys::process;

use crate::worker::Shared;

/// The counters before the first connection.
#[derive(Debug, Clone, Default)]
pub struct Before {
    tcp_ext: Option<netstat::TcpExt>,
    conntrack: Option<conntrack::Conntrack>,
}

impl Before {
    #[must_use]
    pub fn now() -> Self {
        Self { tcp_ext: netstat::tcp_ext().ok(), conntrack: conntrack::counters() }
    }

    /// Adds what has grown since then, and this host's limits.
    pub fn complete(&self, outcome: &mut Outcome, server_is_here: bool) {
        let now = Self::now();
        if let (true, Some(before), Some(after)) = (server_is_here, &self.tcp_ext, &now.tcp_ext) {
            let grown = netstat::growth(before, after);
            let counter = |name| grown.get(name).copied().unwrap_or(0);
            outcome.server_host = Some(Counters {
                listen_overflows: counter("ListenOverflows"),
                syn_queue_drops: counter("TCPReqQFullDrop"),
                memory_pressures: counter("TCPMemoryPressures"),
            });
        }
        if let (Some(before), Some(after)) = (self.conntrack, now.conntrack) {
            // Clashes of two new entries count in both.
            outcome.untracked = after
                .drop
                .saturating_sub(before.drop)
                .saturating_sub(after.insert_failed.saturating_sub(before.insert_failed));
        }
        outcome.nofile = process::nofile().ok().map(|(_, hard)| hard);
        outcome.nr_open = settings::read().nr_open;
    }
}

/// What the plan says, beside these errors.
#[must_use]
pub fn outcome(shared: &Shared, errors: &BTreeMap<String, u64>) -> Outcome {
    let Shared { plan, crew, .. } = shared;
    Outcome {
        errors: errors.clone(),
        connections: crew.connections(),
        capacity: plan.capacity(),
        ports_per_source: plan.ports_per_source(),
        workers: crew.workers as u64,
        ..Outcome::default()
    }
}
