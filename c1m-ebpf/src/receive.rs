//! Segments that arrived and could not be kept.

use c1m_ebpf::{DROPPED_RECEIVE_BUFFER, DROPPED_TCP_MEM, HOOK_DROP};

use crate::{
    backup::{is_first_to_count, is_first_to_see},
    event,
    function::{Call, Typed, on_function, on_tracepoint},
    layout::{Sock, config},
};

/// `kfree_skb(skb, location, reason, rx_sk)`, with a reason since 5.17 and the socket since 6.11: net/core/skbuff.c.
///
/// Reason PROTO_MEM: a segment could not be charged, to tcp_mem or to its socket's receive buffer; the socket tells which. Reason
/// TCP_LISTEN_OVERFLOW, since 6.17: the end of a handshake found the accept queue full.
///
/// Everybody frees skbs, in system calls too, where a softirq comes in between and frees others: of all programs this one is skipped most.
#[inline(always)]
fn freed<const IS_BACKUP: bool>(call: Typed<HOOK_DROP, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let reason = call.value() as u32;
    if !is_counted(reason) {
        return;
    }
    let Some(counters) = event::counters::<Typed<HOOK_DROP, IS_BACKUP>>() else { return };
    if reason == config!(drop_reason_listen_overflow) {
        counters.dropped_listen += 1;
        return;
    }
    counters.dropped_skb += 1;
    // Null where the hook does not name it.
    let sock = Sock(call.object());
    if !sock.0.is_null() {
        counters.dropped[full(sock) as usize] += 1;
    }
}

on_tracepoint!("kfree_skb", HOOK_DROP: freed, kfree_skb, kfree_skb_backup);

#[inline(always)]
fn is_counted(reason: u32) -> bool {
    reason == config!(drop_reason_proto_mem) || reason == config!(drop_reason_listen_overflow)
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
    if !is_first_to_see(call, call.object().raw()) || call.result() as i32 == 0 {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() || !is_first_to_count(call, sock.0.raw()) {
        return;
    }
    let Some(counters) = event::counters::<C>() else { return };
    if sock.receive_queue_len() == 0 {
        counters.uncharged_first += 1;
    } else {
        counters.uncharged[full(sock) as usize] += 1;
    }
}

on_function!(exit "tcp_try_rmem_schedule", HOOK_RECEIVE: uncharged,
    tcp_try_rmem_schedule, keep_tcp_try_rmem_schedule, probe_tcp_try_rmem_schedule,
    backup tcp_try_rmem_schedule_backup);

/// `tcp_prune_ofo_queue(sk, …)`, 5.10 to 6.18: net/ipv4/tcp_input.c. True: segments that had arrived out of order were thrown away for
/// want of memory (OfoPruned).
#[inline(always)]
fn pruned<C: Call>(call: C) {
    if is_first_to_see(call, 0)
        && call.result() & 0xff != 0
        && is_first_to_count(call, 0)
        && let Some(counters) = event::counters::<C>()
    {
        counters.ofo_pruned += 1;
    }
}

on_function!(result "tcp_prune_ofo_queue", HOOK_PRUNE: pruned,
    tcp_prune_ofo_queue, probe_tcp_prune_ofo_queue, backup tcp_prune_ofo_queue_backup);

/// `tcp_collapse_one(sk, skb, list, root)`, 5.10 to 6.18: net/ipv4/tcp_input.c. One skb of a receive queue gave up its memory: its data went
/// into the one before it (TCPRcvCollapsed).
#[inline(always)]
fn collapsed<C: Call>(call: C) {
    if is_first_to_see(call, 0)
        && is_first_to_count(call, 0)
        && let Some(counters) = event::counters::<C>()
    {
        counters.collapsed += 1;
    }
}

on_function!(entry "tcp_collapse_one", HOOK_COLLAPSE: collapsed,
    tcp_collapse_one, probe_tcp_collapse_one, backup tcp_collapse_one_backup);
