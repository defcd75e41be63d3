//! What is counted in the kernel, and the state that it keeps there: both mapped, so that reading takes no system call.

use crate::{CALLS, ERRNOS, HOOKS, PROGRAMS};

/// Counted in the kernel. One slot per CPU for the first programs of their hooks, and one for backup programs, which can interrupt them. In a
/// slot each member is written by one program only, or by one of two that are never attached at once: a program does not interrupt itself
/// on a CPU (the kernel skips it then, and counts that), so plain additions lose nothing.
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
    /// tcp_check_oom that said yes, by `ABORTED_*`
    pub oom_verdicts: [u64; 2],
    pub orphans_in_timers: u64,
    pub allowed_above_high: u64,
    pub forced_above_high: u64,
    /// By `PRESSURE_*`
    pub pressure_entries: [u64; 2],
    pub pressure_exits: u64,
    pub pressure_ns: u64,
    /// tcp_try_rmem_schedule that said no, by `DROPPED_*`
    pub uncharged: [u64; 2],
    /// The same with an empty receive queue, in which case the segment may be taken all the same
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
    /// Connections established, and closed, on the watched ports
    pub opened: u64,
    pub closed: u64,
    /// Events that found the ring buffer full, and returns of a function whose beginning was missed; by hook
    pub lost: [u64; PROGRAMS.len()],
    /// Of backup programs: calls that the first program was skipped for; by hook
    pub taken_over: [u64; HOOKS],
    pub padding: [u64; COUNTER_PADDING],
}

// By hand: core has it for arrays of up to 32.
impl Default for Counters {
    fn default() -> Self {
        Self::from_words([0; Self::WORDS])
    }
}

/// What [`Counters`] names; the rest fills its last cache line.
const COUNTER_WORDS: usize = 35 + ERRNOS.len() * CALLS + PROGRAMS.len() + HOOKS;
const COUNTER_PADDING: usize = COUNTER_WORDS.next_multiple_of(8) - COUNTER_WORDS;
const _: () = assert!(size_of::<Counters>() == (COUNTER_WORDS + COUNTER_PADDING) * 8);

/// Where tcp_mem usage stands, for the whole host. Written without a lock: two CPUs that see the same crossing at the same
/// instant may both report it; user space keeps the first.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Connections established and not yet closed on the watched ports; changed by the atomic add instruction alone. Those that were there
    /// before are counted as they close, and not before: without them the number can be below zero.
    pub connections: u64,
    pub padding: [u64; 7],
    /// How many of the three limits the usage was above when last seen
    pub zone: u64,
    pub highest_zone: u64,
    pub window_start_ns: u64,
    pub window_events: u64,
    pub suppressed: u64,
    /// The same for memory pressure
    pub pressure_window_start_ns: u64,
    pub pressure_window_events: u64,
    pub pressure_suppressed: u64,
    /// Orphans as the kernel last summed them up, and the most that it did
    pub orphans: u64,
    pub orphans_max: u64,
    /// The longest accept queue that was found full, and its limit
    pub accept_queue_len: u64,
    pub accept_queue_max: u64,
    /// `OOM_*` while the OOM killer chooses
    pub oom_scope: u64,
    /// Crossings that found the ring buffer full; also in [`Counters::lost`]. Like the next one changed by the atomic add instruction
    pub lost_crossings: u64,
    /// Examples that were counted without being sent: their kind and place had no token left ([`crate::EXAMPLES`])
    pub not_shown: u64,
    /// Connections that an iterator found; user space adds them to those above, or puts them in their place
    pub present: u64,
    /// How many times a socket that never was connected has gone, and what the last one saw: user space makes such a socket in order to
    /// look. The kernel's own usage and limits, which a network namespace does not show.
    pub looks: u64,
    pub look_pages: u64,
    pub look_tcp_mem: [u64; 3],
    /// The jiffies at which memory pressure was entered, 0 when there is none; and those of the look
    pub look_pressure_since_jiffies: u64,
    pub look_jiffies: u64,
    /// CLOCK_MONOTONIC
    pub look_ktime_ns: u64,
}
