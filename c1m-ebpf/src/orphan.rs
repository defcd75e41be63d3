//! Orphans: how many, and those that the kernel gives up.

use c1m_ebpf::{ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, EVENT_ABORTED};

use crate::{
    backup::is_first_to_see,
    event::{self, Context},
    function::{Call, on_function, on_tracepoint},
    layout::{Sock, config},
};

/// `tcp_send_reset(sk, skb, reason)`, with a reason since 6.10: net/ipv4/tcp_output.c, `tcp_send_active_reset`.
///
/// Reason ABORT_ON_MEMORY: `tcp_check_oom` said yes, at close or in a timer.
#[inline(always)]
fn reset<C: Call>(call: C) {
    if !is_first_to_see(call, call.object().raw()) {
        return;
    }
    if call.value() as u32 != config!(reset_reason_memory) {
        return;
    }
    // Null for a reset without a socket.
    let sock = Sock(call.object());
    if sock.0.is_null() {
        return;
    }
    let limit = limit(sock);
    if let Some(counters) = event::counters::<C>() {
        counters.aborted[limit as usize] += 1;
    }
    report(call, sock, limit, 0);
}

on_tracepoint!("tcp_send_reset", HOOK_RESET: reset, tcp_send_reset, tcp_send_reset_backup);

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
    if let Some(counters) = event::counters::<C>() {
        counters.oom_verdicts[limit as usize] += 1;
    }
    report(call, sock, limit, call.value() & 0xff);
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
fn report<C: Call>(_: C, sock: Sock, limit: u32, shift: u64) {
    let place = event::place_of(event::EXAMPLE_ABORTED + limit, sock);
    event::send_example::<C>(place, EVENT_ABORTED, |event| {
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
        && let Some(counters) = event::counters::<C>()
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
    if !is_first_to_see(call, 0) {
        return;
    }
    let count = call.result() as i32;
    let Some(shared) = event::shared() else { return };
    let count = if count < 0 { 0 } else { count as u64 };
    // SAFETY: the map gave the pointer. Another CPU's sum is as good.
    unsafe {
        (*shared).orphans = count;
        if count > (*shared).orphans_max {
            (*shared).orphans_max = count;
        }
    }
}

on_function!(result "tcp_orphan_count_sum", HOOK_ORPHAN_SUM: summed_up,
    tcp_orphan_count_sum, probe_tcp_orphan_count_sum, backup tcp_orphan_count_sum_backup);
