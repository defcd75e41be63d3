//! nginx as Debian ships it, in a network namespace and a cgroup of its own, with clients that do not read: what `watch`, `holders` and
//! `states` say of it on the host, compared with ss in its namespace.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::SystemTime,
};

use c1m_host::task;
use c1m_record::{
    Confidence, Crossing, Direction, HolderRow, Level, LimitName, Line, Record, Resolution,
    TcpState,
};
use c1m_sys::{
    confine,
    netns::{Namespace, OWN},
    process::{page_bytes, spawn_dying_with_parent, terminate},
};
use c1m_testkit::{
    Settings, Skip,
    cgroup::Cgroup,
    eventually,
    host::until_quiet,
    only,
    trip::{reset_all, slow_readers as read_slowly},
};
use tempfile::TempDir;

use crate::{
    held::{by_ss, count_states, look},
    host::{cpus, reset},
    server::needs_ebpf,
    watch::Watch,
};

/// Names the program, where it is not installed.
const PROGRAM: &str = "C1M_NGINX";
const INSTALLED: &str = "/usr/sbin/nginx";
/// What a slow reader asks for.
const BODY_BYTES: usize = 1 << 20;
/// So many readers once usage is above high.
const READERS_ABOVE: usize = 20;
const INTERVAL: &str = "200ms";
/// Of what ss sums, two in a hundred may differ.
const TOLERANCE: u64 = 50;

pub(crate) fn slow_readers() -> Result<(), Skip> {
    needs_ebpf()?;
    let program = program()?;
    if Command::new("ss").arg("-V").output().is_err() {
        return Err(Skip("no ss (iproute2) to compare with".into()));
    }
    let mut settings = Settings::take()?;
    until_quiet().unwrap();
    let scale = 512 * cpus().max(2);
    let limits = [scale, scale * 3 / 2, scale * 2];
    settings.set(&[("net.ipv4.tcp_mem", format!("{} {} {}", limits[0], limits[1], limits[2]))])?;
    let host = Namespace::open(Path::new(OWN)).unwrap();
    // The namespace ends with this thread and with nginx, which the kernel ends with the thread.
    let inside = thread::scope(|scope| {
        let body = || {
            confine::unshare_network()
                .map_err(|error| Skip(format!("no network namespace: {error}")))?;
            beside(&host, &program, limits)
        };
        scope.spawn(body).join()
    });
    settings.put_back();
    inside.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn program() -> Result<PathBuf, Skip> {
    let named = env::var_os(PROGRAM).map(PathBuf::from);
    let installed = || Some(PathBuf::from(INSTALLED)).filter(|file| file.is_file());
    named
        .or_else(installed)
        .ok_or_else(|| Skip(format!("no {INSTALLED}, and no other one named by {PROGRAM}")))
}

/// All but the settings, in the namespace that nginx is to be in.
fn beside(host: &Namespace, program: &Path, limits: [u64; 3]) -> Result<(), Skip> {
    let nginx = Nginx::start(program)?;
    let inode = Namespace::open(Path::new(OWN)).unwrap().inode;
    // By its process, by its cgroup, and with nothing but the host to start from.
    let (master, cgroup) = (nginx.master.id().to_string(), nginx.cgroup.path());
    let ways: [&[&str]; 3] = [&["--pid", &master], &["--cgroup", &cgroup], &[]];
    let started = |way: &&[&str]| Watch::start(&[*way, &["--interval", INTERVAL]].concat());
    let mut watches = host.within(|| ways.each_ref().map(started)).unwrap();
    for (watch, way) in watches.iter_mut().zip(ways) {
        let watching = watch.watching();
        let is_named = !way.is_empty();
        let port = nginx.address.port();
        assert_eq!(watching.ports, if is_named { vec![port] } else { vec![] }, "{way:?}");
        assert_eq!(watching.netns, is_named.then_some(inode), "{way:?}");
    }
    let before = SystemTime::now();
    let readers = read_slowly(nginx.address, limits[2], READERS_ABOVE).unwrap();
    let after = SystemTime::now();

    for (watch, way) in watches.iter_mut().zip(ways) {
        let held = watch.held_by(nginx.worker, limits[0] / 2);
        check_names(&held, &nginx);
        let ended = watch.finish();
        assert_eq!(ended.limit, Some(LimitName::TcpMemHigh), "{way:?}: {ended:?}");
        check_watch(watch, &nginx, (inode, limits), [before, after]);
        // Whose limits are read is known where somebody was named.
        let has_nofile = watch.records().any(|record| match record {
            Record::Limits(limits) => {
                limits.limits.iter().any(|it| it.limit == LimitName::Nofile && it.ceiling.is_some())
            }
            _ => false,
        });
        assert_eq!(has_nofile, !way.is_empty(), "{way:?}");
    }
    check_holders(host, &nginx, inode);
    check_states(host, inode, nginx.address.port(), readers.len() as u64);
    reset_all(readers).unwrap();
    Ok(())
}

fn check_names(row: &HolderRow, nginx: &Nginx) {
    assert_eq!(row.pid, Some(nginx.worker), "{row:?}");
    assert_eq!(row.comm.as_deref(), Some("nginx"), "{row:?}");
    assert_eq!(row.cgroup.as_deref(), Some(nginx.cgroup.path().as_str()), "{row:?}");
}

/// The instant, the limit, and where.
fn check_watch(
    watch: &Watch,
    nginx: &Nginx,
    (inode, limits): (u32, [u64; 3]),
    [before, after]: [SystemTime; 2],
) {
    let is_high = |it: &Crossing| it.level == Level::High && it.direction == Direction::Up;
    let crossed = watch.lines.iter().find_map(|line: &Line<Record>| match &line.record {
        Record::Crossing(crossing) if is_high(crossing) => Some((&line.ts, crossing)),
        _ => None,
    });
    let (ts, crossing) = crossed.unwrap_or_else(|| panic!("no crossing: {:#?}", watch.lines));
    let instant = |time| humantime::format_rfc3339_micros(time).to_string();
    assert!(*ts >= instant(before) && *ts <= instant(after), "{ts} {crossing:?}");
    assert_eq!((crossing.tcp_mem, crossing.limit_pages), (limits, limits[2]), "{crossing:?}");
    if crossing.resolution != Resolution::Interval {
        assert_eq!(crossing.socket.netns, Some(inode), "{crossing:?}");
        let (local, remote) = (&crossing.socket.local, &crossing.socket.remote);
        let address = Some(nginx.address.to_string());
        assert!([local, remote].contains(&&address), "{crossing:?}");
    }
    let pid = crossing.socket.pid;
    assert!(pid.is_none_or(|pid| pid == nginx.worker || pid == std::process::id()), "{crossing:?}");
    let verdict = watch.last(only!(Record::Verdict)).unwrap();
    let first = &verdict.causes[0];
    assert_eq!(
        (first.limit, first.confidence),
        (LimitName::TcpMemHigh, Confidence::Certain),
        "{verdict:?}"
    );
}

/// What one end's sockets hold, as `ss -tm` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Skmem {
    receive: u64,
    send: u64,
    forward: i64,
    backlog: u64,
    pages: u64,
}

/// `skmem:(r<receive>,rb<…>,t<…>,tb<…>,f<forward>,w<send>,o<…>,bl<backlog>,d<…>)` of every connection on this local port: see docs/holders.md.
fn by_ss_memory(port: u16) -> Skmem {
    let filter = format!("sport = :{port}");
    let output = Command::new("ss").args(["-tmnHO", &filter]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut sum = Skmem::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (_, memory) = line.split_once("skmem:(").unwrap_or_else(|| panic!("{line}"));
        let words = memory.trim_end().trim_end_matches(')').split(',');
        let of = |name: &str| -> i64 {
            let number = |word: &str| word.strip_prefix(name)?.parse::<u32>().ok();
            // The kernel's word has no sign there.
            words.clone().find_map(number).unwrap_or_else(|| panic!("{name}: {line}")).into()
        };
        let [receive, send, backlog] = ["r", "w", "bl"].map(|name| of(name).cast_unsigned());
        let forward = i64::from(u32::try_from(of("f")).unwrap().cast_signed());
        let charged = (receive + send).saturating_add_signed(forward);
        sum.receive += receive;
        sum.send += send;
        sum.forward += forward;
        sum.backlog += backlog;
        sum.pages += charged.div_ceil(page_bytes().unwrap());
    }
    sum
}

/// nginx first, with what ss sums.
fn check_holders(host: &Namespace, nginx: &Nginx, inode: u32) {
    let port = nginx.address.port();
    let netns = format!("inode:{inode}");
    for arguments in [&["--netns", netns.as_str()][..], &[]] {
        let (mut by_ss, mut row) = (Skmem::default(), None);
        // Nothing moves but probes of full windows; a segment that was dropped may be sent once more.
        let is_still = eventually(|| {
            by_ss = by_ss_memory(port);
            let snapshot = host.within(|| look(arguments)).unwrap();
            row = snapshot.rows.first().cloned();
            by_ss == by_ss_memory(port)
        });
        let row = row.unwrap();
        assert!(is_still, "{by_ss:?} {row:?}");
        check_names(&row, nginx);
        let memory = &row.memory;
        let is_near = |found: u64, by_ss: u64| found.abs_diff(by_ss) * TOLERANCE <= by_ss;
        assert!(by_ss.send > 0 && is_near(memory.send_bytes, by_ss.send), "{by_ss:?} {row:?}");
        assert!(is_near(memory.pages, by_ss.pages), "{by_ss:?} {row:?}");
        assert!(is_near(memory.receive_bytes, by_ss.receive), "{by_ss:?} {row:?}");
        assert!(is_near(memory.backlog_bytes, by_ss.backlog), "{by_ss:?} {row:?}");
        let forward = memory.forward_bytes.abs_diff(by_ss.forward);
        assert!(forward * TOLERANCE <= by_ss.forward.unsigned_abs(), "{by_ss:?} {row:?}");
    }
}

/// Row for row what `ss -tan` shows.
fn check_states(host: &Namespace, inode: u32, port: u16, readers: u64) {
    let netns = format!("inode:{inode}");
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    let is_still = eventually(|| {
        shown = by_ss().unwrap().into_iter().collect();
        let snapshot = host.within(|| count_states(&["--netns", &netns])).unwrap();
        assert!(snapshot.rows.iter().all(|row| row.netns == inode), "{snapshot:?}");
        rows = snapshot.rows.iter().map(|row| ((row.state, row.port), row.count)).collect();
        rows.sort_unstable();
        by_ss().unwrap().into_iter().eq(shown.iter().copied())
    });
    assert!(is_still, "{shown:?}");
    assert_eq!(rows, shown);
    let count = |state| rows.iter().find(|(key, _)| *key == (state, port)).map(|(_, count)| *count);
    assert_eq!(count(TcpState::Established), Some(readers), "{rows:?}");
    assert_eq!(count(TcpState::Listen), Some(1), "{rows:?}");
}

/// A master and one worker, as Debian's settings have it.
struct Nginx {
    master: Child,
    worker: u32,
    address: SocketAddr,
    _folder: TempDir,
    cgroup: Cgroup,
}

impl Nginx {
    fn start(program: &Path) -> Result<Self, Skip> {
        let cgroup = Cgroup::new("nginx")?;
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        fs::create_dir(folder.path().join("bytes")).unwrap();
        let body = folder.path().join("bytes").join(BODY_BYTES.to_string());
        fs::write(body, vec![b'x'; BODY_BYTES]).unwrap();
        // Nobody else is in this namespace.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = folder.path().join("settings");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};"));
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\nevents {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; {} server {{ listen {address}; root {at}; }} }}\n",
            temporary.join(" ")
        );
        fs::write(&settings, text).unwrap();
        // In the cgroup before it has a socket.
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(cgroup.folder.join("cgroup.procs"))
            .arg(program)
            .args(["-e", "stderr", "-c"])
            .arg(&settings);
        // The master ends its worker, which a SIGKILL would not.
        let master = spawn_dying_with_parent(&mut command, libc::SIGTERM).unwrap();
        let mut nginx = Self { master, worker: 0, address, _folder: folder, cgroup };
        let is_there = eventually(|| {
            assert!(nginx.master.try_wait().unwrap().is_none(), "nginx does not start");
            nginx.worker = task::family(nginx.master.id()).get(1).copied().unwrap_or(0);
            nginx.worker != 0 && TcpStream::connect(address).map(reset).is_ok()
        });
        assert!(is_there, "nginx does not listen");
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // One that has ended is not an error.
        let _ = terminate(&mut self.master);
        if !eventually(|| matches!(self.master.try_wait(), Ok(Some(_)) | Err(_))) {
            let _ = self.master.kill();
        }
    }
}
