//! System calls that fail because of a limit, of every process of the host.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use c1m_ebpf::{
    CALL_NUMBERS, CALL_OTHER, CALLS, ERRNOS, EVENT_CALL_ERROR, HOOK_CALL, error_of, is_of_a_limit,
};

use crate::{
    event::{self, count},
    function::{Call as _, Typed},
    layout::{copy, offset},
};

/// The kind of each system call (`CALL_*`) by its number, which differs between architectures. User
/// space fills it in.
#[map]
static CALL_KINDS: Array<u32> = Array::with_max_entries(CALL_NUMBERS, 0);

/// `sys_exit(regs, ret)`, 5.4 to 6.18: the return of every system call, in the context of its task,
/// so no call interrupts another on its CPU. Operations of io_uring are not seen, and the numbers
/// of 32-bit programs are taken for those of 64-bit ones.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    type Seen = Typed<HOOK_CALL>;
    let call: Seen = Typed(ctx.as_ptr());
    let ret = call.value() as i64;
    // Nearly every call succeeds.
    if ret >= 0 {
        return 0;
    }
    let Some(error) = error_of(ret) else { return 0 };
    let regs = call.object();
    let number: u32 = copy(regs.address(offset!(regs_call)).cast());
    // SAFETY: the map gave the pointer. Volatile, because user space writes to the map.
    let kind =
        CALL_KINDS.get_ptr(number).map_or(CALL_OTHER, |kind| unsafe { kind.read_volatile() });
    if kind as usize >= CALLS || !is_of_a_limit(kind, error) {
        return 0;
    }
    count!(call_errors[kind as usize][error as usize] += 1);
    let key = event::key_of_call(event::EXAMPLE_CALLS + kind * ERRNOS.len() as u32 + error);
    event::send_example::<Seen>(key, EVENT_CALL_ERROR, |event| {
        event.limit = kind;
        event.side = error;
        event.value = number.into();
        event::name_process(&mut event.socket);
    });
    0
}
