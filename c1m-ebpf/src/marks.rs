//! How a backup program knows which calls the first program of its hook has seen, on one CPU.
//!
//! The kernel skips a program that is running on the CPU already (`recursion_misses`; tracepoints
//! since 6.1, functions since 5.12). A hook that is reached in a system call, and in the softirq
//! that interrupts it, has a second program: the backup program. It runs after the first program,
//! and does the work for the calls that the first program was skipped for. The first program leaves
//! a mark for each call, and the backup program takes it. Without a mark the backup program does
//! the work.
//!
//! A mark names its call by the address of the program's context. The context is on the stack of
//! the hook: the address is the same for both programs, and for no other call until the hook has
//! returned. The object of the call (a socket, an skb) makes a mark that was left behind harmless,
//! unless the next call at this address is about the same object.
//!
//! Programs on tracepoints run with preemption off (include/linux/tracepoint.h, 5.10 to 6.18): on
//! one CPU a call that interrupts another has returned before the other continues. Only calls that
//! interrupt can come between a mark and the backup program that takes it. It follows, and
//! c1m-ebpf/tests/marks.rs runs it with an interrupt at each access to memory:
//! - Each call is seen once, unless both programs were skipped for it, which takes three calls
//!   inside each other. Their number is the number of calls that the first program was skipped for,
//!   less the number of calls that the backup program found no mark for.
//! - A call that interrupts the backup program leaves a mark that no program takes. The interrupted
//!   backup program clears it when it ends, because it was left meanwhile. A mark that came too late
//!   for that stays until the next call at the same address.
//! - Such a mark is not taken for that of a call that interrupts the first program: while that
//!   program runs it says so, and then it was skipped for every call that the backup program sees.
//!   To be wrong takes two interrupts, each within a few instructions at the beginning or the end of
//!   a program, by two calls in sequence at the same address and about the same object.
//! - Where the kernel skips nothing, each call is seen once as well: a first program that
//!   interrupts another first program does not damage its mark.

/// More than the places in the kernel that call one hook in a softirq: as many marks a softirq can
/// leave that interrupts a backup program, and the mark of the interrupted call stays.
pub const MARKS: usize = 6;

/// The marks of one hook on one CPU, as words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Marks left so far
    pub count: u64,
    /// Not 0: the first program runs
    pub first_runs: u64,
    /// [`Mark::order`] of the mark that the backup program took, or [`Marks::count`] when it began:
    /// younger marks are of calls that interrupted it
    pub before_backup: u64,
    pub marks: [Mark; MARKS],
}

/// One call that the first program has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Address of the context; 0: free
    pub call: u64,
    pub object: u64,
    /// [`Marks::count`] when it was left: of two marks the greater is the younger
    pub order: u64,
}

/// Access to [`Marks`] word by word, in the order of the code: an interrupt can come between any
/// two accesses.
pub trait Words {
    fn load(&self, index: usize) -> u64;
    fn store(&self, index: usize, value: u64);
}

const COUNT: usize = 0;
const FIRST_RUNS: usize = 1;
const BEFORE_BACKUP: usize = 2;

const fn call_of(mark: usize) -> usize {
    3 + 3 * mark
}

const fn object_of(mark: usize) -> usize {
    4 + 3 * mark
}

const fn order_of(mark: usize) -> usize {
    5 + 3 * mark
}

const _: () = assert!(size_of::<Marks>() == (order_of(MARKS - 1) + 1) * 8);

/// By the first program, when it begins: leaves the mark of this call.
#[inline(always)]
pub fn leave(words: &impl Words, call: u64, object: u64) {
    words.store(FIRST_RUNS, 1);
    let order = words.load(COUNT) + 1;
    words.store(COUNT, order);
    // The mark of an earlier call at this address, which has returned; else a free mark; else the
    // oldest one, because the calls that have not returned are the youngest.
    let (mut chosen, mut best) = (0, u64::MAX);
    let mut mark = 0;
    while mark < MARKS {
        let held = words.load(call_of(mark));
        let rank = if held == call {
            0
        } else if held == 0 {
            1
        } else {
            // Above that of a free mark, also while a first program has claimed it and not yet written
            // its order.
            words.load(order_of(mark)) + 2
        };
        if rank < best {
            (chosen, best) = (mark, rank);
        }
        mark += 1;
    }
    // Claimed first, so that a first program that interrupts this one chooses another mark. One
    // that has interrupted before the claim may have chosen the same mark, and has returned: all of
    // it is written again. The order is before the object, because by then the mark is the youngest
    // and is not chosen as the oldest. The call is last, because a backup program that interrupts
    // may have cleared it.
    words.store(call_of(chosen), call);
    words.store(order_of(chosen), order);
    words.store(object_of(chosen), object);
    words.store(call_of(chosen), call);
}

/// By the first program, when it ends.
#[inline(always)]
pub fn end_first(words: &impl Words) {
    words.store(FIRST_RUNS, 0);
}

/// By the backup program, when it begins: has the first program seen this call?
#[inline(always)]
pub fn take(words: &impl Words, call: u64, object: u64) -> bool {
    words.store(BEFORE_BACKUP, words.load(COUNT));
    let was_skipped = words.load(FIRST_RUNS) != 0;
    let mut own = 0;
    let mut mark = 0;
    while mark < MARKS {
        if words.load(call_of(mark)) == call {
            if words.load(object_of(mark)) == object {
                own = words.load(order_of(mark));
            }
            words.store(call_of(mark), 0);
        }
        mark += 1;
    }
    if own == 0 || was_skipped {
        return false;
    }
    words.store(BEFORE_BACKUP, own);
    true
}

/// By the backup program, when it ends.
#[inline(always)]
pub fn end_backup(words: &impl Words) {
    let before = words.load(BEFORE_BACKUP);
    let mut cleared = before;
    let mut time = 0;
    // Twice: a mark can come while the others are cleared.
    while time < 2 {
        let count = words.load(COUNT);
        if count == cleared {
            return;
        }
        let mut mark = 0;
        while mark < MARKS {
            if words.load(order_of(mark)) > before {
                words.store(call_of(mark), 0);
            }
            mark += 1;
        }
        cleared = count;
        time += 1;
    }
}
