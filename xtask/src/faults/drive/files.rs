//! Descriptors, files, and what watches them.

use std::{
    fs::{self, Permissions},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use c1m_host::files::file_nr;
use c1m_record::Record;

use super::super::{
    program::{Confined, Program},
    stand::{Stand, Step, Stop, all_answer, answers, bound, connect, eventually, start_connecting},
};

const NOFILE: u64 = 256;
/// Of so many connections, these have room in it; the rest has room in the accept queue.
const MORE_THAN_NOFILE: usize = 270;
const TAKEN: usize = 150;
const PACE: Duration = Duration::from_millis(2);
/// More than the accept queue holds.
const LATE: usize = 60;
const NOFILE_OF_OTHER: u64 = 200;
/// Files that are left to the host.
const FILES_LEFT: u64 = 20;
const MORE_THAN_LEFT: usize = 100;
/// `nobody`, on every distribution.
const NOBODY: u32 = 65_534;
const WATCHES: usize = 1_500;
const MORE_THAN_WATCHES: usize = 1_700;

fn connections(server: &Program, count: usize) -> Step<Vec<TcpStream>> {
    (0..count).map(|_| connect(server.address)).collect()
}

/// Waits until the server itself says what it could not do.
fn until_warned(server: &mut Program, name: &str) -> Step {
    let warned = |record: &Record| match record {
        Record::Warning(warning) if warning.name == name => Some(()),
        _ => None,
    };
    if server.records.iter().any(|record| warned(record).is_some()) {
        return Ok(());
    }
    match server.wait_for(warned)? {
        Some(()) => Ok(()),
        None => Err(Stop::wrong(format!("not tripped: the server met no {name}"))),
    }
}

/// The server's descriptor table is full; the others wait in its accept queue until somebody goes.
pub(crate) fn nofile(stand: &mut Stand<'_>) -> Step {
    let confined = Confined { nofile: Some(NOFILE), ..Confined::default() };
    stand.observe(&["--workers", "1"], confined)?;
    let server = stand.observer()?;
    let mut streams = connections(server, TAKEN)?;
    streams.iter_mut().try_for_each(answers)?;
    // One after the other, so that each is in the accept queue when the table is full: that queue is short.
    let mut rest = Vec::new();
    for _ in TAKEN..MORE_THAN_NOFILE {
        rest.push(connect(server.address)?);
        thread::sleep(PACE);
    }
    until_warned(server, "EMFILE")?;
    let address = server.address;
    // The symptom that follows: nobody empties the queue. These go before they are let in.
    let late = (0..LATE).map(|_| start_connecting(bound()?, address)).collect::<Step<Vec<_>>>()?;
    stand.until_moved("ListenOverflows", 1)?;
    drop(late);
    drop(streams);
    all_answer(address, &mut rest)
}

/// The same with somebody else's server.
pub(crate) fn nofile_of_other(stand: &mut Stand<'_>) -> Step {
    let other = stand.watched(Some(NOFILE_OF_OTHER))?;
    let mut streams =
        (0..MORE_THAN_NOFILE).map(|_| connect(other.address)).collect::<Step<Vec<_>>>()?;
    eventually("it met no EMFILE", || Ok(other.said()?.contains("Too many open files")))?;
    let mut rest = streams.split_off(MORE_THAN_NOFILE - TAKEN);
    drop(streams);
    all_answer(other.address, &mut rest)?;
    other.finish()
}

/// The limit does not hold for CAP_SYS_ADMIN (fs/file_table.c, `alloc_empty_file`, 5.4 to 6.18). The server gave its capabilities up
/// after it had attached; this program did not.
pub(crate) fn file_max(stand: &mut Stand<'_>) -> Step {
    let address = stand.observe(&["--workers", "1"], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    answers(&mut healthy[0])?;
    let limit = file_nr()?.allocated + FILES_LEFT;
    stand.set(&[("fs.file-max", limit.to_string())])?;
    let server = stand.observer()?;
    healthy.extend(connections(server, MORE_THAN_LEFT)?);
    until_warned(server, "ENFILE")?;
    stand.put_back()?;
    all_answer(address, &mut healthy)
}

/// The limit is the same for each user, and what is counted is the user's own: so the server is somebody else than all others.
pub(crate) fn epoll_watches(stand: &mut Stand<'_>) -> Step {
    let others = watches()?;
    if others > WATCHES / 2 {
        return Err(Stop::skip(format!("the host has {others} epoll watches already")));
    }
    stand.observe(&[], Confined::default())?;
    let program = Copy::of(stand.server_program())?;
    let confined = Confined { user: Some(NOBODY), ..Confined::default() };
    let mut server = Program::start(&program.0, &["--workers", "1"], confined)?;
    stand.set(&[("fs.epoll.max_user_watches", WATCHES.to_string())])?;
    let mut streams = connections(&server, MORE_THAN_WATCHES)?;
    until_warned(&mut server, "ENOSPC")?;
    stand.put_back()?;
    // Whom the server could not watch it closed; who came first was taken by no limit.
    streams.truncate(WATCHES / 2);
    all_answer(server.address, &mut streams)?;
    server.finish()
}

/// Watched descriptors of the whole host.
fn watches() -> Step<usize> {
    let mut count = 0;
    for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
        // Processes and descriptors come and go.
        let Ok(infos) = fs::read_dir(process.path().join("fdinfo")) else { continue };
        for info in infos.filter_map(Result::ok) {
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            count += text.lines().filter(|line| line.starts_with("tfd:")).count();
        }
    }
    Ok(count)
}

/// A program in a place where anybody may run it. It goes with this value.
struct Copy(PathBuf);

impl Copy {
    fn of(program: &PathBuf) -> Step<Self> {
        let name = format!("c1m-server-of-faults-{}", std::process::id());
        let copy = Self(std::env::temp_dir().join(name));
        fs::copy(program, &copy.0)?;
        fs::set_permissions(&copy.0, Permissions::from_mode(0o755))?;
        // The descriptor through which it was written is closed everywhere once it can be run.
        eventually("the copy is busy", || Ok(fs::File::open(&copy.0).is_ok()))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Nobody misses it.
        let _ = fs::remove_file(&self.0);
    }
}
