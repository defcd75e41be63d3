//! Network namespaces: opened, told apart, and entered by a thread of its own.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use super::check;

/// That of the calling thread.
pub const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    pub inode: u32,
    /// Of the file system that the inode is of.
    pub dev: u64,
    file: File,
}

impl Namespace {
    /// Opens the one behind a file such as /proc/PID/ns/net or /run/netns/NAME.
    ///
    /// # Errors
    /// ENOENT when the process has ended, EACCES for somebody else's process.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let inode = u32::try_from(metadata.ino()).map_err(io::Error::other)?;
        Ok(Self { inode, dev: metadata.dev(), file })
    }

    /// Puts the calling thread there for good.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        super::confine::enter_network(&self.file)
    }

    /// Runs `body` there: in a thread that ends with it, so that no other one changes its
    /// namespace, or right here where the calling thread is in it already, which takes no
    /// privilege.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, or when no thread can be had.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> io::Result<T> {
        let is_own =
            |own: std::fs::Metadata| (own.ino(), own.dev()) == (self.inode.into(), self.dev);
        if std::fs::metadata(OWN).is_ok_and(is_own) {
            return Ok(body());
        }
        let fd = self.file.as_raw_fd();
        thread::scope(|scope| {
            let inside =
                thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
                    // SAFETY: takes no pointer; changes nothing but this thread's namespace.
                    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) })?;
                    Ok(body())
                })?;
            inside.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
        })
    }
}

/// A number that the namespace of the calling thread has, and no other one since the boot. An
/// inode's number is given to a later namespace again.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.14 (net/core/sock.c, `sk_getsockopt`, SO_NETNS_COOKIE).
pub fn cookie() -> io::Result<u64> {
    /// include/uapi/asm-generic/socket.h
    const SO_NETNS_COOKIE: libc::c_int = 71;
    // Any socket has one; this kind needs no interface and no protocol.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let mut cookie = 0u64;
    let mut size = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: an open descriptor, and room for as many bytes as `size` says.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    })?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_has_the_inode_that_stat_shows() {
        let own = Namespace::open(Path::new(OWN)).unwrap();
        assert_eq!(u64::from(own.inode), std::fs::metadata(OWN).unwrap().ino());
        assert_eq!(own.within(|| 7).unwrap(), 7);
    }

    #[test]
    fn another_namespace_is_entered_by_another_thread() {
        let inode = || std::fs::metadata(OWN).unwrap().ino();
        let before = inode();
        let inside = std::thread::spawn(|| {
            crate::confine::unshare_network().map(|()| Namespace::open(Path::new(OWN)).unwrap())
        });
        // CAP_SYS_ADMIN: without it there is no other namespace to enter.
        let may = crate::process::effective_capabilities().unwrap() & 1 << 21 != 0;
        let other = match inside.join().unwrap() {
            Ok(other) => other,
            Err(error) => return assert!(!may, "{error}"),
        };
        assert_eq!(other.within(inode).unwrap(), u64::from(other.inode));
        assert_ne!(u64::from(other.inode), before);
        assert_eq!(inode(), before);
        if let Ok(own) = cookie() {
            assert_ne!(other.within(cookie).unwrap().unwrap(), own);
        }
        // A file that is no namespace can't be entered.
        let wrong = Namespace { inode: 0, dev: 0, file: File::open("/proc/self/exe").unwrap() };
        assert!(wrong.within(|| ()).is_err());
    }
}
