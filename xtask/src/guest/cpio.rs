//! An archive in the format that the kernel unpacks into its first file system: `newc` (man 5 cpio;
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Component, Path},
};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written. Every name is a path inside the guest.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, entries: 0, folders: BTreeSet::new() }
    }

    /// A folder, and those above it.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        let name = inside(path)?;
        let mut ends: Vec<usize> = name.match_indices('/').map(|(at, _)| at).collect();
        ends.push(name.len());
        for end in ends {
            let folder = &name[..end];
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// A file that can be executed, and the folders above it.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(&inside(path)?, FILE, (0, 0), contents)
    }

    /// A symbolic link, and the folders above it.
    pub(super) fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.parent(path)?;
        self.entry(&inside(path)?, LINK, (0, 0), to.as_bytes())
    }

    /// A character device, and the folders above it.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.parent(path)?;
        self.entry(&inside(path)?, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// The mark behind the last entry. Without it the kernel takes the archive for torn.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, 0, (0, 0), &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => self.folder(parent),
            _ => Ok(()),
        }
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        contents: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(contents.len())
            .map_err(|_| io::Error::other(format!("{name} has 4 GiB or more")))?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // inode, mode, user, group, links, time, size, device, device of the node, length of the name, checksum (unused)
        let (major, minor) = device;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(contents)
    }

    /// Heads and contents begin at multiples of 4 bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}

/// The name under which a path of the guest stands in the archive: without its first slash.
fn inside(path: &str) -> io::Result<String> {
    let relative = path.trim_start_matches('/').trim_end_matches('/');
    let is_plain =
        Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain {
        Ok(relative.to_owned())
    } else {
        Err(io::Error::other(format!("{path} is no path of a guest")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.folder("/proc").unwrap();
        archive.file("/a/b/one", b"12345").unwrap();
        archive.file("/a/b/two", b"").unwrap();
        archive.link("/init", "a/b/one").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn everything_begins_at_a_multiple_of_four_and_ends_with_the_trailer() {
        let archive = sample();
        assert_eq!(archive.len() % 4, 0);
        let at = |text: &[u8]| archive.windows(text.len()).position(|it| it == text);
        assert_eq!(at(b"12345").map(|at| at % 4), Some(0));
        let trailer = at(TRAILER.as_bytes()).unwrap();
        assert!(archive.len() - trailer <= TRAILER.len() + 4);
        assert_eq!(archive.windows(6).filter(|it| *it == b"070701").count(), 9);
    }

    #[test]
    fn no_path_leads_out_of_the_guest() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("/../x", b"").is_err());
        assert!(archive.folder("/a/./../b").is_err());
    }
}
