//! What was seen, as plain numbers: the input of every verdict. All counts are since the start.

use std::collections::BTreeMap;

use crate::output::record::Tier;

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

/// A process that the OOM killer chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomVictim {
    pub pid: u32,
    pub comm: String,
    /// For the memory cgroup that it is in, not for the host; `None`: the kernel did not say.
    pub in_cgroup: Option<bool>,
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
}
