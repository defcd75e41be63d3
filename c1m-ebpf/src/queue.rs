//! The queues of a listener, when they are full.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use c1m_ebpf::{
    ABSENT, EVENT_OVERFLOW, ExampleKey, QUEUE_ACCEPT_ACK, QUEUE_ACCEPT_SYN, QUEUE_SYN,
    is_accept_queue_asked, is_syn_queue_full,
};

use crate::{
    event::{self, Context, count},
    function::{Call, on_function},
    layout::{BtfPtr, Sock, copy, offset},
};

/// A listener whose accept queue was full at the entry of a function that then refuses.
///
/// A program may accept before the function compares, so its return decides whether it did refuse.
/// Listeners are served in softirqs, which neither leave their CPU nor interrupt each other on it:
/// one such entry per function and CPU is enough.
#[repr(C)]
#[derive(Clone, Copy)]
struct Full {
    /// 0: the queue was not full
    listener: u64,
    /// sk_drops
    drops: u32,
    length: u32,
    limit: u32,
    padding: u32,
}

const BY_SYN: u32 = 0;
const BY_ACK: u32 = 1;
const BY_ACK_6: u32 = 2;

#[map]
static FULL: PerCpuArray<Full> = PerCpuArray::with_max_entries(3, 0);

/// On entry: stores the listener, if its queue is full.
#[inline(always)]
fn store(function: u32, listener: Option<Sock>) {
    let Some(slot) = FULL.get_ptr_mut(function) else { return };
    // SAFETY: the map gave the pointer. Volatile and without a reference: it is memory of a map.
    unsafe {
        match listener {
            None => (&raw mut (*slot).listener).write_volatile(0),
            Some(sock) => slot.write_volatile(Full {
                listener: sock.0.raw(),
                drops: sock.drops(),
                length: sock.accept_queue_len(),
                limit: sock.backlog(),
                padding: 0,
            }),
        }
    }
}

/// On return: takes what was stored on entry.
#[inline(always)]
fn take(function: u32) -> Option<Full> {
    let slot = FULL.get_ptr_mut(function)?;
    // SAFETY: as above.
    unsafe {
        if (&raw const (*slot).listener).read_volatile() == 0 {
            return None;
        }
        let full = slot.read_volatile();
        (&raw mut (*slot).listener).write_volatile(0);
        Some(full)
    }
}

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`, 5.4 to 6.18: net/ipv4/tcp_input.c. A SYN. It is
/// dropped if the accept queue is full (ListenOverflows).
#[inline(always)]
fn syn<C: Call>(call: C) {
    let sock = Sock(call.object());
    let is_full = !sock.0.is_null()
        && sock.is_accept_queue_full()
        && is_accept_queue_asked(sock.request_queue_len(), sock.backlog(), syncookies(sock));
    store(BY_SYN, is_full.then_some(sock));
}

on_function!(entry "tcp_conn_request", HOOK_REQUEST: syn,
    tcp_conn_request_entry, kprobe_tcp_conn_request_entry);

/// Its return. The result is 0 in either case; a dropped SYN is counted in the listener's drops
/// (include/net/tcp.h, `tcp_listendrop`).
#[inline(always)]
fn syn_returned<C: Call>(call: C) {
    let Some(full) = take(BY_SYN) else { return };
    // The caller has a reference to the listener.
    let sock = Sock(BtfPtr::untyped(full.listener as *const u8));
    if sock.drops() == full.drops {
        return;
    }
    count!(accept_queue_syn += 1);
    accept_queue_was_full(call, sock, &full, QUEUE_ACCEPT_SYN);
}

on_function!(result "tcp_conn_request", HOOK_REQUEST_EXIT: syn_returned,
    tcp_conn_request_exit, kprobe_tcp_conn_request_exit);

/// `tcp_syn_flood_action(sk, …)`, 5.4 to 6.18 where it is not inlined: net/ipv4/tcp_input.c. A SYN
/// found the SYN queue full. With SYN cookies it is answered by a cookie (TCPReqQFullDoCookies),
/// otherwise dropped (TCPReqQFullDrop).
#[inline(always)]
fn syn_flood<C: Call>(call: C) {
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let (length, limit) = (sock.request_queue_len(), sock.backlog());
    if !is_syn_queue_full(length, limit, syncookies(sock)) {
        return;
    }
    count!(syn_queue += 1);
    overflow(call, sock, QUEUE_SYN, length, limit);
}

on_function!(entry "tcp_syn_flood_action", HOOK_SYN_FLOOD: syn_flood,
    tcp_syn_flood_action, kprobe_tcp_syn_flood_action);

/// `tcp_v4_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv4/tcp_ipv4.c. The end of a
/// handshake. It first checks whether the accept queue is full (ListenOverflows).
#[inline(always)]
fn handshake<C: Call>(call: C) {
    let sock = Sock(call.object());
    let is_full = !sock.0.is_null() && sock.is_accept_queue_full();
    store(BY_ACK, is_full.then_some(sock));
}

on_function!(entry "tcp_v4_syn_recv_sock", HOOK_SYN_RECV_4: handshake,
    tcp_v4_syn_recv_sock_entry, kprobe_tcp_v4_syn_recv_sock_entry);

/// Its return: no socket was created.
#[inline(always)]
fn handshake_returned<C: Call>(call: C) {
    handshake_refused(call, BY_ACK, 0);
}

on_function!(result "tcp_v4_syn_recv_sock", HOOK_SYN_RECV_4_EXIT: handshake_returned,
    tcp_v4_syn_recv_sock_exit, kprobe_tcp_v4_syn_recv_sock_exit);

/// `tcp_v6_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv6/tcp_ipv6.c. For IPv4 it calls the
/// function above before it checks.
#[inline(always)]
fn handshake_6<C: Call>(call: C) {
    /// ETH_P_IP as `skb->protocol` has it
    const IPV4: u16 = 0x0800_u16.to_be();
    let sock = Sock(call.object());
    let mut is_full = !sock.0.is_null() && sock.is_accept_queue_full();
    if is_full {
        let skb = call.value() as *const u8;
        let protocol: u16 = copy(skb.wrapping_add(offset!(skb_protocol) as usize).cast());
        is_full = protocol != IPV4;
    }
    store(BY_ACK_6, is_full.then_some(sock));
}

on_function!(entry "tcp_v6_syn_recv_sock", HOOK_SYN_RECV_6: handshake_6,
    tcp_v6_syn_recv_sock_entry, kprobe_tcp_v6_syn_recv_sock_entry);

#[inline(always)]
fn handshake_6_returned<C: Call>(call: C) {
    handshake_refused(call, BY_ACK_6, 1);
}

on_function!(result "tcp_v6_syn_recv_sock", HOOK_SYN_RECV_6_EXIT: handshake_6_returned,
    tcp_v6_syn_recv_sock_exit, kprobe_tcp_v6_syn_recv_sock_exit);

#[inline(always)]
fn handshake_refused<C: Call>(call: C, function: u32, family: usize) {
    let Some(full) = take(function) else { return };
    if call.result() != 0 {
        return;
    }
    count!(accept_queue_ack[family] += 1);
    // The caller has a reference to the listener.
    let sock = Sock(BtfPtr::untyped(full.listener as *const u8));
    accept_queue_was_full(call, sock, &full, QUEUE_ACCEPT_ACK);
}

#[inline(always)]
fn accept_queue_was_full<C: Call>(call: C, sock: Sock, full: &Full, queue: u32) {
    if let Some(shared) = event::shared() {
        // SAFETY: the map gave the pointer. Volatile, because another CPU may write at the same
        // time: then either length may stay.
        unsafe {
            let length = u64::from(full.length);
            if length > (&raw const (*shared).accept_queue_len).read_volatile() {
                (&raw mut (*shared).accept_queue_len).write_volatile(length);
                (&raw mut (*shared).accept_queue_max).write_volatile(full.limit.into());
            }
        }
    }
    overflow(call, sock, queue, full.length, full.limit);
}

#[inline(always)]
fn overflow<C: Call>(_: C, sock: Sock, queue: u32, length: u32, limit: u32) {
    let key = ExampleKey {
        kind: event::EXAMPLE_OVERFLOW + queue,
        netns: sock.netns(),
        scope: sock.port().into(),
    };
    event::send_example::<C>(key, EVENT_OVERFLOW, |event| {
        event.limit = queue;
        event.value = length.into();
        event.bound = limit.into();
        event::describe(&mut event.socket, sock, Context::Elsewhere);
    });
}

/// net.ipv4.tcp_syncookies of the socket's network namespace: a byte, or before 5.15 the lowest
/// byte of an int. 0 without CONFIG_SYN_COOKIES.
#[inline(always)]
fn syncookies(sock: Sock) -> u8 {
    if offset!(net_syncookies) == ABSENT {
        return 0;
    }
    copy(sock.0.follow(offset!(sock_net)).address(offset!(net_syncookies)))
}
