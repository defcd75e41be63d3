//! The first file system of a guest: the programs with their libraries, what they read, and the orders.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    cpio::Archive,
    init::{ORDERS, Orders},
    libraries,
    modules::Module,
};

/// The program that is started first.
const INIT: &str = "/init";
pub(super) const XTASK: &str = "/bin/xtask";

/// A file or folder of the host, and where it stands in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brought {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
}

impl Brought {
    pub(crate) fn new(host: impl Into<PathBuf>, guest: impl Into<String>) -> Self {
        Self { host: host.into(), guest: guest.into() }
    }

    /// One that has the same path in the guest. Tests find their data by the path that they were built at.
    pub(crate) fn as_here(host: impl Into<PathBuf>) -> Self {
        let host = host.into();
        Self { guest: host.to_string_lossy().into_owned(), host }
    }
}

impl std::str::FromStr for Brought {
    type Err = String;

    /// `HOST:GUEST`, or `HOST` for a file that goes to /bin.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.rsplit_once(':').unwrap_or((text, ""));
        let host = PathBuf::from(host);
        let guest = match (guest, host.file_name()) {
            ("", Some(name)) => format!("/bin/{}", name.to_string_lossy()),
            ("", None) => return Err("a file has a name".into()),
            (guest, _) => guest.into(),
        };
        if !guest.starts_with('/') {
            return Err("the place in the guest begins with /".into());
        }
        if !host.exists() {
            return Err(format!("{} is not there", host.display()));
        }
        Ok(Self { host, guest })
    }
}

/// Writes the archive.
pub(super) fn write(
    to: &Path,
    mut orders: Orders,
    brought: &[Brought],
    modules: &[Module],
) -> Result<()> {
    let file = File::create(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    // The kernel opens it for its first process before anything is mounted.
    archive.device("/dev/console", 5, 1)?;
    archive.link(INIT, XTASK)?;
    for (at, (name, contents)) in modules.iter().enumerate() {
        let place = format!("/lib/modules/{at:02}-{name}.ko");
        archive.file(&place, contents)?;
        orders.modules.push(place);
    }
    archive.file(ORDERS, &serde_json::to_vec(&orders)?)?;
    for it in brought {
        bring(&mut archive, &it.host, &it.guest)
            .with_context(|| format!("cannot take {} into the guest", it.host.display()))?;
    }
    let files = brought.iter().map(|it| &*it.host).filter(|host| host.is_file());
    for library in libraries::of(files)? {
        bring(&mut archive, &library, &library.to_string_lossy())
            .with_context(|| format!("cannot take {} into the guest", library.display()))?;
    }
    let mut file = archive.finish().with_context(|| format!("cannot write {}", to.display()))?;
    file.flush().with_context(|| format!("cannot write {}", to.display()))
}

fn bring(archive: &mut Archive<BufWriter<File>>, host: &Path, guest: &str) -> Result<()> {
    if !host.is_dir() {
        return Ok(archive.file(guest, &fs::read(host)?)?);
    }
    archive.folder(guest)?;
    for entry in fs::read_dir(host)? {
        let entry = entry?;
        bring(archive, &entry.path(), &format!("{guest}/{}", entry.file_name().to_string_lossy()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_to_bin_unless_told_where() {
        let brought = |text: &str| text.parse::<Brought>();
        assert_eq!(brought("src/main.rs"), Ok(Brought::new("src/main.rs", "/bin/main.rs")));
        assert_eq!(brought("src/main.rs:/etc/x"), Ok(Brought::new("src/main.rs", "/etc/x")));
        assert_eq!(Brought::as_here("/a/b"), Brought::new("/a/b", "/a/b"));
        for wrong in ["src/main.rs:x", "src/absent.rs", "/"] {
            assert!(brought(wrong).is_err(), "{wrong}");
        }
    }
}
