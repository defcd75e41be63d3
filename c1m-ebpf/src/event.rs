//! Counters, events and the state of the whole host.
//!
//! No reference to memory of a map is ever made: other CPUs, an interrupt on the same CPU and user
//! space write to it at any time, which a reference excludes. Access is by raw pointers: volatile
//! loads and stores of single members, and the atomic add instruction for whatever is counted.

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_jiffies64,
        bpf_ktime_get_ns, bpf_probe_read_kernel_buf,
    },
    macros::map,
    maps::{Array, LruHashMap},
};
use c1m_ebpf::{
    Bucket, CALLS, CROSSINGS_PER_SECOND, Counters, ERRNOS, EVENT_CROSSING, EXAMPLE_KEYS,
    EXAMPLES_PER_SECOND, Event, ExampleKey, RateWindow, Shared, SocketRecord,
};

use crate::{
    COUNTERS, EVENTS, SHARED,
    function::Call,
    layout::{AF_INET6, Sock, config, offset},
};

/// Kinds of examples: refusals by limit and side, then aborted orphans by limit, full queues,
/// searches for a port, and failed calls by call and error.
pub(crate) const EXAMPLE_ABORTED: u32 = 3 * 2;
pub(crate) const EXAMPLE_OVERFLOW: u32 = EXAMPLE_ABORTED + 2;
pub(crate) const EXAMPLE_PORTS: u32 = EXAMPLE_OVERFLOW + 3;
pub(crate) const EXAMPLE_CALLS: u32 = EXAMPLE_PORTS + 1;
const EXAMPLE_KINDS: u32 = EXAMPLE_CALLS + (CALLS * ERRNOS.len()) as u32;

/// Tokens by kind and scope.
#[map]
static BUCKETS: LruHashMap<ExampleKey, Bucket> = LruHashMap::with_max_entries(EXAMPLE_KEYS, 0);

/// Examples of this second, by kind.
#[map]
static EXAMPLE_WINDOWS: Array<RateWindow> = Array::with_max_entries(EXAMPLE_KINDS, 0);

/// Is the current process the one whose call is being served?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// Yes: a system call on this socket.
    Process,
    /// No: a softirq, or a call on another socket.
    Elsewhere,
}

/// The counters of this CPU. Programs use [`count`].
#[inline(always)]
pub(crate) fn counters() -> Option<*mut Counters> {
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if cpu >= config!(cpus) {
        return None;
    }
    COUNTERS.get_ptr_mut(cpu)
}

/// Adds to one member of this CPU's counters: `count!(refused[limit][side] += 1)`. See [`Counters`]
/// for why that is an atomic add.
macro_rules! count {
    ($member:ident $([$index:expr])* += $difference:expr) => {
        if let Some(counters) = $crate::event::counters() {
            // SAFETY: the map gave the pointer.
            unsafe {
                $crate::event::add(&raw mut (*counters).$member $([$index])*, $difference);
            }
        }
    };
}

pub(crate) use count;

/// The state of the whole host. See [`Shared`] for how to access it.
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

/// Adds to a word of a map by one atomic instruction, which every kernel has. Other CPUs, or an
/// interrupt on this CPU, may write to the word at the same time.
///
/// # Safety
/// The word must be one of a map.
#[inline(always)]
pub(crate) unsafe fn add(word: *mut u64, difference: u64) {
    // SAFETY: the caller's. With its result unused this is the atomic add without fetch, the only
    // atomic instruction before 5.12.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(
            word, difference,
        );
    }
}

/// Leaves a sample of usage and memory pressure for user space.
#[inline(always)]
pub(crate) fn sample(pages: u64, tcp_mem: [u64; 3], pressure_since_jiffies: u64) {
    let Some(shared) = shared() else { return };
    // SAFETY: the map gave the pointer. Volatile, because another CPU may write its sample at the
    // same time: the result is a mixture of two readings of nearly the same instant. The number of
    // samples comes last, since user space reads the rest when it has changed.
    unsafe {
        (&raw mut (*shared).sample_pages).write_volatile(pages);
        (&raw mut (*shared).sample_tcp_mem).write_volatile(tcp_mem);
        (&raw mut (*shared).sample_pressure_since_jiffies).write_volatile(pressure_since_jiffies);
        (&raw mut (*shared).sample_jiffies).write_volatile(bpf_jiffies64());
        (&raw mut (*shared).sample_ktime_ns).write_volatile(bpf_ktime_get_ns());
        add(&raw mut (*shared).samples, 1);
    }
}

/// Counts an event of this hook that does not reach user space.
#[inline(always)]
pub(crate) fn count_dropped<C: Call>() {
    count!(dropped_events[C::HOOK as usize] += 1);
}

/// Sends an event to user space, or counts it as dropped when the ring buffer is full. `fill` gets
/// an event with kind, hook and time; the rest is zero. Returns whether the event was sent.
#[inline(always)]
pub(crate) fn send<C: Call>(kind: u32, fill: impl FnOnce(&mut Event)) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count_dropped::<C>();
        if kind == EVENT_CROSSING
            && let Some(shared) = shared()
        {
            // SAFETY: the map gave the pointer.
            unsafe { add(&raw mut (*shared).dropped_crossings, 1) };
        }
        return false;
    };
    // SAFETY: all zeros are a valid event, and the entry is as large as one. A reference, unlike
    // elsewhere in maps: until the entry is submitted nobody else accesses it.
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

/// Sends an event as an example, if its kind and scope have a token; otherwise counts it as not
/// shown. The token is taken only for an event that was sent.
#[inline(always)]
pub(crate) fn send_example<C: Call>(key: ExampleKey, kind: u32, fill: impl FnOnce(&mut Event)) {
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let bucket = match BUCKETS.get_ptr(key) {
        // SAFETY: the map gave the pointer. Volatile, because another CPU may replace the value at
        // the same time, which sends one example more or less.
        Some(bucket) => unsafe { bucket.read_volatile() }.at(now),
        None => Bucket::full(now),
    };
    let Some(window) = EXAMPLE_WINDOWS.get_ptr_mut(key.kind) else { return };
    // SAFETY: as above.
    let this_second = unsafe { window.read_volatile() }.at(now);
    if bucket.tokens == 0 || !this_second.has_room(EXAMPLES_PER_SECOND) {
        if let Some(shared) = shared() {
            // SAFETY: the map gave the pointer.
            unsafe { add(&raw mut (*shared).not_shown, 1) };
        }
        return;
    }
    if send::<C>(kind, fill) {
        // SAFETY: as above.
        unsafe { window.write_volatile(this_second.with_one()) };
        // Without room for the key its bucket is full again next time.
        let _ = BUCKETS.insert(key, bucket.less_one(), 0);
    }
}

/// The key of an example about a socket: its cgroup, where the kernel has it.
#[inline(always)]
pub(crate) fn key_of_socket(kind: u32, sock: Sock) -> ExampleKey {
    ExampleKey { kind, netns: sock.netns(), scope: sock.cgroup() }
}

/// The key of an example about a system call: the process that makes it.
#[inline(always)]
pub(crate) fn key_of_call(kind: u32) -> ExampleKey {
    ExampleKey { kind, netns: 0, scope: bpf_get_current_pid_tgid() >> 32 }
}

/// Is there room for one more change of memory pressure in this second? If so it is counted there.
///
/// # Safety
/// The window must be one of a map.
#[inline(always)]
pub(crate) unsafe fn take_room(window: *mut RateWindow, now_ns: u64) -> bool {
    // SAFETY: the caller's. Volatile, because another CPU may write at the same time: two CPUs may
    // then share one place of the window.
    unsafe {
        let this_second = window.read_volatile().at(now_ns);
        let has_room = this_second.has_room(CROSSINGS_PER_SECOND);
        if has_room {
            window.write_volatile(this_second.with_one());
        }
        has_room
    }
}

/// Fills in the socket, and the process where `context` says that it is the socket's.
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

/// Fills in the current process.
#[inline(always)]
pub(crate) fn name_process(record: &mut SocketRecord) {
    record.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    record.comm = bpf_get_current_comm().unwrap_or_default();
}

#[inline(always)]
fn copy_bytes(from: *const u8, to: &mut [u8; 16], bytes: usize) {
    // Two calls with constant lengths: the verifier has no variable length to follow.
    let _ = if bytes == 16 {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel_buf(from, to) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_probe_read_kernel_buf(from, &mut to[..4]) }
    };
}
