//! Connections opened and closed, on the watched ports.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_skc_to_tcp_sock;
use c1m_ebpf::{Change, HOOK_SET_STATE, change, is_established};

use crate::{
    backup::is_first_to_see,
    event::{self, Context, count},
    function::{Typed, on_tracepoint},
    layout::{BtfPtr, Sock, word},
    memory,
};

/// `inet_sock_set_state(sk, oldstate, newstate)`, 4.16 to 6.18: net/ipv4/af_inet.c,
/// `inet_sk_set_state`.
///
/// Counts the connections of the server side ([`change`]). When one opens, tcp_mem usage is
/// compared with the limits, so a crossing is known per connection.
#[inline(always)]
fn changed<const IS_BACKUP: bool>(call: Typed<HOOK_SET_STATE, IS_BACKUP>) {
    if !is_first_to_see(call, call.value_at(0)) {
        return;
    }
    let (old, new) = (call.value_at(1) as i32, call.value_at(2) as i32);
    // Most changes are neither, and most sockets are not on a watched port: both are decided before
    // more is loaded.
    let Some(change) = change(old, new) else { return };
    let sock = Sock(call.object_at(0));
    if sock.0.is_null() || !sock.is_tcp() {
        return;
    }
    // The same conditions for both changes, or the number of connections drifts. A client may have
    // the watched port as its local port, on another address.
    let port = if change == Change::Opened { sock.port() } else { sock.last_port() };
    if !sock.is_watched(port) || !sock.is_accepted() {
        return;
    }
    match change {
        Change::Opened => {
            event::add_connections(1);
            count!(opened += 1);
        }
        Change::Closed => {
            event::add_connections(-1);
            count!(closed += 1);
        }
    }
    if is_established(new) {
        let proto = sock.proto();
        memory::observe(call, sock, proto, proto.pages(), Context::Elsewhere);
    }
}

on_tracepoint!("inet_sock_set_state", HOOK_SET_STATE: changed,
    inet_sock_set_state, inet_sock_set_state_backup);

/// `iter/tcp`, 5.9 to 6.18: net/ipv4/tcp_ipv4.c, `bpf_iter_tcp`. Counts the connections that exist
/// when the programs are attached, in one network namespace: the kernel walks them, and user space
/// reads nothing.
///
/// Listeners and connecting sockets were not created by a listener; for requests and TIME_WAIT the
/// helper returns null.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub(crate) fn count_established(ctx: *mut c_void) -> i32 {
    /// struct bpf_iter__tcp: meta, sk_common, uid
    const SK_COMMON: u32 = 1;
    let common = word(ctx, SK_COMMON) as *mut c_void;
    // The last call has no socket.
    if common.is_null() {
        return 0;
    }
    // SAFETY: the context's own pointer; the helper returns null for anything but a full socket.
    let sock = Sock(unsafe { BtfPtr::new(bpf_skc_to_tcp_sock(common).cast()) });
    if !sock.0.is_null()
        && sock.has_peer()
        && sock.is_accepted()
        && sock.is_watched(sock.last_port())
        && let Some(shared) = event::shared()
    {
        // SAFETY: the map gave the pointer.
        unsafe { event::add(&raw mut (*shared).present, 1) };
    }
    0
}
