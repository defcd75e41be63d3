//! Orphans that the kernel reset for memory.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, EVENT_ABORTED, HOOK_RESET, REASON_ARGUMENT,
};

use crate::{
    event::{self, Context},
    layout::{BtfPtr, Sock, config},
};

/// `tcp_send_reset(sk, skb, reason)`, with a reason since 6.10: net/ipv4/tcp_output.c, `tcp_send_active_reset`.
///
/// Reason ABORT_ON_MEMORY: `tcp_check_oom` said yes, at close or in a timer. It has two causes and does not say which; this repeats the
/// part of its test that the socket decides (net/ipv4/tcp.c, `tcp_out_of_memory`). The rest is the number of orphans.
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    if config!(reset_reason_argument) != REASON_ARGUMENT {
        return 0;
    }
    let reason: u32 = ctx.arg(REASON_ARGUMENT as usize);
    if reason != config!(reset_reason_memory) {
        return 0;
    }
    // SAFETY: argument 0 is a struct sock, or null for a reset without one.
    let sock = Sock(unsafe { BtfPtr::new(ctx.arg(0)) });
    if sock.0.is_null() {
        return 0;
    }
    let proto = sock.proto();
    let (pages, tcp_mem) = (proto.pages(), proto.tcp_mem());
    let is_out_of_memory =
        sock.send_queue_bytes() > config!(min_sndbuf_bytes) && pages > tcp_mem[2];
    let limit = if is_out_of_memory { ABORTED_OUT_OF_MEMORY } else { ABORTED_TOO_MANY };
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        &ctx,
        "tcp_send_reset for memory: {} pages allocated, limit {}",
        pages,
        limit
    );
    if let Some(counters) = event::counters() {
        counters.aborted[limit as usize] += 1;
    }
    if event::is_among_first(6 + limit) {
        event::send(EVENT_ABORTED, HOOK_RESET, |event| {
            event.pages = pages;
            event.tcp_mem = tcp_mem;
            event.limit = limit;
            event.receive_queue_bytes = sock.receive_queue_bytes();
            event.send_queue_bytes = sock.send_queue_bytes();
            event::describe(&mut event.socket, sock, Context::Elsewhere);
        });
    }
    0
}
