//! Files below a folder that somebody named, each there as a whole or not at all, and never written through a symbolic link.
//!
//! The folder itself must not be a link either: a name that leads elsewhere is not the place that was asked for. Every step below it is taken from the
//! open folder before it, so that nobody exchanges one for a link meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why a file was not written.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("{} exists: --force replaces it", .0.display())]
    Exists(PathBuf),
    #[error("{} is a symbolic link, which is not followed: name the folder that it leads to, or remove it", .0.display())]
    Link(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    /// As people know it.
    path: PathBuf,
    open: File,
}

impl Folder {
    /// Opens the folder, and makes it if it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        // Without a slash at its end, which would follow a link.
        let path: PathBuf = path.components().collect();
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            fs::create_dir_all(above).map_err(|source| failed(&path, source))?;
        }
        Self::opened(&path, &path)
    }

    /// `reached`: the same folder, by a way that nobody can change.
    fn opened(path: &Path, reached: &Path) -> Result<Self, Error> {
        match fs::DirBuilder::new().mode(0o755).create(reached) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(path, source));
            }
            _ => {}
        }
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match OpenOptions::new().read(true).custom_flags(flags).open(reached) {
            Ok(open) => Ok(Self { path: path.into(), open }),
            Err(_) if is_link(reached) => Err(Error::Link(path.into())),
            Err(source) => Err(failed(path, source)),
        }
    }

    /// A name in it, whatever becomes of its own name.
    fn inside(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.open.as_raw_fd())).join(name)
    }

    /// The folder of `name`, which is relative, and the last part of it.
    fn descend<'a>(&self, name: &'a str) -> Result<(Self, &'a str), Error> {
        let open = self.open.try_clone().map_err(|source| failed(&self.path, source))?;
        let mut folder = Self { path: self.path.clone(), open };
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok((folder, part));
            }
            folder = Self::opened(&folder.path.join(part), &folder.inside(part))?;
        }
        Ok((folder, name))
    }

    /// Fails with the first of these files that exists, as whatever it is.
    pub(super) fn has_none_of(&self, names: &[&str]) -> Result<(), Error> {
        for name in names {
            let (folder, last) = self.descend(name)?;
            match fs::symlink_metadata(folder.inside(last)) {
                Ok(_) => return Err(Error::Exists(folder.path.join(last))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(&folder.path.join(last), source)),
            }
        }
        Ok(())
    }

    /// Writes a file beside its place, and gives it its name at the end. With `force`, it takes the place of what has the name, also of a link.
    pub(super) fn write(&self, name: &str, text: &str, force: bool) -> Result<(), Error> {
        let (folder, last) = self.descend(name)?;
        let path = folder.path.join(last);
        // Not taken for settings by anybody who reads the folder meanwhile.
        let beside = folder.inside(&format!(".{last}.{}.new", std::process::id()));
        let place = folder.inside(last);
        let done = write_new(&beside, text).and_then(|()| match force {
            true => fs::rename(&beside, &place),
            // Fails when somebody has made one meanwhile, where a rename would replace it.
            false => fs::hard_link(&beside, &place),
        });
        // After a rename there is none.
        let _ = fs::remove_file(&beside);
        match done.and_then(|()| folder.open.sync_all()) {
            Ok(()) => Ok(()),
            Err(error) if !force && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Exists(path))
            }
            Err(source) => Err(failed(&path, source)),
        }
    }
}

/// A file that was not there before: a link is not followed (`O_EXCL`).
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_exists_stays_unless_it_is_forced() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::create(&root.path().join("a/b")).unwrap();
        folder.write("c/d.conf", "first", false).unwrap();
        let path = root.path().join("a/b/c/d.conf");
        assert!(
            matches!(folder.write("c/d.conf", "second", false), Err(Error::Exists(it)) if it == path)
        );
        assert!(matches!(folder.has_none_of(&["x", "c/d.conf"]), Err(Error::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        folder.write("c/d.conf", "second", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing stays beside it"
        );
    }

    #[test]
    fn no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/file"), "untouched").unwrap();
        symlink(at("real"), at("link")).unwrap();
        for name in ["link", "link/"] {
            assert!(matches!(Folder::create(&at(name)), Err(Error::Link(_))), "{name}");
        }
        let folder = Folder::create(&at("new")).unwrap();
        symlink(at("real"), at("new/sub")).unwrap();
        assert!(
            matches!(folder.write("sub/x", "y", true), Err(Error::Link(it)) if it == at("new/sub"))
        );
        // A link in the place of the file, also one that leads nowhere.
        symlink(at("real/file"), at("new/file")).unwrap();
        symlink(at("real/none"), at("new/none")).unwrap();
        for name in ["file", "none"] {
            assert!(matches!(folder.write(name, "y", false), Err(Error::Exists(_))), "{name}");
            folder.write(name, "y", true).unwrap();
            assert!(
                !is_link(&at("new").join(name)),
                "the link is replaced, and not what it leads to"
            );
        }
        assert_eq!(fs::read_to_string(at("real/file")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(at("real")).unwrap().count(), 1);
    }
}
