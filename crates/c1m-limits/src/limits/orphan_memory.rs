//! Orphans with unsent data above the third value of net.ipv4.tcp_mem.

use c1m_record::{Confidence, Effect, LimitName, Scope};

use super::{
    About, Limit,
    orphans::{CHECK, RESET, unsplit},
    tcp_mem_high,
};
use crate::{
    case::Case,
    finding::Finding,
    preflight::need::{Need, Planned},
    reading::{Readings, Usage},
};

pub(super) struct OrphanMemory;

impl Limit for OrphanMemory {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::OrphanMemory,
            scope: Scope::Host,
            unit: "pages",
            setting: "net.ipv4.tcp_mem, third value",
            source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
            symptom: "connections that are closed with unsent data are reset (TCPAbortOnMemory); the kernel logs `out of memory -- consider tuning tcp_mem`",
            distinguished_by: "the reset orphan's own values: more than 4,608 bytes queued to send, and usage above the third value",
            kernel: "net/ipv4/tcp.c, tcp_check_oom (5.4 to 6.18)",
            label: "orphan memory",
            summary: ["connections that are closed with unsent data are reset", "net.ipv4.tcp_mem"],
            metric: None,
        }
    }

    fn roots(&self) -> &'static [LimitName] {
        &[LimitName::MemoryCgroup, LimitName::Memory, LimitName::TcpMemHigh]
    }

    fn usage(&self, now: &Readings) -> Usage {
        tcp_mem_high::usage(now, 2)
    }

    fn noise(&self, now: &Readings) -> u64 {
        tcp_mem_high::noise(now)
    }

    /// Only orphans with more than 4,608 bytes to send are given up for memory (net/ipv4/tcp.c, `tcp_check_oom`, 6.18).
    fn preflight(&self, planned: &Planned<'_>) -> Need {
        const SENDS_MORE_THAN: u64 = 4_608;
        let concerns = planned.run.queued_bytes > SENDS_MORE_THAN;
        let need = tcp_mem_high::need(planned, 2, Effect::Resets, planned.run.ends_by_fin);
        Need {
            needed: if concerns { need.needed } else { Some(0) },
            stops_at: need.stops_at.filter(|_| concerns),
            note: Some(format!(
                "when connections with more than {SENDS_MORE_THAN} unsent bytes are closed above high"
            )),
            ..need
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let count = case.observed.orphans_out_of_memory.unwrap_or(0);
        if count == 0 {
            return unsplit(case).filter(|found| found.limit == LimitName::OrphanMemory);
        }
        Some(
            Finding::new(
                LimitName::OrphanMemory,
                Confidence::Certain,
                format!("{count} connections that were closed with unsent data were reset because tcp_mem was above its third value"),
            )
            .saw(case.hook(CHECK, RESET), "orphans reset for memory", count)
            .saw("TcpExt TCPAbortOnMemory", "orphans reset, for either cause", case.observed.counter("TCPAbortOnMemory"))
            .beside("/proc/net/sockstat mem", "pages", case.peak(LimitName::OrphanMemory)),
        )
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        tcp_mem_high::remedy(case)
    }
}
