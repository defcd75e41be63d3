//! Every signal: what it proves, and the methods to get it on a running kernel, the most exact
//! first.
//!
//! `docs/hooks.md` is made of this table. A method that a kernel refuses costs its resolution, not
//! the run: the next one is taken.

use c1m_ebpf::*;
use c1m_record::Resolution;

use super::plan::{AttachMethod, Probe, Source};

const fn by(needed: &'static [u32]) -> Source {
    Source::Programs { needed, also: &[] }
}

const NOTHING_LACKS: fn(&Layout, &Config) -> Option<&'static str> = |_, _| None;

const fn exact(source: Source, says: &'static str, versions: &'static str) -> AttachMethod {
    AttachMethod { source, resolution: Resolution::Exact, says, versions, lack: NOTHING_LACKS }
}

const fn read(name: &'static str, says: &'static str) -> AttachMethod {
    AttachMethod {
        source: Source::Read(name),
        resolution: Resolution::Interval,
        says,
        versions: "5.4 to 6.18",
        lack: NOTHING_LACKS,
    }
}

const TRACEPOINT: &str = "5.10 to 6.18";
const FUNCTION: &str = "5.10 to 6.18, where functions can be hooked";
/// Seen on 6.1 and 6.12; the registers of aarch64 were read, not seen.
const PROBE: &str = "where there are kprobes: seen on 6.1 and 6.12, x86_64";
/// What interrupts one kprobe on a CPU is not seen by another.
const PROBE_SAYS: &str = "each one, by registers: more expensive, and one in an interrupt of another kprobe is missed (counted from 6.7 on)";

/// The table.
pub const PROBES: &[Probe] = &[
    Probe {
        id: "connections",
        proves: "connections of the watched port, from the end of the handshake to the end of the connection",
        makes: "`online.connections`, `connections` of crossings and refusals",
        reads: "sock: skc_num, skc_net, sk_protocol; inet_sock: inet_sport, mc_index, pinet6; ipv6_pinfo: mcast_oif",
        methods: &[exact(by(&[HOOK_SET_STATE]), "each one", TRACEPOINT)],
    },
    Probe {
        id: "usage_rises",
        proves: "usage of tcp_mem went above low, pressure or high",
        makes: "`crossing`",
        reads: "proto: memory_allocated, sysctl_mem, memory_pressure",
        methods: &[
            exact(
                by(&[HOOK_RAISE, HOOK_FORCED_EXIT]),
                "per allocation: usage right after each one that was granted, or taken without asking",
                FUNCTION,
            ),
            exact(by(&[kprobe(HOOK_RAISE), kprobe(HOOK_FORCED_EXIT)]), PROBE_SAYS, PROBE),
            AttachMethod {
                source: by(&[HOOK_SET_STATE]),
                resolution: Resolution::Connection,
                says: "per connection: usage at each new one, and at each refusal",
                versions: TRACEPOINT,
                lack: NOTHING_LACKS,
            },
            read("/proc/net/sockstat", "per interval"),
        ],
    },
    Probe {
        id: "usage_falls",
        proves: "usage of tcp_mem went back below a limit",
        makes: "`crossing`",
        reads: "proto: memory_allocated, sysctl_mem, memory_pressure",
        methods: &[
            AttachMethod {
                source: by(&[HOOK_DESTROY]),
                resolution: Resolution::Connection,
                says: "per socket that goes; data that is read shows at the next one, or at the interval",
                versions: TRACEPOINT,
                lack: NOTHING_LACKS,
            },
            read("/proc/net/sockstat", "per interval"),
        ],
    },
    Probe {
        id: "refusals",
        proves: "an allocation was refused: by tcp_mem's high, by the fair share under pressure, or by the socket's memory cgroup",
        makes: "`refusal`, `refused.high_*`, `fair_share_*`, `memcg_*`, `forced_first_skb`",
        reads: "sock: sk_backlog.rmem_alloc, sk_wmem_queued; proto: sysctl_mem, memory_pressure",
        methods: &[exact(
            by(&[HOOK_EXCEED]),
            "each one, with the value that the kernel compared; 6.5 and 6.6 keep a memory cgroup's refusal of a received segment to themselves",
            TRACEPOINT,
        )],
    },
    Probe {
        id: "allowed_above_high",
        proves: "an allocation was granted although usage was above high",
        makes: "`refused.allowed_above_high`",
        reads: "proto: memory_allocated, sysctl_mem",
        methods: &[
            exact(by(&[HOOK_RAISE]), "each one", FUNCTION),
            exact(by(&[kprobe(HOOK_RAISE)]), PROBE_SAYS, PROBE),
        ],
    },
    Probe {
        id: "forced_above_high",
        proves: "memory was taken without asking while usage was above high: FIN, first skb of an empty queue, a sender's least",
        makes: "`refused.forced_above_high`",
        reads: "sock: sk_forward_alloc; proto: memory_allocated, sysctl_mem",
        methods: &[
            exact(by(&[HOOK_FORCED]), "each one", FUNCTION),
            exact(by(&[kprobe(HOOK_FORCED)]), PROBE_SAYS, PROBE),
        ],
    },
    Probe {
        id: "memory_pressure",
        proves: "the kernel's memory pressure began or ended; for usage above the second limit of tcp_mem, or for want of pages",
        makes: "`pressure`, `refused.pressure_*`",
        reads: "proto: memory_pressure, memory_allocated, sysctl_mem",
        methods: &[
            exact(
                by(&[HOOK_PRESSURE_ENTER, HOOK_PRESSURE_LEAVE]),
                "each period, with its cause and its time",
                FUNCTION,
            ),
            exact(
                by(&[kprobe(HOOK_PRESSURE_ENTER), kprobe(HOOK_PRESSURE_LEAVE)]),
                PROBE_SAYS,
                PROBE,
            ),
            read(
                "TcpExt TCPMemoryPressures",
                "how often, and for how long all together (TCPMemoryPressuresChrono)",
            ),
        ],
    },
    Probe {
        id: "dropped_segments",
        proves: "a segment that arrived was dropped, for tcp_mem or because its socket's receive buffer was full",
        makes: "`refused.dropped_skb`, `dropped_tcp_mem`, `dropped_receive_buffer`",
        reads: "sock: sk_backlog.rmem_alloc, sk_rcvbuf, sk_receive_queue.qlen",
        methods: &[
            AttachMethod {
                source: by(&[HOOK_DROP]),
                resolution: Resolution::Exact,
                says: "each drop, and which of the two",
                versions: "6.11 to 6.18",
                lack: |_, config| {
                    if config.arguments[HOOK_DROP as usize].object == ABSENT {
                        return Some("without the receiving socket in this kernel");
                    }
                    no_drop_reason(config)
                },
            },
            AttachMethod {
                source: Source::Programs { needed: &[HOOK_RECEIVE], also: &[HOOK_DROP] },
                resolution: Resolution::Exact,
                says: "each segment without room, and which of the two; from 6.6 on those of an empty queue are counted apart, because the kernel keeps most of them",
                versions: FUNCTION,
                lack: NOTHING_LACKS,
            },
            exact(
                Source::Programs { needed: &[kprobe(HOOK_RECEIVE)], also: &[HOOK_DROP] },
                PROBE_SAYS,
                PROBE,
            ),
            AttachMethod {
                source: by(&[HOOK_DROP]),
                resolution: Resolution::Exact,
                says: "each drop, but not which of the two",
                versions: "5.17 to 6.10, and 5.15 with its backport",
                lack: |_, config| no_drop_reason(config),
            },
            read("TcpExt TCPRcvQDrop", "how many, not which of the two"),
        ],
    },
    Probe {
        id: "pruned_segments",
        proves: "segments that had arrived out of order were thrown away for want of memory",
        makes: "`refused.ofo_pruned`",
        reads: "nothing",
        methods: &[
            exact(by(&[HOOK_PRUNE]), "each time", FUNCTION),
            exact(by(&[kprobe(HOOK_PRUNE)]), PROBE_SAYS, PROBE),
            read("TcpExt OfoPruned", "how often"),
        ],
    },
    Probe {
        id: "collapsed_segments",
        proves: "skbs of a receive queue were merged for want of room, at the cost of copying",
        makes: "`refused.collapsed`",
        reads: "nothing",
        methods: &[
            exact(by(&[HOOK_COLLAPSE]), "each skb that was given back", FUNCTION),
            exact(by(&[kprobe(HOOK_COLLAPSE)]), PROBE_SAYS, PROBE),
            read("TcpExt TCPRcvCollapsed", "how many"),
        ],
    },
    Probe {
        id: "orphans_given_up",
        proves: "the kernel gave up an orphan: for the number of orphans, or for memory",
        makes: "`aborted`, `refused.orphans_aborted_*`",
        reads: "sock: sk_wmem_queued; proto: memory_allocated, sysctl_mem",
        methods: &[
            exact(by(&[HOOK_CHECK_OOM]), "each one; equal to TCPAbortOnMemory", FUNCTION),
            exact(by(&[kprobe(HOOK_CHECK_OOM)]), PROBE_SAYS, PROBE),
            AttachMethod {
                source: by(&[HOOK_RESET]),
                resolution: Resolution::Exact,
                says: "each one that is reset: not those that a timer drops in silence, or for which there is no memory for a RST",
                versions: "6.10 to 6.18",
                lack: |_, config| {
                    (config.reset_reason_memory == ABSENT)
                        .then_some("without reset reasons in this kernel (before 6.10)")
                },
            },
            read("TcpExt TCPAbortOnMemory", "how many, not for which of the two"),
        ],
    },
    Probe {
        id: "orphans_in_timers",
        proves: "of these, those that a timer gave up, for which an orphan may count twice or four times",
        makes: "`refused.orphans_in_timers`",
        reads: "nothing",
        methods: &[
            exact(by(&[HOOK_RESOURCES]), "each one", FUNCTION),
            exact(by(&[kprobe(HOOK_RESOURCES)]), PROBE_SAYS, PROBE),
        ],
    },
    Probe {
        id: "orphan_count",
        proves: "how many orphans there are, as the kernel compares with tcp_max_orphans",
        makes: "`refused.orphans_max`",
        reads: "nothing",
        methods: &[
            exact(
                by(&[HOOK_ORPHAN_SUM]),
                "each sum: the kernel's own of each 100 ms, and those of readers of /proc/net/sockstat",
                FUNCTION,
            ),
            exact(by(&[kprobe(HOOK_ORPHAN_SUM)]), PROBE_SAYS, PROBE),
            read("/proc/net/sockstat", "per interval, not what was compared"),
        ],
    },
    Probe {
        id: "accept_queue_syn",
        proves: "a SYN was dropped because the listener's accept queue was full",
        makes: "`overflow`, `refused.accept_queue_syn`",
        reads: "sock: sk_ack_backlog, sk_max_ack_backlog, sk_drops; inet_connection_sock: icsk_accept_queue.qlen; net: sysctl_tcp_syncookies",
        methods: &[
            exact(by(&[HOOK_REQUEST, HOOK_REQUEST_EXIT]), "each SYN, with its listener", FUNCTION),
            exact(by(&[kprobe(HOOK_REQUEST), kprobe(HOOK_REQUEST_EXIT)]), PROBE_SAYS, PROBE),
            read("TcpExt ListenOverflows", "how many, together with the ends of handshakes"),
        ],
    },
    Probe {
        id: "accept_queue_ack",
        proves: "the end of a handshake was dropped because the listener's accept queue was full",
        makes: "`overflow`, `refused.accept_queue_ack`",
        reads: "sock: sk_ack_backlog, sk_max_ack_backlog; sk_buff: protocol",
        methods: &[
            exact(
                Source::Programs {
                    needed: &[HOOK_SYN_RECV_4, HOOK_SYN_RECV_4_EXIT],
                    also: &[HOOK_SYN_RECV_6, HOOK_SYN_RECV_6_EXIT],
                },
                "each one, with its listener",
                "5.10 and 6.8 to 6.18, where functions can be hooked; 5.15 and 6.1 can't hook one with seven arguments",
            ),
            exact(
                Source::Programs {
                    needed: &[kprobe(HOOK_SYN_RECV_4), kprobe(HOOK_SYN_RECV_4_EXIT)],
                    also: &[kprobe(HOOK_SYN_RECV_6), kprobe(HOOK_SYN_RECV_6_EXIT)],
                },
                PROBE_SAYS,
                PROBE,
            ),
            AttachMethod {
                source: by(&[HOOK_DROP]),
                resolution: Resolution::Exact,
                says: "each one, without its listener",
                versions: "6.17 and 6.18",
                lack: |_, config| {
                    if config.drop_reason_listen_overflow == ABSENT {
                        return Some("without a drop reason for it in this kernel (before 6.17)");
                    }
                    no_drop_reason(config)
                },
            },
            read("TcpExt ListenOverflows", "how many, together with SYNs"),
        ],
    },
    Probe {
        id: "syn_queue",
        proves: "a SYN found the listener's SYN queue full: answered by a cookie, or dropped",
        makes: "`overflow`, `refused.syn_queue_full`",
        reads: "sock: sk_max_ack_backlog; inet_connection_sock: icsk_accept_queue.qlen; net: sysctl_tcp_syncookies",
        methods: &[
            exact(
                by(&[HOOK_SYN_FLOOD]),
                "each SYN, with its listener",
                "where it is not inlined, as it is in Debian's 5.10 and 6.1",
            ),
            exact(by(&[kprobe(HOOK_SYN_FLOOD)]), PROBE_SAYS, PROBE),
            read(
                "TcpExt TCPReqQFullDrop",
                "how many; TCPReqQFullDoCookies those that were answered",
            ),
        ],
    },
    Probe {
        id: "ports",
        proves: "no local port was free between a source and a destination",
        makes: "`ports`, `refused.ports_exhausted`",
        reads: "sock: addresses and ports",
        methods: &[
            exact(
                Source::Programs { needed: &[HOOK_CONNECT_4], also: &[HOOK_CONNECT_6] },
                "each search that found none, with source, destination and process",
                FUNCTION,
            ),
            exact(
                Source::Programs {
                    needed: &[kprobe(HOOK_CONNECT_4)],
                    also: &[kprobe(HOOK_CONNECT_6)],
                },
                PROBE_SAYS,
                PROBE,
            ),
            AttachMethod {
                lack: no_call_number,
                ..exact(
                    by(&[HOOK_CALL]),
                    "each connect that failed with EADDRNOTAVAIL, with its process",
                    TRACEPOINT,
                )
            },
        ],
    },
    Probe {
        id: "call_errors",
        proves: "a system call of any process failed with EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL or ENOSPC",
        makes: "`call_error`, `refused.call_errors`",
        reads: "pt_regs: orig_ax on x86_64, syscallno on aarch64",
        methods: &[AttachMethod {
            lack: no_call_number,
            ..exact(by(&[HOOK_CALL]), "each one, but for calls made by io_uring", TRACEPOINT)
        }],
    },
    Probe {
        id: "oom_kills",
        proves: "the OOM killer chose a process",
        makes: "`oom_kill`",
        reads: "task_struct: tgid, comm",
        methods: &[exact(
            by(&[HOOK_OOM]),
            "each one",
            "6.8 to 6.18, and earlier ones with its backport",
        )],
    },
    Probe {
        id: "oom_scope",
        proves: "whether it chose for the whole host or for a memory cgroup",
        makes: "`oom_kill.in_cgroup`",
        reads: "oom_control: memcg",
        methods: &[
            AttachMethod {
                lack: no_memory_cgroups,
                ..exact(by(&[HOOK_OOM_ENTER, HOOK_OOM_EXIT]), "each one", FUNCTION)
            },
            AttachMethod {
                lack: no_memory_cgroups,
                ..exact(by(&[kprobe(HOOK_OOM_ENTER), kprobe(HOOK_OOM_EXIT)]), PROBE_SAYS, PROBE)
            },
        ],
    },
];

fn no_drop_reason(config: &Config) -> Option<&'static str> {
    (config.drop_reason_proto_mem == ABSENT)
        .then_some("without drop reasons in this kernel (before 5.17)")
}

fn no_memory_cgroups(layout: &Layout, _: &Config) -> Option<&'static str> {
    (layout.oom_memcg == ABSENT).then_some("without memory cgroups in this kernel")
}

fn no_call_number(layout: &Layout, _: &Config) -> Option<&'static str> {
    (layout.regs_call == ABSENT).then_some(
        "the number of a system call stands in no place that is known on this architecture",
    )
}
