//! What is counted in the kernel, read from mapped memory: no system call, no capability.

use std::{io, os::fd::BorrowedFd};

use c1m_ebpf::{Counters, Shared};

use crate::sys::mapping::Mapping;

/// The mapped arrays of the object.
#[derive(Debug)]
pub(super) struct CounterMaps {
    counters: Mapping,
    shared: Mapping,
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
        let sum =
            |word| (0..self.cpus).map(|cpu| self.counters.word(cpu * Counters::WORDS + word)).sum();
        Counters::from_words(std::array::from_fn(sum))
    }

    pub(super) fn shared(&self) -> Shared {
        Shared::from_words(std::array::from_fn(|word| self.shared.word(word)))
    }
}
