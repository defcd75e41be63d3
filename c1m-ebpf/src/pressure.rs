//! Memory pressure: when the kernel itself says that it begins and ends.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns, macros::map, maps::HashMap};
use c1m_ebpf::{
    CROSSINGS_PER_SECOND, EVENT_PRESSURE, PRESSURE_ALLOCATOR, PRESSURE_ENTERED, PRESSURE_LEFT,
    PRESSURE_TCP_MEM,
};

use crate::{
    backup::is_first_to_see,
    event::{self, Context},
    function::{Call, on_function},
    layout::{Proto, Sock},
    memory,
};

const SECOND_NS: u64 = 1_000_000_000;

/// There while the kernel is under pressure, with the time at which that began.
const NOW: u32 = 0;
/// There once a first period began or ended. A period that ends before was running when the programs were attached.
const EVER: u32 = 1;

/// Putting an entry in that must not be there, and taking one out, are the two things that one of several CPUs alone succeeds with on every
/// kernel: without compare-and-swap it is what keeps a period from being counted twice. So it does no harm when both programs see a call.
#[map]
static PRESSURE: HashMap<u32, u64> = HashMap::with_max_entries(2, 0);

/// `tcp_enter_memory_pressure(sk)`, 5.4 to 6.18: net/ipv4/tcp.c. Called for every allocation above the second limit of tcp_mem and for
/// pages or skbs that the allocator refused; the kernel counts the call that finds no pressure (TCPMemoryPressures).
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
    // Under pressure already: what nearly every call finds.
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
    let cause = if pages > tcp_mem[1] { PRESSURE_TCP_MEM } else { PRESSURE_ALLOCATOR };
    if let Some(counters) = event::counters::<C>() {
        counters.pressure_entries[cause as usize] += 1;
    }
    memory::observe(call, sock, proto, pages, Context::Elsewhere);
    report(call, sock, proto, PRESSURE_ENTERED, cause, now, 0);
}

on_function!(entry "tcp_enter_memory_pressure", HOOK_PRESSURE_ENTER: entered,
    tcp_enter_memory_pressure, probe_tcp_enter_memory_pressure,
    backup tcp_enter_memory_pressure_backup);

/// `tcp_leave_memory_pressure(sk)`, 5.4 to 6.18: net/ipv4/tcp.c. Called for every allocation at or below the first limit: mostly there is
/// no pressure to leave.
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
    // SAFETY: the value is copied at once; at worst it is that of the next period, when another CPU is about to count this one.
    let since = unsafe { PRESSURE.get(NOW) }.copied();
    let is_first_to_say = if PRESSURE.remove(NOW).is_ok() {
        true
    } else {
        PRESSURE.insert(EVER, now, u64::from(BPF_NOEXIST)).is_ok()
    };
    if !is_first_to_say {
        return;
    }
    let lasted_ns = since.map_or(0, |since| now.saturating_sub(since));
    if let Some(counters) = event::counters::<C>() {
        counters.pressure_exits += 1;
        counters.pressure_ns += lasted_ns;
    }
    memory::observe(call, sock, proto, proto.pages(), Context::Elsewhere);
    report(call, sock, proto, PRESSURE_LEFT, 0, now, lasted_ns);
}

on_function!(entry "tcp_leave_memory_pressure", HOOK_PRESSURE_LEAVE: left,
    tcp_leave_memory_pressure, probe_tcp_leave_memory_pressure,
    backup tcp_leave_memory_pressure_backup);

/// Usage that swings around the limit must not flood: a fixed number a second, and the rest is counted.
#[inline(always)]
fn report<C: Call>(_: C, sock: Sock, proto: Proto, way: u32, cause: u32, now: u64, lasted_ns: u64) {
    let Some(shared) = event::shared() else { return };
    // SAFETY: the map gave the pointer. A race costs at most a limit of 17.
    unsafe {
        let shared = &mut *shared;
        if now.wrapping_sub(shared.pressure_window_start_ns) >= SECOND_NS {
            shared.pressure_window_start_ns = now;
            shared.pressure_window_events = 0;
        }
        if shared.pressure_window_events >= CROSSINGS_PER_SECOND {
            shared.pressure_suppressed += 1;
            return;
        }
        shared.pressure_window_events += 1;
    }
    event::send::<C>(EVENT_PRESSURE, |event| {
        event.pages = proto.pages();
        event.tcp_mem = proto.tcp_mem();
        event.pressure_since_jiffies = proto.pressure_since();
        event.limit = cause;
        event.side = way;
        event.value = lasted_ns;
        event::describe(&mut event.socket, sock, Context::Elsewhere);
    });
}
