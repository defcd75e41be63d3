//! Filling events and counters. The only place that writes to the maps.

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_jiffies64,
        bpf_ktime_get_ns, bpf_probe_read_kernel_buf,
    },
    macros::map,
    maps::{Array, LruHashMap},
};
use c1m_ebpf::{
    Bucket, CALLS, Counters, ERRNOS, EVENT_CROSSING, EXAMPLE_PLACES, Event, Place, Second, Shared,
    SocketRecord,
};

use crate::{
    COUNTERS, EVENTS, SHARED,
    function::Call,
    layout::{AF_INET6, Sock, config, offset},
};

/// Kinds of examples: refusals by limit and side, then aborted orphans by limit, full queues, searches for a port, and errors of calls by
/// both.
pub(crate) const EXAMPLE_ABORTED: u32 = 3 * 2;
pub(crate) const EXAMPLE_OVERFLOW: u32 = EXAMPLE_ABORTED + 2;
pub(crate) const EXAMPLE_PORTS: u32 = EXAMPLE_OVERFLOW + 3;
pub(crate) const EXAMPLE_CALLS: u32 = EXAMPLE_PORTS + 1;
const EXAMPLE_KINDS: u32 = EXAMPLE_CALLS + (CALLS * ERRNOS.len()) as u32;

/// Tokens by kind and place.
#[map]
static BUCKETS: LruHashMap<Place, Bucket> = LruHashMap::with_max_entries(EXAMPLE_PLACES, 0);

/// Examples of this second, by kind.
#[map]
static SECONDS: Array<Second> = Array::with_max_entries(EXAMPLE_KINDS, 0);

/// Is the current process the one whose call this is?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// A system call on this very socket.
    Process,
    /// A softirq, or somebody else's call: the current process is an accident.
    Elsewhere,
}

/// The counters of this CPU and program: a backup program has its own.
#[inline(always)]
pub(crate) fn counters<C: Call>() -> Option<&'static mut Counters> {
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let cpus = config!(cpus);
    if cpu >= cpus {
        return None;
    }
    let slot = COUNTERS.get_ptr_mut(if C::IS_BACKUP { cpus + cpu } else { cpu })?;
    // SAFETY: the map gave the pointer; see `Counters` for why plain additions are enough.
    Some(unsafe { &mut *slot })
}

/// The state of the host. Never a reference: other CPUs write to it at the same time.
#[inline(always)]
pub(crate) fn shared() -> Option<*mut Shared> {
    SHARED.get_ptr_mut(0)
}

/// Adds to the number of connections.
#[inline(always)]
pub(crate) fn add_connections(difference: i64) {
    if let Some(shared) = shared() {
        // SAFETY: the map gave the pointer.
        unsafe { add(&raw mut (*shared).connections, difference as u64) };
    }
}

/// Adds to a word that other CPUs write to as well: one instruction, on every kernel.
///
/// # Safety
/// The word must be one of a map.
#[inline(always)]
unsafe fn add(word: *mut u64, difference: u64) {
    // SAFETY: the caller's. Without a use of the result this is the atomic add that every kernel knows.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            word, difference,
        );
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

/// Counts an event of this hook that user space will not have.
#[inline(always)]
pub(crate) fn lost<C: Call>() {
    if let Some(counters) = counters::<C>() {
        counters.lost[C::HOOK as usize] += 1;
    }
}

/// Sends an event to user space, or counts that there was no room. `fill` gets it zeroed but for kind, hook and time. Was it sent?
#[inline(always)]
pub(crate) fn send<C: Call>(kind: u32, fill: impl FnOnce(&mut Event)) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lost::<C>();
        if kind == EVENT_CROSSING
            && let Some(shared) = shared()
        {
            // SAFETY: the map gave the pointer.
            unsafe { add(&raw mut (*shared).lost_crossings, 1) };
        }
        return false;
    };
    // SAFETY: all zeros are a valid event, and the entry is as large as one.
    let event = unsafe {
        core::ptr::write_bytes(entry.as_mut_ptr(), 0, 1);
        &mut *entry.as_mut_ptr()
    };
    event.kind = kind;
    event.hook = C::HOOK;
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
    true
}

/// Sends an event as an example of its kind and place, as long as they have tokens; else counts that it is not shown. A token is taken only
/// for an event that was sent.
#[inline(always)]
pub(crate) fn send_example<C: Call>(place: Place, kind: u32, fill: impl FnOnce(&mut Event)) {
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: copied at once; what another CPU writes meanwhile costs an example more or less.
    let bucket = unsafe { BUCKETS.get(place) }.copied().map_or(Bucket::full(now), |it| it.at(now));
    let Some(second) = SECONDS.get_ptr_mut(place.kind) else { return };
    // SAFETY: the map gave the pointer; races as above.
    let this = unsafe { *second }.at(now);
    if bucket.tokens == 0 || !this.has_room() {
        if let Some(shared) = shared() {
            // SAFETY: the map gave the pointer.
            unsafe { add(&raw mut (*shared).not_shown, 1) };
        }
        return;
    }
    if send::<C>(kind, fill) {
        // SAFETY: as above.
        unsafe { *second = Second { sent: this.sent + 1, ..this } };
        // Without room for it the place is a new one next time.
        let _ = BUCKETS.insert(place, bucket.less_one(), 0);
    }
}

/// The place of a socket that is served: its cgroup, where the kernel tells it.
#[inline(always)]
pub(crate) fn place_of(kind: u32, sock: Sock) -> Place {
    Place { kind, netns: sock.netns(), within: sock.cgroup() }
}

/// The place of a call: the process that makes it.
#[inline(always)]
pub(crate) fn place_of_call(kind: u32) -> Place {
    Place { kind, netns: 0, within: bpf_get_current_pid_tgid() >> 32 }
}

/// What the context knows of a socket.
#[inline(always)]
pub(crate) fn describe(record: &mut SocketRecord, sock: Sock, context: Context) {
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
    record.cgroup = sock.cgroup();
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
