//! The queues of a listener, when they are full.

use c1m_ebpf::{ABSENT, EVENT_OVERFLOW, QUEUE_ACCEPT_ACK, QUEUE_ACCEPT_SYN, QUEUE_SYN};

use crate::{
    event::{self, Context},
    function::{Call, on_function},
    layout::{Sock, copy, offset},
};

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`, 5.4 to 6.18: net/ipv4/tcp_input.c. A SYN. One that finds the accept queue full is dropped
/// (ListenOverflows).
#[inline(always)]
fn syn<C: Call>(call: C) {
    let sock = Sock(call.object());
    if sock.0.is_null() || !sock.is_accept_queue_full() {
        return;
    }
    // Without SYN cookies a full SYN queue comes first, and drops it without a look at the other queue.
    if sock.request_queue_len() > sock.backlog() && syncookies(sock) == 0 {
        return;
    }
    if let Some(counters) = event::counters() {
        counters.accept_queue_syn += 1;
    }
    accept_queue_is_full(sock, QUEUE_ACCEPT_SYN, C::HOOK);
}

on_function!(entry "tcp_conn_request", HOOK_REQUEST: syn,
    tcp_conn_request, probe_tcp_conn_request);

/// `tcp_syn_flood_action(sk, …)`, 5.4 to 6.18 where it is not inlined: net/ipv4/tcp_input.c. A SYN found the SYN queue full; with SYN cookies
/// it is answered by one (TCPReqQFullDoCookies), without them dropped (TCPReqQFullDrop).
#[inline(always)]
fn syn_flood<C: Call>(call: C) {
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let (length, limit) = (sock.request_queue_len(), sock.backlog());
    // Cookies for everybody: the kernel asks here for each SYN, however long the queue is.
    if syncookies(sock) == 2 && length < limit {
        return;
    }
    if let Some(counters) = event::counters() {
        counters.syn_queue += 1;
    }
    overflow(sock, QUEUE_SYN, C::HOOK, length, limit);
}

on_function!(entry "tcp_syn_flood_action", HOOK_SYN_FLOOD: syn_flood,
    tcp_syn_flood_action, probe_tcp_syn_flood_action);

/// `tcp_v4_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv4/tcp_ipv4.c. The end of a handshake; the first thing that it looks at is
/// whether the accept queue is full (ListenOverflows).
#[inline(always)]
fn handshake_ended<C: Call>(call: C) {
    let sock = Sock(call.object());
    if !sock.0.is_null() && sock.is_accept_queue_full() {
        if let Some(counters) = event::counters() {
            counters.accept_queue_ack[0] += 1;
        }
        accept_queue_is_full(sock, QUEUE_ACCEPT_ACK, C::HOOK);
    }
}

on_function!(entry "tcp_v4_syn_recv_sock", HOOK_SYN_RECV_4: handshake_ended,
    tcp_v4_syn_recv_sock, probe_tcp_v4_syn_recv_sock);

/// `tcp_v6_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv6/tcp_ipv6.c. It hands IPv4 to the one above before it looks.
#[inline(always)]
fn handshake_ended_6<C: Call>(call: C) {
    /// ETH_P_IP as `skb->protocol` has it
    const IPV4: u16 = 0x0800_u16.to_be();
    let sock = Sock(call.object());
    if sock.0.is_null() || !sock.is_accept_queue_full() {
        return;
    }
    let skb = call.value() as *const u8;
    let protocol: u16 = copy(skb.wrapping_add(offset!(skb_protocol) as usize).cast());
    if protocol == IPV4 {
        return;
    }
    if let Some(counters) = event::counters() {
        counters.accept_queue_ack[1] += 1;
    }
    accept_queue_is_full(sock, QUEUE_ACCEPT_ACK, C::HOOK);
}

on_function!(entry "tcp_v6_syn_recv_sock", HOOK_SYN_RECV_6: handshake_ended_6,
    tcp_v6_syn_recv_sock, probe_tcp_v6_syn_recv_sock);

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
