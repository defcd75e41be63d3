//! Which calls of a kernel function have been counted, over all CPUs.
//!
//! A task can be preempted between the first program and the backup program of a function
//! (kernel/bpf/trampoline.c, 5.12 to 6.18) and continue on another CPU. There the backup program
//! finds no mark ([`crate::Marks`]) although the first program has run. So a call that is counted
//! is also entered into one table of all CPUs.

/// A call that was counted. The key of a map: no implicit padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountedCall {
    /// The address of the program's context as [`crate::Mark::call`], less that of something that
    /// does not move
    pub call: u64,
    pub hook: u64,
}

/// The table: the object that each counted call is about.
pub trait CountedCalls {
    fn insert(&self, call: CountedCall, object: u64);
    fn object(&self, call: CountedCall) -> Option<u64>;
    /// `false`: the entry is gone, taken by another CPU.
    fn remove(&self, call: CountedCall) -> bool;
}

/// Is this program the first to count the call? The first program enters the call; the backup
/// program takes the entry, and counts the call if there is none or if it is about another object.
#[inline(always)]
pub fn is_first_to_count(
    calls: &impl CountedCalls,
    is_backup: bool,
    call: CountedCall,
    object: u64,
) -> bool {
    if !is_backup {
        calls.insert(call, object);
        return true;
    }
    calls.object(call) != Some(object) || !calls.remove(call)
}
