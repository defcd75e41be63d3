//! tcp_mem: crossings of low, pressure and high, allocations refused, and granted above high.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use c1m_ebpf::{
    CROSSINGS_PER_SECOND, EVENT_CROSSING, EVENT_REFUSAL, HOOK_DESTROY, HOOK_EXCEED,
    REFUSED_FAIR_SHARE, REFUSED_HIGH, REFUSED_MEMCG, SIDE_RECEIVE, SIDE_SEND, zone,
};

use crate::{
    event::{self, Context},
    function::{Call, on_function},
    layout::{BtfPtr, Proto, Sock},
};

const SECOND_NS: u64 = 1_000_000_000;

/// Compares usage with the limits, and reports when it is not where it was last seen.
///
/// The common case, nothing crossed, costs two map look-ups and a copy of 24 bytes.
#[inline(always)]
pub(crate) fn observe(sock: Sock, proto: Proto, pages: u64, hook: u32, context: Context) {
    compare(sock, proto, pages, &proto.tcp_mem(), hook, context);
}

#[inline(always)]
fn compare(sock: Sock, proto: Proto, pages: u64, tcp_mem: &[u64; 3], hook: u32, context: Context) {
    let now = zone(pages, tcp_mem);
    let Some(shared) = event::shared() else { return };
    // SAFETY: the map gave the pointer; other CPUs write too, hence volatile. See `Shared`.
    if unsafe { core::ptr::read_volatile(&raw const (*shared).zone) } != now {
        crossed(sock, proto, pages, *tcp_mem, now, hook, context);
    }
}

/// Usage is in another zone. Reaching a zone for the first time is always reported; besides that a fixed number a second, and
/// the rest is counted: usage that swings around a limit must not flood.
#[inline(always)]
fn crossed(
    sock: Sock,
    proto: Proto,
    pages: u64,
    tcp_mem: [u64; 3],
    now: u64,
    hook: u32,
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
    event::send(EVENT_CROSSING, hook, |event| {
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
#[btf_tracepoint(function = "sock_exceed_buf_limit")]
pub(crate) fn sock_exceed_buf_limit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: argument 0 is a struct sock.
    let sock = Sock(unsafe { BtfPtr::new(ctx.arg(0)) });
    let (allocated, kind): (i64, i32) = (ctx.arg(2), ctx.arg(3));
    // UDP has memory limits of its own, and comes through here too.
    if sock.0.is_null() || !sock.is_tcp() {
        return 0;
    }
    let pages = if allocated < 0 { 0 } else { allocated as u64 };
    let side = if kind == 0 { SIDE_SEND } else { SIDE_RECEIVE };
    // Sending is charged in the sender's system call; receiving in a softirq, whoever runs there.
    let context = if side == SIDE_SEND { Context::Process } else { Context::Elsewhere };
    let proto = sock.proto();
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "sock_exceed_buf_limit: {} pages allocated, side {}", pages, side);
    observe(sock, proto, pages, HOOK_EXCEED, context);
    refused(sock, proto, pages, side, context);
    0
}

#[inline(always)]
fn refused(sock: Sock, proto: Proto, pages: u64, side: u32, context: Context) {
    let tcp_mem = proto.tcp_mem();
    let limit = if pages > tcp_mem[2] {
        REFUSED_HIGH
    } else if proto.pressure_since() != 0 {
        REFUSED_FAIR_SHARE
    } else {
        REFUSED_MEMCG
    };
    let receive_queue_bytes = sock.receive_queue_bytes();
    if let Some(counters) = event::counters() {
        counters.refused[limit as usize][side as usize] += 1;
        if side == SIDE_RECEIVE && receive_queue_bytes == 0 {
            counters.forced_first_skb += 1;
        }
    }
    if event::is_among_first(limit * 2 + side) {
        event::send(EVENT_REFUSAL, HOOK_EXCEED, |event| {
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
}

/// `tcp_destroy_sock(sk)`, 4.16 to 6.18: net/ipv4/tcp_ipv4.c, `tcp_v4_destroy_sock`, for IPv6 too.
///
/// A socket goes, and with it the memory that it held: the point at which usage is looked at on its way down. User space has it run at will: by
/// a socket that it opens and closes.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: argument 0 is a struct sock.
    let sock = Sock(unsafe { BtfPtr::new(ctx.arg(0)) });
    if sock.0.is_null() {
        return 0;
    }
    let proto = sock.proto();
    let (pages, tcp_mem) = (proto.pages(), proto.tcp_mem());
    compare(sock, proto, pages, &tcp_mem, HOOK_DESTROY, Context::Elsewhere);
    // Few sockets end without ever having had a peer.
    if !sock.has_peer() {
        event::look(pages, tcp_mem, proto.pressure_since());
    }
    0
}

/// `__sk_mem_raise_allocated(sk, size, amt, kind)`, 5.4 to 6.18: net/core/sock.c. Usage has grown: what it is right after each allocation that was
/// granted makes a crossing exact. One that was refused is undone by now, and `sock_exceed_buf_limit` has told of it.
#[inline(always)]
fn raised<C: Call>(call: C) {
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
    compare(sock, proto, pages, &tcp_mem, C::HOOK, context);
    if pages > tcp_mem[2]
        && let Some(counters) = event::counters()
    {
        counters.allowed_above_high += 1;
    }
}

on_function!(exit "__sk_mem_raise_allocated", HOOK_RAISE: raised,
    sk_mem_raise_allocated, keep_sk_mem_raise_allocated, probe_sk_mem_raise_allocated);

/// `sk_forced_mem_schedule(sk, size)`, 5.4 to 6.18: net/ipv4/tcp_output.c. Memory without any check: for SYN and FIN, for the first skb of an empty
/// receive queue, and since 6.0 for the least that a sender is promised.
#[inline(always)]
fn forced<C: Call>(call: C) {
    let sock = Sock(call.object());
    // What the socket has already suffices: nothing is allocated, as for most calls.
    if sock.0.is_null() || i64::from(sock.forward_alloc_bytes()) >= i64::from(call.value() as i32) {
        return;
    }
    let proto = sock.proto();
    if proto.pages() > proto.tcp_mem()[2]
        && let Some(counters) = event::counters()
    {
        counters.forced_above_high += 1;
    }
}

on_function!(entry "sk_forced_mem_schedule", HOOK_FORCED: forced,
    sk_forced_mem_schedule_entry, probe_sk_forced_mem_schedule_entry);

/// The same when it is done: what was taken without a check can cross a limit as well. Up to 6.5 it is how nearly all that arrives does.
#[inline(always)]
fn was_forced<C: Call>(call: C) {
    let sock = Sock(call.object());
    if !sock.0.is_null() && sock.is_tcp() {
        let proto = sock.proto();
        observe(sock, proto, proto.pages(), C::HOOK, Context::Elsewhere);
    }
}

on_function!(exit "sk_forced_mem_schedule", HOOK_FORCED_EXIT: was_forced,
    sk_forced_mem_schedule_exit, keep_sk_forced_mem_schedule_exit, probe_sk_forced_mem_schedule_exit);
