//! Counters of the kernel programs as what they mean, each from the best hook that counts it: `null` where none is attached, never 0.

use std::collections::BTreeMap;

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, CALL_ACCEPT, CALL_BIND, CALL_CONNECT, CALL_DESCRIPTOR,
    CALL_EPOLL, CALL_RECEIVE, CALL_SEND, CALL_SOCKET, Counters, DROPPED_RECEIVE_BUFFER,
    DROPPED_TCP_MEM, HOOK_CALL, HOOK_CHECK_OOM, HOOK_COLLAPSE, HOOK_CONNECT_4, HOOK_DROP,
    HOOK_FORCED, HOOK_ORPHAN_SUM, HOOK_PRESSURE_ENTER, HOOK_PRESSURE_LEAVE, HOOK_PRUNE, HOOK_RAISE,
    HOOK_RECEIVE, HOOK_REQUEST, HOOK_RESET, HOOK_RESOURCES, HOOK_SYN_FLOOD, HOOK_SYN_RECV_4,
    PRESSURE_ALLOCATOR, PRESSURE_TCP_MEM, REFUSED_FAIR_SHARE, REFUSED_HIGH, REFUSED_MEMCG,
    SIDE_RECEIVE, SIDE_SEND, Shared,
};
use c1m_limits::evidence::{Call, Evidence};
use c1m_probe::{attach::Attached, calls};
use c1m_record::{Refused, Tier};
use c1m_sys::errno;

const NS_PER_MS: u64 = 1_000_000;

/// What was counted since the start.
pub(super) struct Counted<'a> {
    pub(super) counters: Counters,
    pub(super) shared: Shared,
    pub(super) attached: &'a Attached,
    /// What TcpExt has grown by
    pub(super) kernel: BTreeMap<String, u64>,
}

impl Counted<'_> {
    fn by(&self, hook: u32, count: u64) -> Option<u64> {
        self.attached.has(hook).then_some(count)
    }

    /// Given up for their number, and for memory.
    fn aborted(&self) -> Option<[u64; 2]> {
        // Never both: the second way is taken where the first is refused.
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

    /// By `CALL_*` and errno.
    fn call_errors(&self) -> Option<BTreeMap<(u32, i32), u64>> {
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

fn call(kind: u32) -> Call {
    match kind {
        CALL_SOCKET => Call::Socket,
        CALL_ACCEPT => Call::Accept,
        CALL_BIND => Call::Bind,
        CALL_CONNECT => Call::Connect,
        CALL_SEND => Call::Send,
        CALL_RECEIVE => Call::Receive,
        CALL_EPOLL => Call::EpollAdd,
        CALL_DESCRIPTOR => Call::Descriptor,
        _ => Call::Other,
    }
}

/// For people and programs.
pub(super) fn refused(counted: &Counted<'_>) -> Refused {
    let Counted { counters, shared, .. } = counted;
    let of = |limit: u32, side: u32| counters.refused[limit as usize][side as usize];
    let (aborted, dropped) = (counted.aborted(), counted.dropped());
    let entries =
        |cause: u32| counted.by(HOOK_PRESSURE_ENTER, counters.pressure_entries[cause as usize]);
    Refused {
        high_send: of(REFUSED_HIGH, SIDE_SEND),
        high_receive: of(REFUSED_HIGH, SIDE_RECEIVE),
        fair_share_send: of(REFUSED_FAIR_SHARE, SIDE_SEND),
        fair_share_receive: of(REFUSED_FAIR_SHARE, SIDE_RECEIVE),
        memcg_send: of(REFUSED_MEMCG, SIDE_SEND),
        memcg_receive: of(REFUSED_MEMCG, SIDE_RECEIVE),
        forced_first_skb: counters.forced_first_skb,
        dropped_skb: counted.by(HOOK_DROP, counters.dropped_skb),
        dropped_tcp_mem: dropped.map(|by| by[DROPPED_TCP_MEM as usize]),
        dropped_receive_buffer: dropped.map(|by| by[DROPPED_RECEIVE_BUFFER as usize]),
        orphans_aborted_too_many: aborted.map(|by| by[ABORTED_TOO_MANY as usize]),
        orphans_aborted_out_of_memory: aborted.map(|by| by[ABORTED_OUT_OF_MEMORY as usize]),
        orphans_in_timers: counted.by(HOOK_RESOURCES, counters.orphans_in_timers),
        orphans_max: counted.by(HOOK_ORPHAN_SUM, shared.orphans_max),
        allowed_above_high: counted.by(HOOK_RAISE, counters.allowed_above_high),
        forced_above_high: counted.by(HOOK_FORCED, counters.forced_above_high),
        pressure_entries: entries(PRESSURE_TCP_MEM),
        pressure_entries_allocator: entries(PRESSURE_ALLOCATOR),
        pressure_exits: counted.by(HOOK_PRESSURE_LEAVE, counters.pressure_exits),
        pressure_ms: counted.by(HOOK_PRESSURE_LEAVE, counters.pressure_ns / NS_PER_MS),
        ofo_pruned: counted.by(HOOK_PRUNE, counters.ofo_pruned),
        collapsed: counted.by(HOOK_COLLAPSE, counters.collapsed),
        accept_queue_syn: counted.by(HOOK_REQUEST, counters.accept_queue_syn),
        accept_queue_ack: counted.accept_queue_ack(),
        syn_queue_full: counted.by(HOOK_SYN_FLOOD, counters.syn_queue),
        ports_exhausted: counted.ports(),
        call_errors: counted.named_call_errors(),
        kernel: counted.kernel.clone(),
    }
}

/// For the verdict.
#[expect(clippy::cast_precision_loss, reason = "milliseconds, far below 2^52")]
pub(super) fn evidence(counted: &Counted<'_>) -> Evidence {
    let shared = &counted.shared;
    let seen = refused(counted);
    let has_queue = shared.accept_queue_len > 0;
    Evidence {
        tier: Some(if counted.attached.has_functions() {
            Tier::Functions
        } else {
            Tier::Tracepoints
        }),
        refused_high_send: seen.high_send,
        refused_high_receive: seen.high_receive,
        refused_fair_share_send: seen.fair_share_send,
        refused_fair_share_receive: seen.fair_share_receive,
        refused_memcg_send: seen.memcg_send,
        refused_memcg_receive: seen.memcg_receive,
        allowed_above_high: seen.allowed_above_high,
        forced_above_high: seen.forced_above_high,
        pressure_entries: seen.pressure_entries,
        pressure_entries_allocator: seen.pressure_entries_allocator,
        pressure_exits: seen.pressure_exits,
        pressure_ms: seen.pressure_ms.map(|ms| ms as f64),
        dropped_receive_buffer: seen.dropped_receive_buffer,
        dropped_tcp_mem: seen.dropped_tcp_mem,
        orphans_too_many: seen.orphans_aborted_too_many,
        orphans_out_of_memory: seen.orphans_aborted_out_of_memory,
        orphans_in_timers: seen.orphans_in_timers,
        orphans_max: seen.orphans_max,
        accept_queue_syn: seen.accept_queue_syn,
        accept_queue_ack: seen.accept_queue_ack,
        syn_queue_full: seen.syn_queue_full,
        accept_queue_len: has_queue.then_some(shared.accept_queue_len),
        accept_queue_max: has_queue.then_some(shared.accept_queue_max),
        ports_exhausted: seen.ports_exhausted,
        call_errors: counted
            .call_errors()
            .unwrap_or_default()
            .into_iter()
            .map(|((kind, errno), count)| ((call(kind), errno), count))
            .collect(),
        tcp_ext: seen.kernel,
        ..Evidence::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::output::metrics::CALL_ERRORS;
    use c1m_ebpf::{Config, ERROR_EADDRNOTAVAIL, ERROR_EMFILE, HOOK_EXCEED};

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
        let seen = refused(&counted(&none));
        assert_eq!((seen.high_send, seen.fair_share_receive, seen.memcg_send), (1, 4, 5));
        assert_eq!(
            (seen.dropped_skb, seen.dropped_tcp_mem, seen.accept_queue_ack),
            (None, None, None)
        );
        assert_eq!((seen.orphans_aborted_too_many, seen.pressure_entries), (None, None));
        assert_eq!((seen.ports_exhausted, seen.call_errors), (None, None));
        assert_eq!(evidence(&counted(&none)).tier, Some(Tier::Tracepoints));
    }

    #[test]
    fn tracepoints_alone() {
        let hooks = attached(&[HOOK_EXCEED, HOOK_DROP, HOOK_RESET, HOOK_CALL], newest());
        let seen = refused(&counted(&hooks));
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
        let seen = refused(&counted(&without_socket));
        assert_eq!(
            (seen.dropped_skb, seen.dropped_tcp_mem, seen.accept_queue_ack),
            (Some(7), None, None)
        );
    }

    #[test]
    fn every_call_error_of_a_limit_has_a_counter() {
        let mut of_limits = BTreeMap::<&str, Vec<&str>>::new();
        for call in (0u32..).take(c1m_ebpf::CALLS) {
            for error in (0u32..).take(c1m_ebpf::ERRNOS.len()) {
                if c1m_ebpf::is_of_a_limit(call, error) {
                    let errno = errno::name(calls::errno(error).unwrap());
                    of_limits.entry(calls::name(call)).or_default().push(errno);
                }
            }
        }
        of_limits.values_mut().for_each(|errnos| errnos.sort_unstable());
        let exported = CALL_ERRORS.map(|(call, errnos)| (call, errnos.to_vec()));
        assert_eq!(of_limits, exported.into());
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
        let seen = evidence(&counted(&hooks));
        assert_eq!(seen.tier, Some(Tier::Functions));
        assert_eq!((seen.orphans_too_many, seen.orphans_out_of_memory), (Some(80), Some(90)));
        assert_eq!((seen.dropped_tcp_mem, seen.dropped_receive_buffer), (Some(30), Some(40)));
        assert_eq!((seen.accept_queue_ack, seen.ports_exhausted), (Some(5), Some(13)));
        assert_eq!((seen.pressure_entries, seen.pressure_entries_allocator), (Some(2), Some(1)));
        assert_eq!((seen.pressure_exits, seen.pressure_ms), (Some(0), Some(2.0)));
        assert_eq!(seen.call_errors.get(&(Call::Accept, libc::EMFILE)), Some(&11));
        assert_eq!((seen.accept_queue_len, seen.accept_queue_max), (None, None));
    }
}
