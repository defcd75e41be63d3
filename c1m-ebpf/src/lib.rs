//! The interface between the eBPF programs and user space: records, constants and layouts; and the
//! decisions of the programs that need nothing but numbers.
//!
//! No dependency, `repr(C)`, explicit padding, no `bool` and no enum in a record: the two sides are
//! built by different compilers. User space depends on this library alone; the programs are behind
//! the feature `programs`. The decisions are here so that they have tests on the host: `tests/`,
//! run by `cargo xtask test`.
#![no_std]

mod bucket;
mod cause;
mod counted;
mod counters;
mod crossing;
mod failure;
mod marks;
mod program;
mod snapshot;

pub use bucket::*;
pub use cause::*;
pub use counted::*;
pub use counters::*;
pub use crossing::*;
pub use failure::*;
pub use marks::*;
pub use program::*;
pub use snapshot::*;

/// IPPROTO_TCP, include/uapi/linux/in.h
pub const TCP: u16 = 6;
/// IPPROTO_MPTCP, include/uapi/linux/in.h: its sockets use tcp_mem as well
pub const MPTCP: u16 = 262;

/// A member that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Offsets of members in the running kernel, in bytes, from its BTF.
///
/// A frozen `.rodata` global: the verifier sees each offset as a constant, and can prove a direct
/// load through a BTF pointer. It refuses the same load with an offset from an ordinary map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// struct sock
    pub sock_prot: u32,
    pub sock_family: u32,
    pub sock_num: u32,
    pub sock_dport: u32,
    pub sock_daddr: u32,
    pub sock_rcv_saddr: u32,
    pub sock_v6_daddr: u32,
    pub sock_v6_rcv_saddr: u32,
    pub sock_net: u32,
    pub sock_protocol: u32,
    /// sk_backlog.rmem_alloc: truesize of the receive queue, in bytes
    pub sock_rmem_alloc: u32,
    pub sock_wmem_queued: u32,
    /// sk_max_ack_backlog: the limit of a listener's accept queue
    pub sock_max_ack_backlog: u32,
    /// sk_ack_backlog: the length of a listener's accept queue
    pub sock_ack_backlog: u32,
    pub sock_drops: u32,
    pub sock_rcvbuf: u32,
    pub sock_forward_alloc: u32,
    /// sk_receive_queue.qlen, in skbs
    pub sock_receive_queue_len: u32,
    /// sk_cgrp_data.cgroup; [`ABSENT`] without CONFIG_SOCK_CGROUP_DATA, and before 5.15, where it
    /// is not a pointer
    pub sock_cgroup: u32,
    /// struct inet_sock, which begins with a struct sock
    pub inet_sport: u32,
    /// mc_index
    pub inet_mc_index: u32,
    /// pinet6; [`ABSENT`] without CONFIG_IPV6
    pub inet_pinet6: u32,
    /// struct ipv6_pinfo: mcast_oif; [`ABSENT`] without CONFIG_IPV6
    pub pinfo_mcast_oif: u32,
    /// struct inet_connection_sock, which begins with a struct inet_sock: icsk_accept_queue.qlen,
    /// the requests whose handshake is not complete
    pub request_queue_len: u32,
    /// struct proto
    pub proto_memory_allocated: u32,
    pub proto_memory_pressure: u32,
    pub proto_sysctl_mem: u32,
    /// struct net: ns.inum
    pub net_inum: u32,
    /// struct net: ipv4.sysctl_tcp_syncookies; [`ABSENT`] without CONFIG_SYN_COOKIES
    pub net_syncookies: u32,
    /// struct cgroup, struct kernfs_node
    pub cgroup_kn: u32,
    pub kernfs_id: u32,
    /// struct task_struct
    pub task_tgid: u32,
    pub task_comm: u32,
    /// struct sk_buff
    pub skb_protocol: u32,
    /// struct pt_regs: the number of the system call
    pub regs_call: u32,
    /// struct oom_control: memcg
    pub oom_memcg: u32,
}

impl Layout {
    pub const ABSENT: Self = Self {
        sock_prot: ABSENT,
        sock_family: ABSENT,
        sock_num: ABSENT,
        sock_dport: ABSENT,
        sock_daddr: ABSENT,
        sock_rcv_saddr: ABSENT,
        sock_v6_daddr: ABSENT,
        sock_v6_rcv_saddr: ABSENT,
        sock_net: ABSENT,
        sock_protocol: ABSENT,
        sock_rmem_alloc: ABSENT,
        sock_wmem_queued: ABSENT,
        sock_max_ack_backlog: ABSENT,
        sock_ack_backlog: ABSENT,
        sock_drops: ABSENT,
        sock_rcvbuf: ABSENT,
        sock_forward_alloc: ABSENT,
        sock_receive_queue_len: ABSENT,
        sock_cgroup: ABSENT,
        inet_sport: ABSENT,
        inet_mc_index: ABSENT,
        inet_pinet6: ABSENT,
        pinfo_mcast_oif: ABSENT,
        request_queue_len: ABSENT,
        proto_memory_allocated: ABSENT,
        proto_memory_pressure: ABSENT,
        proto_sysctl_mem: ABSENT,
        net_inum: ABSENT,
        net_syncookies: ABSENT,
        cgroup_kn: ABSENT,
        kernfs_id: ABSENT,
        task_tgid: ABSENT,
        task_comm: ABSENT,
        skb_protocol: ABSENT,
        regs_call: ABSENT,
        oom_memcg: ABSENT,
    };
}

/// How many ports can be watched.
pub const WATCHED_PORTS: usize = 8;

/// What to watch, and numbers other than offsets that differ between kernels. Frozen like
/// [`Layout`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Local ports whose connections are counted, host byte order, from the start of the array; an
    /// array that begins with 0: every port
    pub watch_ports: [u32; WATCHED_PORTS],
    /// Inode of the network namespace that the ports are in; 0: any
    pub watch_netns: u32,
    /// SKB_DROP_REASON_PROTO_MEM; [`ABSENT`] before 5.17
    pub drop_reason_proto_mem: u32,
    /// SKB_DROP_REASON_TCP_LISTEN_OVERFLOW; [`ABSENT`] before 6.17
    pub drop_reason_listen_overflow: u32,
    /// SK_RST_REASON_TCP_ABORT_ON_MEMORY; [`ABSENT`] before 6.10
    pub reset_reason_memory: u32,
    /// SOCK_MIN_SNDBUF, in bytes: include/net/sock.h
    pub min_sndbuf_bytes: u32,
    /// Slots of the counters, one per CPU
    pub cpus: u32,
    /// Position of the stack pointer in struct pt_regs, in words
    pub stack_pointer: u32,
    /// By how many bytes the stack pointer is higher after a function's return than at its entry
    pub return_bytes: u32,
    /// By `HOOK_*`
    pub arguments: [Arguments; PROGRAMS.len()],
}

impl Config {
    pub const NONE: Self = Self {
        watch_ports: [0; WATCHED_PORTS],
        watch_netns: 0,
        drop_reason_proto_mem: ABSENT,
        drop_reason_listen_overflow: ABSENT,
        reset_reason_memory: ABSENT,
        min_sndbuf_bytes: 0,
        cpus: 0,
        stack_pointer: ABSENT,
        return_bytes: 0,
        arguments: [Arguments::ABSENT; PROGRAMS.len()],
    };
}

/// Is this one of the watched ports, [`Config::watch_ports`]? `port_at` loads one of them: programs
/// read no more of them than they need.
#[inline(always)]
#[must_use]
pub fn is_port_watched(port: u16, port_at: impl Fn(usize) -> u32) -> bool {
    if port_at(0) == 0 {
        return true;
    }
    let mut index = 0;
    while index < WATCHED_PORTS {
        if u32::from(port) == port_at(index) {
            return true;
        }
        index += 1;
    }
    false
}

/// Kinds of [`Event`].
pub const EVENT_CROSSING: u32 = 1;
pub const EVENT_REFUSAL: u32 = 2;
pub const EVENT_ABORTED: u32 = 3;
pub const EVENT_OOM_KILL: u32 = 4;
pub const EVENT_PRESSURE: u32 = 5;
pub const EVENT_OVERFLOW: u32 = 6;
pub const EVENT_PORTS: u32 = 7;
pub const EVENT_CALL_ERROR: u32 = 8;

/// The scope of the OOM killer, [`Shared::oom_scope`] and [`Event::limit`]; 0: unknown.
pub const OOM_HOST: u64 = 1;
pub const OOM_CGROUP: u64 = 2;

/// A socket as the hook saw it. Addresses in network byte order, ports in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketRecord {
    /// AF_INET or AF_INET6; 0: unknown
    pub family: u16,
    pub local_port: u16,
    pub remote_port: u16,
    pub padding: u16,
    pub netns: u32,
    /// The process whose call is being served; 0 in a softirq
    pub pid: u32,
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub comm: [u8; 16],
    /// 0: unknown
    pub cgroup: u64,
}

/// One entry of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: u32,
    pub hook: u32,
    /// CLOCK_MONOTONIC
    pub ktime_ns: u64,
    pub jiffies: u64,
    /// proto->memory_pressure: the jiffies at which pressure was entered, 0: no pressure
    pub pressure_since_jiffies: u64,
    /// tcp_mem usage, from the kernel's own counter
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    pub connections: u64,
    /// Crossings: how many were counted without being reported so far
    pub suppressed: u64,
    /// Refusals: `REFUSED_*`; aborted orphans: `ABORTED_*`; pressure: why it began; overflows:
    /// `QUEUE_*`; errors of calls: `CALL_*`; kills: `OOM_*`
    pub limit: u32,
    /// Refusals: `SIDE_*`; pressure: `PRESSURE_ENTERED` or `PRESSURE_LEFT`; errors of calls:
    /// `ERROR_*`
    pub side: u32,
    pub receive_queue_bytes: u32,
    pub send_queue_bytes: u32,
    /// Pressure that ended: its duration in nanoseconds, 0: unknown; overflows: length of the
    /// queue; orphans: by how many bits the kernel shifted the number of orphans before it compared
    pub value: u64,
    /// Overflows: the queue's limit
    pub bound: u64,
    pub socket: SocketRecord,
}

const _: () = assert!(size_of::<SocketRecord>() == 72 && size_of::<Event>() == 184);

/// Converts records of plain integers to words and back. The traits of libraries for this would
/// need a dependency here, and cannot be implemented for foreign types elsewhere.
macro_rules! plain {
    ($type:ty, $word:ty) => {
        impl $type {
            pub const WORDS: usize = size_of::<Self>() / size_of::<$word>();

            /// The words of the record.
            #[must_use]
            pub fn words(&self) -> &[$word] {
                // SAFETY: repr(C), made of integers of at most this size, and without implicit
                // padding.
                unsafe {
                    core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), Self::WORDS)
                }
            }

            /// The record of these words.
            #[must_use]
            pub fn from_words(words: [$word; Self::WORDS]) -> Self {
                // SAFETY: same size, and every bit pattern is a valid integer.
                unsafe { core::mem::transmute(words) }
            }
        }
    };
}

plain!(Layout, u32);
plain!(Config, u32);
plain!(Event, u64);
plain!(Counters, u64);
plain!(Shared, u64);
plain!(SnapshotLayout, u32);
plain!(HeldSocket, u64);
plain!(IdleKey, u64);
plain!(IdleRow, u64);
plain!(Tables, u64);
