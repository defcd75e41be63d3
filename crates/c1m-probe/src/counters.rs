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
    /// Slots of the counters, one per CPU
    cpus: usize,
}

impl CounterMaps {
    pub(super) fn new(
        counters: BorrowedFd<'_>,
        shared: BorrowedFd<'_>,
        cpus: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            counters: Mapping::new(counters, cpus * Counters::WORDS)?,
            shared: Mapping::new(shared, Shared::WORDS)?,
            cpus,
        })
    }

    /// The sum over all CPUs.
    pub(super) fn total(&self) -> Counters {
        let of = |cpu, word| self.counters.word(cpu * Counters::WORDS + word);
        let sum = |word| (0..self.cpus).map(|cpu| of(cpu, word)).sum();
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
