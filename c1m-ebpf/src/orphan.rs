//! Orphans: how many, and those that the kernel gives up.

use aya_ebpf::{EbpfContext as _, macros::btf_tracepoint, programs::BtfTracePointContext};
use c1m_ebpf::{ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, EVENT_ABORTED, HOOK_RESET};

use crate::{
    event::{self, Context},
    function::{Call, Typed, on_function},
    layout::{Sock, config},
};

/// `tcp_send_reset(sk, skb, reason)`, with a reason since 6.10: net/ipv4/tcp_output.c, `tcp_send_active_reset`.
///
/// Reason ABORT_ON_MEMORY: `tcp_check_oom` said yes, at close or in a timer.
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let call = Typed::<HOOK_RESET>(ctx.as_ptr());
    if call.value() as u32 != config!(reset_reason_memory) {
        return 0;
    }
    // Null for a reset without a socket.
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return 0;
    }
    let limit = limit(sock);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "tcp_send_reset for memory: limit {}", limit);
    if let Some(counters) = event::counters() {
        counters.aborted[limit as usize] += 1;
    }
    report(sock, limit, HOOK_RESET, 0);
    0
}

/// `tcp_check_oom(sk, shift)`, 5.4 to 6.18: net/ipv4/tcp.c. True: the orphan is given up, and TCPAbortOnMemory counts it. `shift`: a timer
/// lets the number of orphans count twice or four times.
#[inline(always)]
fn checked<C: Call>(call: C) {
    if call.result() & 0xff == 0 {
        return;
    }
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let limit = limit(sock);
    if let Some(counters) = event::counters() {
        counters.oom_verdicts[limit as usize] += 1;
    }
    report(sock, limit, C::HOOK, call.value() & 0xff);
}

on_function!(exit "tcp_check_oom", HOOK_CHECK_OOM: checked,
    tcp_check_oom, keep_tcp_check_oom, probe_tcp_check_oom);

/// The verdict has two causes and does not say which: this repeats the part of its test that the socket decides (net/ipv4/tcp.c,
/// `tcp_out_of_memory`). The rest is the number of orphans.
#[inline(always)]
fn limit(sock: Sock) -> u32 {
    let proto = sock.proto();
    if sock.send_queue_bytes() > config!(min_sndbuf_bytes) && proto.pages() > proto.tcp_mem()[2] {
        ABORTED_OUT_OF_MEMORY
    } else {
        ABORTED_TOO_MANY
    }
}

#[inline(always)]
fn report(sock: Sock, limit: u32, hook: u32, shift: u64) {
    if !event::is_among_first(event::FIRST_ABORTED + limit) {
        return;
    }
    event::send(EVENT_ABORTED, hook, |event| {
        let proto = sock.proto();
        event.pages = proto.pages();
        event.tcp_mem = proto.tcp_mem();
        event.limit = limit;
        event.receive_queue_bytes = sock.receive_queue_bytes();
        event.send_queue_bytes = sock.send_queue_bytes();
        event.value = shift;
        event::describe(&mut event.socket, sock, Context::Elsewhere);
    });
}

/// `tcp_out_of_resources(sk, do_reset)`, 5.4 to 6.18: net/ipv4/tcp_timer.c. 1: a timer gave an orphan up (or one whose network namespace is
/// gone, which no counter tells).
#[inline(always)]
fn timer_gave_up<C: Call>(call: C) {
    if call.result() as i32 == 1
        && let Some(counters) = event::counters()
    {
        counters.orphans_in_timers += 1;
    }
}

on_function!(result "tcp_out_of_resources", HOOK_RESOURCES: timer_gave_up,
    tcp_out_of_resources, probe_tcp_out_of_resources);

/// `tcp_orphan_count_sum()`, 5.10 to 6.18: net/ipv4/tcp.c. The number of orphans: summed up each 100 ms, for the comparison with
/// tcp_max_orphans, and for each reader of /proc/net/sockstat.
#[inline(always)]
fn summed_up<C: Call>(call: C) {
    let count = call.result() as i32;
    let Some(shared) = event::shared() else { return };
    let count = if count < 0 { 0 } else { count as u64 };
    // SAFETY: the map gave the pointer, and this program alone writes these words.
    unsafe {
        (*shared).orphans = count;
        if count > (*shared).orphans_max {
            (*shared).orphans_max = count;
        }
    }
}

on_function!(result "tcp_orphan_count_sum", HOOK_ORPHAN_SUM: summed_up,
    tcp_orphan_count_sum, probe_tcp_orphan_count_sum);
