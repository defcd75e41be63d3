//! Filling events and counters. The only place that writes to the maps.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_jiffies64,
    bpf_ktime_get_ns, bpf_probe_read_kernel_buf,
};
use c1m_ebpf::{ABSENT, CALLS, Counters, ERRNOS, Event, FIRST_EVENTS, Shared, SocketRecord};

use crate::{
    COUNTERS, EVENTS, FIRST, SHARED,
    layout::{Sock, config, offset},
};

/// What is counted by [`is_among_first`]: refusals by limit and side, then aborted orphans by limit, full queues, searches for a port, and
/// errors of calls by both.
pub(crate) const FIRST_ABORTED: u32 = 3 * 2;
pub(crate) const FIRST_OVERFLOW: u32 = FIRST_ABORTED + 2;
pub(crate) const FIRST_PORTS: u32 = FIRST_OVERFLOW + 3;
pub(crate) const FIRST_CALLS: u32 = FIRST_PORTS + 1;
pub(crate) const FIRST_KINDS: u32 = FIRST_CALLS + (CALLS * ERRNOS.len()) as u32;

/// Is the current process the one whose call this is?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// A system call on this very socket.
    Process,
    /// A softirq, or somebody else's call: the current process is an accident.
    Elsewhere,
}

/// This CPU's counters.
#[inline(always)]
pub(crate) fn counters() -> Option<&'static mut Counters> {
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if cpu >= config!(cpus) {
        return None;
    }
    let slot = COUNTERS.get_ptr_mut(cpu)?;
    // SAFETY: the map gave the pointer; see `Counters` for why plain additions are enough.
    Some(unsafe { &mut *slot })
}

/// The state of the host. Never a reference: other CPUs write to it at the same time.
#[inline(always)]
pub(crate) fn shared() -> Option<*mut Shared> {
    SHARED.get_ptr_mut(0)
}

/// Adds to the number of connections: one instruction, on every kernel.
#[inline(always)]
pub(crate) fn add_connections(difference: i64) {
    if let Some(shared) = shared() {
        // SAFETY: the map gave the pointer. Without a use of the result this is the atomic add that every kernel knows.
        unsafe {
            core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
                &raw mut (*shared).connections,
                difference as u64,
            );
        }
    }
}

/// Leaves usage and memory pressure of this instant for user space.
#[inline(always)]
pub(crate) fn look(pages: u64, tcp_mem: [u64; 3], pressure_since_jiffies: u64) {
    let Some(shared) = shared() else { return };
    // SAFETY: the map gave the pointer. Two at once leave a mixture of two readings of the same instant.
    unsafe {
        let shared = &mut *shared;
        shared.look_pages = pages;
        shared.look_tcp_mem = tcp_mem;
        shared.look_pressure_since_jiffies = pressure_since_jiffies;
        shared.look_jiffies = bpf_jiffies64();
        shared.look_ktime_ns = bpf_ktime_get_ns();
        shared.looks += 1;
    }
}

/// May another event of this kind carry its socket? Counts it.
#[inline(always)]
pub(crate) fn is_among_first(kind: u32) -> bool {
    let Some(count) = FIRST.get_ptr_mut(kind) else { return false };
    // SAFETY: the map gave the pointer. Two CPUs at once may let one more through, which does no harm.
    unsafe {
        if *count >= FIRST_EVENTS {
            return false;
        }
        *count += 1;
    }
    true
}

/// Counts an event of this hook that user space will not have.
#[inline(always)]
pub(crate) fn lost(hook: u32) {
    if let Some(counters) = counters() {
        counters.lost[hook as usize] += 1;
    }
}

/// Sends an event to user space, or counts that there was no room. `fill` gets it zeroed but for kind, hook and time.
#[inline(always)]
pub(crate) fn send(kind: u32, hook: u32, fill: impl FnOnce(&mut Event)) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lost(hook);
        return;
    };
    // SAFETY: all zeros are a valid event, and the entry is as large as one.
    let event = unsafe {
        core::ptr::write_bytes(entry.as_mut_ptr(), 0, 1);
        &mut *entry.as_mut_ptr()
    };
    event.kind = kind;
    event.hook = hook;
    // SAFETY: no precondition.
    unsafe {
        event.ktime_ns = bpf_ktime_get_ns();
        event.jiffies = bpf_jiffies64();
    }
    if let Some(shared) = shared() {
        // SAFETY: the map gave the pointer.
        event.connections = unsafe { core::ptr::read_volatile(&raw const (*shared).connections) };
    }
    fill(event);
    entry.submit(0);
}

/// What the context knows of a socket.
#[inline(always)]
pub(crate) fn describe(record: &mut SocketRecord, sock: Sock, context: Context) {
    const AF_INET6: u16 = 10;
    let sk = sock.0;
    record.family = sk.load(offset!(sock_family));
    record.local_port = sock.last_port();
    record.remote_port = u16::from_be(sk.load(offset!(sock_dport)));
    let (local, remote) = if record.family == AF_INET6 {
        (offset!(sock_v6_rcv_saddr), offset!(sock_v6_daddr))
    } else {
        (offset!(sock_rcv_saddr), offset!(sock_daddr))
    };
    let bytes = if record.family == AF_INET6 { 16 } else { 4 };
    copy_bytes(sk.address(local), &mut record.local, bytes);
    copy_bytes(sk.address(remote), &mut record.remote, bytes);
    record.netns = sock.netns();
    if offset!(sock_cgroup) != ABSENT {
        record.cgroup =
            sk.follow(offset!(sock_cgroup)).follow(offset!(cgroup_kn)).load(offset!(kernfs_id));
    }
    if context == Context::Process {
        name_process(record);
    }
}

/// The process that made the call that is being served.
#[inline(always)]
pub(crate) fn name_process(record: &mut SocketRecord) {
    record.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    record.comm = bpf_get_current_comm().unwrap_or_default();
}

#[inline(always)]
fn copy_bytes(from: *const u8, to: &mut [u8; 16], bytes: usize) {
    // Two calls with constant lengths: the verifier need not follow a variable one.
    let _ = if bytes == 16 {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel_buf(from, to) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_probe_read_kernel_buf(from, &mut to[..4]) }
    };
}
