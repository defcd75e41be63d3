//! What the programs count, and the state that they keep for the whole host. Both are mapped into
//! user space: reading them takes no system call.

use crate::{CALLS, ERRNOS, HOOKS, PROGRAMS, RateWindow};

/// What the programs count. One slot per CPU, so that CPUs do not write to each other's cache
/// lines.
///
/// Programs change a member by the atomic add instruction alone: in the middle of a load, an
/// addition and a store, an interrupt on the same CPU can run the same program, or the backup
/// program of the hook, and one of the two additions would be lost. The kernel skips a program that
/// is running on the CPU only since 6.1 on tracepoints (kernel/trace/bpf_trace.c,
/// `__bpf_trace_run`) and since 5.12 on functions (kernel/bpf/trampoline.c, `__bpf_prog_enter`).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By `REFUSED_*` and `SIDE_*`
    pub refused: [[u64; 2]; 3],
    /// Receive refusals with an empty receive queue
    pub forced_first_skb: u64,
    /// kfree_skb with reason PROTO_MEM
    pub dropped_skb: u64,
    /// Of these, where the kernel names the socket: by `DROPPED_*`
    pub dropped: [u64; 2],
    /// kfree_skb with reason TCP_LISTEN_OVERFLOW
    pub dropped_listen: u64,
    /// tcp_send_reset with reason ABORT_ON_MEMORY, by `ABORTED_*`
    pub aborted: [u64; 2],
    /// tcp_check_oom that returned true, by `ABORTED_*`
    pub oom_verdicts: [u64; 2],
    pub orphans_in_timers: u64,
    pub allowed_above_high: u64,
    pub forced_above_high: u64,
    /// By `PRESSURE_*`
    pub pressure_entries: [u64; 2],
    pub pressure_exits: u64,
    pub pressure_ns: u64,
    /// tcp_try_rmem_schedule that refused, by `DROPPED_*`
    pub uncharged: [u64; 2],
    /// The same with an empty receive queue: the kernel may take the segment all the same
    pub uncharged_first: u64,
    pub ofo_pruned: u64,
    /// Calls of tcp_collapse_one
    pub collapsed: u64,
    pub accept_queue_syn: u64,
    pub syn_queue: u64,
    /// IPv4, IPv6
    pub accept_queue_ack: [u64; 2],
    pub ports: [u64; 2],
    /// By `CALL_*` and `ERROR_*`
    pub call_errors: [[u64; ERRNOS.len()]; CALLS],
    /// Connections established and closed, on the watched ports
    pub opened: u64,
    pub closed: u64,
    /// Events that found the ring buffer full, and returns of a function without entry arguments;
    /// by hook
    pub dropped_events: [u64; PROGRAMS.len()],
    /// Calls that the first program was skipped for and the backup program has seen; by hook
    pub taken_over: [u64; HOOKS],
    pub padding: [u64; COUNTER_PADDING],
}

// By hand: core implements it for arrays of up to 32 elements.
impl Default for Counters {
    fn default() -> Self {
        Self::from_words([0; Self::WORDS])
    }
}

/// The words of the named members of [`Counters`]; padding fills the last cache line.
const COUNTER_WORDS: usize = 35 + ERRNOS.len() * CALLS + PROGRAMS.len() + HOOKS;
const COUNTER_PADDING: usize = COUNTER_WORDS.next_multiple_of(8) - COUNTER_WORDS;
const _: () = assert!(size_of::<Counters>() == (COUNTER_WORDS + COUNTER_PADDING) * 8);

/// The state of the whole host. All CPUs write to it without a lock, so programs access it member
/// by member, by volatile loads and stores, and count by the atomic add instruction. Two CPUs that
/// see the same crossing at the same instant may both report it; user space keeps the first report.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Connections established and not yet closed on the watched ports; changed by the atomic add
    /// instruction alone. A connection from before the attach is counted when it closes, not
    /// before: until user space adds `present`, the number can be below zero.
    pub connections: u64,
    pub padding: [u64; 7],
    /// How many of the three limits usage was above at the last comparison
    pub zone: u64,
    pub highest_zone: u64,
    /// Crossings that were reported in this second, and those that were not reported at all
    pub crossings: RateWindow,
    pub suppressed: u64,
    /// The same for memory pressure
    pub pressure_changes: RateWindow,
    pub pressure_suppressed: u64,
    /// Orphans at the kernel's last sum, and the largest sum
    pub orphans: u64,
    pub orphans_max: u64,
    /// The longest accept queue that was found full, and its limit
    pub accept_queue_len: u64,
    pub accept_queue_max: u64,
    /// `OOM_*` while the OOM killer chooses
    pub oom_scope: u64,
    /// Crossings that found the ring buffer full; also in [`Counters::dropped_events`]
    pub dropped_crossings: u64,
    /// Examples that were counted and not sent: no token or no room in the second
    /// ([`crate::EXAMPLES`])
    pub not_shown: u64,
    /// Connections that an iterator found; user space adds them to `connections`, or replaces it
    pub present: u64,
    /// How many sockets without a peer have been destroyed, each of which leaves a sample. User
    /// space makes such a socket in order to sample the kernel's own usage and limits, which a
    /// network namespace does not show. Incremented after the other members of the sample are
    /// written.
    pub samples: u64,
    pub sample_pages: u64,
    pub sample_tcp_mem: [u64; 3],
    /// The jiffies at which memory pressure was entered, 0: no pressure; and those of the sample
    pub sample_pressure_since_jiffies: u64,
    pub sample_jiffies: u64,
    /// CLOCK_MONOTONIC
    pub sample_ktime_ns: u64,
}
