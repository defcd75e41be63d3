//! Threads with a descriptor table of their own.

use std::{
    io,
    os::fd::RawFd,
    sync::mpsc::sync_channel,
    thread::{Builder, JoinHandle},
};

use super::process::{block_signals, close_all_but, unshare_files};

/// Starts a thread whose descriptor table is its own and holds only `keep` and the three standard
/// descriptors. No signal is delivered there. When `body` returns, what is left in the table is
/// closed before the thread ends.
///
/// Returns once the table stands: from then on the caller may close its own copies of `keep`.
/// `body` may use descriptors of `keep` by their numbers; it must own no other descriptor, and hand
/// none to another thread.
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
            // SAFETY: the table is this thread's own since the line above, and `body` owns nothing
            // outside `keep`.
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
    use crate::epoll::Waker;

    /// Has each call of close_range refused with this error, in this thread and in those that it
    /// starts.
    fn without_close_range(errno: i32) {
        // BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K:
        // include/uapi/linux/bpf_common.h; the number of the call is the first word of struct
        // seccomp_data.
        let code = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
        let call = u32::try_from(libc::SYS_close_range).unwrap();
        let refuse = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        let mut program = [
            code(0x20, 0, 0),
            code(0x15, 1, call),
            code(0x06, 0, refuse),
            code(0x06, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: changes the calling thread alone, and reads the program, which lives through the
        // call.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0), 0);
        }
    }

    #[test]
    fn a_kernel_or_a_sandbox_without_close_range_is_no_obstacle() {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let thread = std::thread::spawn(move || {
                without_close_range(errno);
                a_thread_has_only_what_it_keeps();
            });
            thread.join().unwrap();
        }
    }

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
