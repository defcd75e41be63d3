//! The table of limits: what each is a limit of, where it is read, what is turned, how it shows itself, and how it is told from those
//! that look the same. docs/limits.md is made from it.

use super::reading::{Reading, Readings};
use c1m_record::{LimitName, Scope};

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub name: LimitName,
    pub scope: Scope,
    pub unit: &'static str,
    /// What an administrator turns.
    pub knob: &'static str,
    /// The files or calls that usage and ceiling are read from.
    pub source: &'static str,
    /// How much of it each connection takes, where that is so by construction.
    pub per_connection: Option<u64>,
    /// What is seen when it is hit.
    pub symptom: &'static str,
    /// By what it is told from its neighbours.
    pub apart: &'static str,
    /// Where the kernel decides: file, function, version.
    pub kernel: &'static str,
    /// Usage and ceiling.
    read: fn(&Readings) -> (Option<u64>, Option<u64>),
    /// Growth up to this says nothing: what else moves the number on an idle host.
    noise: fn(&Readings) -> u64,
}

impl Limit {
    #[must_use]
    pub fn of(name: LimitName) -> &'static Self {
        // The table stands in the order of the names, which a test holds on to.
        &CATALOG[name as usize]
    }

    #[must_use]
    pub fn reading(&self, now: &Readings) -> Reading {
        let (used, ceiling) = (self.read)(now);
        Reading { limit: self.name, used, ceiling }
    }

    #[must_use]
    pub fn noise(&self, now: &Readings) -> u64 {
        (self.noise)(now)
    }
}

/// Each CPU keeps up to 255 pages apart from the kernel's counter, either way (include/net/sock.h, `sk_memory_allocated_add`, 6.18).
fn residue_pages(now: &Readings) -> u64 {
    2 * 256 * now.cpus.unwrap_or(1)
}

fn none(_: &Readings) -> u64 {
    0
}

fn a_few(_: &Readings) -> u64 {
    64
}

/// What programs take and give back anyway: a hundredth of memory.
fn memory_noise(now: &Readings) -> u64 {
    now.memory_total_bytes.unwrap_or(0) / 100
}

fn tcp_mem(now: &Readings, level: usize) -> (Option<u64>, Option<u64>) {
    let pages = now.sockstat.map(|sockets| sockets.tcp_mem_pages);
    (pages, now.tcp_mem.map(|limits| limits[level]))
}

/// In the order of [`LimitName::ALL`].
pub const CATALOG: [Limit; 17] = [
    Limit {
        name: LimitName::TcpMemPressure,
        scope: Scope::Host,
        unit: "pages",
        knob: "net.ipv4.tcp_mem, second value",
        source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
        per_connection: None,
        symptom: "receive windows stop growing; a socket with more than its fair share of queued data is refused more",
        apart: "the refused allocation's own values: usage at or below high and the kernel under pressure, which began because usage was \
                above the second value and not because an allocation of an skb failed",
        kernel: "net/core/sock.c, __sk_mem_raise_allocated; net/ipv4/tcp.c, tcp_enter_memory_pressure (5.4 to 6.18)",
        read: |now| tcp_mem(now, 1),
        noise: residue_pages,
    },
    Limit {
        name: LimitName::TcpMemHigh,
        scope: Scope::Host,
        unit: "pages",
        knob: "net.ipv4.tcp_mem, third value",
        source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
        per_connection: None,
        symptom: "sends stall, received segments are dropped or answered by a zero window; new connections still succeed",
        apart: "usage above the third value in the very call that was refused; TCPRcvQDrop alone never names it, because a full receive \
                buffer moves it as well",
        kernel: "net/core/sock.c, __sk_mem_raise_allocated (5.4 to 6.18)",
        read: |now| tcp_mem(now, 2),
        noise: residue_pages,
    },
    Limit {
        name: LimitName::MemoryCgroup,
        scope: Scope::Cgroup,
        unit: "bytes",
        knob: "memory.max, and memory.high, above which processes are slowed down (cgroup v2); memory.limit_in_bytes and memory.kmem.tcp.limit_in_bytes (v1)",
        source: "memory.current and memory.max of the tightest cgroup above this process (v1: memory.usage_in_bytes, memory.limit_in_bytes); \
                 memory.high, or memory.kmem.tcp.limit_in_bytes (v1), where that leaves less",
        per_connection: None,
        symptom: "a process is gone, killed for its cgroup; on v1 with a limit for sockets, sends and receives are refused",
        apart: "an allocation refused with tcp_mem below high and no pressure; an OOM kill with memory of the host to spare, or with the \
                cgroup's own oom counter",
        kernel: "mm/memcontrol.c, try_charge_memcg, mem_cgroup_sk_charge (6.18; mem_cgroup_charge_skmem up to 6.17)",
        read: |now| (now.cgroup_used_bytes, now.cgroup_max_bytes),
        noise: memory_noise,
    },
    Limit {
        name: LimitName::ReceiveBuffer,
        scope: Scope::Socket,
        unit: "bytes",
        knob: "SO_RCVBUF, net.ipv4.tcp_rmem, third value",
        source: "net.ipv4.tcp_rmem; no sum of all sockets is worth its price",
        per_connection: None,
        symptom: "the peer's sends stall at a zero window; segments are dropped (TCPRcvQDrop)",
        apart: "sk_rmem_alloc against sk_rcvbuf in the instant of the drop; without that, drops or windows that stay closed while tcp_mem \
                refused nothing",
        kernel: "net/ipv4/tcp_input.c, tcp_try_rmem_schedule, tcp_can_ingest (6.18)",
        read: |now| (None, now.tcp_rmem.map(|limits| limits[2])),
        noise: none,
    },
    Limit {
        name: LimitName::SendBuffer,
        scope: Scope::Socket,
        unit: "bytes",
        knob: "SO_SNDBUF, net.ipv4.tcp_wmem, third value",
        source: "net.ipv4.tcp_wmem; no sum of all sockets is worth its price",
        per_connection: None,
        symptom: "send waits or answers EAGAIN, which is how every fast sender is slowed down; an error only where segments can't be split",
        apart: "TCPWqueueTooBig, a counter of this limit alone; EAGAIN is never counted",
        kernel: "net/ipv4/tcp_output.c, tcp_fragment (6.18)",
        read: |now| (None, now.tcp_wmem.map(|limits| limits[2])),
        noise: none,
    },
    Limit {
        name: LimitName::Orphans,
        scope: Scope::Host,
        unit: "orphans",
        knob: "net.ipv4.tcp_max_orphans",
        source: "/proc/net/sockstat orphan, net.ipv4.tcp_max_orphans",
        per_connection: None,
        symptom: "closed connections are reset before their last data is delivered (TCPAbortOnMemory); the kernel logs `too many orphaned sockets`",
        apart: "the verdict's own split in the reset orphan: not out of memory, so too many. An orphan that has not sent for long, or met an \
                ICMP error, counts twice or four times, so a quarter of the value can be the limit",
        kernel: "net/ipv4/tcp.c, tcp_check_oom; net/ipv4/tcp_timer.c, tcp_out_of_resources (5.4 to 6.18)",
        read: |now| (now.sockstat.map(|sockets| sockets.orphan), now.max_orphans),
        noise: a_few,
    },
    Limit {
        name: LimitName::OrphanMemory,
        scope: Scope::Host,
        unit: "pages",
        knob: "net.ipv4.tcp_mem, third value",
        source: "/proc/net/sockstat mem, net.ipv4.tcp_mem",
        per_connection: None,
        symptom: "connections that are closed with unsent data are reset (TCPAbortOnMemory); the kernel logs `out of memory -- consider tuning tcp_mem`",
        apart: "the reset orphan's own values: more than 4,608 bytes queued to send, and usage above the third value",
        kernel: "net/ipv4/tcp.c, tcp_check_oom (5.4 to 6.18)",
        read: |now| tcp_mem(now, 2),
        noise: residue_pages,
    },
    Limit {
        name: LimitName::Nofile,
        scope: Scope::Process,
        unit: "descriptors",
        knob: "RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd); more --workers, each of which has a table of its own",
        source: "getrlimit(RLIMIT_NOFILE) times the tables; connections and own descriptors",
        per_connection: Some(1),
        symptom: "accept, socket: EMFILE; connections wait in the accept queue, which overflows behind it",
        apart: "EMFILE of accept or socket; of open, inotify_init and the like it is another limit, or a program that tries how far it comes",
        kernel: "fs/file.c, alloc_fd (5.10 to 6.18)",
        read: |now| (now.descriptors, now.descriptors_max),
        noise: none,
    },
    Limit {
        name: LimitName::NrOpen,
        scope: Scope::Host,
        unit: "descriptors",
        knob: "fs.nr_open",
        source: "fs.nr_open; RLIMIT_NOFILE, which can be raised up to it",
        per_connection: None,
        symptom: "RLIMIT_NOFILE can't be raised; EMFILE below RLIMIT_NOFILE",
        apart: "EMFILE while RLIMIT_NOFILE is above fs.nr_open",
        kernel: "fs/file.c, expand_files; kernel/sys.c, do_prlimit (6.18)",
        read: |now| (now.nofile, now.nr_open),
        noise: none,
    },
    Limit {
        name: LimitName::FileMax,
        scope: Scope::Host,
        unit: "files",
        knob: "fs.file-max",
        source: "/proc/sys/fs/file-nr",
        per_connection: Some(1),
        symptom: "accept, socket, open of every process without CAP_SYS_ADMIN: ENFILE",
        apart: "ENFILE with file-nr near its maximum; ENFILE far below it is an inode that could not be had, so memory",
        kernel: "fs/file_table.c, alloc_empty_file; net/socket.c, sock_alloc (6.18)",
        read: |now| (now.file_nr.map(|files| files.allocated), now.file_nr.map(|files| files.max)),
        noise: a_few,
    },
    Limit {
        name: LimitName::AcceptQueue,
        scope: Scope::Listener,
        unit: "connections",
        knob: "listen's backlog (--backlog) and net.core.somaxconn: the smaller of the two",
        source: "sock_diag of the target's listeners, or of all in this network namespace where a watch has no target: the fullest one; the server's own backlog where none is seen",
        per_connection: None,
        symptom: "SYNs and ends of handshakes are dropped, connects are slow by whole seconds or time out",
        apart: "ListenOverflows, a counter of this limit alone, but of the whole network namespace: a target's own listeners must have been full, or have dropped. When accept fails with EMFILE or ENFILE at the same time, that is the cause",
        kernel: "net/ipv4/tcp_input.c, tcp_conn_request; net/ipv4/tcp_ipv4.c, tcp_v4_syn_recv_sock (5.4 to 6.18)",
        read: |now| match now.accept_queue {
            Some((queued, most)) => (Some(queued), Some(most)),
            None => (None, now.backlog),
        },
        noise: none,
    },
    Limit {
        name: LimitName::SynQueue,
        scope: Scope::Listener,
        unit: "requests",
        knob: "listen's backlog, net.core.somaxconn, net.ipv4.tcp_max_syn_backlog; net.ipv4.tcp_syncookies",
        source: "the server's own backlog, net.ipv4.tcp_max_syn_backlog; the queue itself is not shown",
        per_connection: None,
        symptom: "SYNs are dropped (TCPReqQFullDrop), or answered by cookies, which refuses nothing (TCPReqQFullDoCookies)",
        apart: "its counters, with an accept queue that did not overflow; with tcp_syncookies=2 cookies mean nothing",
        kernel: "net/ipv4/tcp_input.c, tcp_conn_request, tcp_syn_flood_action (6.18)",
        read: |now| (None, syn_queue_ceiling(now)),
        noise: none,
    },
    Limit {
        name: LimitName::Ports,
        scope: Scope::Tuple,
        unit: "ports",
        knob: "net.ipv4.ip_local_port_range; more source or destination addresses",
        source: "net.ipv4.ip_local_port_range less net.ipv4.ip_local_reserved_ports; usage differs for each pair of addresses",
        per_connection: None,
        symptom: "connect: EADDRNOTAVAIL",
        apart: "the kernel's port search that found none; without that hook EADDRNOTAVAIL of connect while there are at least as many \
                sockets as ports. EADDRNOTAVAIL of bind is an address that is not there, EADDRINUSE a port that somebody has",
        kernel: "net/ipv4/inet_hashtables.c, __inet_hash_connect (5.4 to 6.18)",
        read: |now| (None, now.ports),
        noise: none,
    },
    Limit {
        name: LimitName::Conntrack,
        scope: Scope::Netns,
        unit: "entries",
        knob: "net.netfilter.nf_conntrack_max, with nf_conntrack_buckets",
        source: "net.netfilter.nf_conntrack_count, net.netfilter.nf_conntrack_max",
        per_connection: None,
        symptom: "packets of new connections vanish, connects time out while both queues are empty; the kernel logs `table full, dropping packet`",
        apart: "drop of /proc/net/stat/nf_conntrack less insert_failed, which clashes of two entries move together with it",
        kernel: "net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc, nf_ct_resolve_clash (6.18)",
        read: |now| (now.conntrack, now.conntrack_max),
        noise: a_few,
    },
    Limit {
        name: LimitName::EpollWatches,
        scope: Scope::User,
        unit: "watches",
        knob: "fs.epoll.max_user_watches",
        source: "connections, each of which is watched once; fs.epoll.max_user_watches",
        per_connection: Some(1),
        symptom: "epoll_ctl: ENOSPC",
        apart: "ENOSPC of epoll_ctl, which has no other cause",
        kernel: "fs/eventpoll.c, ep_insert (5.4 to 6.18)",
        read: |now| (now.epoll_watches, now.max_user_watches),
        noise: none,
    },
    Limit {
        name: LimitName::TimeWait,
        scope: Scope::Netns,
        unit: "sockets",
        knob: "net.ipv4.tcp_max_tw_buckets",
        source: "/proc/net/sockstat tw, net.ipv4.tcp_max_tw_buckets",
        per_connection: None,
        symptom: "connections end without TIME_WAIT; nothing is refused",
        apart: "TCPTimeWaitOverflow, with tw near its maximum; far below it, memory for the bucket could not be had",
        kernel: "net/ipv4/tcp_minisocks.c, tcp_time_wait; net/ipv4/inet_timewait_sock.c, inet_twsk_alloc (6.18)",
        read: |now| (now.sockstat.map(|sockets| sockets.tw), now.max_tw_buckets),
        noise: a_few,
    },
    Limit {
        name: LimitName::Memory,
        scope: Scope::Host,
        unit: "bytes",
        knob: "memory of the host; fewer connections, smaller buffers",
        source: "/proc/meminfo MemTotal less MemAvailable",
        per_connection: None,
        symptom: "a process is gone, killed by the OOM killer; accept, socket, connect, epoll_ctl: ENOMEM or ENOBUFS; SYNs dropped with \
                  both queues empty",
        apart: "an OOM kill outside of any cgroup's limit, the errno; ListenDrops that no queue explains only beside another sign of want. \
                A process that crashed leaves none of these",
        kernel: "mm/oom_kill.c, out_of_memory; net/core/sock.c, sk_prot_alloc; net/ipv4/tcp_input.c, tcp_conn_request (6.18)",
        read: |now| {
            let used = now.memory_total_bytes.zip(now.memory_available_bytes);
            (used.map(|(total, available)| total.saturating_sub(available)), now.memory_total_bytes)
        },
        noise: memory_noise,
    },
];

/// Of one listener. The sysctl counts only while cookies are off (net/ipv4/tcp_input.c, tcp_conn_request, 6.18).
fn syn_queue_ceiling(now: &Readings) -> Option<u64> {
    match (now.backlog, now.max_syn_backlog, now.syncookies) {
        (Some(backlog), Some(most), Some(0)) => Some(backlog.min(most)),
        (backlog, _, _) => backlog,
    }
}

/// docs/limits.md
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for limit in &CATALOG {
        text += &format!(
            "\n## {}\n\n| | |\n|---|---|\n| limit of | {} |\n| unit | {} |\n| knob | {} |\n| read from | {} |\n| symptom | {} |\n\
             | distinguished by | {} |\n| kernel | {} |\n",
            limit.name.name(),
            limit.scope.name(),
            limit.unit,
            limit.knob,
            limit.source,
            limit.symptom,
            limit.apart,
            limit.kernel
        );
    }
    text
}

const HEAD: &str = r#"# Limits

What can stop a connection on Linux? Each limit has a section: its scope, where its usage is read,
which setting moves it, how it shows itself, and how c1m distinguishes it from limits that look the
same. A verdict names one of them:

```text
verdict  1. nofile (certain, process): a descriptor table was full 20 times: connections waited in the accept queue, or could not be opened
```

This page is made from `crates/c1m-limits/src/catalog.rs`. `cargo test -p c1m-limits --test
limits_page -- --ignored` writes it, and a test fails when it is stale.

- `limits` records have usage, ceiling and headroom of each, at the start and at the end. What can't
  be seen from here is `null`, not 0: tcp_mem and tcp_max_orphans are settings of the host, and no
  other network namespace has them.
- `verdict` records say which of them it was. The root cause is first, and what follows from it is
  after it: descriptors that ran out come before the accept queue that filled behind them. A limit
  that refused or lost something comes before one that was only reached, and a certain cause before
  a possible one.
- c1m never changes a setting by itself: the remedy (`advice`) names the setting, a number that
  would do, and its risk.

## What moves on a healthy host

None of these names a limit by itself: EAGAIN; zero windows that open again; orphans while
connections close; SYN cookies with tcp_syncookies=2; an skb that could not be allocated once (the
kernel enters its memory pressure for a moment); EADDRNOTAVAIL of `bind`, or of `connect` with
hardly a socket open; EADDRINUSE; EMFILE of other calls than accept and socket; ENOBUFS of `send`;
ListenDrops that no queue explains; ECONNREFUSED; connections that the peer resets; TCPRcvQDrop, as
a sign of tcp_mem.
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use c1m_record::{FileNr, Sockstat};

    #[test]
    fn every_limit_stands_at_its_own_place() {
        for (index, name) in LimitName::ALL.into_iter().enumerate() {
            assert_eq!((CATALOG[index].name, name as usize), (name, index));
            assert_eq!(serde_json::to_value(name).unwrap(), name.name());
            assert_eq!(
                serde_json::to_value(Limit::of(name).scope).unwrap(),
                Limit::of(name).scope.name()
            );
        }
    }

    #[test]
    fn what_is_not_seen_is_unknown_and_not_zero() {
        for limit in &CATALOG {
            let reading = limit.reading(&Readings::default());
            assert_eq!((reading.used, reading.ceiling), (None, None), "{:?}", limit.name);
        }
        // As in a container: the sum of the host is there, its limit is not.
        let sockstat = Sockstat { tcp_mem_pages: 7, orphan: 3, ..Sockstat::default() };
        let inside = Readings { sockstat: Some(sockstat), ..Readings::default() };
        for name in [LimitName::TcpMemHigh, LimitName::Orphans] {
            let reading = Limit::of(name).reading(&inside);
            assert!(reading.used.is_some());
            assert_eq!((reading.ceiling, reading.headroom()), (None, None));
        }
    }

    #[test]
    fn each_reads_its_own_numbers() {
        let now = Readings {
            tcp_mem: Some([1, 2, 3]),
            sockstat: Some(Sockstat { tcp_mem_pages: 9, tw: 4, ..Sockstat::default() }),
            file_nr: Some(FileNr { allocated: 5, max: 6 }),
            memory_total_bytes: Some(100),
            memory_available_bytes: Some(30),
            backlog: Some(128),
            max_syn_backlog: Some(64),
            syncookies: Some(1),
            ..Readings::default()
        };
        let both = |name| {
            let reading = Limit::of(name).reading(&now);
            (reading.used, reading.ceiling)
        };
        assert_eq!(both(LimitName::TcpMemPressure), (Some(9), Some(2)));
        assert_eq!(both(LimitName::TcpMemHigh), (Some(9), Some(3)));
        assert_eq!(both(LimitName::FileMax), (Some(5), Some(6)));
        assert_eq!(both(LimitName::Memory), (Some(70), Some(100)));
        assert_eq!(both(LimitName::AcceptQueue), (None, Some(128)));
        assert_eq!(both(LimitName::SynQueue), (None, Some(128)));
        let now = Readings { accept_queue: Some((5, 4)), syncookies: Some(0), ..now };
        let reading = Limit::of(LimitName::AcceptQueue).reading(&now);
        assert!(reading.is_past() && reading.ceiling == Some(4));
        assert_eq!(Limit::of(LimitName::SynQueue).reading(&now).ceiling, Some(64));
    }
}
