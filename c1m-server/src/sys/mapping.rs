//! A view of memory that the kernel writes to: an eBPF array with BPF_F_MMAPABLE (Linux 5.5).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

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
