//! What other processes' descriptors are of.

use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::Path};

/// KCMP_FILES, include/uapi/linux/kcmp.h
const KCMP_FILES: libc::c_int = 2;

/// Have these two threads one descriptor table? (man 2 kcmp)
///
/// # Errors
/// EPERM for somebody else's threads, ESRCH when one has ended, ENOSYS in a kernel without
/// CONFIG_KCMP.
pub fn share_table(one: u32, other: u32) -> io::Result<bool> {
    // SAFETY: takes no pointer.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

/// The name of the protocol of the socket behind /proc/PID/fd/N, such as `TCP` or `TCPv6`: an
/// extended attribute that the kernel gives every socket (net/socket.c, sockfs_xattr_get, since
/// 4.9). `None`: no socket.
#[must_use]
pub fn socket_protocol(link: &Path) -> Option<String> {
    let path = CString::new(link.as_os_str().as_bytes()).ok()?;
    let mut name = [0u8; 32];
    // SAFETY: both strings end with a zero and the kernel writes at most as many bytes as `name`
    // has.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"system.sockprotoname".as_ptr(),
            name.as_mut_ptr().cast(),
            name.len(),
        )
    };
    let bytes = name.get(..usize::try_from(length).ok()?)?;
    // It comes with its zero.
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;
    use crate::thread::spawn_with_own_table;

    #[test]
    fn a_socket_tells_its_protocol() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        assert_eq!(socket_protocol(Path::new(&link)).as_deref(), Some("TCP"));
        assert_eq!(socket_protocol(Path::new("/proc/self/exe")), None);
    }

    #[test]
    fn a_thread_with_a_table_of_its_own_is_told() {
        let own = std::process::id();
        let id = || {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            link.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap()
        };
        let of = move |thread: u32| match share_table(own, thread) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => None,
            result => Some(result.unwrap()),
        };
        let sharing = std::thread::spawn(move || of(id())).join().unwrap();
        let apart = spawn_with_own_table("own".into(), 1 << 18, Vec::new(), move || of(id()));
        let apart = apart.unwrap().join().unwrap().unwrap();
        assert!(
            (sharing, apart) == (Some(true), Some(false)) || (sharing, apart) == (None, None),
            "{sharing:?} {apart:?}"
        );
    }
}
