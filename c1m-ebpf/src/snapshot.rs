//! Snapshots: the records that the iterators write, and the offsets that they need.

use crate::ABSENT;

/// Further offsets of members in the running kernel, in bytes. Frozen like [`crate::Layout`];
/// looked up only when snapshots are taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// struct sock, and struct sock_common, which it begins with
    pub sock_state: u32,
    pub sock_flags: u32,
    pub sock_type: u32,
    pub sock_socket: u32,
    /// sk_backlog.len: truesize of the skbs that wait for the owner of the lock, in bytes; not yet
    /// charged to tcp_mem
    pub sock_backlog_len: u32,
    /// struct tcp_timewait_sock: tw_sk.tw_substate
    pub timewait_substate: u32,
    /// struct socket
    pub socket_sk: u32,
    pub socket_file: u32,
    /// struct task_struct
    pub task_pid: u32,
    pub task_nsproxy: u32,
    /// struct nsproxy
    pub nsproxy_net: u32,
    /// struct file: its reference count, 64 bits; and the value of the count while one descriptor
    /// and the iterator have the file
    pub file_count: u32,
    pub file_count_alone: u32,
    /// struct task_struct, struct files_struct, struct signal_struct
    pub task_files: u32,
    pub task_signal: u32,
    pub files_count: u32,
    pub signal_threads: u32,
    /// For TCP's tables; [`ABSENT`] on kernels whose tables have another form. struct sock_common:
    /// skc_nulls_node
    pub sock_nulls_node: u32,
    /// struct net: ipv4.tcp_death_row.hashinfo
    pub net_hashinfo: u32,
    /// struct inet_hashinfo
    pub hashinfo_ehash: u32,
    pub hashinfo_ehash_mask: u32,
    pub hashinfo_lhash2: u32,
    pub hashinfo_lhash2_mask: u32,
    /// struct inet_listen_hashbucket: nulls_head, and the size of the structure
    pub listen_bucket_list: u32,
    pub listen_bucket_bytes: u32,
}

impl SnapshotLayout {
    pub const ABSENT: Self = Self {
        sock_state: ABSENT,
        sock_flags: ABSENT,
        sock_type: ABSENT,
        sock_socket: ABSENT,
        sock_backlog_len: ABSENT,
        timewait_substate: ABSENT,
        socket_sk: ABSENT,
        socket_file: ABSENT,
        task_pid: ABSENT,
        task_nsproxy: ABSENT,
        nsproxy_net: ABSENT,
        file_count: ABSENT,
        file_count_alone: ABSENT,
        task_files: ABSENT,
        task_signal: ABSENT,
        files_count: ABSENT,
        signal_threads: ABSENT,
        sock_nulls_node: ABSENT,
        net_hashinfo: ABSENT,
        hashinfo_ehash: ABSENT,
        hashinfo_ehash_mask: ABSENT,
        hashinfo_lhash2: ABSENT,
        hashinfo_lhash2_mask: ABSENT,
        listen_bucket_list: ABSENT,
        listen_bucket_bytes: ABSENT,
    };
}

/// States of a socket: include/net/tcp_states.h. A request whose handshake is not complete is in
/// TCP_NEW_SYN_RECV, which the kernel reports as SYN_RECV.
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_TIME_WAIT: u8 = 6;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_LISTEN: u8 = 10;
pub const TCP_NEW_SYN_RECV: u8 = 12;

/// [`HeldSocket::flags`]: an orphan (SOCK_DEAD).
pub const HELD_DEAD: u32 = 1;
/// The socket has a struct socket: a program, or the kernel itself, can use it.
pub const HELD_SOCKET: u32 = 2;
/// The struct socket has a file: a descriptor exists, or did when the file was sent through a unix
/// socket.
pub const HELD_FILE: u32 = 4;

/// A socket in a snapshot. Addresses in network byte order, ports in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldSocket {
    /// Address of the struct sock, which identifies the socket within a snapshot; 0: the record is
    /// of a thread
    pub socket: u64,
    /// 0: unknown
    pub cgroup: u64,
    /// The process and the thread whose table has the descriptor; 0: the socket was found in TCP's
    /// tables
    pub tgid: u32,
    pub tid: u32,
    pub netns: u32,
    /// `HELD_*`
    pub flags: u32,
    pub receive_bytes: u32,
    pub backlog_bytes: u32,
    pub send_bytes: u32,
    pub forward_bytes: i32,
    pub family: u16,
    pub local_port: u16,
    pub remote_port: u16,
    pub state: u16,
    pub remote: [u8; 16],
}

const _: () = assert!(size_of::<HeldSocket>() == 72);

/// Number of states to count by: those of include/net/tcp_states.h end at 13 (6.18).
pub const STATES: usize = 16;
/// Number of local ports to count by.
pub const PORTS: u32 = 1 << 16;

/// Sockets of one local port, by state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfPort(pub [u32; STATES]);

/// TCP's tables of a network namespace: addresses, and numbers of buckets. A namespace shares them
/// with others, or has a table of connections of its own (net.ipv4.tcp_child_ehash_entries).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The struct net
    pub net: u64,
    /// ehash
    pub connections: u64,
    pub connection_buckets: u64,
    /// lhash2
    pub listeners: u64,
    pub listener_buckets: u64,
}

/// Results of the programs that read tables: all was read; or not all, because a chain changed
/// meanwhile.
pub const TABLES_READ: i32 = 0;
pub const TABLES_TORN: i32 = 1;

/// Threads that read the tables of one namespace at a time
pub const MAX_WALKERS: u32 = 4;

/// Programs of the object that user space runs.
pub const FIND_TABLES: &str = "find_tables";
pub const COUNT_CONNECTIONS: &str = "count_connections";
pub const COUNT_LISTENERS: &str = "count_listeners";

/// What idle sockets with one descriptor each are counted by. The key of a map: no implicit
/// padding. The socket's cgroup is not part of it: reading it would touch one more cache line per
/// socket, and the process has a cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdleKey {
    /// As of [`HeldSocket`]
    pub tgid: u32,
    pub netns: u32,
    pub state: u32,
    pub unused: u32,
}

const _: () = assert!(size_of::<IdleKey>() == 16);

/// A number of idle sockets with the same key, found in a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleRow {
    pub key: IdleKey,
    pub sockets: u64,
}

/// Iterators of the object: what they iterate over, and their names.
pub const ITER_STATES: (&str, &str) = ("tcp", "snapshot_states");
pub const ITER_SOCKETS: (&str, &str) = ("tcp", "snapshot_sockets");
pub const ITER_DESCRIPTORS: (&str, &str) = ("task_file", "snapshot_descriptors");
pub const ITER_PROCESSES: (&str, &str) = ("task_file", "snapshot_processes");
pub const ITER_WANTED: (&str, &str) = ("task_file", "snapshot_wanted");
pub const ITER_TASKS: (&str, &str) = ("task", "snapshot_tasks");
pub const ITER_HOLDING: (&str, &str) = ("task_file", "snapshot_holding");
pub const ITER_CLOSED: (&str, &str) = ("task_file", "snapshot_closed");
