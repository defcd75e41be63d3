//! What each error of accept means for the worker that got it. Pure.

/// What a worker does after accept failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The queue is empty: wait for the next event.
    Drained,
    /// This connection, or this call, is lost: go on with the next.
    Next,
    /// The worker's descriptor table is full: leave the queue alone until a connection of its own closes, or for a second.
    TableFull,
    /// The host is short of something: try again after a pause, because no event will tell.
    Pause,
    /// The listener itself is wrong.
    Fatal,
}

/// accept(2) of Linux also reports errors that a connection met while it was queued; those are the `Next` ones.
pub(super) fn action(errno: i32) -> Action {
    match errno {
        libc::EAGAIN => Action::Drained,
        libc::EMFILE => Action::TableFull,
        libc::EINTR
        | libc::ECONNABORTED
        | libc::EPROTO
        | libc::EPERM
        | libc::ENOPROTOOPT
        | libc::ENETDOWN
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::EHOSTUNREACH
        | libc::ENONET
        | libc::EOPNOTSUPP
        | libc::ETIMEDOUT => Action::Next,
        libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT => Action::Fatal,
        // ENFILE, ENOMEM, ENOBUFS, and whatever else: a pause cannot spin.
        _ => Action::Pause,
    }
}

/// What the user can do about an error; `None` where the counter in the summary says enough.
pub(super) fn remedy(name: &str) -> Option<&'static str> {
    match name {
        "EMFILE" => Some(
            "a worker's descriptor table is full, connections wait in its queue until others close: \
             raise the limit of the running server (prlimit --pid PID --nofile=N), or start it with more --workers \
             or a higher hard limit of open files (ulimit -Hn)",
        ),
        "ENFILE" => Some("the host's table of open files is full: raise fs.file-max"),
        "ENOMEM" | "ENOBUFS" => Some(
            "the kernel has no memory for another connection: connections wait in the queue until it has",
        ),
        "ENOSPC" => Some(
            "connections are closed because this user's epoll watches are used up: raise fs.epoll.max_user_watches",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_action() {
        for (errno, expected) in [
            (libc::EAGAIN, Action::Drained),
            (libc::EWOULDBLOCK, Action::Drained),
            (libc::EMFILE, Action::TableFull),
            (libc::ENFILE, Action::Pause),
            (libc::ENOMEM, Action::Pause),
            (libc::ENOBUFS, Action::Pause),
            (libc::ECONNABORTED, Action::Next),
            (libc::EINTR, Action::Next),
            (libc::EPROTO, Action::Next),
            (libc::EPERM, Action::Next),
            (libc::ENETDOWN, Action::Next),
            (libc::EHOSTUNREACH, Action::Next),
            (libc::EBADF, Action::Fatal),
            (libc::EINVAL, Action::Fatal),
        ] {
            assert_eq!(action(errno), expected, "{}", c1m_sys::errno::name(errno));
        }
    }

    #[test]
    fn no_unknown_error_can_spin_or_end_the_server() {
        for errno in [0, libc::EIO, libc::ENOSYS, 4095] {
            assert_eq!(action(errno), Action::Pause, "{errno}");
        }
    }

    #[test]
    fn shortages_come_with_advice() {
        for name in ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ENOSPC"] {
            assert!(remedy(name).is_some(), "{name}");
        }
        assert_eq!(remedy("ECONNABORTED"), None);
    }
}
