//! The OOM killer.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes, macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use c1m_ebpf::{EVENT_OOM_KILL, HOOK_OOM};

use crate::{
    event,
    layout::{BtfPtr, offset},
};

/// `mark_victim(task, …)`, with the task since 6.8 and its backports: mm/oom_kill.c, `mark_oom_victim`. A process was chosen, for the
/// whole host or for its memory cgroup.
#[btf_tracepoint(function = "mark_victim")]
pub(crate) fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: argument 0 is a struct task_struct.
    let task = unsafe { BtfPtr::new(ctx.arg(0)) };
    if task.is_null() {
        return 0;
    }
    event::send(EVENT_OOM_KILL, HOOK_OOM, |event| {
        event.socket.pid = task.load(offset!(task_tgid));
        let comm = task.address(offset!(task_comm));
        // SAFETY: the helper checks the address.
        let _ = unsafe { bpf_probe_read_kernel_str_bytes(comm, &mut event.socket.comm) };
    });
    0
}
