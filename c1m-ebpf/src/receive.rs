//! Segments that were received and dropped.

use c1m_ebpf::{HOOK_DROP, dropped_by};

use crate::{
    backup::{is_first_to_count, is_first_to_see},
    event::count,
    function::{Call, Typed, on_function, on_tracepoint},
    layout::{Sock, config},
};

/// `kfree_skb(skb, location, reason, rx_sk)`, with a reason since 5.17 and the socket since 6.11:
/// net/core/skbuff.c.
///
/// Reason PROTO_MEM: a segment could not be charged, to tcp_mem or to its socket's receive buffer;
/// the socket decides which. Reason TCP_LISTEN_OVERFLOW, since 6.17: the end of a handshake found
/// the accept queue full.
///
/// Skbs are freed in system calls and in the softirqs that interrupt them: this program is skipped
/// more often than any other.
#[inline(always)]
fn freed<const IS_BACKUP: bool>(call: Typed<HOOK_DROP, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let reason = call.value() as u32;
    if !is_counted(reason) {
        return;
    }
    if reason == config!(drop_reason_listen_overflow) {
        count!(dropped_listen += 1);
        return;
    }
    count!(dropped_skb += 1);
    // Null where the tracepoint does not name the socket.
    let sock = Sock(call.object());
    if !sock.0.is_null() {
        count!(dropped[cause(sock) as usize] += 1);
    }
}

on_tracepoint!("kfree_skb", HOOK_DROP: freed, kfree_skb, kfree_skb_backup);

#[inline(always)]
fn is_counted(reason: u32) -> bool {
    reason == config!(drop_reason_proto_mem) || reason == config!(drop_reason_listen_overflow)
}

/// `DROPPED_*` of a segment of this socket.
#[inline(always)]
fn cause(sock: Sock) -> u32 {
    dropped_by(sock.receive_queue_bytes(), sock.receive_buffer_bytes())
}

/// `tcp_try_rmem_schedule(sk, skb, size)`, 5.4 to 6.18: net/ipv4/tcp_input.c. Not 0: even after
/// pruning there was no room. The segment is dropped, unless the receive queue is empty: then the
/// kernel may take it all the same (since 6.6; before, the function is not called for an empty
/// queue).
#[inline(always)]
fn uncharged<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) || call.result() as i32 == 0 {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() || !is_first_to_count(call, sock.0.raw()) {
        return;
    }
    if sock.receive_queue_len() == 0 {
        count!(uncharged_first += 1);
    } else {
        count!(uncharged[cause(sock) as usize] += 1);
    }
}

on_function!(exit "tcp_try_rmem_schedule", HOOK_RECEIVE: uncharged,
    tcp_try_rmem_schedule, entry_tcp_try_rmem_schedule, kprobe_tcp_try_rmem_schedule,
    backup tcp_try_rmem_schedule_backup);

/// `tcp_prune_ofo_queue(sk, …)`, 5.10 to 6.18: net/ipv4/tcp_input.c. True: segments that were
/// received out of order were dropped for lack of memory (OfoPruned).
#[inline(always)]
fn pruned<C: Call>(call: C) {
    if is_first_to_see(call, 0) && call.result() & 0xff != 0 && is_first_to_count(call, 0) {
        count!(ofo_pruned += 1);
    }
}

on_function!(result "tcp_prune_ofo_queue", HOOK_PRUNE: pruned,
    tcp_prune_ofo_queue, kprobe_tcp_prune_ofo_queue, backup tcp_prune_ofo_queue_backup);

/// `tcp_collapse_one(sk, skb, list, root)`, 5.10 to 6.18: net/ipv4/tcp_input.c. One skb of a
/// receive queue is freed: its data was moved into the skb before it (TCPRcvCollapsed).
#[inline(always)]
fn collapsed<C: Call>(call: C) {
    if is_first_to_see(call, 0) && is_first_to_count(call, 0) {
        count!(collapsed += 1);
    }
}

on_function!(entry "tcp_collapse_one", HOOK_COLLAPSE: collapsed,
    tcp_collapse_one, kprobe_tcp_collapse_one, backup tcp_collapse_one_backup);
