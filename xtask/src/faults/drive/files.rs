//! Descriptors, files, and what watches them.

use std::{fs, io, thread, time::Duration};

use c1m_host::files::file_nr;
use c1m_record::Record;
use c1m_testkit::{
    child::Copy,
    net::{answers, bound_for, connect, connections, start_connecting},
    trip::{Step, Stop},
};

use super::super::{
    fixture::{Fixture, all_answer, eventually},
    program::{Confined, Program},
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

/// Waits until the server itself says what it could not do.
fn until_warned(server: &mut Program, name: &str) -> Step {
    let warned = |record: &Record| match record {
        Record::Warning(warning) if warning.name == name => Some(()),
        _ => None,
    };
    let before = server.records().find_map(warned);
    match before.or_else(|| server.find(warned)) {
        Some(()) => Ok(()),
        None => Err(Stop::wrong(format!("not tripped: the server met no {name}"))),
    }
}

/// The server's descriptor table is full; the others wait in its accept queue until somebody goes.
pub(crate) fn nofile(fixture: &mut Fixture<'_>) -> Step {
    let confined = Confined { nofile: Some(NOFILE), ..Confined::default() };
    fixture.observe(&["--workers", "1"], confined)?;
    let server = fixture.observer()?;
    let mut streams = connections(server.address, TAKEN)?;
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
    let late = (0..LATE)
        .map(|_| start_connecting(bound_for(address)?, address))
        .collect::<io::Result<Vec<_>>>()?;
    fixture.until_moved("ListenOverflows", 1)?;
    drop(late);
    drop(streams);
    all_answer(address, &mut rest)
}

/// The same with somebody else's server.
pub(crate) fn nofile_of_other(fixture: &mut Fixture<'_>) -> Step {
    let other = fixture.watched(Some(NOFILE_OF_OTHER))?;
    let mut streams = connections(other.address, MORE_THAN_NOFILE)?;
    eventually("it met no EMFILE", || Ok(other.said()?.contains("Too many open files")))?;
    let mut rest = streams.split_off(MORE_THAN_NOFILE - TAKEN);
    drop(streams);
    all_answer(other.address, &mut rest)?;
    other.finish()
}

/// The limit does not hold for CAP_SYS_ADMIN (fs/file_table.c, `alloc_empty_file`, 5.4 to 6.18). The server gave its capabilities up
/// after it had attached; this program did not.
pub(crate) fn file_max(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&["--workers", "1"], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    answers(&mut healthy[0])?;
    let limit = file_nr()?.allocated + FILES_LEFT;
    fixture.set(&[("fs.file-max", limit.to_string())])?;
    let server = fixture.observer()?;
    healthy.extend(connections(server.address, MORE_THAN_LEFT)?);
    until_warned(server, "ENFILE")?;
    fixture.put_back()?;
    all_answer(address, &mut healthy)
}

/// The limit is the same for each user, and what is counted is the user's own: so the server is somebody else than all others.
pub(crate) fn epoll_watches(fixture: &mut Fixture<'_>) -> Step {
    let others = watches()?;
    if others > WATCHES / 2 {
        return Err(Stop::skip(format!("the host has {others} epoll watches already")));
    }
    fixture.observe(&[], Confined::default())?;
    let program = Copy::of(fixture.server_program())?;
    let confined = Confined { user: Some(NOBODY), ..Confined::default() };
    let mut server = Program::start(&program.path, &["--workers", "1"], confined)?;
    fixture.set(&[("fs.epoll.max_user_watches", WATCHES.to_string())])?;
    let mut streams = connections(server.address, MORE_THAN_WATCHES)?;
    until_warned(&mut server, "ENOSPC")?;
    fixture.put_back()?;
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
