//! Iterators: every TCP socket of a network namespace, and every socket with a descriptor.
//!
//! `iter/tcp` (5.9, net/ipv4/tcp_ipv4.c) walks the kernel's tables of the opener's network
//! namespace: listeners, connections, minisocks in TIME_WAIT and requests. `iter/task_file` (5.8,
//! kernel/bpf/task_iter.c) walks the descriptors of every task in the opener's pid namespace; of
//! threads, only those with a table other than their leader's. It sees sockets of all network
//! namespaces, also closed ones, which are in none of TCP's tables.
//!
//! A program that writes records does not count: when a record finds the buffer full, the kernel
//! runs the program for the same socket again.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::{
        bpf_seq_write, bpf_skc_to_tcp_sock, bpf_skc_to_tcp_timewait_sock, bpf_sock_from_file,
    },
    macros::map,
    maps::{Array, HashMap},
};
use c1m_ebpf::{
    HELD_DEAD, HELD_FILE, HELD_SOCKET, HeldSocket, OfPort, STATES, SnapshotLayout, TCP, TCP_CLOSE,
    TCP_NEW_SYN_RECV, TCP_SYN_RECV, TCP_TIME_WAIT,
};

use crate::layout::{AF_INET6, BtfPtr, Sock, copy, offset, word};

/// Set by user space before the object is loaded, and frozen; see `layout::LAYOUT`.
#[unsafe(no_mangle)]
pub(crate) static SNAPSHOT_LAYOUT: SnapshotLayout = SnapshotLayout::ABSENT;

/// Like `layout::offset`.
macro_rules! member {
    ($member:ident) => {{
        // SAFETY: the address of a member of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::holders::SNAPSHOT_LAYOUT.$member) }
    }};
}

pub(crate) use member;

/// Sockets by local port and state, of one network namespace. Each walker has all ports of its own,
/// so plain additions suffice. User space sets the size.
#[map]
pub(crate) static PORT_STATES: Array<OfPort> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Addresses of the sockets whose descriptors are wanted.
#[map]
static WANTED: HashMap<u64, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Positions in the contexts struct bpf_iter__tcp and struct bpf_iter__task_file, which never
/// changed.
const META: u32 = 0;
const TCP_SOCKET: u32 = 1;
pub(crate) const TASK: u32 = 1;
pub(crate) const FILE: u32 = 3;

/// `enum sock_flags`, include/net/sock.h: the bit of SOCK_DEAD
const SOCK_DEAD: u64 = 1;
const SOCK_STREAM: u16 = 1;
const AF_INET: u16 = 2;

/// Writes the network namespace of each thread. In struct bpf_iter__task (5.8) the task is at the
/// same position as in struct bpf_iter__task_file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn snapshot_tasks(context: *mut c_void) -> i32 {
    let task = argument(context, TASK);
    if task.is_null() {
        return 0;
    }
    // Null for a thread that is exiting; its record has 0.
    let net = task.follow(member!(task_nsproxy)).follow(member!(nsproxy_net));
    let record = HeldSocket {
        tgid: task.load(offset!(task_tgid)),
        tid: task.load(member!(task_pid)),
        netns: net.load(offset!(net_inum)),
        ..HeldSocket::default()
    };
    write(context, &record);
    0
}

/// Counts each socket of the namespace by state and local port, minisocks and requests included, as
/// sock_diag reports them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn snapshot_states(context: *mut c_void) -> i32 {
    let common = argument(context, TCP_SOCKET);
    // The last call has no socket.
    if common.is_null() {
        return 0;
    }
    if let Some(counts) = PORT_STATES.get_ptr_mut(Sock(common).port().into()) {
        // SAFETY: the map gave the pointer, and user space runs one iterator at a time.
        unsafe { count_state(counts, state(common)) };
    }
    0
}

/// Counts one socket in this state. Volatile, because user space has the map mapped; not atomic.
///
/// # Safety
/// `counts` must be an element of [`PORT_STATES`] that no other program writes to at the same time.
#[inline(always)]
pub(crate) unsafe fn count_state(counts: *mut OfPort, state: u8) {
    // SAFETY: the caller's.
    unsafe {
        let count = &raw mut (*counts).0[usize::from(state) % STATES];
        count.write_volatile(count.read_volatile() + 1);
    }
}

/// The state that ss shows: a minisock also has the state of its connection (net/ipv4/inet_diag.c,
/// 6.18).
#[inline(always)]
fn state(common: BtfPtr) -> u8 {
    let state: u8 = common.load(member!(sock_state));
    if state == TCP_NEW_SYN_RECV {
        return TCP_SYN_RECV;
    }
    if state != TCP_TIME_WAIT {
        return state;
    }
    // SAFETY: to the verifier the pointer is a socket; the helper returns null for anything but a
    // minisock.
    let timewait = unsafe { bpf_skc_to_tcp_timewait_sock(common.address(0).cast_mut().cast()) };
    if timewait.is_null() {
        return state;
    }
    // SAFETY: a pointer whose type the verifier knows.
    unsafe { BtfPtr::new(timewait.cast()) }.load(member!(timewait_substate))
}

/// Writes each socket of the namespace that has memory, or that is an orphan. A socket that the
/// kernel made for itself is written only if it has memory.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn snapshot_sockets(context: *mut c_void) -> i32 {
    let common = argument(context, TCP_SOCKET);
    if common.is_null() {
        return 0;
    }
    // SAFETY: to the verifier the pointer is a socket; the helper returns null for minisocks and
    // requests, which have no memory.
    let sock = unsafe { bpf_skc_to_tcp_sock(common.address(0).cast_mut().cast()) };
    if sock.is_null() {
        return 0;
    }
    // SAFETY: a struct tcp_sock begins with a struct sock.
    let sock = Sock(unsafe { BtfPtr::new(sock.cast()) });
    // Whether the struct socket has a file is not read: one more cache line per idle socket.
    if !sock.0.follow(member!(sock_socket)).is_null() && !has_memory(sock) {
        return 0;
    }
    let mut record = HeldSocket { flags: flags(sock), ..HeldSocket::default() };
    fill(&mut record, sock);
    write(context, &record);
    0
}

/// Writes the socket of each descriptor of a TCP or MPTCP socket. (`bpf_sock_from_file`: 5.11.)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn snapshot_descriptors(context: *mut c_void) -> i32 {
    if let Some(sock) = descriptor(context)
        && is_stream(sock)
        && sock.is_tcp()
    {
        write_descriptor(context, sock);
    }
    0
}

/// The same, only for the sockets in [`WANTED`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn snapshot_wanted(context: *mut c_void) -> i32 {
    if let Some(sock) = descriptor(context)
        && WANTED.get_ptr(sock.0.address(0) as u64).is_some()
    {
        write_descriptor(context, sock);
    }
    0
}

/// The same, only for sockets that have memory or are closed: cheap to repeat where most are idle.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn snapshot_holding(context: *mut c_void) -> i32 {
    if let Some(sock) = descriptor(context)
        && is_stream(sock)
        && sock.is_tcp()
        && (sock.0.load::<u8>(member!(sock_state)) == TCP_CLOSE || has_memory(sock))
    {
        write_descriptor(context, sock);
    }
    0
}

/// The same, only for sockets in none of TCP's tables: closed, or not yet connected.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn snapshot_closed(context: *mut c_void) -> i32 {
    // The state first: few sockets are closed, and each further cache line costs as much as the
    // walk.
    if let Some(sock) = descriptor(context)
        && sock.0.load::<u8>(member!(sock_state)) == TCP_CLOSE
        && is_stream(sock)
        && sock.0.load::<u16>(offset!(sock_protocol)) == TCP
    {
        write_descriptor(context, sock);
    }
    0
}

/// The socket of this descriptor.
#[inline(always)]
pub(crate) fn descriptor(context: *mut c_void) -> Option<Sock> {
    let file = argument(context, FILE);
    if file.is_null() || argument(context, TASK).is_null() {
        return None;
    }
    // SAFETY: to the verifier the pointer is a file; the helper returns null if it is not a
    // socket's.
    let socket = unsafe { bpf_sock_from_file(file.address(0).cast_mut().cast()) };
    if socket.is_null() {
        return None;
    }
    // SAFETY: a pointer whose type the verifier knows.
    let sk = unsafe { BtfPtr::new(socket.cast()) }.follow(member!(socket_sk));
    (!sk.is_null()).then_some(Sock(sk))
}

/// A stream socket of IPv4 or IPv6: other families have other protocol numbers.
#[inline(always)]
pub(crate) fn is_stream(sock: Sock) -> bool {
    let family: u16 = sock.0.load(offset!(sock_family));
    (family == AF_INET || family == AF_INET6)
        && sock.0.load::<u16>(member!(sock_type)) == SOCK_STREAM
}

#[inline(always)]
pub(crate) fn write_descriptor(context: *mut c_void, sock: Sock) {
    let task = argument(context, TASK);
    if task.is_null() {
        return;
    }
    let mut record = HeldSocket {
        tgid: task.load(offset!(task_tgid)),
        tid: task.load(member!(task_pid)),
        flags: flags(sock),
        ..HeldSocket::default()
    };
    fill(&mut record, sock);
    write(context, &record);
}

/// Is any of tcp_mem charged to it?
#[inline(always)]
fn has_memory(sock: Sock) -> bool {
    sock.receive_queue_bytes() | sock.send_queue_bytes() != 0 || sock.forward_alloc_bytes() > 0
}

#[inline(always)]
fn flags(sock: Sock) -> u32 {
    let mut flags = 0;
    if sock.0.load::<u64>(member!(sock_flags)) & SOCK_DEAD != 0 {
        flags |= HELD_DEAD;
    }
    let socket = sock.0.follow(member!(sock_socket));
    if !socket.is_null() {
        flags |= HELD_SOCKET;
        if !socket.follow(member!(socket_file)).is_null() {
            flags |= HELD_FILE;
        }
    }
    flags
}

#[inline(always)]
fn fill(record: &mut HeldSocket, sock: Sock) {
    let sk = sock.0;
    record.socket = sk.address(0) as u64;
    record.netns = sock.netns();
    record.receive_bytes = sock.receive_queue_bytes();
    record.backlog_bytes = sk.load(member!(sock_backlog_len));
    record.send_bytes = sock.send_queue_bytes();
    record.forward_bytes = sock.forward_alloc_bytes();
    record.family = sk.load(offset!(sock_family));
    record.state = sk.load::<u8>(member!(sock_state)).into();
    let port = sock.port();
    // A closed socket has returned its port.
    record.local_port = if port == 0 { sock.last_port() } else { port };
    record.remote_port = u16::from_be(sk.load(offset!(sock_dport)));
    if record.family == AF_INET6 {
        record.remote = copy(sk.address(offset!(sock_v6_daddr)).cast());
    } else {
        let address: [u8; 4] = sk.load::<u32>(offset!(sock_daddr)).to_ne_bytes();
        record.remote[..4].copy_from_slice(&address);
    }
    record.cgroup = sock.cgroup();
}

/// Writes the record. If the buffer is full, the kernel runs the program for this socket again.
#[inline(always)]
fn write(context: *mut c_void, record: &HeldSocket) {
    let seq: *const u8 = argument(context, META).follow(0).address(0);
    // SAFETY: struct bpf_iter_meta begins with the seq_file; the helper copies the record.
    unsafe {
        bpf_seq_write(
            seq.cast_mut().cast(),
            core::ptr::from_ref(record).cast(),
            size_of::<HeldSocket>() as u32,
        )
    };
}

#[inline(always)]
pub(crate) fn argument(context: *mut c_void, position: u32) -> BtfPtr {
    // SAFETY: each word of an iterator's context is a pointer whose type the verifier knows.
    unsafe { BtfPtr::new(word(context, position) as *const u8) }
}
