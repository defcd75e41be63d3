//! tcp_mem: crossings of low, pressure and high, allocations refused, and granted above high.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use c1m_ebpf::{
    CROSSINGS_PER_SECOND, EVENT_CROSSING, EVENT_REFUSAL, HOOK_DESTROY, HOOK_EXCEED,
    REFUSED_FAIR_SHARE, REFUSED_HIGH, REFUSED_MEMCG, SIDE_RECEIVE, SIDE_SEND, zone,
};

use crate::{
    backup::{is_first_to_count, is_first_to_see},
    event::{self, Context},
    function::{Call, Typed, on_function, on_tracepoint},
    layout::{Proto, Sock},
};

const SECOND_NS: u64 = 1_000_000_000;

/// Compares usage with the limits, and reports when it is not where it was last seen.
///
/// The common case, nothing crossed, costs two map look-ups and a copy of 24 bytes.
#[inline(always)]
pub(crate) fn observe<C: Call>(call: C, sock: Sock, proto: Proto, pages: u64, context: Context) {
    compare(call, sock, proto, pages, &proto.tcp_mem(), context);
}

#[inline(always)]
fn compare<C: Call>(
    call: C,
    sock: Sock,
    proto: Proto,
    pages: u64,
    tcp_mem: &[u64; 3],
    context: Context,
) {
    let now = zone(pages, tcp_mem);
    let Some(shared) = event::shared() else { return };
    // SAFETY: the map gave the pointer; other CPUs write too, hence volatile. See `Shared`.
    if unsafe { core::ptr::read_volatile(&raw const (*shared).zone) } != now {
        crossed(call, sock, proto, pages, *tcp_mem, now, context);
    }
}

/// Usage is in another zone. Reaching a zone for the first time is always reported; besides that a fixed number a second, and
/// the rest is counted: usage that swings around a limit must not flood.
#[inline(always)]
fn crossed<C: Call>(
    _: C,
    sock: Sock,
    proto: Proto,
    pages: u64,
    tcp_mem: [u64; 3],
    now: u64,
    context: Context,
) {
    let Some(shared) = event::shared() else { return };
    // SAFETY: no precondition.
    let time = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the map gave the pointer. A race costs at most a report twice, which user space recognises, or a limit of 17.
    let suppressed = unsafe {
        let shared = &mut *shared;
        shared.zone = now;
        if time.wrapping_sub(shared.window_start_ns) >= SECOND_NS {
            shared.window_start_ns = time;
            shared.window_events = 0;
        }
        if now > shared.highest_zone {
            shared.highest_zone = now;
        } else if shared.window_events >= CROSSINGS_PER_SECOND {
            shared.suppressed += 1;
            return;
        }
        shared.window_events += 1;
        shared.suppressed
    };
    event::send::<C>(EVENT_CROSSING, |event| {
        event.pages = pages;
        event.tcp_mem = tcp_mem;
        event.pressure_since_jiffies = proto.pressure_since();
        event.suppressed = suppressed;
        event::describe(&mut event.socket, sock, context);
    });
}

/// `sock_exceed_buf_limit(sk, prot, allocated, kind)`, 5.4 to 6.18: net/core/sock.c, `__sk_mem_raise_allocated` has refused an
/// allocation.
///
/// `allocated` is the value that the kernel compared, so a crossing seen here is exact. It fires below high as well: under pressure for
/// a socket over its fair share, and for a memory cgroup's refusal; the values at this instant tell which.
#[inline(always)]
fn exceeded<const IS_BACKUP: bool>(call: Typed<HOOK_EXCEED, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let sock = Sock(call.object_at(0));
    let (allocated, kind) = (call.value_at(2) as i64, call.value_at(3) as i32);
    // UDP has memory limits of its own, and comes through here too.
    if sock.0.is_null() || !sock.is_tcp() {
        return;
    }
    let pages = if allocated < 0 { 0 } else { allocated as u64 };
    let side = if kind == 0 { SIDE_SEND } else { SIDE_RECEIVE };
    // Sending is charged in the sender's system call; receiving in a softirq, whoever runs there.
    let context = if side == SIDE_SEND { Context::Process } else { Context::Elsewhere };
    let proto = sock.proto();
    observe(call, sock, proto, pages, context);
    refused(call, sock, proto, pages, side, context);
}

on_tracepoint!("sock_exceed_buf_limit", HOOK_EXCEED: exceeded,
    sock_exceed_buf_limit, sock_exceed_buf_limit_backup);

#[inline(always)]
fn refused<C: Call>(_: C, sock: Sock, proto: Proto, pages: u64, side: u32, context: Context) {
    let tcp_mem = proto.tcp_mem();
    let limit = if pages > tcp_mem[2] {
        REFUSED_HIGH
    } else if proto.pressure_since() != 0 {
        REFUSED_FAIR_SHARE
    } else {
        REFUSED_MEMCG
    };
    let receive_queue_bytes = sock.receive_queue_bytes();
    if let Some(counters) = event::counters::<C>() {
        counters.refused[limit as usize][side as usize] += 1;
        if side == SIDE_RECEIVE && receive_queue_bytes == 0 {
            counters.forced_first_skb += 1;
        }
    }
    event::send_example::<C>(event::place_of(limit * 2 + side, sock), EVENT_REFUSAL, |event| {
        event.pages = pages;
        event.tcp_mem = tcp_mem;
        event.pressure_since_jiffies = proto.pressure_since();
        event.limit = limit;
        event.side = side;
        event.receive_queue_bytes = receive_queue_bytes;
        event.send_queue_bytes = sock.send_queue_bytes();
        event::describe(&mut event.socket, sock, context);
    });
}

/// `tcp_destroy_sock(sk)`, 4.16 to 6.18: net/ipv4/tcp_ipv4.c, `tcp_v4_destroy_sock`, for IPv6 too.
///
/// A socket goes, and with it the memory that it held: the point at which usage is looked at on its way down. User space has it run at will: by
/// a socket that it opens and closes.
#[inline(always)]
fn destroyed<const IS_BACKUP: bool>(call: Typed<HOOK_DESTROY, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let sock = Sock(call.object_at(0));
    if sock.0.is_null() {
        return;
    }
    let proto = sock.proto();
    let (pages, tcp_mem) = (proto.pages(), proto.tcp_mem());
    compare(call, sock, proto, pages, &tcp_mem, Context::Elsewhere);
    // Few sockets end without ever having had a peer.
    if !sock.has_peer() {
        event::look(pages, tcp_mem, proto.pressure_since());
    }
}

on_tracepoint!("tcp_destroy_sock", HOOK_DESTROY: destroyed,
    tcp_destroy_sock, tcp_destroy_sock_backup);

/// `__sk_mem_raise_allocated(sk, size, amt, kind)`, 5.4 to 6.18: net/core/sock.c. Usage has grown: what it is right after each allocation that was
/// granted makes a crossing exact. One that was refused is undone by now, and `sock_exceed_buf_limit` has told of it.
#[inline(always)]
fn raised<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    if call.result() as i32 == 0 {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() || !sock.is_tcp() {
        return;
    }
    let proto = sock.proto();
    let pages = proto.pages();
    let tcp_mem = proto.tcp_mem();
    // Sending is charged in the sender's system call; receiving in a softirq, whoever runs there.
    let is_send = call.value() as u32 == SIDE_SEND;
    let context = if is_send { Context::Process } else { Context::Elsewhere };
    compare(call, sock, proto, pages, &tcp_mem, context);
    if pages > tcp_mem[2]
        && is_first_to_count(call, sock.0.raw())
        && let Some(counters) = event::counters::<C>()
    {
        counters.allowed_above_high += 1;
    }
}

on_function!(exit "__sk_mem_raise_allocated", HOOK_RAISE: raised,
    sk_mem_raise_allocated, keep_sk_mem_raise_allocated, probe_sk_mem_raise_allocated,
    backup sk_mem_raise_allocated_backup);

/// `sk_forced_mem_schedule(sk, size)`, 5.4 to 6.18: net/ipv4/tcp_output.c. Memory without any check: for SYN and FIN, for the first skb of an empty
/// receive queue, and since 6.0 for the least that a sender is promised.
#[inline(always)]
fn forced<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    let sock = Sock(call.object());
    // What the socket has already suffices: nothing is allocated, as for most calls.
    if sock.0.is_null() || i64::from(sock.forward_alloc_bytes()) >= i64::from(call.value() as i32) {
        return;
    }
    let proto = sock.proto();
    if proto.pages() > proto.tcp_mem()[2]
        && is_first_to_count(call, sock.0.raw())
        && let Some(counters) = event::counters::<C>()
    {
        counters.forced_above_high += 1;
    }
}

on_function!(entry "sk_forced_mem_schedule", HOOK_FORCED: forced,
    sk_forced_mem_schedule_entry, probe_sk_forced_mem_schedule_entry,
    backup sk_forced_mem_schedule_entry_backup);

/// The same when it is done: what was taken without a check can cross a limit as well. Up to 6.5 it is how nearly all that arrives does.
#[inline(always)]
fn was_forced<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    let sock = Sock(call.object());
    if !sock.0.is_null() && sock.is_tcp() {
        let proto = sock.proto();
        observe(call, sock, proto, proto.pages(), Context::Elsewhere);
    }
}

on_function!(exit "sk_forced_mem_schedule", HOOK_FORCED_EXIT: was_forced,
    sk_forced_mem_schedule_exit, keep_sk_forced_mem_schedule_exit, probe_sk_forced_mem_schedule_exit,
    backup sk_forced_mem_schedule_exit_backup);
