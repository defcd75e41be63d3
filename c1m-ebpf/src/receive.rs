//! Segments that arrived and could not be kept.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use c1m_ebpf::{
    ABSENT, DROPPED_RECEIVE_BUFFER, DROPPED_TCP_MEM, HOOK_DROP, HOOK_PRUNE, HOOK_RECEIVE,
};

use crate::{
    event,
    layout::{Sock, argument, config, object, result},
};

/// `kfree_skb(skb, location, reason, rx_sk)`, with a reason since 5.17 and the socket since 6.11: net/core/skbuff.c.
///
/// Reason PROTO_MEM: a segment could not be charged, to tcp_mem or to its socket's receive buffer; the socket tells which. Reason
/// TCP_LISTEN_OVERFLOW, since 6.17: the end of a handshake found the accept queue full.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let reason = argument!(ctx, HOOK_DROP, value) as u32;
    if reason == config!(drop_reason_listen_overflow) {
        if let Some(counters) = event::counters() {
            counters.dropped_listen += 1;
        }
        return 0;
    }
    if reason != config!(drop_reason_proto_mem) {
        return 0;
    }
    let Some(counters) = event::counters() else { return 0 };
    counters.dropped_skb += 1;
    if config!(arguments[HOOK_DROP as usize].object) == ABSENT {
        return 0;
    }
    let sock = Sock(object!(ctx, HOOK_DROP));
    if !sock.0.is_null() {
        counters.dropped[full(sock) as usize] += 1;
    }
    0
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
#[fexit(function = "tcp_try_rmem_schedule")]
pub(crate) fn tcp_try_rmem_schedule(ctx: FExitContext) -> i32 {
    if result!(ctx, HOOK_RECEIVE) as i32 == 0 {
        return 0;
    }
    let sock = Sock(object!(ctx, HOOK_RECEIVE));
    let Some(counters) = event::counters() else { return 0 };
    if sock.0.is_null() {
        return 0;
    }
    if sock.receive_queue_len() == 0 {
        counters.uncharged_first += 1;
    } else {
        counters.uncharged[full(sock) as usize] += 1;
    }
    0
}

/// `tcp_prune_ofo_queue(sk, …)`, 5.10 to 6.18: net/ipv4/tcp_input.c. True: segments that had arrived out of order were thrown away for
/// want of memory (OfoPruned).
#[fexit(function = "tcp_prune_ofo_queue")]
pub(crate) fn tcp_prune_ofo_queue(ctx: FExitContext) -> i32 {
    if result!(ctx, HOOK_PRUNE) & 0xff != 0
        && let Some(counters) = event::counters()
    {
        counters.ofo_pruned += 1;
    }
    0
}

/// `tcp_collapse_one(sk, skb, list, root)`, 5.10 to 6.18: net/ipv4/tcp_input.c. One skb of a receive queue gave up its memory: its data went
/// into the one before it (TCPRcvCollapsed).
#[fentry(function = "tcp_collapse_one")]
pub(crate) fn tcp_collapse_one(_ctx: FEntryContext) -> i32 {
    if let Some(counters) = event::counters() {
        counters.collapsed += 1;
    }
    0
}
