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
    file: File,
}

impl Namespace {
    /// Opens the one behind a file such as /proc/PID/ns/net or /run/netns/NAME.
    ///
    /// # Errors
    /// ENOENT when the process has ended, EACCES for somebody else's process.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
        Ok(Self { inode, file })
    }

    /// Runs `body` there: in a thread that ends with it, so that no other one changes its namespace, or right here where the calling thread is in
    /// it already, which takes no privilege.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, or when no thread can be had.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> io::Result<T> {
        if std::fs::metadata(OWN).is_ok_and(|own| own.ino() == u64::from(self.inode)) {
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
            crate::sys::confine::unshare_network()
                .map(|()| Namespace::open(Path::new(OWN)).unwrap())
        });
        // Without the privilege there is no other namespace to enter.
        let Ok(other) = inside.join().unwrap() else { return };
        assert_eq!(other.within(inode).unwrap(), u64::from(other.inode));
        assert_ne!(u64::from(other.inode), before);
        assert_eq!(inode(), before);
        // A file that is no namespace can't be entered.
        let wrong = Namespace { inode: 0, file: File::open("/proc/self/exe").unwrap() };
        assert!(wrong.within(|| ()).is_err());
    }
}
