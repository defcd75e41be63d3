//! A view of memory that the kernel writes to: an eBPF array with BPF_F_MMAPABLE (Linux 5.5).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// Words that are looked at together.
const BLOCK: usize = 512;

/// `words` 64-bit words, each read as a whole; no two of them need to be of the same instant.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: shared memory that is used word by word, atomically.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `words` words of the array behind `fd`.
    pub fn new(fd: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { address, words })
    }

    /// One word. Beyond the end: 0.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        if index >= self.words {
            return 0;
        }
        // SAFETY: within the mapping, and aligned to 8 bytes.
        unsafe { self.address.add(index).as_ref() }.load(Ordering::Relaxed)
    }

    /// Writes one word. Beyond the end: nothing.
    pub fn set(&self, index: usize, value: u64) {
        if index < self.words {
            // SAFETY: as above.
            unsafe { self.address.add(index).as_ref() }.store(value, Ordering::Relaxed);
        }
    }

    /// Adds to one word, to which the kernel adds at the same time; wraps. Beyond the end: nothing.
    pub fn add(&self, index: usize, value: u64) {
        if index < self.words {
            // SAFETY: as above.
            unsafe { self.address.add(index).as_ref() }.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// The first word at `index` or behind it that is not 0. Passes over the empty blocks of a
    /// large array as fast as memory is compared.
    #[must_use]
    pub fn next_set(&self, mut index: usize) -> Option<usize> {
        while index < self.words {
            let end = (index / BLOCK + 1) * BLOCK;
            let is_empty = index.is_multiple_of(BLOCK) && end <= self.words && {
                let mut block = [0u64; BLOCK];
                // SAFETY: within the mapping; what the kernel writes meanwhile may be in the copy
                // or not.
                unsafe {
                    let from = self.address.add(index).cast::<u64>();
                    from.copy_to_nonoverlapping(NonNull::from(&mut block).cast(), BLOCK);
                }
                block == [0; BLOCK]
            };
            if !is_empty {
                let found = (index..end.min(self.words)).find(|index| self.word(*index) != 0);
                if found.is_some() {
                    return found;
                }
            }
            index = end;
        }
        None
    }

    /// Makes one word 0.
    pub fn clear(&mut self, index: usize) {
        if index < self.words {
            // SAFETY: as above.
            unsafe { self.address.add(index).as_ref() }.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, once.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.words * 8) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd as _, unix::fs::FileExt as _};

    use super::*;

    #[test]
    fn words_that_are_set_are_found_across_empty_blocks() {
        let file = tempfile::tempfile().unwrap();
        let words = 4 * BLOCK + 10;
        file.set_len(words as u64 * 8).unwrap();
        let set = [0, 1, BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 7, words - 1];
        for index in set {
            file.write_all_at(&1u64.to_ne_bytes(), index as u64 * 8).unwrap();
        }
        let mut mapping = Mapping::new(file.as_fd(), words).unwrap();
        let found = |mapping: &Mapping| {
            let after = |index: &usize| mapping.next_set(index + 1);
            std::iter::successors(mapping.next_set(0), after).collect::<Vec<_>>()
        };
        assert_eq!(found(&mapping), set);
        set.into_iter().for_each(|index| mapping.clear(index));
        assert_eq!(mapping.next_set(0), None);
    }
}
