//! Memory pressure: its beginning and end, from the kernel's own functions.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns, macros::map, maps::HashMap};
use c1m_ebpf::{EVENT_PRESSURE, PRESSURE_ENTERED, PRESSURE_LEFT, pressure_by};

use crate::{
    backup::is_first_to_see,
    event::{self, Context, count},
    function::{Call, on_function},
    layout::{Proto, Sock},
    memory,
};

/// Key of the entry that exists during memory pressure: the time at which it began.
const NOW: u32 = 0;
/// Key of the entry that exists once a period has begun or ended. If it does not exist when a
/// period ends, that period began before the programs were attached.
const EVER: u32 = 1;

/// On every kernel, only one of several CPUs succeeds in inserting an entry with BPF_NOEXIST, or in
/// removing one. Without compare-and-swap this is how a period is counted once, also when both
/// programs of a hook see a call.
#[map]
static PRESSURE: HashMap<u32, u64> = HashMap::with_max_entries(2, 0);

/// `tcp_enter_memory_pressure(sk)`, 5.4 to 6.18: net/ipv4/tcp.c. Called for every allocation above
/// the second limit of tcp_mem, and when the page allocator has refused. The kernel counts the
/// calls that find no pressure (TCPMemoryPressures).
#[inline(always)]
fn entered<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let proto = sock.proto();
    // Nearly every call finds pressure already.
    if proto.pressure_since() != 0 {
        return;
    }
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    if PRESSURE.insert(NOW, now, u64::from(BPF_NOEXIST)).is_err() {
        return;
    }
    let _ = PRESSURE.insert(EVER, now, 0);
    let (pages, tcp_mem) = (proto.pages(), proto.tcp_mem());
    let cause = pressure_by(pages, &tcp_mem);
    count!(pressure_entries[cause as usize] += 1);
    memory::observe(call, sock, proto, pages, Context::Elsewhere);
    report(call, sock, proto, PRESSURE_ENTERED, cause, now, 0);
}

on_function!(entry "tcp_enter_memory_pressure", HOOK_PRESSURE_ENTER: entered,
    tcp_enter_memory_pressure, kprobe_tcp_enter_memory_pressure,
    backup tcp_enter_memory_pressure_backup);

/// `tcp_leave_memory_pressure(sk)`, 5.4 to 6.18: net/ipv4/tcp.c. Called for every allocation at or
/// below the first limit; most calls find no pressure.
#[inline(always)]
fn left<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let proto = sock.proto();
    if proto.pressure_since() == 0 {
        return;
    }
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the map gave the pointer. Volatile, because another CPU may be counting the end of
    // this period and the beginning of the next one: then the removal below fails.
    let since = PRESSURE.get_ptr(NOW).map(|since| unsafe { since.read_volatile() });
    let is_first_to_see_end = if PRESSURE.remove(NOW).is_ok() {
        true
    } else {
        PRESSURE.insert(EVER, now, u64::from(BPF_NOEXIST)).is_ok()
    };
    if !is_first_to_see_end {
        return;
    }
    let lasted_ns = since.map_or(0, |since| now.saturating_sub(since));
    count!(pressure_exits += 1);
    count!(pressure_ns += lasted_ns);
    memory::observe(call, sock, proto, proto.pages(), Context::Elsewhere);
    report(call, sock, proto, PRESSURE_LEFT, 0, now, lasted_ns);
}

on_function!(entry "tcp_leave_memory_pressure", HOOK_PRESSURE_LEAVE: left,
    tcp_leave_memory_pressure, kprobe_tcp_leave_memory_pressure,
    backup tcp_leave_memory_pressure_backup);

/// Reports a fixed number of changes per second and counts the rest: usage that swings around the
/// limit must not fill the ring buffer.
#[inline(always)]
fn report<C: Call>(
    _: C,
    sock: Sock,
    proto: Proto,
    direction: u32,
    cause: u32,
    now: u64,
    lasted_ns: u64,
) {
    let Some(shared) = event::shared() else { return };
    // SAFETY: the map gave the pointer.
    unsafe {
        if !event::take_room(&raw mut (*shared).pressure_changes, now) {
            event::add(&raw mut (*shared).pressure_suppressed, 1);
            return;
        }
    }
    event::send::<C>(EVENT_PRESSURE, |event| {
        event.pages = proto.pages();
        event.tcp_mem = proto.tcp_mem();
        event.pressure_since_jiffies = proto.pressure_since();
        event.limit = cause;
        event.side = direction;
        event.value = lasted_ns;
        event::describe(&mut event.socket, sock, Context::Elsewhere);
    });
}
