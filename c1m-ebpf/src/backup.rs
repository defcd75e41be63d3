//! Backup programs: the second program of a hook, for the calls that the first program was skipped
//! for.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use c1m_ebpf::{
    CountedCall, CountedCalls, HOOKS, Marks, Words, end_backup, end_first, has_backup,
    is_of_tracepoint, leave, take,
};

use crate::{
    event::{self, count},
    function::Call,
};

/// One set of marks per hook and CPU.
#[map]
static MARKS: PerCpuArray<Marks> = PerCpuArray::with_max_entries(HOOKS as u32, 0);

/// Calls of functions that were counted, see [`CountedCalls`]. An entry stays where the backup
/// program was skipped: it is the least recently used at some time, and is replaced. User space
/// sets the size.
#[map]
static COUNTED: LruHashMap<CountedCall, u64> = LruHashMap::with_max_entries(1, 0);

/// Is this program the first to see this call? To be asked once per call, before anything else: the
/// first program leaves a mark, and the backup program takes it. A call without a mark is counted
/// in `taken_over`: so user space knows that a call that the first program was skipped for is not
/// missing.
#[inline(always)]
pub(crate) fn is_first_to_see<C: Call>(call: C, object: u64) -> bool {
    if !const { has_backup(C::HOOK) } {
        return true;
    }
    // Without marks only the first program works.
    let Some(marks) = MARKS.get_ptr_mut(C::HOOK) else { return !C::IS_BACKUP };
    let marks = OfThisCpu(marks.cast());
    let call = call.context() as u64;
    if !C::IS_BACKUP {
        leave(&marks, call, object);
        return true;
    }
    if take(&marks, call, object) {
        return false;
    }
    count!(taken_over[C::HOOK as usize] += 1);
    true
}

/// To be called when the program ends.
#[inline(always)]
pub(crate) fn end<C: Call>(_: C) {
    if !const { has_backup(C::HOOK) } {
        return;
    }
    let Some(marks) = MARKS.get_ptr_mut(C::HOOK) else { return };
    let marks = OfThisCpu(marks.cast());
    if C::IS_BACKUP { end_backup(&marks) } else { end_first(&marks) }
}

/// Is this program the first to count this call of a function, on any CPU? To be asked once per
/// call, and only of a call that is to be counted.
#[inline(always)]
pub(crate) fn is_first_to_count<C: Call>(call: C, object: u64) -> bool {
    if !const { has_backup(C::HOOK) && !is_of_tracepoint(C::HOOK) } {
        return true;
    }
    // The verifier refuses a pointer in a key before 5.12. The difference of two pointers is a
    // number to it (kernel/bpf/verifier.c, `adjust_reg_min_max_vals`), and the state of the host
    // does not move.
    let Some(origin) = event::shared() else { return !C::IS_BACKUP };
    let call = (call.context() as u64).wrapping_sub(origin as u64);
    let call = CountedCall { call, hook: C::HOOK.into() };
    c1m_ebpf::is_first_to_count(&OfAllCpus, C::IS_BACKUP, call, object)
}

/// [`COUNTED`]
struct OfAllCpus;

impl CountedCalls for OfAllCpus {
    #[inline(always)]
    fn insert(&self, call: CountedCall, object: u64) {
        // Without room for it the backup program may count the call again.
        let _ = COUNTED.insert(call, object, 0);
    }

    #[inline(always)]
    fn object(&self, call: CountedCall) -> Option<u64> {
        // SAFETY: the map gave the pointer. Volatile, because another CPU may reuse the entry.
        COUNTED.get_ptr(call).map(|object| unsafe { object.read_volatile() })
    }

    #[inline(always)]
    fn remove(&self, call: CountedCall) -> bool {
        COUNTED.remove(call).is_ok()
    }
}

/// Volatile: a call that interrupts sees the words change in the order of the code.
struct OfThisCpu(*mut u64);

impl Words for OfThisCpu {
    #[inline(always)]
    fn load(&self, index: usize) -> u64 {
        // SAFETY: the map gave the pointer, and the index is of one of its words.
        unsafe { core::ptr::read_volatile(self.0.add(index)) }
    }

    #[inline(always)]
    fn store(&self, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(self.0.add(index), value) };
    }
}
