//! System calls that fail because of a limit, of any process of the host.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use c1m_ebpf::{
    CALL_NUMBERS, CALL_OTHER, CALLS, ERRNOS, EVENT_CALL_ERROR, HOOK_CALL, is_of_a_limit,
};

use crate::{
    event::{self},
    function::{Call as _, Typed},
    layout::{copy, offset},
};

/// Kind of each system call by its number, which differs between architectures: `CALL_*`. User space fills it in.
#[map]
static CALL_KINDS: Array<u32> = Array::with_max_entries(CALL_NUMBERS, 0);

/// `sys_exit(regs, ret)`, 5.4 to 6.18: the common way out of every system call, so none interrupts another on its CPU. Calls made through io_uring do not come by, and
/// the numbers of 32-bit programs are taken for those of 64-bit ones.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    // Nearly every call ends here.
    type Seen = Typed<HOOK_CALL>;
    let call: Seen = Typed(ctx.as_ptr());
    let ret = call.value() as i64;
    if ret >= 0 {
        return 0;
    }
    let Some(error) = error_of(ret) else { return 0 };
    let regs = call.object();
    let number: u32 = copy(regs.address(offset!(regs_call)).cast());
    let kind = CALL_KINDS.get(number).copied().unwrap_or(CALL_OTHER);
    if kind as usize >= CALLS || !is_of_a_limit(kind, error) {
        return 0;
    }
    if let Some(counters) = event::counters::<Seen>() {
        counters.call_errors[kind as usize][error as usize] += 1;
    }
    let place = event::place_of_call(event::EXAMPLE_CALLS + kind * ERRNOS.len() as u32 + error);
    event::send_example::<Seen>(place, EVENT_CALL_ERROR, |event| {
        event.limit = kind;
        event.side = error;
        event.value = number.into();
        event::name_process(&mut event.socket);
    });
    0
}

/// The index of this error among [`ERRNOS`].
#[inline(always)]
fn error_of(ret: i64) -> Option<u32> {
    let mut index = 0;
    while index < ERRNOS.len() {
        if ret == -(ERRNOS[index] as i64) {
            return Some(index as u32);
        }
        index += 1;
    }
    None
}
