//! Runs the code by which a backup program knows what the first program of its hook has seen
//! (`src/marks.rs`), with an interrupt at each access to memory and between any two steps of the
//! kernel, alone and together.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use c1m_ebpf::{Marks, Words, end_backup, end_first, leave, take};

const FIRST: usize = 0;
const BACKUP: usize = 1;
/// Functions of the kernel that call a hook in a softirq: for `inet_sock_set_state` a child is made,
/// established and closed, and a client is established and closed.
const PLACES: usize = 5;

/// A call of the hook. Calls of one depth and place have the same address on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    id: usize,
    object: u64,
    /// Which function of the kernel calls the hook.
    place: u64,
}

/// What happened to a call.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    counted: u32,
    skipped: [bool; 2],
    /// The backup program found no mark.
    was_taken_over: bool,
}

/// One CPU, with the two programs of one hook.
#[derive(Default)]
struct Cpu {
    words: RefCell<[u64; size_of::<Marks>() / 8]>,
    /// The kernel's: the program runs.
    active: [Cell<bool>; 2],
    /// The kernel does not skip a program that runs already: on tracepoints before 6.1.
    runs_all: bool,
    outcomes: RefCell<BTreeMap<Call, Outcome>>,
    /// Steps so far, over all calls; the steps before which a call interrupts; and how deep calls
    /// can be inside each other.
    step: Cell<usize>,
    interrupts: Vec<(usize, Call)>,
    depth: Cell<usize>,
    deepest: usize,
}

impl Cpu {
    fn new(deepest: usize, interrupts: Vec<(usize, Call)>) -> Self {
        Self { deepest, interrupts, ..Self::default() }
    }

    /// An interrupt can come here.
    fn pause(&self) {
        self.step.set(self.step.get() + 1);
        let now = self.step.get();
        for (_, call) in self.interrupts.iter().filter(|(step, _)| *step == now) {
            if self.depth.get() < self.deepest {
                self.call(*call);
            }
        }
    }

    /// The kernel runs both programs, one after the other.
    fn call(&self, call: Call) {
        self.depth.set(self.depth.get() + 1);
        self.outcomes.borrow_mut().entry(call).or_default();
        for program in [FIRST, BACKUP] {
            self.pause();
            self.run(program, call);
        }
        self.pause();
        self.depth.set(self.depth.get() - 1);
    }

    /// kernel/trace/bpf_trace.c, `__bpf_trace_run`: 6.1 to 6.18, and before with `runs_all`.
    fn run(&self, program: usize, call: Call) {
        if !self.runs_all && self.active[program].replace(true) {
            self.outcome(call, |outcome| outcome.skipped[program] = true);
            return;
        }
        self.pause();
        let context = 0x1000 * self.depth.get() as u64 + 8 * call.place;
        let is_first_to_see = if program == FIRST {
            leave(self, context, call.object);
            true
        } else {
            let is_taken_over = !take(self, context, call.object);
            self.outcome(call, |outcome| outcome.was_taken_over = is_taken_over);
            is_taken_over
        };
        self.pause();
        if is_first_to_see {
            self.outcome(call, |outcome| outcome.counted += 1);
            self.pause();
        }
        if program == FIRST {
            end_first(self)
        } else {
            end_backup(self)
        }
        self.pause();
        self.active[program].set(false);
    }

    fn outcome(&self, call: Call, change: impl FnOnce(&mut Outcome)) {
        change(self.outcomes.borrow_mut().entry(call).or_default());
    }

    /// Calls in sequence, in the context of a task. What happened to each call, those that
    /// interrupted included, and the number of steps.
    fn run_calls(self, calls: &[Call]) -> (BTreeMap<Call, Outcome>, usize) {
        calls.iter().for_each(|call| self.call(*call));
        (self.outcomes.into_inner(), self.step.get())
    }
}

impl Words for Cpu {
    fn load(&self, index: usize) -> u64 {
        self.pause();
        self.words.borrow()[index]
    }

    fn store(&self, index: usize, value: u64) {
        self.pause();
        self.words.borrow_mut()[index] = value;
    }
}

/// Each about an object of its own.
fn call(id: usize) -> Call {
    Call { id, object: 100 + id as u64, place: 0 }
}

const OF_TASK: [usize; 2] = [0, 1];

/// Steps of the calls of the task, with as many interrupts as there are.
fn steps(interrupts: usize) -> usize {
    let all: Vec<Call> = (0..OF_TASK.len() + interrupts).map(call).collect();
    Cpu::new(1, Vec::new()).run_calls(&all).1
}

/// Counted once, unless no program ran for it.
fn check(outcomes: &BTreeMap<Call, Outcome>, at: &dyn std::fmt::Debug) {
    let of_first = outcomes.values().filter(|outcome| outcome.skipped[FIRST]).count();
    let taken_over = outcomes.values().filter(|outcome| outcome.was_taken_over).count();
    let lost = outcomes.values().filter(|outcome| outcome.counted == 0).count();
    for outcome in outcomes.values() {
        let expected = u32::from(outcome.skipped != [true, true]);
        assert_eq!(outcome.counted, expected, "{at:?}: {outcomes:?}");
    }
    // The number of lost calls that user space reports.
    assert_eq!(lost, of_first - taken_over, "{at:?}: {outcomes:?}");
}

#[test]
fn a_call_that_is_interrupted_anywhere_is_counted_once() {
    let task = OF_TASK.map(call);
    let mut skipped = [false; 2];
    for at in 1..=steps(1) {
        let (outcomes, _) = Cpu::new(2, vec![(at, call(2))]).run_calls(&task);
        check(&outcomes, &at);
        for (any, one) in
            skipped.iter_mut().zip(outcomes.get(&call(2)).map_or([false; 2], |it| it.skipped))
        {
            *any |= one;
        }
        // Two calls inside each other never lose one.
        assert!(outcomes.values().all(|outcome| outcome.counted == 1), "{at}: {outcomes:?}");
    }
    assert_eq!(skipped, [true, true], "either program was interrupted");
}

#[test]
fn two_interrupts_anywhere_one_inside_the_other_too() {
    let task = OF_TASK.map(call);
    let all = steps(2);
    let mut were_lost = false;
    for deepest in [2, 3] {
        for first in 1..=all {
            for second in first..=all {
                let interrupts = vec![(first, call(2)), (second, call(3))];
                let (outcomes, _) = Cpu::new(deepest, interrupts).run_calls(&task);
                check(&outcomes, &(deepest, first, second));
                let is_lost = outcomes.values().any(|outcome| outcome.counted == 0);
                assert!(deepest == 3 || !is_lost, "{first}, {second}: {outcomes:?}");
                were_lost |= is_lost;
            }
        }
    }
    assert!(were_lost, "a call inside one program, inside the other, is lost");
}

#[test]
fn three_interrupts_of_one_call() {
    let task = [call(0)];
    let all = steps(2);
    for first in 1..=all {
        for second in (first..=all).step_by(2) {
            for third in (second..=all).step_by(3) {
                let interrupts = vec![(first, call(2)), (second, call(3)), (third, call(4))];
                let (outcomes, _) = Cpu::new(3, interrupts).run_calls(&task);
                check(&outcomes, &(first, second, third));
            }
        }
    }
}

/// A call that interrupts the backup program in its last steps leaves a mark behind. The next call
/// at the same address takes it for its own, if it is about the same object and interrupts the
/// first program before that says that it runs, or after it has said that it ends.
#[test]
fn a_mark_left_behind_counts_for_few_steps_and_the_same_object_alone() {
    let task = OF_TASK.map(call);
    let all = steps(2);
    let (mut left_at, mut missed_at) = (BTreeSet::new(), BTreeSet::new());
    for first in 1..=all {
        for second in first + 1..=all {
            let same = [2, 3].map(|id| Call { object: 7, ..call(id) });
            let interrupts = vec![(first, same[0]), (second, same[1])];
            let (outcomes, _) = Cpu::new(2, interrupts).run_calls(&task);
            let counted: u32 = outcomes.values().map(|outcome| outcome.counted).sum();
            let all_but_one = u32::try_from(outcomes.len()).unwrap() - 1;
            assert!((all_but_one..=all_but_one + 1).contains(&counted), "{outcomes:?}");
            if outcomes.values().any(|outcome| outcome.counted != 1) {
                let [left, missed] = same.map(|call| outcomes[&call]);
                assert_eq!((left.counted, left.skipped), (1, [false, true]));
                assert_eq!((missed.counted, missed.skipped), (0, [true, false]));
                left_at.insert(first);
                missed_at.insert(second);
            }
        }
    }
    assert!(!left_at.is_empty() && left_at.len() <= 5, "of {all} steps: {left_at:?}");
    // The second call is further on by the steps of the first one.
    assert!(missed_at.len() <= 5 * left_at.len(), "of {all} steps: {missed_at:?}");
}

/// A softirq that has much to do calls the hook from several functions, and each of these calls
/// leaves a mark inside a backup program.
#[test]
fn a_softirq_with_many_calls_evicts_no_mark_of_the_interrupted_call() {
    let task = OF_TASK.map(call);
    let many = |ids: std::ops::Range<usize>, at: usize| {
        ids.map(move |id| (at, Call { place: id as u64 % PLACES as u64, ..call(id) }))
    };
    for first in 1..=steps(0) {
        for apart in 0..steps(0) {
            let second = first + apart;
            let calls = many(2..2 + PLACES, first).chain(many(10..10 + 2 * PLACES, second));
            let (outcomes, _) = Cpu::new(2, calls.collect()).run_calls(&task);
            check(&outcomes, &(first, second));
            assert!(outcomes.values().all(|it| it.counted == 1), "{first}, {second}: {outcomes:?}");
        }
    }
}

/// Where the kernel skips nothing, both programs run for each call, and the first program counts
/// it.
#[test]
fn programs_that_the_kernel_does_not_skip_count_each_call_once() {
    let task = OF_TASK.map(call);
    let all = steps(2);
    let check = |deepest, at: &[usize]| {
        let interrupts = at.iter().copied().zip((2..).map(call)).collect();
        let cpu = Cpu { runs_all: true, ..Cpu::new(deepest, interrupts) };
        let (outcomes, _) = cpu.run_calls(&task);
        for outcome in outcomes.values() {
            assert_eq!(outcome.counted, 1, "{deepest} deep, at {at:?}: {outcomes:?}");
        }
    };
    for deepest in [2, 3] {
        for first in 1..=all {
            for second in first..=all {
                check(deepest, &[first, second]);
            }
        }
        for first in 1..=all / 2 {
            for second in (first..=all).step_by(2) {
                for third in (second..=all).step_by(3) {
                    check(deepest, &[first, second, third]);
                }
            }
        }
    }
}
