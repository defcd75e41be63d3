//! The queues of a listener, when they are full.

use aya_ebpf::{macros::fentry, programs::FEntryContext};
use c1m_ebpf::{
    ABSENT, EVENT_OVERFLOW, HOOK_REQUEST, HOOK_SYN_FLOOD, HOOK_SYN_RECV_4, HOOK_SYN_RECV_6,
    QUEUE_ACCEPT_ACK, QUEUE_ACCEPT_SYN, QUEUE_SYN,
};

use crate::{
    event::{self, Context},
    layout::{Sock, argument, copy, object, offset},
};

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`, 5.4 to 6.18: net/ipv4/tcp_input.c. A SYN. One that finds the accept queue full is dropped
/// (ListenOverflows).
#[fentry(function = "tcp_conn_request")]
pub(crate) fn tcp_conn_request(ctx: FEntryContext) -> i32 {
    let sock = Sock(object!(ctx, HOOK_REQUEST));
    if sock.0.is_null() || !sock.is_accept_queue_full() {
        return 0;
    }
    // Without SYN cookies a full SYN queue comes first, and drops it without a look at the other queue.
    if sock.request_queue_len() > sock.backlog() && syncookies(sock) == 0 {
        return 0;
    }
    if let Some(counters) = event::counters() {
        counters.accept_queue_syn += 1;
    }
    accept_queue_is_full(sock, QUEUE_ACCEPT_SYN, HOOK_REQUEST);
    0
}

/// `tcp_syn_flood_action(sk, …)`, 5.4 to 6.18 where it is not inlined: net/ipv4/tcp_input.c. A SYN found the SYN queue full; with SYN cookies
/// it is answered by one (TCPReqQFullDoCookies), without them dropped (TCPReqQFullDrop).
#[fentry(function = "tcp_syn_flood_action")]
pub(crate) fn tcp_syn_flood_action(ctx: FEntryContext) -> i32 {
    let sock = Sock(object!(ctx, HOOK_SYN_FLOOD));
    if sock.0.is_null() {
        return 0;
    }
    let (length, limit) = (sock.request_queue_len(), sock.backlog());
    // Cookies for everybody: the kernel asks here for each SYN, however long the queue is.
    if syncookies(sock) == 2 && length < limit {
        return 0;
    }
    if let Some(counters) = event::counters() {
        counters.syn_queue += 1;
    }
    overflow(sock, QUEUE_SYN, HOOK_SYN_FLOOD, length, limit);
    0
}

/// `tcp_v4_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv4/tcp_ipv4.c. The end of a handshake; the first thing that it looks at is
/// whether the accept queue is full (ListenOverflows).
#[fentry(function = "tcp_v4_syn_recv_sock")]
pub(crate) fn tcp_v4_syn_recv_sock(ctx: FEntryContext) -> i32 {
    let sock = Sock(object!(ctx, HOOK_SYN_RECV_4));
    if !sock.0.is_null() && sock.is_accept_queue_full() {
        if let Some(counters) = event::counters() {
            counters.accept_queue_ack[0] += 1;
        }
        accept_queue_is_full(sock, QUEUE_ACCEPT_ACK, HOOK_SYN_RECV_4);
    }
    0
}

/// `tcp_v6_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv6/tcp_ipv6.c. It hands IPv4 to the one above before it looks.
#[fentry(function = "tcp_v6_syn_recv_sock")]
pub(crate) fn tcp_v6_syn_recv_sock(ctx: FEntryContext) -> i32 {
    /// ETH_P_IP as `skb->protocol` has it
    const IPV4: u16 = 0x0800_u16.to_be();
    let sock = Sock(object!(ctx, HOOK_SYN_RECV_6));
    if sock.0.is_null() || !sock.is_accept_queue_full() {
        return 0;
    }
    let skb = argument!(ctx, HOOK_SYN_RECV_6, value) as *const u8;
    let protocol: u16 = copy(skb.wrapping_add(offset!(skb_protocol) as usize).cast());
    if protocol == IPV4 {
        return 0;
    }
    if let Some(counters) = event::counters() {
        counters.accept_queue_ack[1] += 1;
    }
    accept_queue_is_full(sock, QUEUE_ACCEPT_ACK, HOOK_SYN_RECV_6);
    0
}

#[inline(always)]
fn accept_queue_is_full(sock: Sock, queue: u32, hook: u32) {
    let (length, limit) = (sock.accept_queue_len(), sock.backlog());
    if let Some(shared) = event::shared() {
        // SAFETY: the map gave the pointer. A race costs the smaller of two lengths that differ by one.
        unsafe {
            if u64::from(length) > (*shared).accept_queue_len {
                (*shared).accept_queue_len = u64::from(length);
                (*shared).accept_queue_max = u64::from(limit);
            }
        }
    }
    overflow(sock, queue, hook, length, limit);
}

#[inline(always)]
fn overflow(sock: Sock, queue: u32, hook: u32, length: u32, limit: u32) {
    if !event::is_among_first(event::FIRST_OVERFLOW + queue) {
        return;
    }
    event::send(EVENT_OVERFLOW, hook, |event| {
        event.limit = queue;
        event.value = length.into();
        event.bound = limit.into();
        event::describe(&mut event.socket, sock, Context::Elsewhere);
    });
}

/// net.ipv4.tcp_syncookies of the socket's network namespace: a byte, or before 5.15 an int of which this is the lowest one. 0 without
/// CONFIG_SYN_COOKIES.
#[inline(always)]
fn syncookies(sock: Sock) -> u8 {
    if offset!(net_syncookies) == ABSENT {
        return 0;
    }
    copy(sock.0.follow(offset!(sock_net)).address(offset!(net_syncookies)))
}
