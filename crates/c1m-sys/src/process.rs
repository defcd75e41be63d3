//! Descriptor tables, limits, signals and capabilities of this process and its threads.

use std::{
    io,
    os::{fd::RawFd, unix::process::CommandExt as _},
    process::{Child, Command},
};

use super::check;

/// The soft and hard limit of open files.
pub fn nofile() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills a local of the right type.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open files to the hard one, and returns it: how many descriptors one
/// table can hold.
///
/// A hard limit from before fs.nr_open was lowered is worth no more than that: no table grows past
/// it (fs/file.c, `expand_files`), and setting a limit above it is refused even where it is there
/// already (kernel/sys.c, `do_prlimit`; 6.18).
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = nofile()?;
    let nr_open = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let nr_open = nr_open.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    let most = hard.min(nr_open);
    if soft < most {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: reads a local of the right type.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(most)
}

/// Raises the soft limit of open files to the hard one, and leaves the hard one as it is, so that a
/// child can have the limits from before.
///
/// # Errors
/// EPERM where the hard limit is above fs.nr_open: no limit can be set then that keeps it
/// (kernel/sys.c, `do_prlimit`; 6.18).
pub fn raise_soft_nofile() -> io::Result<()> {
    let (soft, hard) = nofile()?;
    if soft < hard {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: reads a local of the right type.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    }
    Ok(())
}

/// Gives the calling thread a descriptor table of its own (a copy of the present one). Needs no
/// privilege.
///
/// From here on a descriptor number means something in this thread alone: descriptors must not be
/// handed to or taken from other threads, and no signal handler that writes to one may run here
/// (see [`block_signals`]).
pub fn unshare_files() -> io::Result<()> {
    // SAFETY: changes nothing but the calling thread's own table.
    check(unsafe { libc::unshare(libc::CLONE_FILES) }).map(drop)
}

/// Closes every descriptor of the calling thread's table but `keep` and the three standard ones.
///
/// # Safety
/// The table must be the thread's own ([`unshare_files`]), and no owned descriptor of this thread
/// may be outside `keep` and be used or closed later.
pub unsafe fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.iter().copied().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: the caller's promise.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            if result < 0 {
                let error = io::Error::last_os_error();
                return match error.raw_os_error() {
                    // Before Linux 5.9, or a sandbox that does not know the call.
                    // SAFETY: the caller's promise.
                    Some(libc::ENOSYS | libc::EPERM) => unsafe { close_listed_but(&keep) },
                    _ => Err(error),
                };
            }
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// The same, one by one as /proc lists them.
///
/// # Safety
/// As for [`close_all_but`].
unsafe fn close_listed_but(keep: &[u32]) -> io::Result<()> {
    let number =
        |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    // All of them first: the list has a descriptor of its own, which is closed by then, and no
    // other thread has this table.
    let open: Vec<u32> = std::fs::read_dir("/proc/thread-self/fd")?.filter_map(number).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the caller's promise. The list's own descriptor is gone: EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Blocks every signal in the calling thread, and in the threads that it starts from now on.
///
/// tokio's signal handler writes to a descriptor. In a thread with a table of its own that number
/// is somebody's connection, so no signal may ever be delivered there.
pub fn block_signals() -> io::Result<SignalMask> {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`; the call initialises `before`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
            0 => Ok(SignalMask(before.assume_init())),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The signals that were blocked before [`block_signals`]; dropping it puts them back for the
/// calling thread.
pub struct SignalMask(libc::sigset_t);

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: reads an initialised set.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// Asks the kernel to send this process `signal` when its parent dies, so that nothing stays behind
/// a SIGKILL. The answer to a parent that is already gone is an error.
pub fn die_with_parent(parent: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    if std::os::unix::process::parent_id() != parent {
        // An error without an allocation: this also runs between fork and exec.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Starts a program that the kernel ends by `signal` when the calling *thread* ends, in whatever
/// way.
///
/// So it has to be called from a thread that lives as long as the child may. A program that is
/// set-user-id loses the wish (man 2 prctl, PR_SET_PDEATHSIG).
pub fn spawn_dying_with_parent(command: &mut Command, signal: libc::c_int) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls that are safe between fork and exec, and allocates
    // nothing.
    unsafe { command.pre_exec(move || die_with_parent(parent, signal)) }.spawn()
}

/// Sends SIGTERM to a child. One that has ended is no error.
pub fn terminate(child: &mut Child) -> io::Result<()> {
    // Not waited for until now, the process number can't belong to anybody else.
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = child.id().try_into().map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(drop)
}

/// User and system CPU time of this process, in seconds.
pub fn cpu_seconds() -> io::Result<(f64, f64)> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure; all zeros are a valid value of it.
    let usage = unsafe {
        check(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()))?;
        usage.assume_init()
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of CPU time are far below 2^52")]
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Ok((seconds(usage.ru_utime), seconds(usage.ru_stime)))
}

/// Gives memory that the allocator holds for later back to the kernel: after parsing BTF there are
/// megabytes of it.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The effective capabilities of this process, one bit each: include/uapi/linux/capability.h.
pub fn effective_capabilities() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no CapEff line"))
}

/// Is this another user namespace than the first one? Capabilities then count for what belongs to
/// it, and for nothing of the host's.
pub fn is_in_own_user_namespace() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    /// include/linux/proc_ns.h, PROC_USER_INIT_INO
    const INITIAL: u64 = 0xEFFF_FFFD;
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|it| it.ino() != INITIAL)
}

/// Gives up every capability of the calling thread, and of those that it starts from now on, for
/// good.
pub fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// _LINUX_CAPABILITY_VERSION_3: two words of each set
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let none = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3 and live through the call; the rest
    // takes no pointer.
    unsafe {
        // Without this an exec as root would bring them back.
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        if libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of the kernel's `ktime_get_ns`.
pub fn monotonic_ns() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills a local of the right type.
    check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) })?;
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    match (seconds, nanoseconds) {
        (Ok(s), Ok(ns)) => Ok(s * 1_000_000_000 + ns),
        _ => Err(io::Error::other("CLOCK_MONOTONIC is negative")),
    }
}

/// Bytes of one page of memory, as the kernel tells it when a program starts (man 3 getauxval,
/// AT_PAGESZ): the unit of tcp_mem and of slabs.
///
/// # Errors
/// The C library does not know it, which none is known for.
pub fn page_bytes() -> io::Result<u64> {
    // SAFETY: takes no pointer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).map_err(|_| io::Error::last_os_error())
}
