//! What a program under test is confined to: a network of its own, a limit of open files, a small disk, a narrow pipe.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command},
};

use super::{check, process::die_with_parent};

/// Puts the calling thread, and what it starts from now on, into a network namespace of its own, whose loopback interface is up.
///
/// Needs CAP_SYS_ADMIN. What the thread opened before stays where it was; so do the other threads.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: changes nothing but the calling thread's namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    interface_up(c"lo")
}

/// Puts the calling thread into the network namespace that `file` is of, such as /proc/PID/ns/net. Needs CAP_SYS_ADMIN.
pub fn enter_network(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor; changes nothing but the calling thread's namespace.
    check(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Mounts a file system in memory that holds `bytes` at `folder`, where only the calling thread sees it, and what it starts from now on.
///
/// Needs CAP_SYS_ADMIN.
pub fn mount_memory(folder: &Path, bytes: u64) -> io::Result<()> {
    unshare_mounts()?;
    mount("tmpfs", folder, &format!("size={bytes}"))
}

/// Puts the calling thread, and what it starts from now on, into a mount namespace of its own, whose mounts nobody else gets.
///
/// Needs CAP_SYS_ADMIN.
pub fn unshare_mounts() -> io::Result<()> {
    let none = std::ptr::null();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: changes nothing but the calling thread's namespace; the string ends with a zero.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        // Else they would be mounted for everybody whose mounts follow each other's.
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast())).map(drop)
    }
}

/// Puts the calling thread, and what it starts from now on, into a cgroup namespace of its own, whose root is the cgroup that the process is in.
///
/// Needs CAP_SYS_ADMIN.
pub fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: changes nothing but the calling thread's namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }).map(drop)
}

/// Mounts the calling thread's network namespace on a file that exists, as `ip netns add` does: it lives as long as the mount.
///
/// Needs CAP_SYS_ADMIN.
pub fn keep_network(file: &Path) -> io::Result<()> {
    let file = CString::new(file.as_os_str().as_bytes())?;
    let (own, none) = (c"/proc/thread-self/ns/net", std::ptr::null());
    // SAFETY: two strings that end with a zero and outlive the call; a bind mount takes neither a kind nor options.
    check(unsafe { libc::mount(own.as_ptr(), file.as_ptr(), none, libc::MS_BIND, none.cast()) })
        .map(drop)
}

/// Makes a pipe hold no more than one page.
pub fn narrow(pipe: impl AsFd) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(pipe.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, 1) }).map(drop)
}

/// Starts a program that ends with the calling thread, and whose hard and soft limit of open files is `nofile`, if given.
pub fn spawn(command: &mut Command, nofile: Option<u64>) -> io::Result<Child> {
    let parent = std::process::id();
    let confine = move || {
        if let Some(nofile) = nofile {
            set_nofile(nofile)?;
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

/// Mounts a file system of the kernel's own, such as `proc`, on a folder; `options` as in mount(8), separated by commas.
pub fn mount(kind: &str, folder: &Path, options: &str) -> io::Result<()> {
    let kind = CString::new(kind)?;
    let folder = CString::new(folder.as_os_str().as_encoded_bytes())?;
    let options = CString::new(options)?;
    // SAFETY: four strings that end in zero and outlive the call; these file systems take their options as a string.
    check(unsafe {
        libc::mount(kind.as_ptr(), folder.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
    })
    .map(drop)
}

/// Brings an interface of this network namespace up.
fn interface_up(name: &CStr) -> io::Result<()> {
    let bytes = name.to_bytes_with_nul();
    // SAFETY: all zeros are a valid value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.len() > request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    // SAFETY: takes no pointer; the result is a descriptor that nobody else has.
    let socket = unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: a name that ends in zero; the kernel fills the flags, the union's active field for this request.
    unsafe {
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request))?;
        #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
        let up = libc::IFF_UP as libc::c_short;
        request.ifr_ifru.ifru_flags |= up;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)).map(drop)
    }
}

/// Sets the soft and the hard limit of open files of this process, and of those that it starts.
pub fn set_nofile(files: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: reads a local of the right type.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
