//! Changes kernel settings, and puts them back on every way out.
//!
//! What was there before is on disk, in a state file, before the first change is made. So whatever
//! happens to the process, the next one finds the file and puts the values back. A value is put
//! back only if it is still the one that was written here: somebody who changed it meanwhile meant
//! it. Most `net.` settings are those of a network namespace: each is put back in the one that it
//! was changed in, whichever the process is in that does so.

mod kept;
mod origin;
mod outcome;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use c1m_text::escape;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::origin::{Origin, Place};
pub use self::outcome::{Outcome, RestoreResult};
use super::sysctl::{Name, SysctlError, Tree, normalized};

/// Where the state file and the lock stand. Cleared by a reboot, as the settings are.
pub const STATE_FOLDER: &str = "/run/c1m";

const STATE_FILE: &str = "sysctl.json";
const LOCK_FILE: &str = "lock";
const STATE_VERSION: u32 = 2;

/// Why settings could not be taken, changed or put back. Each says what to do.
#[derive(Debug, Error)]
pub enum GuardError {
    #[error("another run is changing kernel settings (process {pid}): wait for its end, or end it")]
    Busy { pid: String },
    #[error("cannot use {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "{path} should say which kernel settings to put back, but is not understood ({reason}): put them back by hand, then delete it"
    )]
    Garbage { path: PathBuf, reason: String },
    #[error(
        "{name} is `{present}`, neither what it was before nor what was written here: somebody else is changing it"
    )]
    Foreign { name: Name, present: String },
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// One setting and the value that it shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub name: Name,
    pub value: String,
}

/// The process that changed the settings. A process number alone may be somebody else's by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    /// Field 22 of /proc/PID/stat, clock ticks after boot.
    start_ticks: u64,
    boot_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: Name,
    old: String,
    /// Every value that may have been written: a crash can fall between the file and the change.
    written: Vec<String>,
    /// `None`: of the whole host.
    netns: Option<Origin>,
}

impl Entry {
    /// Is it this setting of this namespace?
    fn is(&self, name: &Name, netns: Option<&Origin>) -> bool {
        let same = match (&self.netns, netns) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        self.name == *name && same
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    v: u32,
    owner: Owner,
    settings: Vec<Entry>,
}

/// Holds the lock, and whatever settings were changed through it. Dropping it puts them back.
#[derive(Debug)]
pub struct Guard {
    tree: Tree,
    folder: PathBuf,
    /// Open as long as the guard lives: the kernel frees the lock with it, also after a crash.
    _lock: File,
    state: State,
}

impl Guard {
    /// Takes the lock, waiting up to `patience` for it, and puts back what a run that did not come
    /// to its end has left.
    ///
    /// The outcomes are those of that earlier run. When one of them failed, its state file stays,
    /// and is an error here only if it is changed again.
    pub fn take(
        tree: Tree,
        folder: &Path,
        patience: Duration,
    ) -> Result<(Self, Vec<Outcome>), GuardError> {
        let failed = folder_error(folder);
        fs::create_dir_all(folder).map_err(&failed)?;
        let lock = lock(folder, patience)?;
        let settings = match read_state(&folder.join(STATE_FILE))? {
            None => Vec::new(),
            Some(state) if !same_boot(&state.owner).map_err(&failed)? => Vec::new(),
            Some(state) if is_alive(&state.owner) => {
                return Err(GuardError::Busy { pid: state.owner.pid.to_string() });
            }
            Some(state) => state.settings,
        };
        let owner = Owner {
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).unwrap_or(0),
            boot_id: boot_id().map_err(failed)?,
        };
        let state = State { v: STATE_VERSION, owner, settings };
        let mut guard = Self { tree, folder: folder.into(), _lock: lock, state };
        let outcomes = guard.restore();
        Ok((guard, outcomes))
    }

    /// Makes changes, all of which are undone together later. On an error the earlier ones of the
    /// list are made, and guarded.
    pub fn set(&mut self, changes: &[Change]) -> Result<(), GuardError> {
        for Change { name, value } in changes {
            let value = normalized(value);
            let present = self.tree.read(name)?;
            let netns = Origin::of(name);
            match self.state.settings.iter_mut().find(|entry| entry.is(name, netns.as_ref())) {
                None => self.state.settings.push(Entry {
                    name: name.clone(),
                    old: present,
                    written: vec![value],
                    netns,
                }),
                Some(entry) if entry.old != present && !entry.written.contains(&present) => {
                    return Err(GuardError::Foreign { name: name.clone(), present });
                }
                Some(entry) => {
                    // The last one is the newest; nothing is listed twice.
                    entry.written.retain(|written| *written != value);
                    entry.written.push(value);
                }
            }
        }
        write_state(&self.folder, &self.state)
            .map_err(|source| GuardError::Folder { path: self.folder.clone(), source })?;
        for Change { name, value } in changes {
            if let Err(error) = self.tree.write(name, value) {
                self.take_back_adjusted(&error);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// A value that the kernel bent is not one that was written here, so it would be taken for
    /// somebody else's.
    fn take_back_adjusted(&self, error: &SysctlError) {
        let SysctlError::Adjusted { name, .. } = error else { return };
        let netns = Origin::of(name);
        let mut settings = self.state.settings.iter();
        if let Some(entry) = settings.find(|entry| entry.is(name, netns.as_ref())) {
            // When this fails too, `restore` says so.
            let _ = self.tree.write(name, &entry.old);
        }
    }

    /// Puts everything back, and says of each setting what became of it. What failed stays in the
    /// state file.
    pub fn restore(&mut self) -> Vec<Outcome> {
        // The newest change first, as one would undo by hand.
        let mut settings = std::mem::take(&mut self.state.settings);
        let mut outcomes = Vec::new();
        while let Some(entry) = settings.pop() {
            let outcome = put_back(&self.tree, &entry);
            if matches!(outcome.result, RestoreResult::Failed { .. }) {
                self.state.settings.insert(0, entry);
            }
            outcomes.push(outcome);
        }
        let kept = if self.state.settings.is_empty() {
            remove_state(&self.folder)
        } else {
            write_state(&self.folder, &self.state)
        };
        // A file that could not be removed repeats the restoring later, which then finds everything
        // unchanged.
        drop(kept);
        outcomes
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.state.settings.is_empty() {
            return;
        }
        for outcome in self.restore() {
            // Standard error may be gone together with the terminal: that must not keep the rest
            // from being put back.
            let _ = writeln!(io::stderr(), "{}", escape::line(&outcome.to_string()));
        }
    }
}

/// Where it belongs: in its network namespace.
fn put_back(tree: &Tree, entry: &Entry) -> Outcome {
    let place = entry.netns.as_ref().map_or(Ok(Place::Here), Origin::find);
    let elsewhere = match (&place, &entry.netns) {
        (Ok(Place::There(_)), Some(origin)) => Some(origin.to_string()),
        _ => None,
    };
    let result = match place {
        Ok(Place::Here) => put_back_here(tree, entry),
        Ok(Place::There(namespace)) => match namespace.within(|| put_back_here(tree, entry)) {
            Ok(result) => result,
            Err(error) => RestoreResult::Failed { reason: error.to_string() },
        },
        Ok(Place::Gone) => RestoreResult::Gone,
        Err(reason) => RestoreResult::Failed { reason },
    };
    Outcome {
        name: entry.name.clone(),
        old: entry.old.clone(),
        new: entry.written.last().cloned().unwrap_or_default(),
        elsewhere,
        result,
    }
}

fn put_back_here(tree: &Tree, entry: &Entry) -> RestoreResult {
    match tree.read(&entry.name) {
        Err(error) => RestoreResult::Failed { reason: error.to_string() },
        Ok(present) if present == entry.old => RestoreResult::Unchanged,
        Ok(present) if !entry.written.contains(&present) => RestoreResult::Foreign { present },
        Ok(_) => match tree.write(&entry.name, &entry.old) {
            Ok(()) => RestoreResult::Restored,
            Err(error) => RestoreResult::Failed { reason: error.to_string() },
        },
    }
}

fn folder_error(folder: &Path) -> impl Fn(io::Error) -> GuardError + use<> {
    let path = folder.to_path_buf();
    move |source| GuardError::Folder { path: path.clone(), source }
}

/// The settings went with the kernel that had them.
fn same_boot(owner: &Owner) -> io::Result<bool> {
    Ok(owner.boot_id == boot_id()?)
}

fn lock(folder: &Path, patience: Duration) -> Result<File, GuardError> {
    let path = folder.join(LOCK_FILE);
    let failed = |source| GuardError::Folder { path: path.clone(), source };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
                return Err(GuardError::Busy { pid: pid.into() });
            }
        }
    }
    // For the message above, in another process.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

fn read_state(path: &Path) -> Result<Option<State>, GuardError> {
    let garbage = |reason: String| GuardError::Garbage { path: path.into(), reason };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(GuardError::Folder { path: path.into(), source }),
    };
    let state: State =
        serde_json::from_slice(&bytes).map_err(|error| garbage(error.to_string()))?;
    if state.v != STATE_VERSION {
        return Err(garbage(format!("version {}", state.v)));
    }
    Ok(Some(state))
}

/// The file is there as a whole or not at all, also after a crash of the machine.
fn write_state(folder: &Path, state: &State) -> io::Result<()> {
    write_as(folder, STATE_FILE, state)
}

fn write_as(folder: &Path, name: &str, state: &State) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    serde_json::to_writer_pretty(&mut file, state)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn remove_state(folder: &Path) -> io::Result<()> {
    remove(folder, STATE_FILE)
}

fn remove(folder: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(folder)?.sync_all(),
    }
}

fn is_alive(owner: &Owner) -> bool {
    start_ticks(owner.pid) == Some(owner.start_ticks)
}

/// When a process started, in clock ticks after boot; `None` when there is none of that number, or
/// it has ended and was not waited for yet.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, and may have anything in it. The state
    // follows it; field 22 is the 20th after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests;
