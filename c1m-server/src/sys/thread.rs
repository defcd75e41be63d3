//! Threads with a descriptor table of their own.

use std::{
    io,
    os::fd::RawFd,
    sync::mpsc::sync_channel,
    thread::{Builder, JoinHandle},
};

use super::process::{block_signals, close_all_but, unshare_files};

/// Starts a thread whose descriptor table is its own and holds only `keep` and the three standard descriptors. No signal
/// is delivered there. When `body` returns, what is left in the table is closed before the thread ends.
///
/// Returns once the table stands: from then on the caller may close its own copies of `keep`. `body` may use descriptors
/// of `keep` by their numbers; it must own no other descriptor, and hand none to another thread.
///
/// # Errors
/// Whatever refused the thread (EAGAIN) or the table (ENOMEM).
pub fn spawn_with_own_table<T: Send + 'static>(
    name: String,
    stack_bytes: usize,
    keep: Vec<RawFd>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    let (ready, is_ready) = sync_channel(1);
    // The new thread inherits the mask of this one.
    let _mask = block_signals()?;
    let thread = Builder::new().name(name).stack_size(stack_bytes).spawn(move || {
        let table = unshare_files().and_then(|()| {
            // SAFETY: the table is this thread's own since the line above, and `body` owns nothing outside `keep`.
            unsafe { close_all_but(&keep) }
        });
        let failed = table.is_err();
        // The spawner waits for this message, so it is there to take it.
        let _ = ready.send(table);
        if failed {
            return Err(io::Error::other("the thread has no descriptor table of its own"));
        }
        let result = body();
        // The kernel would do it too, but only after a join has returned.
        // SAFETY: the table is this thread's own, and `body` with all that it owned is gone.
        unsafe { close_all_but(&[]) }?;
        Ok(result)
    })?;
    is_ready.recv().map_err(|_| io::Error::other("the thread ended before it began"))??;
    Ok(thread)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::sys::epoll::Waker;

    #[test]
    fn a_thread_has_only_what_it_keeps() {
        let (kept, other) = (Waker::new().unwrap(), Waker::new().unwrap());
        let (kept_fd, other_fd) = (kept.as_raw_fd(), other.as_raw_fd());
        let link = |fd: RawFd| std::fs::read_link(format!("/proc/thread-self/fd/{fd}")).is_ok();
        let thread = spawn_with_own_table("probe".into(), 1 << 18, vec![kept_fd], move || {
            (link(kept_fd), link(other_fd))
        });
        assert_eq!(thread.unwrap().join().unwrap().unwrap(), (true, false));
        assert!(link(other_fd), "the other thread's close reached into this table");
    }
}
