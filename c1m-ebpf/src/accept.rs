//! Connections born and gone, on the watched ports.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_skc_to_tcp_sock;
use c1m_ebpf::HOOK_SET_STATE;

use crate::{
    backup::is_first_to_see,
    event::{self, Context},
    function::{Typed, on_tracepoint},
    layout::{BtfPtr, Sock, word},
    memory,
};

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// `inet_sock_set_state(sk, oldstate, newstate)`, 4.16 to 6.18: net/ipv4/af_inet.c, `inet_sk_set_state`.
///
/// Counts the connections that the server side holds: from the third segment of the handshake, whether or not `accept` was called yet,
/// to CLOSE. On each new one the usage of tcp_mem is compared with its limits, which makes a crossing exact to the connection.
#[inline(always)]
fn changed<const IS_BACKUP: bool>(call: Typed<HOOK_SET_STATE, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let (old, new) = (call.value_at(1) as i32, call.value_at(2) as i32);
    let is_born = old == SYN_RECV && new != CLOSE;
    let is_gone =
        new == CLOSE && old != SYN_RECV && old != SYN_SENT && old != LISTEN && old != CLOSE;
    // Most changes are neither, and most sockets of a host are not ours: tell both before anything is loaded.
    if !is_born && !is_gone {
        return;
    }
    let sock = Sock(call.object_at(0));
    if sock.0.is_null() || !sock.is_tcp() {
        return;
    }
    // The same for a birth and an end, or the number drifts. A client may well have the watched port as its own, on another address.
    let port = if is_born { sock.port() } else { sock.last_port() };
    if !sock.is_watched(port) || !sock.is_accepted() {
        return;
    }
    event::add_connections(if is_gone { -1 } else { 1 });
    if let Some(counters) = event::counters::<Typed<HOOK_SET_STATE, IS_BACKUP>>() {
        if is_gone {
            counters.closed += 1;
        } else {
            counters.opened += 1;
        }
    }
    if new == ESTABLISHED {
        let proto = sock.proto();
        memory::observe(call, sock, proto, proto.pages(), Context::Elsewhere);
    }
}

on_tracepoint!("inet_sock_set_state", HOOK_SET_STATE: changed,
    inet_sock_set_state, inet_sock_set_state_backup);

/// `iter/tcp`, 5.9 to 6.18: net/ipv4/tcp_ipv4.c, `bpf_iter_tcp`. Counts the connections that are there already, in one network namespace: the
/// kernel walks them, and user space reads nothing.
///
/// Of what it shows, listeners and sockets that connect have not been accepted; requests and TIME_WAIT are no full sockets, which the
/// helper says.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub(crate) fn count_established(ctx: *mut c_void) -> i32 {
    /// struct bpf_iter__tcp: meta, sk_common, uid
    const SK_COMMON: u32 = 1;
    let common = word(ctx, SK_COMMON) as *mut c_void;
    // The last call has none.
    if common.is_null() {
        return 0;
    }
    // SAFETY: the context's own pointer; null for what is not a full socket.
    let sock = Sock(unsafe { BtfPtr::new(bpf_skc_to_tcp_sock(common).cast()) });
    if !sock.0.is_null()
        && sock.has_peer()
        && sock.is_accepted()
        && sock.is_watched(sock.last_port())
        && let Some(shared) = event::shared()
    {
        // SAFETY: the map gave the pointer, and one iterator runs at a time.
        unsafe { (*shared).present += 1 };
    }
    0
}
