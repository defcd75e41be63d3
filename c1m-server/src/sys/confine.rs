//! What a program under test is confined to: a network of its own, and a limit of open files.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
};

use super::{check, process::die_with_parent};

/// Puts the calling thread, and what it starts from now on, into a network namespace of its own, whose loopback interface is up.
///
/// Needs CAP_SYS_ADMIN. What the thread opened before stays where it was; so do the other threads.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: changes nothing but the calling thread's namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    loopback_up()
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: takes no pointer; the descriptor is fresh and owned by nobody else.
    let socket = unsafe {
        check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))
            .map(|fd| OwnedFd::from_raw_fd(fd))?
    };
    // SAFETY: all zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "both flags are in the low 16 bits")]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the kernel reads a whole request that lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
}

/// Starts a program that ends with the calling thread, and whose hard and soft limit of open files is `nofile`, if given.
pub fn spawn(command: &mut Command, nofile: Option<u64>) -> io::Result<Child> {
    let parent = std::process::id();
    let confine = move || {
        if let Some(nofile) = nofile {
            let limit = libc::rlimit { rlim_cur: nofile, rlim_max: nofile };
            // SAFETY: reads a local of the right type.
            check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        }
        die_with_parent(parent, libc::SIGKILL)
    };
    // SAFETY: the closure makes system calls that are safe between fork and exec, and allocates nothing.
    unsafe { command.pre_exec(confine) }.spawn()
}

/// Sends `signal` to a child that was not waited for. One that has ended is no error.
pub fn signal(child: &mut Child, signal: libc::c_int) -> io::Result<()> {
    // Not waited for until now, the process number can't belong to anybody else.
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = child.id().try_into().map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}
