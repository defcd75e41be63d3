//! Kernel settings below /proc/sys, by their dotted names.

use std::{
    fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a setting could not be read or written.
#[derive(Debug, Error)]
pub enum SysctlError {
    #[error("`{0}` is not the name of a kernel setting")]
    Name(String),
    #[error("cannot read {name}: {source}")]
    Read { name: Name, source: io::Error },
    #[error("cannot set {name} to {value}: {source}")]
    Write { name: Name, value: String, source: io::Error },
    #[error("{name} is `{value}`, where {count} numbers were expected")]
    Numbers { name: Name, value: String, count: usize },
    #[error("the kernel made `{present}` of {name} when told `{value}`")]
    Adjusted { name: Name, value: String, present: String },
}

/// The dotted name of one setting, such as `net.ipv4.tcp_mem`. It can't lead out of the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Accepts letters, digits, `_` and `-` in parts that are joined by dots.
    pub fn new(text: &str) -> Result<Self, SysctlError> {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if text.contains('.') && text.split('.').all(part) {
            Ok(Self(text.into()))
        } else {
            Err(SysctlError::Name(text.into()))
        }
    }

    /// The name with its dots.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = SysctlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// A tree of settings: the kernel's own, or a folder that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Where the running kernel shows its settings.
    pub const KERNEL: &str = "/proc/sys";

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(name.0.replace('.', "/"))
    }

    /// The present value, its fields with one space between them.
    pub fn read(&self, name: &Name) -> Result<String, SysctlError> {
        fs::read_to_string(self.path(name))
            .map(|text| normalized(&text))
            .map_err(|source| SysctlError::Read { name: name.clone(), source })
    }

    /// Sets the value, and checks that the kernel took it as it is: some settings are clamped
    /// without an error.
    pub fn write(&self, name: &Name, value: &str) -> Result<(), SysctlError> {
        let failed =
            |source| SysctlError::Write { name: name.clone(), value: value.into(), source };
        // Never creates: a setting that the kernel does not have must not become a file.
        let mut file = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(name))
            .map_err(failed)?;
        // One write: the kernel takes each write as a whole value.
        file.write_all(format!("{value}\n").as_bytes()).map_err(failed)?;
        let present = self.read(name)?;
        if present == normalized(value) {
            Ok(())
        } else {
            Err(SysctlError::Adjusted { name: name.clone(), value: value.into(), present })
        }
    }

    /// A setting of exactly `COUNT` numbers, such as the three of `net.ipv4.tcp_mem`.
    pub fn numbers<const COUNT: usize>(&self, name: &Name) -> Result<[u64; COUNT], SysctlError> {
        let value = self.read(name)?;
        let numbers: Option<Vec<u64>> =
            value.split_whitespace().map(|field| field.parse().ok()).collect();
        numbers.and_then(|numbers| numbers.try_into().ok()).ok_or(SysctlError::Numbers {
            name: name.clone(),
            value,
            count: COUNT,
        })
    }
}

/// The kernel separates the fields of a setting by tabs, people by spaces.
#[must_use]
pub fn normalized(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_tree() {
        for good in ["net.ipv4.tcp_mem", "fs.file-max", "net.core.somaxconn"] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "tcp_mem", "net..ipv4", "../etc.passwd", "net/ipv4.x", "a.b\0", "a.b "]
        {
            assert!(Name::new(bad).is_err(), "{bad:?} was taken for a name");
        }
        assert!(serde_json::from_str::<Name>("\"..\"").is_err());
    }

    #[test]
    fn reads_writes_and_never_creates() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        let name = Name::new("net.tcp_mem").unwrap();
        fs::create_dir(folder.path().join("net")).unwrap();
        assert!(tree.write(&name, "1 2 3").is_err());
        fs::write(folder.path().join("net/tcp_mem"), "932448\t1243264\t1864896\n").unwrap();
        assert_eq!(tree.read(&name).unwrap(), "932448 1243264 1864896");
        tree.write(&name, "1 2 3").unwrap();
        assert_eq!(tree.numbers::<3>(&name).unwrap(), [1, 2, 3]);
        assert!(tree.numbers::<2>(&name).is_err());
        fs::write(folder.path().join("net/tcp_mem"), "1 -2 3").unwrap();
        assert!(tree.numbers::<3>(&name).is_err());
    }

    #[test]
    fn reads_the_running_kernel() {
        let release = Tree::at(Tree::KERNEL).read(&Name::new("kernel.osrelease").unwrap()).unwrap();
        assert!(release.starts_with(|c: char| c.is_ascii_digit()), "{release}");
    }
}
