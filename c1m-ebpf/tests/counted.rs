//! Calls of a function that both programs may count: each call is counted once, on whatever CPU the
//! second program runs.

use std::{cell::RefCell, collections::HashMap};

use c1m_ebpf::{CountedCall, CountedCalls, is_first_to_count};

/// The table, of a size. The map of the kernel replaces the least recently used entry.
#[derive(Default)]
struct Table {
    entries: RefCell<HashMap<CountedCall, u64>>,
    /// Another CPU takes each entry between the look-up and the removal.
    is_raced: bool,
}

impl CountedCalls for Table {
    fn insert(&self, call: CountedCall, object: u64) {
        self.entries.borrow_mut().insert(call, object);
    }

    fn object(&self, call: CountedCall) -> Option<u64> {
        let object = self.entries.borrow().get(&call).copied();
        if self.is_raced {
            self.entries.borrow_mut().clear();
        }
        object
    }

    fn remove(&self, call: CountedCall) -> bool {
        self.entries.borrow_mut().remove(&call).is_some()
    }
}

const CALL: CountedCall = CountedCall { call: 0x1000, hook: 7 };

fn first(table: &Table, call: CountedCall, object: u64) -> bool {
    is_first_to_count(table, false, call, object)
}

fn backup(table: &Table, call: CountedCall, object: u64) -> bool {
    is_first_to_count(table, true, call, object)
}

#[test]
fn what_the_first_program_counted_the_backup_program_does_not() {
    let table = Table::default();
    for object in [1, 2] {
        assert!(first(&table, CALL, object));
        assert!(!backup(&table, CALL, object));
        assert!(table.entries.borrow().is_empty(), "the entry is taken");
    }
}

#[test]
fn what_the_first_program_was_skipped_for_the_backup_program_counts() {
    let table = Table::default();
    assert!(backup(&table, CALL, 1), "no entry at all");
    assert!(first(&table, CALL, 1));
    assert!(backup(&table, CountedCall { hook: 8, ..CALL }, 1), "the entry of another hook");
    assert!(backup(&table, CountedCall { call: 0x2000, ..CALL }, 1), "of another call");
    assert!(backup(&table, CALL, 2), "of an earlier call at this address, about another object");
    assert!(!backup(&table, CALL, 1), "the entry is still there for its own call");
}

#[test]
fn an_entry_counts_for_one_backup_program() {
    let raced = Table { is_raced: true, ..Table::default() };
    assert!(first(&raced, CALL, 1));
    assert!(backup(&raced, CALL, 1), "another CPU took the entry: the call is counted");
}
