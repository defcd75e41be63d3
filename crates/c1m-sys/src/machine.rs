//! What the first process of a machine does: mounts, modules, the last reboot. `xtask guest` calls it inside its guests, and
//! `xtask faults` where it stands for a machine of its own.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use super::check;

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

/// Loads a kernel module, uncompressed, without parameters. One that is there already is no error.
pub fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor and a string that ends in zero.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            error => Err(error),
        },
    }
}

/// Brings an interface of this network namespace up.
pub fn interface_up(name: &CStr) -> io::Result<()> {
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

/// Waits for the end of any child, also of one that was left by its parent: the first process inherits those. Its process
/// number, and its exit code, or 128 and the number of the signal that ended it.
pub fn reap() -> io::Result<(u32, i32)> {
    let mut status = 0;
    // SAFETY: the kernel fills a local of the right type.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, 0) })?;
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    Ok((pid.unsigned_abs(), code))
}

/// Waits until what was written to a terminal has left it.
pub fn drain(terminal: &File) -> io::Result<()> {
    // SAFETY: an open descriptor.
    check(unsafe { libc::tcdrain(terminal.as_raw_fd()) }).map(drop)
}

/// Switches the machine off. Returns only when the kernel refuses: without CAP_SYS_BOOT, or outside of the first namespace.
pub fn power_off() -> io::Error {
    // SAFETY: takes no pointer.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    io::Error::last_os_error()
}
