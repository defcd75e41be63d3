//! Segments that arrived and could not be kept.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use c1m_ebpf::{DROPPED_RECEIVE_BUFFER, DROPPED_TCP_MEM, HOOK_DROP, HOOK_DROP_AGAIN};

use crate::{
    event,
    function::{Call, Typed, on_function},
    layout::{Sock, config},
};

/// The skbs that the first program on kfree_skb has counted and the second one has not seen yet. The least recent ones make room: where the
/// second program was skipped, one stays. User space sets the size.
#[map]
static COUNTED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1, 0);

/// `kfree_skb(skb, location, reason, rx_sk)`, with a reason since 5.17 and the socket since 6.11: net/core/skbuff.c.
///
/// Reason PROTO_MEM: a segment could not be charged, to tcp_mem or to its socket's receive buffer; the socket tells which. Reason
/// TCP_LISTEN_OVERFLOW, since 6.17: the end of a handshake found the accept queue full.
///
/// Everybody frees skbs, in system calls too, where a softirq comes in between and frees others: so this is the program that the kernel
/// skips now and then, and there are two of it. They run in the order in which they were attached (kernel/tracepoint.c, `func_add`, 6.18).
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let call = Typed::<HOOK_DROP>(ctx.as_ptr());
    let reason = call.value() as u32;
    // Without a note for the second program it is left to that one.
    if !is_counted(reason) || COUNTED.insert(ctx.arg::<u64>(0), 0, 0).is_err() {
        return 0;
    }
    count(0, reason, Sock(call.object()));
    0
}

/// The second one: counts what the first one has not.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn kfree_skb_again(ctx: BtfTracePointContext) -> i32 {
    let call = Typed::<HOOK_DROP_AGAIN>(ctx.as_ptr());
    let reason = call.value() as u32;
    // The skb is nobody else's until this hook is over, so its address is a name.
    if !is_counted(reason) || COUNTED.remove(ctx.arg::<u64>(0)).is_ok() {
        return 0;
    }
    count(1, reason, Sock(call.object()));
    0
}

#[inline(always)]
fn is_counted(reason: u32) -> bool {
    reason == config!(drop_reason_proto_mem) || reason == config!(drop_reason_listen_overflow)
}

/// `program`: the first or the second; one may interrupt the other, so each has words of its own. `sock`: null where the hook does not name it.
#[inline(always)]
fn count(program: usize, reason: u32, sock: Sock) {
    let Some(counters) = event::counters() else { return };
    if reason == config!(drop_reason_listen_overflow) {
        counters.dropped_listen[program] += 1;
        return;
    }
    counters.dropped_skb[program] += 1;
    if !sock.0.is_null() {
        counters.dropped[program][full(sock) as usize] += 1;
    }
}

/// What has no room for a segment: the kernel asks for the socket's buffer first (net/ipv4/tcp_input.c, `tcp_try_rmem_schedule`).
#[inline(always)]
fn full(sock: Sock) -> u32 {
    if i64::from(sock.receive_queue_bytes()) > i64::from(sock.receive_buffer_bytes()) {
        DROPPED_RECEIVE_BUFFER
    } else {
        DROPPED_TCP_MEM
    }
}

/// `tcp_try_rmem_schedule(sk, skb, size)`, 5.4 to 6.18: net/ipv4/tcp_input.c. Not 0: even after pruning there was no room. The segment is
/// dropped, unless the queue is empty, in which case it may be taken all the same (6.6 and later; before, an empty queue does not ask).
#[inline(always)]
fn uncharged<C: Call>(call: C) {
    if call.result() as i32 == 0 {
        return;
    }
    let sock = Sock(call.object());
    let Some(counters) = event::counters() else { return };
    if sock.0.is_null() {
        return;
    }
    if sock.receive_queue_len() == 0 {
        counters.uncharged_first += 1;
    } else {
        counters.uncharged[full(sock) as usize] += 1;
    }
}

on_function!(exit "tcp_try_rmem_schedule", HOOK_RECEIVE: uncharged,
    tcp_try_rmem_schedule, keep_tcp_try_rmem_schedule, probe_tcp_try_rmem_schedule);

/// `tcp_prune_ofo_queue(sk, …)`, 5.10 to 6.18: net/ipv4/tcp_input.c. True: segments that had arrived out of order were thrown away for
/// want of memory (OfoPruned).
#[inline(always)]
fn pruned<C: Call>(call: C) {
    if call.result() & 0xff != 0
        && let Some(counters) = event::counters()
    {
        counters.ofo_pruned += 1;
    }
}

on_function!(result "tcp_prune_ofo_queue", HOOK_PRUNE: pruned,
    tcp_prune_ofo_queue, probe_tcp_prune_ofo_queue);

/// `tcp_collapse_one(sk, skb, list, root)`, 5.10 to 6.18: net/ipv4/tcp_input.c. One skb of a receive queue gave up its memory: its data went
/// into the one before it (TCPRcvCollapsed).
#[inline(always)]
fn collapsed<C: Call>(_call: C) {
    if let Some(counters) = event::counters() {
        counters.collapsed += 1;
    }
}

on_function!(entry "tcp_collapse_one", HOOK_COLLAPSE: collapsed,
    tcp_collapse_one, probe_tcp_collapse_one);
