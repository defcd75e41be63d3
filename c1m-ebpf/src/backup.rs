//! Backup programs: the second program of a hook, which counts what the first one was skipped for.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use c1m_ebpf::{HOOKS, Marks, Words, has_backup, is_of_tracepoint, leave, take};

use crate::{event, function::Call};

/// One set of marks per hook and CPU.
#[map]
static MARKS: PerCpuArray<Marks> = PerCpuArray::with_max_entries(HOOKS as u32, 0);

/// A call of a function that was counted.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    /// As of [`c1m_ebpf::Mark`]
    call: u64,
    hook: u64,
}

/// Of functions: a task can be preempted between the two programs, and go on on another CPU (kernel/bpf/trampoline.c, 5.12 to 6.18), where the backup
/// program finds no mark although the first one ran. So what is counted has one of all CPUs. The least recent ones make room: where the backup
/// program was skipped, one stays. User space sets the size.
#[map]
static COUNTED: LruHashMap<Key, u64> = LruHashMap::with_max_entries(1, 0);

/// An address as a number: what was written is read back, and the verifier no longer takes it for a pointer, which is no key to it before
/// 5.12. By hook and program, each of which runs once at a time on a CPU.
#[map]
static ADDRESS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2 * HOOKS as u32, 0);

/// Is this program the one that sees this call? To be asked once, before anything else: the first program leaves a mark, which the backup program
/// takes. A call without one is counted: it is how user space knows that what the first program was skipped for is not lost.
#[inline(always)]
pub(crate) fn is_first_to_see<C: Call>(call: C, object: u64) -> bool {
    if !const { has_backup(C::HOOK) } {
        return true;
    }
    // Without marks the first program works alone.
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
    if let Some(counters) = event::counters::<C>() {
        counters.taken_over[C::HOOK as usize] += 1;
    }
    true
}

/// The same for what a function counts, whatever CPU it was seen on: to be asked once, of a call that is to be counted.
#[inline(always)]
pub(crate) fn is_first_to_count<C: Call>(call: C, object: u64) -> bool {
    if !const { has_backup(C::HOOK) && !is_of_tracepoint(C::HOOK) } {
        return true;
    }
    let Some(number) = ADDRESS.get_ptr_mut(2 * C::HOOK + C::IS_BACKUP as u32) else {
        return !C::IS_BACKUP;
    };
    // SAFETY: the map gave the pointer, and nobody else writes there meanwhile.
    let call = unsafe {
        core::ptr::write_volatile(number, call.context() as u64);
        core::ptr::read_volatile(number)
    };
    let key = Key { call, hook: C::HOOK.into() };
    if !C::IS_BACKUP {
        let _ = COUNTED.insert(key, object, 0);
        return true;
    }
    // SAFETY: copied at once.
    let counted = unsafe { COUNTED.get(key) }.copied();
    counted != Some(object) || COUNTED.remove(key).is_err()
}

/// Volatile: an interrupting call sees the words in the order of the code.
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
