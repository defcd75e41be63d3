//! Counters of the kernel programs as what they mean, each from the best hook that counts it:
//! `null` where none is attached, never 0.

use std::collections::BTreeMap;

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, CALL_CONNECT, Counters, DROPPED_RECEIVE_BUFFER,
    DROPPED_TCP_MEM, HOOK_CALL, HOOK_CHECK_OOM, HOOK_COLLAPSE, HOOK_CONNECT_4, HOOK_DROP,
    HOOK_FORCED, HOOK_ORPHAN_SUM, HOOK_PRESSURE_ENTER, HOOK_PRESSURE_LEAVE, HOOK_PRUNE, HOOK_RAISE,
    HOOK_RECEIVE, HOOK_REQUEST, HOOK_RESET, HOOK_RESOURCES, HOOK_SYN_FLOOD, HOOK_SYN_RECV_4,
    PRESSURE_ALLOCATOR, PRESSURE_TCP_MEM, REFUSED_FAIR_SHARE, REFUSED_HIGH, REFUSED_MEMCG,
    SIDE_RECEIVE, SIDE_SEND, Shared,
};
use c1m_record::{Refused, Tier};
use c1m_sys::errno;

use super::{attach::Attached, calls};

const NS_PER_MS: u64 = 1_000_000;

/// What was counted since the start.
pub struct Counted<'a> {
    pub counters: Counters,
    pub shared: Shared,
    pub attached: &'a Attached,
    /// What TcpExt has grown by
    pub kernel: BTreeMap<String, u64>,
}

impl Counted<'_> {
    fn by(&self, hook: u32, count: u64) -> Option<u64> {
        self.attached.has(hook).then_some(count)
    }

    /// Given up for their number, and for memory.
    fn aborted(&self) -> Option<[u64; 2]> {
        // Never both: the second method is taken where the first is refused.
        if self.attached.has(HOOK_CHECK_OOM) {
            return Some(self.counters.oom_verdicts);
        }
        self.attached.has(HOOK_RESET).then_some(self.counters.aborted)
    }

    /// Segments without room, by `DROPPED_*`.
    fn dropped(&self) -> Option<[u64; 2]> {
        if self.attached.names_receiver() {
            return Some(self.counters.dropped);
        }
        self.attached.has(HOOK_RECEIVE).then_some(self.counters.uncharged)
    }

    /// How sharply the kernel could be asked.
    #[must_use]
    pub fn tier(&self) -> Tier {
        if self.attached.has_functions() { Tier::Functions } else { Tier::Tracepoints }
    }

    /// The longest accept queue at an overflow, and what it may hold.
    #[must_use]
    pub fn accept_queue(&self) -> Option<(u64, u64)> {
        let Shared { accept_queue_len, accept_queue_max, .. } = self.shared;
        (accept_queue_len > 0).then_some((accept_queue_len, accept_queue_max))
    }

    fn accept_queue_ack(&self) -> Option<u64> {
        if self.attached.has(HOOK_SYN_RECV_4) {
            return Some(self.counters.accept_queue_ack.iter().sum());
        }
        self.attached.tells_listen_drops().then_some(self.counters.dropped_listen)
    }

    fn ports(&self) -> Option<u64> {
        if self.attached.has(HOOK_CONNECT_4) {
            return Some(self.counters.ports.iter().sum());
        }
        self.call_errors()
            .map(|errors| errors.get(&(CALL_CONNECT, libc::EADDRNOTAVAIL)).copied().unwrap_or(0))
    }

    /// What was refused since the start, as a record.
    #[must_use]
    pub fn refused(&self) -> Refused {
        let Self { counters, shared, .. } = self;
        let of = |limit: u32, side: u32| counters.refused[limit as usize][side as usize];
        let (aborted, dropped) = (self.aborted(), self.dropped());
        let entries =
            |cause: u32| self.by(HOOK_PRESSURE_ENTER, counters.pressure_entries[cause as usize]);
        Refused {
            high_send: of(REFUSED_HIGH, SIDE_SEND),
            high_receive: of(REFUSED_HIGH, SIDE_RECEIVE),
            fair_share_send: of(REFUSED_FAIR_SHARE, SIDE_SEND),
            fair_share_receive: of(REFUSED_FAIR_SHARE, SIDE_RECEIVE),
            memcg_send: of(REFUSED_MEMCG, SIDE_SEND),
            memcg_receive: of(REFUSED_MEMCG, SIDE_RECEIVE),
            forced_first_skb: counters.forced_first_skb,
            dropped_skb: self.by(HOOK_DROP, counters.dropped_skb),
            dropped_tcp_mem: dropped.map(|by| by[DROPPED_TCP_MEM as usize]),
            dropped_receive_buffer: dropped.map(|by| by[DROPPED_RECEIVE_BUFFER as usize]),
            orphans_aborted_too_many: aborted.map(|by| by[ABORTED_TOO_MANY as usize]),
            orphans_aborted_out_of_memory: aborted.map(|by| by[ABORTED_OUT_OF_MEMORY as usize]),
            orphans_in_timers: self.by(HOOK_RESOURCES, counters.orphans_in_timers),
            orphans_max: self.by(HOOK_ORPHAN_SUM, shared.orphans_max),
            allowed_above_high: self.by(HOOK_RAISE, counters.allowed_above_high),
            forced_above_high: self.by(HOOK_FORCED, counters.forced_above_high),
            pressure_entries: entries(PRESSURE_TCP_MEM),
            pressure_entries_allocator: entries(PRESSURE_ALLOCATOR),
            pressure_exits: self.by(HOOK_PRESSURE_LEAVE, counters.pressure_exits),
            pressure_ms: self.by(HOOK_PRESSURE_LEAVE, counters.pressure_ns / NS_PER_MS),
            ofo_pruned: self.by(HOOK_PRUNE, counters.ofo_pruned),
            collapsed: self.by(HOOK_COLLAPSE, counters.collapsed),
            accept_queue_syn: self.by(HOOK_REQUEST, counters.accept_queue_syn),
            accept_queue_ack: self.accept_queue_ack(),
            syn_queue_full: self.by(HOOK_SYN_FLOOD, counters.syn_queue),
            ports_exhausted: self.ports(),
            call_errors: self.named_call_errors(),
            kernel: self.kernel.clone(),
        }
    }

    /// Failed system calls of any process, by `CALL_*` and errno.
    #[must_use]
    pub fn call_errors(&self) -> Option<BTreeMap<(u32, i32), u64>> {
        if !self.attached.has(HOOK_CALL) {
            return None;
        }
        let mut errors = BTreeMap::new();
        for (kind, counts) in (0..).zip(&self.counters.call_errors) {
            for (error, count) in (0..).zip(counts) {
                if let Some(errno) = calls::errno(error).filter(|_| *count > 0) {
                    errors.insert((kind, errno), *count);
                }
            }
        }
        Some(errors)
    }

    /// The same with names.
    fn named_call_errors(&self) -> Option<BTreeMap<String, u64>> {
        let errors = self.call_errors()?;
        let name = |((call, errno), count)| {
            (format!("{} {}", calls::name(call), errno::name(errno)), count)
        };
        Some(errors.into_iter().map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use c1m_ebpf::{CALL_ACCEPT, Config, ERROR_EADDRNOTAVAIL, ERROR_EMFILE, HOOK_EXCEED};

    use super::*;

    fn counters() -> Counters {
        let mut counters = Counters {
            refused: [[1, 2], [3, 4], [5, 6]],
            dropped_skb: 7,
            dropped: [3, 4],
            uncharged: [30, 40],
            aborted: [8, 9],
            oom_verdicts: [80, 90],
            accept_queue_ack: [2, 3],
            dropped_listen: 50,
            ports: [6, 7],
            pressure_entries: [2, 1],
            pressure_ns: 2_500_000,
            ..Counters::default()
        };
        counters.call_errors[CALL_ACCEPT as usize][ERROR_EMFILE as usize] = 11;
        counters.call_errors[CALL_CONNECT as usize][ERROR_EADDRNOTAVAIL as usize] = 12;
        counters
    }

    fn attached(hooks: &[u32], config: Config) -> Attached {
        Attached { hooks: hooks.to_vec(), config }
    }

    fn counted(attached: &Attached) -> Counted<'_> {
        Counted {
            counters: counters(),
            shared: Shared::default(),
            attached,
            kernel: BTreeMap::new(),
        }
    }

    /// kfree_skb with the socket, and with the reason of a full accept queue.
    fn newest() -> Config {
        let mut config = Config { drop_reason_listen_overflow: 40, ..Config::NONE };
        config.arguments[HOOK_DROP as usize].object = 3;
        config
    }

    #[test]
    fn a_hook_that_is_not_attached_gives_null_not_zero() {
        let none = attached(&[HOOK_EXCEED], newest());
        let seen = counted(&none).refused();
        assert_eq!((seen.high_send, seen.fair_share_receive, seen.memcg_send), (1, 4, 5));
        assert_eq!(
            (seen.dropped_skb, seen.dropped_tcp_mem, seen.accept_queue_ack),
            (None, None, None)
        );
        assert_eq!((seen.orphans_aborted_too_many, seen.pressure_entries), (None, None));
        assert_eq!((seen.ports_exhausted, seen.call_errors), (None, None));
        assert_eq!(counted(&none).tier(), Tier::Tracepoints);
    }

    #[test]
    fn tracepoints_alone() {
        let hooks = attached(&[HOOK_EXCEED, HOOK_DROP, HOOK_RESET, HOOK_CALL], newest());
        let seen = counted(&hooks).refused();
        assert_eq!(
            (seen.dropped_skb, seen.dropped_tcp_mem, seen.dropped_receive_buffer),
            (Some(7), Some(3), Some(4))
        );
        assert_eq!(
            (seen.orphans_aborted_too_many, seen.orphans_aborted_out_of_memory),
            (Some(8), Some(9))
        );
        assert_eq!((seen.accept_queue_ack, seen.ports_exhausted), (Some(50), Some(12)));
        let errors =
            BTreeMap::from([("accept EMFILE".into(), 11), ("connect EADDRNOTAVAIL".into(), 12)]);
        assert_eq!(seen.call_errors, Some(errors));
        let without_socket = attached(&[HOOK_DROP], Config::NONE);
        let seen = counted(&without_socket).refused();
        assert_eq!(
            (seen.dropped_skb, seen.dropped_tcp_mem, seen.accept_queue_ack),
            (Some(7), None, None)
        );
    }

    #[test]
    fn functions_come_first_and_nothing_is_counted_twice() {
        let hooks = [
            HOOK_DROP,
            HOOK_RECEIVE,
            HOOK_CHECK_OOM,
            HOOK_CALL,
            HOOK_SYN_RECV_4,
            HOOK_CONNECT_4,
            HOOK_PRESSURE_ENTER,
            HOOK_PRESSURE_LEAVE,
        ];
        let hooks = attached(&hooks, Config { drop_reason_listen_overflow: 40, ..Config::NONE });
        let counted = counted(&hooks);
        let seen = counted.refused();
        assert_eq!(counted.tier(), Tier::Functions);
        let aborted = (seen.orphans_aborted_too_many, seen.orphans_aborted_out_of_memory);
        assert_eq!(aborted, (Some(80), Some(90)));
        assert_eq!((seen.dropped_tcp_mem, seen.dropped_receive_buffer), (Some(30), Some(40)));
        assert_eq!((seen.accept_queue_ack, seen.ports_exhausted), (Some(5), Some(13)));
        assert_eq!((seen.pressure_entries, seen.pressure_entries_allocator), (Some(2), Some(1)));
        assert_eq!((seen.pressure_exits, seen.pressure_ms), (Some(0), Some(2)));
        let errors = counted.call_errors().unwrap();
        assert_eq!(errors.get(&(CALL_ACCEPT, libc::EMFILE)), Some(&11));
        assert_eq!(counted.accept_queue(), None);
    }
}
