//! The network namespace that a setting belongs to: each has its own value of most `net.` settings.

use std::path::PathBuf;

use c1m_sys::{
    netns::{self, Namespace},
    process::{effective_capabilities, is_in_own_user_namespace},
};
use serde::{Deserialize, Serialize};

use crate::namespaces;

use super::Name;

/// Of CAP_SYS_ADMIN and CAP_SYS_PTRACE, with which every namespace that something keeps can be
/// seen: include/uapi/linux/capability.h.
const SEES_ALL: u64 = 1 << 21 | 1 << 19;

/// A network namespace, so that it is known again by another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) inode: u32,
    /// Of the file system that the inode is of.
    dev: u64,
    /// `None` before Linux 5.14. Inodes are given to later namespaces again, cookies are not.
    cookie: Option<u64>,
    /// Where it was mounted, such as /run/netns/blue.
    mount: Option<PathBuf>,
}

/// Where a namespace is, seen from the calling thread.
pub(super) enum Place {
    /// The thread is in it.
    Here,
    There(Namespace),
    /// Nothing keeps it any more: its settings went with it.
    Gone,
}

impl Origin {
    /// That of the calling thread. `None`: there is no /proc.
    pub(super) fn here() -> Option<Self> {
        let own = namespaces::own().ok()?;
        let mount = namespaces::mounts().into_iter().find(|(inode, _)| *inode == own.inode);
        let mount = mount.map(|(_, path)| match path.strip_prefix("/proc/self/root") {
            Ok(below) => PathBuf::from("/").join(below),
            Err(_) => path,
        });
        Some(Self { inode: own.inode, dev: own.dev, cookie: netns::cookie().ok(), mount })
    }

    /// That of a setting which the calling thread reads or writes; `None` for one that is the whole
    /// host's.
    pub(super) fn of(name: &Name) -> Option<Self> {
        if name.as_str().starts_with("net.") { Self::here() } else { None }
    }

    /// Are they one namespace? Where it is mounted may have changed.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same_cookie = self.cookie.zip(other.cookie).is_none_or(|(one, other)| one == other);
        (self.inode, self.dev) == (other.inode, other.dev) && same_cookie
    }

    /// Finds it.
    ///
    /// # Errors
    /// It can't be found or entered from here: what to do, in words.
    pub(super) fn find(&self) -> Result<Place, String> {
        if Self::here().is_some_and(|here| self.is(&here)) {
            return Ok(Place::Here);
        }
        let found =
            namespaces::by_inode(self.inode).map_err(|error| format!("no /proc ({error})"))?;
        let Some(namespace) = found.filter(|it| it.dev == self.dev) else {
            return if sees_all() {
                Ok(Place::Gone)
            } else {
                Err(format!(
                    "its {self} can't be found from here: put it back from inside of it, or as root of the host"
                ))
            };
        };
        let cookie = namespace.within(|| netns::cookie().ok()).map_err(|error| {
            format!("its {self} can't be entered from here ({error}): put it back as root, or from inside of it")
        })?;
        match self.cookie.zip(cookie) {
            // The inode was given to another one.
            Some((before, now)) if before != now => Ok(Place::Gone),
            _ => Ok(Place::There(namespace)),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "network namespace net:[{}]", self.inode)?;
        match &self.mount {
            Some(mount) => write!(f, " ({})", mount.display()),
            None => Ok(()),
        }
    }
}

/// Is a namespace that is not found none? Not inside a container, nor without the privilege to look
/// at every process.
fn sees_all() -> bool {
    namespaces::is_initial_pid_namespace()
        && !is_in_own_user_namespace()
        && effective_capabilities().is_ok_and(|own| own & SEES_ALL == SEES_ALL)
}
