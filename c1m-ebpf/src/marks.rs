//! How a backup program knows what the first program of its hook has seen, on one CPU.
//!
//! The kernel skips a program that is running on the CPU already (`recursion_misses`), so a hook that is reached in a system call and in the
//! softirq that interrupts it has a second program, the backup. It runs after the first one, and does the work for the calls that that one was
//! skipped for. The first program leaves a mark for each call, and the backup program takes it; without one it does the work.
//!
//! A mark names its call by the address of the program's context. That is on the stack of the hook, the same for both programs and for no
//! other call until the hook is over; the object (a socket, an skb) makes a mark that was left behind harmless, unless the next call at this
//! place of the stack is about the same one.
//!
//! Programs on tracepoints run with preemption off (include/linux/tracepoint.h, 5.10 to 6.18), so on a CPU one call interrupts another and is
//! over before that one goes on. No call but an interrupting one can come between a mark and the backup program that takes it. What
//! follows, call by call, is played through in c1m-server/src/trace/interleavings.rs:
//! - Each call is seen once, unless both programs were skipped for it, which takes three calls inside each other. Those are as many as the first
//!   program was skipped for, less those for which the backup program found no mark.
//! - A call that interrupts the backup program leaves a mark that nobody takes. The interrupted program clears it, for it is younger than its
//!   own; one that came too late for that is overwritten by the next call at its place.

/// Calls of one hook that can be inside each other on a CPU (a system call, a softirq, an interrupt), and one more.
pub const MARKS: usize = 4;

/// The marks of one hook on one CPU, as words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Marks left so far
    pub count: u64,
    pub marks: [Mark; MARKS],
}

/// One call that the first program has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Address of the context; 0: free
    pub call: u64,
    pub object: u64,
    /// [`Marks::count`] when it was left: of two, the greater is the younger
    pub order: u64,
}

/// [`Marks`], word by word and in the order of the code, since an interrupting call can come between any two of them.
pub trait Words {
    fn load(&self, index: usize) -> u64;
    fn store(&self, index: usize, value: u64);
}

const COUNT: usize = 0;

const fn call_of(mark: usize) -> usize {
    1 + 3 * mark
}

const fn object_of(mark: usize) -> usize {
    2 + 3 * mark
}

const fn order_of(mark: usize) -> usize {
    3 + 3 * mark
}

const _: () = assert!(size_of::<Marks>() == (order_of(MARKS - 1) + 1) * 8);

/// By the first program: it has seen this call.
#[inline(always)]
pub fn leave(words: &impl Words, call: u64, object: u64) {
    let order = words.load(COUNT) + 1;
    words.store(COUNT, order);
    // The mark of an earlier call at this place, which is over; else a free one; else the oldest, for those of calls that go on are the youngest.
    let (mut chosen, mut best) = (0, u64::MAX);
    let mut mark = 0;
    while mark < MARKS {
        let held = words.load(call_of(mark));
        let rank = if held == call {
            0
        } else if held == 0 {
            1
        } else {
            words.load(order_of(mark)) + 1
        };
        if rank < best {
            (chosen, best) = (mark, rank);
        }
        mark += 1;
    }
    words.store(call_of(chosen), 0);
    words.store(object_of(chosen), object);
    words.store(order_of(chosen), order);
    words.store(call_of(chosen), call);
}

/// By the backup program: has the first one seen this call?
#[inline(always)]
pub fn take(words: &impl Words, call: u64, object: u64) -> bool {
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
    if own == 0 {
        return false;
    }
    // A younger one is of a call that interrupted this one, and is over.
    mark = 0;
    while mark < MARKS {
        if words.load(order_of(mark)) > own {
            words.store(call_of(mark), 0);
        }
        mark += 1;
    }
    true
}
