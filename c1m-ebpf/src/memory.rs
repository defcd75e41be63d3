//! tcp_mem: crossings of low, pressure and high, refused allocations, and allocations above high.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use c1m_ebpf::{
    EVENT_CROSSING, EVENT_REFUSAL, HOOK_DESTROY, HOOK_EXCEED, SIDE_RECEIVE, SIDE_SEND, refused_by,
    with_crossing, zone,
};

use crate::{
    backup::{is_first_to_count, is_first_to_see},
    event::{self, Context, count},
    function::{Call, Typed, on_function, on_tracepoint},
    layout::{Proto, Sock},
};

/// Compares usage with the limits, and reports a crossing when the zone is not that of the last
/// comparison.
///
/// The common case, no crossing, costs two map look-ups and a copy of 24 bytes.
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
    // SAFETY: the map gave the pointer; volatile, because other CPUs write too.
    if unsafe { (&raw const (*shared).zone).read_volatile() } != now {
        crossed(call, sock, proto, pages, *tcp_mem, now, context);
    }
}

/// Usage is in another zone. The first time that it reaches a zone is always reported, otherwise a
/// fixed number of crossings per second. The rest is counted: usage that swings around a limit must
/// not fill the ring buffer.
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
    // SAFETY: the map gave the pointer. Volatile, and member by member, because other CPUs write at
    // the same time: at worst they report the same crossing, which user space recognises, or one
    // more than the limit per second.
    let suppressed = unsafe {
        (&raw mut (*shared).zone).write_volatile(now);
        let highest = (&raw const (*shared).highest_zone).read_volatile();
        let window = (&raw const (*shared).crossings).read_volatile();
        let Some(window) = with_crossing(now, highest, window, time) else {
            event::add(&raw mut (*shared).suppressed, 1);
            return;
        };
        if now > highest {
            (&raw mut (*shared).highest_zone).write_volatile(now);
        }
        (&raw mut (*shared).crossings).write_volatile(window);
        (&raw const (*shared).suppressed).read_volatile()
    };
    event::send::<C>(EVENT_CROSSING, |event| {
        event.pages = pages;
        event.tcp_mem = tcp_mem;
        event.pressure_since_jiffies = proto.pressure_since();
        event.suppressed = suppressed;
        event::describe(&mut event.socket, sock, context);
    });
}

/// `sock_exceed_buf_limit(sk, prot, allocated, kind)`, 5.4 to 6.18: net/core/sock.c,
/// `__sk_mem_raise_allocated` has refused an allocation.
///
/// `allocated` is the value that the kernel compared, so a crossing seen here is exact. The
/// tracepoint fires below high as well: under pressure for a socket over its fair share, and when a
/// memory cgroup refuses. The values at this instant decide which ([`refused_by`]).
#[inline(always)]
fn exceeded<const IS_BACKUP: bool>(call: Typed<HOOK_EXCEED, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let sock = Sock(call.object_at(0));
    let (allocated, kind) = (call.value_at(2) as i64, call.value_at(3) as i32);
    // UDP has memory limits of its own, and the same tracepoint.
    if sock.0.is_null() || !sock.is_tcp() {
        return;
    }
    let pages = if allocated < 0 { 0 } else { allocated as u64 };
    let side = if kind == 0 { SIDE_SEND } else { SIDE_RECEIVE };
    // Sending is charged in the sender's system call, receiving in a softirq under any process.
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
    let pressure_since = proto.pressure_since();
    let limit = refused_by(pages, &tcp_mem, pressure_since != 0);
    let receive_queue_bytes = sock.receive_queue_bytes();
    count!(refused[limit as usize][side as usize] += 1);
    if side == SIDE_RECEIVE && receive_queue_bytes == 0 {
        count!(forced_first_skb += 1);
    }
    event::send_example::<C>(
        event::key_of_socket(limit * 2 + side, sock),
        EVENT_REFUSAL,
        |event| {
            event.pages = pages;
            event.tcp_mem = tcp_mem;
            event.pressure_since_jiffies = pressure_since;
            event.limit = limit;
            event.side = side;
            event.receive_queue_bytes = receive_queue_bytes;
            event.send_queue_bytes = sock.send_queue_bytes();
            event::describe(&mut event.socket, sock, context);
        },
    );
}

/// `tcp_destroy_sock(sk)`, 4.16 to 6.18: net/ipv4/tcp_ipv4.c, `tcp_v4_destroy_sock`, for IPv6 too.
///
/// A socket is destroyed and returns its memory: here usage is compared on its way down. User space
/// runs this program whenever it wants a sample, by opening and closing a socket.
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
    // Few sockets are destroyed without ever having had a peer.
    if !sock.has_peer() {
        event::sample(pages, tcp_mem, proto.pressure_since());
    }
}

on_tracepoint!("tcp_destroy_sock", HOOK_DESTROY: destroyed,
    tcp_destroy_sock, tcp_destroy_sock_backup);

/// `__sk_mem_raise_allocated(sk, size, amt, kind)`, 5.4 to 6.18: net/core/sock.c. Usage has grown:
/// a comparison right after each granted allocation makes a crossing exact. A refused allocation is
/// undone by now; `sock_exceed_buf_limit` has reported it.
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
    // Sending is charged in the sender's system call, receiving in a softirq under any process.
    let is_send = call.value() as u32 == SIDE_SEND;
    let context = if is_send { Context::Process } else { Context::Elsewhere };
    compare(call, sock, proto, pages, &tcp_mem, context);
    if pages > tcp_mem[2] && is_first_to_count(call, sock.0.raw()) {
        count!(allowed_above_high += 1);
    }
}

on_function!(exit "__sk_mem_raise_allocated", HOOK_RAISE: raised,
    sk_mem_raise_allocated, entry_sk_mem_raise_allocated, kprobe_sk_mem_raise_allocated,
    backup sk_mem_raise_allocated_backup);

/// `sk_forced_mem_schedule(sk, size)`, 5.4 to 6.18: net/ipv4/tcp_output.c. Memory without any
/// check: for SYN and FIN, for the first skb of an empty receive queue, and since 6.0 for the
/// minimum that a sender is guaranteed.
#[inline(always)]
fn forced<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    let sock = Sock(call.object());
    // The socket has enough memory already: nothing is allocated, as in most calls.
    if sock.0.is_null() || i64::from(sock.forward_alloc_bytes()) >= i64::from(call.value() as i32) {
        return;
    }
    let proto = sock.proto();
    if proto.pages() > proto.tcp_mem()[2] && is_first_to_count(call, sock.0.raw()) {
        count!(forced_above_high += 1);
    }
}

on_function!(entry "sk_forced_mem_schedule", HOOK_FORCED: forced,
    sk_forced_mem_schedule_entry, kprobe_sk_forced_mem_schedule_entry,
    backup sk_forced_mem_schedule_entry_backup);

/// Its return: memory without a check can cross a limit as well. Up to 6.5 nearly all received
/// segments are charged this way.
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
    sk_forced_mem_schedule_exit, entry_sk_forced_mem_schedule_exit, kprobe_sk_forced_mem_schedule_exit,
    backup sk_forced_mem_schedule_exit_backup);
