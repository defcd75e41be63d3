//! A file that is written whole or not at all: beside its place, and then put there.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Left-over files beside a place that are stepped over.
const MOST: u32 = 100;

/// Where a whole file is to be written.
#[derive(Debug)]
pub enum Place {
    /// A regular file, or nothing yet. Links are followed.
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside_of(path.into()),
            Err(error) => Err(error),
        }
    }

    fn beside_of(path: PathBuf) -> io::Result<Self> {
        Beside::create(&path).map(|_| Self::Path(path))
    }

    /// Writes the whole file. When that fails, what was there before is there still.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Device(device) => device.write_all(bytes),
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

/// A file in the same folder. Removed when dropped, unless it was put into its place.
struct Beside {
    file: File,
    path: PathBuf,
    is_put: bool,
}

impl Beside {
    fn create(place: &Path) -> io::Result<Self> {
        let name = place.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let mut number = 0;
        loop {
            let mut own = OsString::from(".");
            own.push(name);
            own.push(format!(".{}-{number}.tmp", std::process::id()));
            let path = place.with_file_name(own);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
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
        place.write(b"new").unwrap();
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
        assert_eq!(full.write(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
