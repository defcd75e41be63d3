//! Waiting for a descriptor in the runtime of the main thread.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor that becomes readable, and is read by somebody else or not at all.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches a duplicate of `fd`, so that this lives independently of it. To be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// EMFILE, or EPERM for something that epoll can't watch.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let own = fd.try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is returned, and nothing there replaces or closes
        // it.
        let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        watched.map(Self).map_err(|error| error.into_parts().1)
    }

    /// Waits until something has come since the last wait. What is there must be taken as a whole
    /// before the next one: readiness that stays is not told again.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd as _, time::Duration};

    use super::*;
    use crate::epoll::Waker;

    #[tokio::test]
    async fn each_wake_is_told_once() {
        let waker = Waker::new().unwrap();
        let readable = Readable::new(waker.as_fd()).unwrap();
        for _ in 0..3 {
            waker.wake();
            readable.wait().await.unwrap();
            let again = tokio::time::timeout(Duration::from_millis(20), readable.wait()).await;
            assert!(again.is_err(), "told twice");
        }
    }
}
