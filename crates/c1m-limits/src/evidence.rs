//! What was seen, as plain numbers: the input of every verdict. All counts are since the start.

use std::{collections::BTreeMap, time::Duration};

use c1m_record::{Refused, Tier};

/// A system call whose error can be a limit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `socket`, `socketpair`
    Socket,
    /// `accept`, `accept4`
    Accept,
    Bind,
    Connect,
    /// `sendto`, `sendmsg`, `write`, `writev` and the like
    Send,
    /// `recvfrom`, `recvmsg`, `read` and the like
    Receive,
    /// `epoll_ctl`
    EpollAdd,
    /// Any other call that makes a descriptor, such as `openat`, `dup` or `eventfd2`
    Descriptor,
    Other,
}

/// Error numbers that a limit can be behind: include/uapi/asm-generic/errno.h, the same on x86_64 and aarch64.
pub mod errno {
    pub const ENOMEM: i32 = 12;
    pub const ENFILE: i32 = 23;
    pub const EMFILE: i32 = 24;
    pub const ENOSPC: i32 = 28;
    pub const EADDRNOTAVAIL: i32 = 99;
    pub const ENOBUFS: i32 = 105;
}

/// A process that the OOM killer chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomVictim {
    pub pid: u32,
    pub comm: String,
    /// For the memory cgroup that it is in, not for the host; `None`: the kernel did not say.
    pub in_cgroup: Option<bool>,
}

/// Whose listeners the readings of accept queues are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listeners {
    /// Everybody's in this network namespace, which is what TcpExt counts.
    #[default]
    All,
    /// A target's. `drops`: SYNs and ends of handshakes that they dropped since the start, for whatever reason; `None`: not known.
    Target { drops: Option<u64> },
}

impl Listeners {
    /// What is known to have dropped nothing has not been full, whatever the network namespace counts.
    #[must_use]
    pub fn dropped_nothing(self) -> bool {
        self == Self::Target { drops: Some(0) }
    }
}

/// Everything that was counted. `None`: this kernel, or what it lets be hooked, does not tell; never a guess.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    pub tier: Option<Tier>,

    /// Allocations that the kernel refused (net/core/sock.c, `__sk_mem_raise_allocated`), by what it compared: usage above high.
    pub refused_high_send: u64,
    pub refused_high_receive: u64,
    /// Under pressure, and the socket above its fair share.
    pub refused_fair_share_send: u64,
    pub refused_fair_share_receive: u64,
    /// Neither: the charge to the socket's memory cgroup.
    pub refused_memcg_send: u64,
    pub refused_memcg_receive: u64,
    /// Taken above high all the same.
    pub allowed_above_high: Option<u64>,
    /// `sk_forced_mem_schedule` above high: a first skb, a FIN, the least that a sender is promised.
    pub forced_above_high: Option<u64>,

    /// Times that the kernel's memory pressure began because usage was above the second limit.
    pub pressure_entries: Option<u64>,
    /// The same because an allocation of pages or skbs failed, with usage below it.
    pub pressure_entries_allocator: Option<u64>,
    pub pressure_exits: Option<u64>,
    /// Times that usage was seen to come to be above the second and the third limit, and whether it is there now.
    pub crossed_pressure: Option<u64>,
    pub crossed_high: Option<u64>,
    pub past_pressure: Option<bool>,
    pub past_high: Option<bool>,
    /// Time under pressure, of periods that have ended.
    pub pressure_ms: Option<f64>,

    /// Received segments that could not be charged, by whether the socket's receive queue was above `sk_rcvbuf` at that instant.
    pub dropped_receive_buffer: Option<u64>,
    pub dropped_tcp_mem: Option<u64>,

    /// Orphans that `tcp_check_oom` gave up, by cause.
    pub orphans_too_many: Option<u64>,
    pub orphans_out_of_memory: Option<u64>,
    /// Of both, those that a timer gave up (net/ipv4/tcp_timer.c, `tcp_out_of_resources`).
    pub orphans_in_timers: Option<u64>,
    /// The highest number that the kernel compared with `tcp_max_orphans`.
    pub orphans_max: Option<u64>,

    /// SYNs dropped because the listener's accept queue was full.
    pub accept_queue_syn: Option<u64>,
    /// Ends of handshakes dropped for the same reason.
    pub accept_queue_ack: Option<u64>,
    /// SYNs that found the listener's SYN queue full.
    pub syn_queue_full: Option<u64>,
    /// The longest accept queue at an overflow, and what it stood beside.
    pub accept_queue_len: Option<u64>,
    pub accept_queue_max: Option<u64>,

    /// Searches for a local port that found none.
    pub ports_exhausted: Option<u64>,

    /// System calls of any process of the host that failed, by errno.
    pub call_errors: BTreeMap<(Call, i32), u64>,
    /// The own errors, by name (`accept EMFILE`, `connect EADDRNOTAVAIL`): there without eBPF as well.
    pub own_errors: BTreeMap<String, u64>,
    pub oom_kills: Vec<OomVictim>,
    /// What the kernel's own counters of this network namespace have grown by (/proc/net/netstat TcpExt).
    pub tcp_ext: BTreeMap<String, u64>,
    pub listeners: Listeners,
    pub host: Growth,
}

impl Evidence {
    /// Of the probes alone. `calls`: failed system calls of any process; `accept_queue`: the longest
    /// one at an overflow, and what it may hold.
    #[must_use]
    pub fn of_probes(
        tier: Tier,
        refused: Refused,
        calls: BTreeMap<(Call, i32), u64>,
        accept_queue: Option<(u64, u64)>,
    ) -> Self {
        Self {
            tier: Some(tier),
            refused_high_send: refused.high_send,
            refused_high_receive: refused.high_receive,
            refused_fair_share_send: refused.fair_share_send,
            refused_fair_share_receive: refused.fair_share_receive,
            refused_memcg_send: refused.memcg_send,
            refused_memcg_receive: refused.memcg_receive,
            allowed_above_high: refused.allowed_above_high,
            forced_above_high: refused.forced_above_high,
            pressure_entries: refused.pressure_entries,
            pressure_entries_allocator: refused.pressure_entries_allocator,
            pressure_exits: refused.pressure_exits,
            pressure_ms: refused
                .pressure_ms
                .map(|ms| Duration::from_millis(ms).as_secs_f64() * 1e3),
            dropped_receive_buffer: refused.dropped_receive_buffer,
            dropped_tcp_mem: refused.dropped_tcp_mem,
            orphans_too_many: refused.orphans_aborted_too_many,
            orphans_out_of_memory: refused.orphans_aborted_out_of_memory,
            orphans_in_timers: refused.orphans_in_timers,
            orphans_max: refused.orphans_max,
            accept_queue_syn: refused.accept_queue_syn,
            accept_queue_ack: refused.accept_queue_ack,
            syn_queue_full: refused.syn_queue_full,
            accept_queue_len: accept_queue.map(|(len, _)| len),
            accept_queue_max: accept_queue.map(|(_, max)| max),
            ports_exhausted: refused.ports_exhausted,
            call_errors: calls,
            tcp_ext: refused.kernel,
            ..Self::default()
        }
    }
}

/// Counters besides TcpExt that a look at the start and one at the end can tell: by how much they have grown. `None`: the host
/// does not show them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Growth {
    /// Packets that connection tracking dropped (`drop` of /proc/net/stat/nf_conntrack), clashes of two new entries included.
    pub conntrack_drop: Option<u64>,
    pub conntrack_insert_failed: Option<u64>,
    /// Entries evicted because the table was full.
    pub conntrack_early_drop: Option<u64>,
    /// Of this process's own memory cgroup: allocations that failed at its limit, and processes that were killed for it.
    pub cgroup_oom: Option<u64>,
    pub cgroup_oom_kill: Option<u64>,
    /// Charges of socket memory that failed (cgroup v1, `memory.kmem.tcp.failcnt`).
    pub cgroup_tcp_failed: Option<u64>,
    /// Times that sockets were throttled for the cgroup's memory (cgroup v2, where the kernel counts them).
    pub cgroup_sock_throttled: Option<u64>,
    /// Processes that the OOM killer ended, for the host or for any cgroup (`oom_kill` of /proc/vmstat).
    pub oom_kill: Option<u64>,
    /// Times that somebody had to free memory of the *host* before getting any (`allocstall_*` of /proc/vmstat). The host's OOM killer
    /// is never called without it; a cgroup's does not count here (mm/vmscan.c, do_try_to_free_pages, 6.18).
    pub allocstall: Option<u64>,
}

impl Evidence {
    /// Failed calls of that kind with that error, of any process.
    #[must_use]
    pub fn failed(&self, call: Call, errno: i32) -> u64 {
        self.call_errors.get(&(call, errno)).copied().unwrap_or(0)
    }

    /// The own errors of that name.
    #[must_use]
    pub fn own(&self, name: &str) -> u64 {
        self.own_errors.get(name).copied().unwrap_or(0)
    }

    /// Growth of a counter of TcpExt; 0 where the kernel does not have it.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.tcp_ext.get(name).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn refused_high(&self) -> u64 {
        self.refused_high_send.saturating_add(self.refused_high_receive)
    }

    #[must_use]
    pub fn refused_fair_share(&self) -> u64 {
        self.refused_fair_share_send.saturating_add(self.refused_fair_share_receive)
    }

    #[must_use]
    pub fn refused_memcg(&self) -> u64 {
        self.refused_memcg_send.saturating_add(self.refused_memcg_receive)
    }
}

#[cfg(test)]
mod tests {
    use super::errno::*;

    #[test]
    fn error_numbers_are_those_of_the_platform() {
        assert_eq!(
            (ENOMEM, ENFILE, EMFILE, ENOSPC, EADDRNOTAVAIL, ENOBUFS),
            (
                libc::ENOMEM,
                libc::ENFILE,
                libc::EMFILE,
                libc::ENOSPC,
                libc::EADDRNOTAVAIL,
                libc::ENOBUFS
            )
        );
    }
}
