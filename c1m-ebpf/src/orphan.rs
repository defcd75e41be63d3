//! Orphans: their number, and those that the kernel aborts.

use c1m_ebpf::{EVENT_ABORTED, aborted_by};

use crate::{
    backup::is_first_to_see,
    event::{self, Context, count},
    function::{Call, on_function, on_tracepoint},
    layout::{Sock, config},
};

/// `tcp_send_reset(sk, skb, reason)`, with a reason since 6.10: net/ipv4/tcp_output.c,
/// `tcp_send_active_reset`.
///
/// Reason ABORT_ON_MEMORY: `tcp_check_oom` returned true, at close or in a timer.
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
    count!(aborted[limit as usize] += 1);
    report(call, sock, limit, 0);
}

on_tracepoint!("tcp_send_reset", HOOK_RESET: reset, tcp_send_reset, tcp_send_reset_backup);

/// `tcp_check_oom(sk, shift)`, 5.4 to 6.18: net/ipv4/tcp.c. True: the orphan is aborted, and
/// TCPAbortOnMemory counts it. `shift`: a timer counts the number of orphans twice or four times.
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
    count!(oom_verdicts[limit as usize] += 1);
    report(call, sock, limit, call.value() & 0xff);
}

on_function!(exit "tcp_check_oom", HOOK_CHECK_OOM: checked,
    tcp_check_oom, entry_tcp_check_oom, kprobe_tcp_check_oom);

/// `ABORTED_*` of this orphan.
#[inline(always)]
fn limit(sock: Sock) -> u32 {
    let proto = sock.proto();
    let min_sndbuf_bytes = config!(min_sndbuf_bytes);
    aborted_by(sock.send_queue_bytes(), min_sndbuf_bytes, proto.pages(), &proto.tcp_mem())
}

#[inline(always)]
fn report<C: Call>(_: C, sock: Sock, limit: u32, shift: u64) {
    let key = event::key_of_socket(event::EXAMPLE_ABORTED + limit, sock);
    event::send_example::<C>(key, EVENT_ABORTED, |event| {
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

/// `tcp_out_of_resources(sk, do_reset)`, 5.4 to 6.18: net/ipv4/tcp_timer.c. 1: a timer aborted an
/// orphan, also one whose network namespace is gone, which the kernel does not count.
#[inline(always)]
fn aborted_in_timer<C: Call>(call: C) {
    if call.result() as i32 == 1 {
        count!(orphans_in_timers += 1);
    }
}

on_function!(result "tcp_out_of_resources", HOOK_RESOURCES: aborted_in_timer,
    tcp_out_of_resources, kprobe_tcp_out_of_resources);

/// `tcp_orphan_count_sum()`, 5.10 to 6.18: net/ipv4/tcp.c. The number of orphans: the kernel sums
/// it up every 100 ms for the comparison with tcp_max_orphans, and for each read of
/// /proc/net/sockstat.
#[inline(always)]
fn summed_up<C: Call>(call: C) {
    if !is_first_to_see(call, 0) {
        return;
    }
    let count = call.result() as i32;
    let Some(shared) = event::shared() else { return };
    let count = if count < 0 { 0 } else { count as u64 };
    // SAFETY: the map gave the pointer. Volatile, because another CPU may write its sum at the same
    // time, which is as good as this one.
    unsafe {
        (&raw mut (*shared).orphans).write_volatile(count);
        if count > (&raw const (*shared).orphans_max).read_volatile() {
            (&raw mut (*shared).orphans_max).write_volatile(count);
        }
    }
}

on_function!(result "tcp_orphan_count_sum", HOOK_ORPHAN_SUM: summed_up,
    tcp_orphan_count_sum, kprobe_tcp_orphan_count_sum, backup tcp_orphan_count_sum_backup);
