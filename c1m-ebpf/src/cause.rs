//! Why the kernel refused, dropped, aborted or reset: decided from numbers that a program has read
//! at the hook. The kernel itself does not say which of its conditions was true.

/// What refused an allocation; index into [`crate::Counters::refused`] together with the side.
pub const REFUSED_HIGH: u32 = 0;
pub const REFUSED_FAIR_SHARE: u32 = 1;
pub const REFUSED_MEMCG: u32 = 2;

/// SK_MEM_SEND and SK_MEM_RECV, include/net/sock.h
pub const SIDE_SEND: u32 = 0;
pub const SIDE_RECEIVE: u32 = 1;

/// Why the kernel reset an orphan; index into [`crate::Counters::aborted`].
pub const ABORTED_TOO_MANY: u32 = 0;
pub const ABORTED_OUT_OF_MEMORY: u32 = 1;

/// Why memory pressure began; index into [`crate::Counters::pressure_entries`].
pub const PRESSURE_TCP_MEM: u32 = 0;
pub const PRESSURE_ALLOCATOR: u32 = 1;

/// The direction of an [`crate::EVENT_PRESSURE`].
pub const PRESSURE_ENTERED: u32 = 0;
pub const PRESSURE_LEFT: u32 = 1;

/// Why a segment could not be charged; index into [`crate::Counters::dropped`] and
/// [`crate::Counters::uncharged`].
pub const DROPPED_TCP_MEM: u32 = 0;
pub const DROPPED_RECEIVE_BUFFER: u32 = 1;

/// A full queue of a listener, and the segment that found it full.
pub const QUEUE_ACCEPT_SYN: u32 = 0;
pub const QUEUE_ACCEPT_ACK: u32 = 1;
pub const QUEUE_SYN: u32 = 2;

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const LISTEN: i32 = 10;

/// What a change of a socket's state means for the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Opened,
    Closed,
}

/// Of a socket that a listener created: it is a connection from the third segment of the handshake
/// until CLOSE, whether or not `accept` has returned it.
#[inline(always)]
#[must_use]
pub const fn change(old: i32, new: i32) -> Option<Change> {
    if old == SYN_RECV && new != CLOSE {
        return Some(Change::Opened);
    }
    if new == CLOSE && old != SYN_RECV && old != SYN_SENT && old != LISTEN && old != CLOSE {
        return Some(Change::Closed);
    }
    None
}

/// Is this the state of a connection whose handshake is complete and of which neither end has
/// closed?
#[inline(always)]
#[must_use]
pub const fn is_established(state: i32) -> bool {
    state == ESTABLISHED
}

/// `REFUSED_*`: net/core/sock.c, `__sk_mem_raise_allocated`, 5.4 to 6.18. `pages` is the usage with
/// the refused allocation.
#[inline(always)]
#[must_use]
pub const fn refused_by(pages: u64, tcp_mem: &[u64; 3], is_under_pressure: bool) -> u32 {
    if pages > tcp_mem[2] {
        REFUSED_HIGH
    } else if is_under_pressure {
        REFUSED_FAIR_SHARE
    } else {
        REFUSED_MEMCG
    }
}

/// `ABORTED_*`: net/ipv4/tcp.c, `tcp_out_of_memory`, 5.4 to 6.18. Where its condition is false, the
/// number of orphans is the reason.
#[inline(always)]
#[must_use]
pub const fn aborted_by(
    send_queue_bytes: u32,
    min_sndbuf_bytes: u32,
    pages: u64,
    tcp_mem: &[u64; 3],
) -> u32 {
    if send_queue_bytes > min_sndbuf_bytes && pages > tcp_mem[2] {
        ABORTED_OUT_OF_MEMORY
    } else {
        ABORTED_TOO_MANY
    }
}

/// `PRESSURE_*`: the kernel enters memory pressure above the second limit of tcp_mem, and when the
/// page allocator has refused (net/ipv4/tcp.c, `tcp_stream_alloc_skb`).
#[inline(always)]
#[must_use]
pub const fn pressure_by(pages: u64, tcp_mem: &[u64; 3]) -> u32 {
    if pages > tcp_mem[1] { PRESSURE_TCP_MEM } else { PRESSURE_ALLOCATOR }
}

/// `DROPPED_*`: the kernel compares the socket's buffer first (net/ipv4/tcp_input.c,
/// `tcp_try_rmem_schedule`, 5.4 to 6.18).
#[inline(always)]
#[must_use]
pub const fn dropped_by(receive_queue_bytes: u32, receive_buffer_bytes: i32) -> u32 {
    if receive_queue_bytes as i64 > receive_buffer_bytes as i64 {
        DROPPED_RECEIVE_BUFFER
    } else {
        DROPPED_TCP_MEM
    }
}

/// include/net/sock.h, `sk_acceptq_is_full`, 5.4 to 6.18.
#[inline(always)]
#[must_use]
pub const fn is_accept_queue_full(length: u32, limit: u32) -> bool {
    length > limit
}

/// Does a SYN to a listener with a full accept queue reach the comparison with that queue? Without
/// SYN cookies a full SYN queue drops it before (net/ipv4/tcp_input.c, `tcp_conn_request`, 5.4 to
/// 6.18).
#[inline(always)]
#[must_use]
pub const fn is_accept_queue_asked(request_queue_len: u32, limit: u32, syncookies: u8) -> bool {
    request_queue_len <= limit || syncookies != 0
}

/// Is a call of `tcp_syn_flood_action` about a full SYN queue? With net.ipv4.tcp_syncookies = 2 the
/// kernel calls it for each SYN, whatever the length of the queue.
#[inline(always)]
#[must_use]
pub const fn is_syn_queue_full(length: u32, limit: u32, syncookies: u8) -> bool {
    syncookies != 2 || length >= limit
}
