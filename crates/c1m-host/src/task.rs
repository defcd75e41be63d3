//! Other processes: their descriptors, their limits, those that they started, and the ports on
//! which they listen. Nothing here is read once a descriptor or once a socket, but for the search
//! for listeners, which has an end.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use c1m_sys::files::share_table;

/// Processes that are looked at, at most: two small files of each, once an interval.
pub const PROCESSES_MAX: usize = 1024;
/// Descriptors of a process among which its listeners are searched: a server opens them first.
const DESCRIPTORS_MAX: usize = 4096;
/// Threads of a process that are asked for a table of their own: as many as c1m-server has workers
/// at most.
pub const THREADS_MAX: usize = 4096;

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// The processes that are seen from here.
///
/// # Errors
/// There is no /proc.
pub fn all() -> io::Result<Vec<u32>> {
    entries(Path::new("/proc"))
}

/// The threads of a process; none where it has ended.
#[must_use]
pub fn threads_of(pid: u32) -> Vec<u32> {
    entries(&folder(pid).join("task")).unwrap_or_default()
}

/// The entries of a folder whose names are numbers.
fn entries(folder: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The name of a process; `None`: there is none of that number.
#[must_use]
pub fn comm(pid: u32) -> Option<String> {
    let name = fs::read(folder(pid).join("comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// The process that started it, or that took it over.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(folder(pid).join("status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// How many descriptors the process has open, in the fullest of its tables: the size of its folder,
/// which the kernel tells since 6.2 (fs/proc/fd.c, proc_fd_getattr). `None`: an older kernel, or
/// not to be seen from here.
#[must_use]
pub fn descriptors(pid: u32) -> Option<u64> {
    let size = |folder: PathBuf| fs::metadata(folder).ok().map(|folder| folder.len());
    // Every process that can be looked at has some, and 0 is what older kernels say.
    tables(pid).filter_map(size).max().filter(|count| *count > 0)
}

/// The inode in `socket:[123]`, the link of a socket's descriptor.
pub(super) fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The descriptors of its main thread, and of its other ones, as far as they are not known to share
/// its table.
fn tables(pid: u32) -> impl Iterator<Item = PathBuf> {
    let threads = fs::read_dir(folder(pid).join("task")).into_iter().flatten();
    let of_threads = threads.take(THREADS_MAX).filter_map(move |thread| {
        let thread = thread.ok()?;
        let number = thread.file_name().to_str()?.parse().ok()?;
        let shares = number == pid || share_table(pid, number).unwrap_or(false);
        (!shares).then(|| thread.path().join("fd"))
    });
    std::iter::once(folder(pid).join("fd")).chain(of_threads)
}

/// How many threads it has; the kernel tells it as the links of the folder (fs/proc/base.c,
/// proc_task_getattr). `None`: it has ended.
#[must_use]
pub fn threads(pid: u32) -> Option<u64> {
    fs::metadata(folder(pid).join("task")).ok()?.nlink().checked_sub(2)
}

/// Its soft limit of open files.
#[must_use]
pub fn nofile(pid: u32) -> Option<u64> {
    parse_nofile(&fs::read_to_string(folder(pid).join("limits")).ok()?)
}

fn parse_nofile(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The process and those that it started, and they, and so on.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let (mut family, mut seen) = (vec![pid], BTreeSet::from([pid]));
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        // A number may be given to another process while this goes on: none is taken twice.
        family.extend(children(parent).into_iter().filter(|child| seen.insert(*child)));
    }
    family
}

/// Of every thread; nothing where the kernel has no such file (CONFIG_PROC_CHILDREN).
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(folder(pid).join("task")) else { return Vec::new() };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|text| numbers(&text))
        .collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The local ports on which these processes listen, in order.
///
/// # Errors
/// Not one of them can be looked at: the error of the first.
pub fn listening_ports(pids: &[u32]) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let mut refused = None;
    let mut seen = false;
    for pid in pids {
        match sockets(*pid) {
            Ok(sockets) => {
                seen = true;
                let listeners = ["tcp", "tcp6"].into_iter().flat_map(|name| listeners(*pid, name));
                ports.extend(
                    listeners.filter(|(_, inode)| sockets.contains(inode)).map(|(port, _)| port),
                );
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) if !seen => Err(error),
        _ => Ok(ports),
    }
}

/// Inodes of the sockets among the first descriptors of its tables.
///
/// # Errors
/// It has ended, or may not be looked at.
pub fn sockets(pid: u32) -> io::Result<BTreeSet<u64>> {
    let mut sockets = sockets_of(&folder(pid).join("fd"))?;
    for table in tables(pid).skip(1) {
        // A thread that has ended meanwhile is no error.
        sockets.extend(sockets_of(&table).unwrap_or_default());
    }
    Ok(sockets)
}

fn sockets_of(table: &Path) -> io::Result<BTreeSet<u64>> {
    Ok(fs::read_dir(table)?
        .take(DESCRIPTORS_MAX)
        .filter_map(|entry| socket_inode(&fs::read_link(entry.ok()?.path()).ok()?))
        .collect())
}

/// Port and inode of each listener of its network namespace. They stand before all connections in
/// the file (net/ipv4/tcp_ipv4.c, tcp_seq_start, 5.4 to 6.18), so that reading ends where those
/// begin.
fn listeners(pid: u32, name: &str) -> Vec<(u16, u64)> {
    let Ok(file) = fs::File::open(folder(pid).join("net").join(name)) else { return Vec::new() };
    let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
    lines.map_while(|line| parse_listener(&line)).collect()
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`, numbers of the first
/// ones in hexadecimal. `None`: no listener.
fn parse_listener(line: &str) -> Option<(u16, u64)> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_, port) = words.next()?.rsplit_once(':')?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_seen_like_any_other() {
        let own = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = listening_ports(&[own]).unwrap();
        assert!(ports.contains(&port), "{ports:?}");
        drop(listener);
        assert!(!listening_ports(&[own]).unwrap().contains(&port));
        let (soft, _) = c1m_sys::process::nofile().unwrap();
        assert_eq!(nofile(own), Some(soft));
        assert!(comm(own).is_some() && family(own).contains(&own));
    }

    #[test]
    fn links_of_sockets_have_an_inode() {
        assert_eq!(socket_inode(Path::new("socket:[17]")), Some(17));
        for other in ["pipe:[17]", "socket:[x]", "/dev/null", "socket:[17"] {
            assert_eq!(socket_inode(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_it_started_is_its_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        let family = family(own);
        assert_eq!(parent(child.id()), Some(own));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()), "{family:?}");
    }

    /// `None`: on a kernel that does not say how many there are.
    fn known_descriptors(pid: u32) -> Option<u64> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
        let is_told = (numbers.next(), numbers.next()) >= (Some(6), Some(2));
        let count = descriptors(pid);
        assert!(count.is_some() || !is_told, "{release}");
        count
    }

    #[test]
    fn open_descriptors_are_counted_without_reading_them() {
        let own = std::process::id();
        let Some(before) = known_descriptors(own) else { return };
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let after = descriptors(own).unwrap();
        drop(files);
        // Other tests of this process open and close theirs meanwhile.
        assert!(after + 40 > before && after >= 50, "{before} {after}");
    }

    #[test]
    fn a_process_that_is_gone_is_unknown() {
        // Beyond the largest number that there can be (include/linux/threads.h, PID_MAX_LIMIT).
        let nobody = 5_000_000;
        assert_eq!((comm(nobody), nofile(nobody), descriptors(nobody)), (None, None, None));
        assert_eq!(family(nobody), [nobody]);
        assert!(listening_ports(&[nobody]).is_err());
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let listener = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100 0";
        assert_eq!(parse_listener(listener), Some((8080, 4711)));
        assert_eq!(parse_listener(&listener.replace(" 0A ", " 01 ")), None);
        let v6 = listener.replace("0100007F:", "00000000000000000000000001000000:");
        assert_eq!(parse_listener(&v6), Some((8080, 4711)));
        assert_eq!(parse_listener(""), None);
        assert_eq!(parse_nofile("Max open files            1024     4096     files\n"), Some(1024));
        assert_eq!(parse_nofile("Max open files  unlimited unlimited files\n"), None);
    }

    #[test]
    fn every_thread_is_asked_for_a_table_of_its_own() {
        use c1m_sys::{epoll::Waker, thread::spawn_with_own_table};
        const OTHERS: usize = 70;
        let own = std::process::id();
        let Some(before) = known_descriptors(own) else { return };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
        // They share the main table, and come before the one that does not.
        let sharing: Vec<_> = (0..OTHERS)
            .map(|_| {
                let ended = ended.clone();
                std::thread::spawn(move || {
                    // Until the sender is gone.
                    let _ = ended.lock().unwrap().recv();
                })
            })
            .collect();
        let (wanted, done) = std::sync::mpsc::channel::<()>();
        let more = usize::try_from(before).unwrap() + 500;
        let (ready, is_ready) = std::sync::mpsc::channel();
        let apart = spawn_with_own_table("apart".into(), 1 << 18, Vec::new(), move || {
            let files: Vec<_> = (0..more).map(|_| Waker::new().unwrap()).collect();
            ready.send(()).unwrap();
            let _ = done.recv();
            files.len()
        });
        is_ready.recv().unwrap();
        let seen = descriptors(own).unwrap();
        assert!(threads(own).unwrap() > OTHERS as u64);
        drop((wanted, end));
        assert_eq!(apart.unwrap().join().unwrap().unwrap(), more);
        sharing.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(seen >= more as u64, "{seen} of {more}");
        assert_eq!(threads(5_000_000), None);
    }
}
