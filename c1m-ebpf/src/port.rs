//! Searches for a local port that find none.

use c1m_ebpf::{ERRNOS, ERROR_EADDRNOTAVAIL, EVENT_PORTS};

use crate::{
    event::{self, Context, count},
    function::{Call, on_function},
    layout::Sock,
};

/// `inet_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv4/inet_hashtables.c. EADDRNOTAVAIL: no
/// port of ip_local_port_range is free from this source to this destination.
#[inline(always)]
fn searched_4<C: Call>(call: C) {
    searched(call, 0);
}

on_function!(exit "inet_hash_connect", HOOK_CONNECT_4: searched_4,
    inet_hash_connect, entry_inet_hash_connect, kprobe_inet_hash_connect);

/// `inet6_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv6/inet6_hashtables.c.
#[inline(always)]
fn searched_6<C: Call>(call: C) {
    searched(call, 1);
}

on_function!(exit "inet6_hash_connect", HOOK_CONNECT_6: searched_6,
    inet6_hash_connect, entry_inet6_hash_connect, kprobe_inet6_hash_connect);

#[inline(always)]
fn searched<C: Call>(call: C, family: usize) {
    if call.result() as i32 == -ERRNOS[ERROR_EADDRNOTAVAIL as usize] {
        exhausted(call, family);
    }
}

#[inline(always)]
fn exhausted<C: Call>(call: C, family: usize) {
    count!(ports[family] += 1);
    let sock = Sock(call.object());
    if !sock.0.is_null() {
        let key = event::key_of_call(event::EXAMPLE_PORTS);
        event::send_example::<C>(key, EVENT_PORTS, |event| {
            event::describe(&mut event.socket, sock, Context::Process);
        });
    }
}
