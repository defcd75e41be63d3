//! What is counted in the kernel, read from mapped memory: no system call, no capability.

use std::{io, mem::offset_of, os::fd::BorrowedFd};

use c1m_ebpf::{Counters, Shared};
use c1m_sys::mapping::Mapping;

/// Words of [`Shared`].
const CONNECTIONS: usize = offset_of!(Shared, connections) / size_of::<u64>();
const PRESENT: usize = offset_of!(Shared, present) / size_of::<u64>();

/// The mapped arrays of the object.
#[derive(Debug)]
pub(super) struct CounterMaps {
    counters: Mapping,
    shared: Mapping,
    /// Two per CPU
    slots: usize,
}

impl CounterMaps {
    pub(super) fn new(
        counters: BorrowedFd<'_>,
        shared: BorrowedFd<'_>,
        cpus: usize,
    ) -> io::Result<Self> {
        let slots = 2 * cpus;
        Ok(Self {
            counters: Mapping::new(counters, slots * Counters::WORDS)?,
            shared: Mapping::new(shared, Shared::WORDS)?,
            slots,
        })
    }

    /// The sum over all CPUs, first and backup programs.
    pub(super) fn total(&self) -> Counters {
        let of = |slot, word| self.counters.word(slot * Counters::WORDS + word);
        let sum = |word| (0..self.slots).map(|slot| of(slot, word)).sum();
        Counters::from_words(std::array::from_fn(sum))
    }

    pub(super) fn shared(&self) -> Shared {
        Shared::from_words(std::array::from_fn(|word| self.shared.word(word)))
    }

    /// Before an iterator counts what is present.
    pub(super) fn forget_present(&self) {
        self.shared.set(PRESENT, 0);
    }

    /// Adds to the number of connections, while the programs do.
    pub(super) fn add_connections(&self, difference: i64) {
        self.shared.add(CONNECTIONS, difference.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use c1m_ebpf::{Bucket, EXAMPLE_EVERY_NS as EVERY, EXAMPLES, EXAMPLES_PER_SECOND, Second};

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let mut bucket = Bucket::full(5);
        for left in (0..EXAMPLES).rev() {
            bucket = bucket.at(5).less_one();
            assert_eq!(bucket.tokens, left);
        }
        assert_eq!((bucket.at(4 + EVERY).tokens, bucket.at(5 + EVERY).tokens), (0, 1));
        // What had passed towards the next token is kept, and no more than all come back.
        let bucket = bucket.at(5 + EVERY + EVERY / 2);
        assert_eq!((bucket.tokens, bucket.at(5 + 2 * EVERY).tokens), (1, 2));
        assert_eq!(bucket.at(u64::MAX), Bucket::full(u64::MAX));
        // The time of another CPU was ahead.
        assert_eq!(bucket.at(0), bucket);
        assert_eq!(Bucket { tokens: 0, ..bucket }.less_one().tokens, 0);
    }

    #[test]
    fn a_kind_has_so_many_in_a_second() {
        let sent = Second { start_ns: 7, sent: EXAMPLES_PER_SECOND };
        assert!(!sent.at(7 + 999_999_999).has_room() && sent.at(7 + 1_000_000_000).has_room());
        assert!(Second { sent: EXAMPLES_PER_SECOND - 1, ..sent }.at(8).has_room());
    }
}
