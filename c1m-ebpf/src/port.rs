//! Local ports, when a search finds none.

use c1m_ebpf::{ERRNOS, ERROR_EADDRNOTAVAIL, EVENT_PORTS};

use crate::{
    event::{self, Context},
    function::{Call, on_function},
    layout::{BtfPtr, Sock},
};

/// `inet_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv4/inet_hashtables.c. EADDRNOTAVAIL: no port of ip_local_port_range is free between
/// this source and that destination.
#[inline(always)]
fn searched_4<C: Call>(call: C) {
    searched(call, 0);
}

on_function!(exit "inet_hash_connect", HOOK_CONNECT_4: searched_4,
    inet_hash_connect, keep_inet_hash_connect, probe_inet_hash_connect);

/// `inet6_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv6/inet6_hashtables.c.
#[inline(always)]
fn searched_6<C: Call>(call: C) {
    searched(call, 1);
}

on_function!(exit "inet6_hash_connect", HOOK_CONNECT_6: searched_6,
    inet6_hash_connect, keep_inet6_hash_connect, probe_inet6_hash_connect);

#[inline(always)]
fn searched<C: Call>(call: C, family: usize) {
    if call.result() as i32 == -ERRNOS[ERROR_EADDRNOTAVAIL as usize] {
        exhausted(call.object(), C::HOOK, family);
    }
}

#[inline(always)]
fn exhausted(sock: BtfPtr, hook: u32, family: usize) {
    if let Some(counters) = event::counters() {
        counters.ports[family] += 1;
    }
    if !sock.is_null() && event::is_among_first(event::FIRST_PORTS) {
        event::send(EVENT_PORTS, hook, |event| {
            event::describe(&mut event.socket, Sock(sock), Context::Process);
        });
    }
}
