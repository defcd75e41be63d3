//! The queues of a listener, when they are full.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use c1m_ebpf::{ABSENT, EVENT_OVERFLOW, Place, QUEUE_ACCEPT_ACK, QUEUE_ACCEPT_SYN, QUEUE_SYN};

use crate::{
    event::{self, Context},
    function::{Call, on_function},
    layout::{BtfPtr, Sock, copy, offset},
};

/// A listener whose accept queue was full when a function began that refuses for it.
///
/// Somebody may accept before the function looks itself, so its end decides whether it did refuse. Listeners are served in softirqs, which
/// neither leave their CPU nor interrupt each other there: one note a function and CPU is enough.
#[repr(C)]
#[derive(Clone, Copy)]
struct Full {
    /// 0: it was not full
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

/// At the beginning of a call: the listener, if its queue is full.
#[inline(always)]
fn note(function: u32, full: Option<Sock>) {
    let Some(slot) = FULL.get_ptr_mut(function) else { return };
    // SAFETY: the map gave the pointer, and this CPU alone uses it.
    let slot = unsafe { &mut *slot };
    let Some(sock) = full else {
        slot.listener = 0;
        return;
    };
    *slot = Full {
        listener: sock.0.raw(),
        drops: sock.drops(),
        length: sock.accept_queue_len(),
        limit: sock.backlog(),
        padding: 0,
    };
}

/// At its end: what was noted at its beginning.
#[inline(always)]
fn noted(function: u32) -> Option<Full> {
    let slot = FULL.get_ptr_mut(function)?;
    // SAFETY: as above.
    let slot = unsafe { &mut *slot };
    if slot.listener == 0 {
        return None;
    }
    let full = *slot;
    slot.listener = 0;
    Some(full)
}

/// `tcp_conn_request(rsk_ops, af_ops, sk, skb)`, 5.4 to 6.18: net/ipv4/tcp_input.c. A SYN. One that finds the accept queue full is dropped
/// (ListenOverflows).
#[inline(always)]
fn syn<C: Call>(call: C) {
    let sock = Sock(call.object());
    let is_full = !sock.0.is_null()
        && sock.is_accept_queue_full()
        // Without SYN cookies a full SYN queue comes first, and drops it without a look at the other queue.
        && (sock.request_queue_len() <= sock.backlog() || syncookies(sock) != 0);
    note(BY_SYN, is_full.then_some(sock));
}

on_function!(entry "tcp_conn_request", HOOK_REQUEST: syn,
    tcp_conn_request_entry, probe_tcp_conn_request_entry);

/// Its end. It returns 0 either way; a SYN that it dropped is one more of the listener's drops (include/net/tcp.h, `tcp_listendrop`).
#[inline(always)]
fn syn_ended<C: Call>(call: C) {
    let Some(full) = noted(BY_SYN) else { return };
    // The caller holds the listener.
    let sock = Sock(BtfPtr::untyped(full.listener as *const u8));
    if sock.drops() == full.drops {
        return;
    }
    if let Some(counters) = event::counters::<C>() {
        counters.accept_queue_syn += 1;
    }
    accept_queue_was_full(call, sock, &full, QUEUE_ACCEPT_SYN);
}

on_function!(result "tcp_conn_request", HOOK_REQUEST_EXIT: syn_ended,
    tcp_conn_request_exit, probe_tcp_conn_request_exit);

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
    if let Some(counters) = event::counters::<C>() {
        counters.syn_queue += 1;
    }
    overflow(call, sock, QUEUE_SYN, length, limit);
}

on_function!(entry "tcp_syn_flood_action", HOOK_SYN_FLOOD: syn_flood,
    tcp_syn_flood_action, probe_tcp_syn_flood_action);

/// `tcp_v4_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv4/tcp_ipv4.c. The end of a handshake; the first thing that it looks at is
/// whether the accept queue is full (ListenOverflows).
#[inline(always)]
fn handshake<C: Call>(call: C) {
    let sock = Sock(call.object());
    let is_full = !sock.0.is_null() && sock.is_accept_queue_full();
    note(BY_ACK, is_full.then_some(sock));
}

on_function!(entry "tcp_v4_syn_recv_sock", HOOK_SYN_RECV_4: handshake,
    tcp_v4_syn_recv_sock_entry, probe_tcp_v4_syn_recv_sock_entry);

/// Its end: no socket was born.
#[inline(always)]
fn handshake_ended<C: Call>(call: C) {
    handshake_refused(call, BY_ACK, 0);
}

on_function!(result "tcp_v4_syn_recv_sock", HOOK_SYN_RECV_4_EXIT: handshake_ended,
    tcp_v4_syn_recv_sock_exit, probe_tcp_v4_syn_recv_sock_exit);

/// `tcp_v6_syn_recv_sock(sk, skb, req, …)`, 5.4 to 6.18: net/ipv6/tcp_ipv6.c. It hands IPv4 to the one above before it looks.
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
    note(BY_ACK_6, is_full.then_some(sock));
}

on_function!(entry "tcp_v6_syn_recv_sock", HOOK_SYN_RECV_6: handshake_6,
    tcp_v6_syn_recv_sock_entry, probe_tcp_v6_syn_recv_sock_entry);

#[inline(always)]
fn handshake_6_ended<C: Call>(call: C) {
    handshake_refused(call, BY_ACK_6, 1);
}

on_function!(result "tcp_v6_syn_recv_sock", HOOK_SYN_RECV_6_EXIT: handshake_6_ended,
    tcp_v6_syn_recv_sock_exit, probe_tcp_v6_syn_recv_sock_exit);

#[inline(always)]
fn handshake_refused<C: Call>(call: C, function: u32, family: usize) {
    let Some(full) = noted(function) else { return };
    if call.result() != 0 {
        return;
    }
    if let Some(counters) = event::counters::<C>() {
        counters.accept_queue_ack[family] += 1;
    }
    // The caller holds the listener.
    let sock = Sock(BtfPtr::untyped(full.listener as *const u8));
    accept_queue_was_full(call, sock, &full, QUEUE_ACCEPT_ACK);
}

#[inline(always)]
fn accept_queue_was_full<C: Call>(call: C, sock: Sock, full: &Full, queue: u32) {
    if let Some(shared) = event::shared() {
        // SAFETY: the map gave the pointer. A race costs the smaller of two lengths that differ by one.
        unsafe {
            if u64::from(full.length) > (*shared).accept_queue_len {
                (*shared).accept_queue_len = u64::from(full.length);
                (*shared).accept_queue_max = u64::from(full.limit);
            }
        }
    }
    overflow(call, sock, queue, full.length, full.limit);
}

#[inline(always)]
fn overflow<C: Call>(_: C, sock: Sock, queue: u32, length: u32, limit: u32) {
    let place = Place {
        kind: event::EXAMPLE_OVERFLOW + queue,
        netns: sock.netns(),
        within: sock.port().into(),
    };
    event::send_example::<C>(place, EVENT_OVERFLOW, |event| {
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
