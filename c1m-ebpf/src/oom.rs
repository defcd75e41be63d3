//! The OOM killer.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_probe_read_kernel_str_bytes, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use c1m_ebpf::{EVENT_OOM_KILL, HOOK_OOM, OOM_CGROUP, OOM_HOST};

use crate::{
    event,
    function::{Call, Typed, on_function},
    layout::offset,
};

/// `mark_victim(task, …)`, with the task since 6.8 and its backports: mm/oom_kill.c,
/// `mark_oom_victim`. A process was chosen, for the whole host or for a memory cgroup.
#[btf_tracepoint(function = "mark_victim")]
pub(crate) fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    type Seen = Typed<HOOK_OOM>;
    let task = Typed::<HOOK_OOM>(ctx.as_ptr()).object();
    if task.is_null() {
        return 0;
    }
    event::send::<Seen>(EVENT_OOM_KILL, |event| {
        event.socket.pid = task.load(offset!(task_tgid));
        let comm = task.address(offset!(task_comm));
        // SAFETY: the helper checks the address.
        let _ = unsafe { bpf_probe_read_kernel_str_bytes(comm, &mut event.socket.comm) };
        if let Some(shared) = event::shared() {
            // SAFETY: the map gave the pointer.
            event.limit = unsafe { (&raw const (*shared).oom_scope).read_volatile() } as u32;
        }
    });
    0
}

/// `oom_kill_process(oc, message)`, 5.4 to 6.18: mm/oom_kill.c. Every process that it marks is
/// killed for `oc->memcg`, or for the whole host when that is null. One call runs at a time
/// (`oom_lock`).
#[inline(always)]
fn kill_begins<C: Call>(call: C) {
    let control = call.object();
    if !control.is_null() {
        let is_of_host = control.load::<u64>(offset!(oom_memcg)) == 0;
        set_scope(if is_of_host { OOM_HOST } else { OOM_CGROUP });
    }
}

on_function!(entry "oom_kill_process", HOOK_OOM_ENTER: kill_begins,
    oom_kill_process_entry, kprobe_oom_kill_process_entry);

#[inline(always)]
fn kill_ended<C: Call>(_call: C) {
    set_scope(0);
}

on_function!(result "oom_kill_process", HOOK_OOM_EXIT: kill_ended,
    oom_kill_process_exit, kprobe_oom_kill_process_exit);

#[inline(always)]
fn set_scope(scope: u64) {
    if let Some(shared) = event::shared() {
        // SAFETY: the map gave the pointer.
        unsafe { (&raw mut (*shared).oom_scope).write_volatile(scope) };
    }
}
