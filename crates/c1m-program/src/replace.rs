//! A file that is written whole or not at all: beside its place, and then put there.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use c1m_sys::process::block_signals;

use crate::writer::{Destination, OnError, Patience, WriteError, Writer};

/// Left-over files beside a place that are stepped over.
const MOST: u32 = 100;
/// Links behind each other that are followed: the kernel's MAXSYMLINKS (include/linux/namei.h, 6.18).
const LINKS: usize = 40;
/// Of a file whose content may not be for everybody, until it has the mode of the one that it replaces.
const PRIVATE: u32 = 0o600;
/// Of a new file, less what the umask takes away.
const NEW: u32 = 0o666;

/// Where a whole file is to be written.
#[derive(Debug)]
pub enum Place {
    /// A regular file, or nothing yet. Links are followed, also those that lead to nothing yet.
    Path(PathBuf),
    /// A pipe, a terminal or another device: it has neither a beginning nor an end.
    Device(File),
}

impl Place {
    /// Checks that the file can be written, and changes nothing.
    ///
    /// # Errors
    /// It can't be.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                Ok(Self::Device(OpenOptions::new().write(true).open(path)?))
            }
            Ok(_) => {
                // Who may not write it may not replace it.
                OpenOptions::new().write(true).open(path)?;
                Self::beside_of(fs::canonicalize(path)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside_of(linked(path)),
            Err(error) => Err(error),
        }
    }

    fn beside_of(path: PathBuf) -> io::Result<Self> {
        Beside::create(&path).map(|_| Self::Path(path))
    }

    /// Writes the whole file. When that fails, what was there before is there still. `patience`: for the reader of a pipe or a terminal; `None`: as
    /// long as it takes.
    ///
    /// # Errors
    /// It can't be written, or nobody read it in time.
    pub fn write(&mut self, bytes: &[u8], patience: Option<Patience>) -> io::Result<()> {
        match self {
            Self::Device(device) => match patience {
                Some(patience) => write_in_time(device.try_clone()?, bytes, patience),
                None => device.write_all(bytes),
            },
            Self::Path(path) => {
                let mut beside = Beside::create(path)?;
                beside.file.write_all(bytes)?;
                // A full disk is an error here, while the old file still exists.
                beside.file.sync_all()?;
                beside.put(path)
            }
        }
    }
}

/// Where the link leads, at the end of all, though nothing is there; a path that is no link leads to itself.
fn linked(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        // A relative one is of the folder that the link is in; an absolute one replaces it.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

struct Device(File);

impl Destination for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
}

/// Writes by a thread, which the process leaves behind when nobody reads.
fn write_in_time(device: File, bytes: &[u8], patience: Patience) -> io::Result<()> {
    // The thread inherits the mask: signals are for those who wait for them.
    let mask = block_signals()?;
    let begin = || Ok(());
    let writer = Writer::start("it", Device(device), OnError::GoOn, begin, |_, _| String::new())?;
    drop(mask);
    let refused = |error: WriteError| match error {
        WriteError::Refused { source, .. } => source,
        WriteError::Unread { .. } => {
            io::Error::new(io::ErrorKind::TimedOut, "nobody read it in time")
        }
    };
    writer.raw(bytes.to_vec()).and_then(|()| writer.finish(patience)).map_err(refused)
}

/// A file in the same folder. Removed when dropped, unless it was put into its place.
struct Beside {
    file: File,
    path: PathBuf,
    is_put: bool,
}

impl Beside {
    fn create(place: &Path) -> io::Result<Self> {
        let name = place.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        // From the beginning: who opens it meanwhile could read it for as long as it is open.
        let mode = if fs::metadata(place).is_ok() { PRIVATE } else { NEW };
        let mut number = 0;
        loop {
            let mut own = OsString::from(".");
            own.push(name);
            own.push(format!(".{}-{number}.tmp", std::process::id()));
            let path = place.with_file_name(own);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
                Ok(file) => return Ok(Self { file, path, is_put: false }),
                // Somebody was killed who had the same process number, as in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST => {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// With the owner and the mode of the file that is there.
    fn put(mut self, place: &Path) -> io::Result<()> {
        if let Ok(old) = fs::metadata(place) {
            // Only root can give files away, and for others it is theirs already.
            let _ = fchown(&self.file, Some(old.uid()), Some(old.gid()));
            self.file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        }
        // Whether it worked or not: the file is whole.
        self.is_put = true;
        let beside = self.path.display();
        // EBUSY: it is a mount point, such as a single file that a container was given.
        fs::rename(&self.path, place).map_err(|error| {
            io::Error::new(error.kind(), format!("{error}; {beside} has the whole of it"))
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_put {
            // What is left over harms nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        fs::read_dir(folder).unwrap().map(|it| name(it).into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("page", &link).unwrap();
        let mut place = Place::open(&link).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        place.write(b"new", None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_ne!(after.ino(), before.ino(), "it was written in place");
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn what_cant_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Place::open(&folder.path().join("no/page")).is_err());
        assert!(Place::open(folder.path()).is_err(), "a folder");
        assert!(names(folder.path()).is_empty());
        let mut full = Place::open(Path::new("/dev/full")).unwrap();
        let in_time = full.write(b"x", Some(Patience::END)).unwrap_err();
        assert_eq!(in_time.kind(), io::ErrorKind::StorageFull);
        assert_eq!(full.write(b"x", None).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_is_as_private_as_the_one_that_it_replaces_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page");
        let new = Beside::create(&path).unwrap();
        let plain = File::create(folder.path().join("plain")).unwrap();
        let mode = |file: &File| file.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode(&new.file), mode(&plain), "what the umask leaves");
        drop(new);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let beside = Beside::create(&path).unwrap();
        assert_eq!(mode(&beside.file), 0o600);
        beside.put(&path).unwrap();
        assert_eq!(mode(&File::open(&path).unwrap()), 0o640);
    }

    #[test]
    fn a_link_to_nothing_yet_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("pages")).unwrap();
        let link =
            |target: &Path, name: &str| std::os::unix::fs::symlink(target, at(name)).unwrap();
        link(Path::new("pages/second"), "first");
        link(&at("page"), "pages/second");
        link(Path::new("no/page"), "nowhere");
        Place::open(&at("first")).unwrap().write(b"new", None).unwrap();
        assert_eq!(fs::read_to_string(at("page")).unwrap(), "new");
        for link in ["first", "pages/second"] {
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        }
        assert!(Place::open(&at("nowhere")).is_err(), "no such folder");
    }

    #[test]
    fn a_pipe_that_is_not_read_is_not_waited_for_without_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut place = Place::Device(File::from(std::os::fd::OwnedFd::from(writer)));
        // More than any pipe takes by itself: /proc/sys/fs/pipe-max-size is 1 MiB.
        let page = vec![b'x'; 4 << 20];
        let short = Patience { piece: std::time::Duration::from_millis(50), ..Patience::END };
        let error = place.write(&page, Some(short)).unwrap_err();
        assert_eq!(error.to_string(), "nobody read it in time");
        // The thread is still there, and writes on to whoever reads.
        drop(place);
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut reader, &mut rest).unwrap();
        assert_eq!(rest.len(), page.len());
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut place = Place::Device(File::from(std::os::fd::OwnedFd::from(writer)));
        let error = place.write(&page, Some(Patience::END)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "a page that is missing is an error");
    }
}
