//! Local ports, when a search finds none.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use c1m_ebpf::{ERRNOS, ERROR_EADDRNOTAVAIL, EVENT_PORTS, HOOK_CONNECT_4, HOOK_CONNECT_6};

use crate::{
    event::{self, Context},
    layout::{BtfPtr, Sock, object, result},
};

/// `inet_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv4/inet_hashtables.c. EADDRNOTAVAIL: no port of ip_local_port_range is free between
/// this source and that destination.
#[fexit(function = "inet_hash_connect")]
pub(crate) fn inet_hash_connect(ctx: FExitContext) -> i32 {
    if result!(ctx, HOOK_CONNECT_4) as i32 == -ERRNOS[ERROR_EADDRNOTAVAIL as usize] {
        exhausted(object!(ctx, HOOK_CONNECT_4), HOOK_CONNECT_4, 0);
    }
    0
}

/// `inet6_hash_connect(death_row, sk)`, 5.4 to 6.18: net/ipv6/inet6_hashtables.c.
#[fexit(function = "inet6_hash_connect")]
pub(crate) fn inet6_hash_connect(ctx: FExitContext) -> i32 {
    if result!(ctx, HOOK_CONNECT_6) as i32 == -ERRNOS[ERROR_EADDRNOTAVAIL as usize] {
        exhausted(object!(ctx, HOOK_CONNECT_6), HOOK_CONNECT_6, 1);
    }
    0
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
