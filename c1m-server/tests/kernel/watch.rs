//! `c1m-server watch` on servers that are not ours: this test is one of them.

use std::{
    env,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use c1m_host::task;
use c1m_record::{
    Confidence, Crossing, Direction, Ended, HolderRow, Level, LimitName, Line, Record, Resolution,
    Usage, Warning, Watching,
};
use c1m_sys::confine;
use c1m_testkit::{
    Child, Outcome, PATIENCE, Program, Skip,
    child::{closed_pipe, outcome},
    eventually,
    host::{reserve_pages, until_quiet},
    only, schema, undisturbed,
};

use crate::{
    environment,
    host::{connect, cpus, pair, reset},
    server::{binary, needs_ebpf},
};

/// What this program does instead of testing, when a watch has started it: see [`run_role`].
pub(crate) const ROLE: &str = "C1M_KERNEL_TEST_ROLE";
const INTERVAL: &str = "200ms";
/// Two pages in a receive queue.
const UNREAD: [u8; 5000] = [b'x'; 5000];

/// Does a part of a test and ends, if it was asked to by its environment.
pub(crate) fn run_role() {
    match env::var(ROLE).as_deref() {
        // As many descriptors as there can be, and one more.
        Ok("exhaust") => {
            confine::set_nofile(32).unwrap();
            let mut held = Vec::new();
            while let Ok(socket) = TcpListener::bind("127.0.0.1:0") {
                held.push(socket);
            }
        }
        Ok("wait") => thread::sleep(2 * PATIENCE),
        Ok(environment::ROLE_MEMBER) => environment::become_member(),
        Ok(environment::ROLE_CONFINED) => environment::watch_confined(),
        Ok(environment::ROLE_KEEPER) => environment::keep_network(),
        Ok(crate::inherit::ROLE_REPORT) => crate::inherit::report(),
        Ok("fail") => crate::calls::fail(crate::calls::FAILURES),
        _ => return,
    }
    std::process::exit(0);
}

/// A running watch.
pub(crate) struct Watch(Program<Record>);

impl Deref for Watch {
    type Target = Program<Record>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Watch {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Watch {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary()).args(["watch", "--json"]).args(arguments))
    }

    pub(crate) fn start_by(command: &mut Command) -> Self {
        Self(Program::start(command, &schema::SERVER).unwrap())
    }

    pub(crate) fn watching(&mut self) -> Watching {
        let watching = self.wait_for("watching", only!(Record::Watching));
        self.usage("first look", |_| true);
        watching
    }

    pub(crate) fn usage(&mut self, what: &str, is_it: impl Fn(&Usage) -> bool) -> Usage {
        self.wait_for(what, |record| match record {
            Record::Usage(usage) if is_it(usage) => Some(usage.clone()),
            _ => None,
        })
    }

    /// The first row of holders, once it is this process and has more than so many pages: reported with a crossing of pressure or of high.
    pub(crate) fn held_by(&mut self, pid: u32, pages: u64) -> HolderRow {
        let is_it = |record: &Record| match record {
            Record::Holders(holders) => holders
                .rows
                .first()
                .filter(|row| row.pid == Some(pid) && row.memory.pages > pages)
                .cloned(),
            _ => None,
        };
        self.wait_for_any("holders", is_it)
    }

    pub(crate) fn finish(&mut self) -> Ended {
        let Outcome { code, stderr, .. } = self.0.finish();
        assert_eq!(code, Some(0), "{stderr}");
        self.last(only!(Record::Ended)).expect("a watch ends with a record")
    }
}

pub(crate) fn limit_instant_and_socket() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut settings = c1m_testkit::Settings::take()?;
    let reserve = reserve_pages().unwrap();
    until_quiet().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.port().to_string();
    let own = std::process::id().to_string();
    let mut watch = Watch::start(&["--pid", &own, "--port", &port, "--interval", INTERVAL]);
    let watching = watch.watching();
    assert_eq!(
        (watching.ports.as_slice(), watching.pid),
        ([address.port()].as_slice(), Some(std::process::id()))
    );
    let scale = 512 * cpus().max(2);
    let limits = [scale, scale * 3 / 2, scale * 2];
    settings.set(&[("net.ipv4.tcp_mem", format!("{} {} {}", limits[0], limits[1], limits[2]))])?;
    watch.usage("look at the new limits", |usage| usage.host.tcp_mem == Some(limits));
    let (mut pairs, before) = (Vec::new(), SystemTime::now());
    // Two pages each, and some more than that takes.
    for _ in 0..(limits[2] + reserve) / 2 + 200 {
        let (client, mut server) = pair(&listener);
        // Nobody reads it. Above high the kernel may take less than all of it.
        let _ = server.write(&UNREAD).unwrap();
        pairs.push((client, server));
    }
    let after = SystemTime::now();
    let lasting = watch.usage("memory pressure that lasts", |usage| {
        usage.host.pressure.now == Some(true) && usage.host.pressure.total_ms > Some(100.0)
    });
    let opened = pairs.len() as u64;
    let up = watch.usage("all connections", |usage| usage.watched.opened == Some(opened));
    assert_eq!(up.watched.connections, Some(opened), "{up:?}");
    assert!(up.host.pressure.lasting_ms > lasting.host.pressure.lasting_ms, "{lasting:?} {up:?}");
    // Both ends of each connection are this process's, and so is what they have queued.
    let held = watch.held_by(std::process::id(), limits[1]);
    assert!(held.memory.sockets <= 2 * opened + 1, "{held:?}");
    pairs.into_iter().for_each(|(client, server)| {
        reset(client);
        reset(server);
    });
    let over = watch.usage("the end of memory pressure", |usage| {
        usage.host.pressure.now == Some(false) && usage.watched.connections == Some(0)
    });
    assert!(over.host.pressure.total_ms > up.host.pressure.total_ms, "{up:?} {over:?}");
    settings.put_back();
    let ended = watch.finish();
    check_crossing(&watch.lines, limits, address, before, after);
    check_end(&watch, &ended, opened);
    Ok(())
}

/// High, at the instant at which it was crossed, and by which socket.
fn check_crossing(
    records: &[Line<Record>],
    limits: [u64; 3],
    address: SocketAddr,
    before: SystemTime,
    after: SystemTime,
) {
    let is_high =
        |crossing: &Crossing| crossing.level == Level::High && crossing.direction == Direction::Up;
    let (ts, crossing) = records
        .iter()
        .find_map(|line| match &line.record {
            Record::Crossing(crossing) if is_high(crossing) => Some((&line.ts, crossing)),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no crossing of high: {records:#?}"));
    let instant = |time: SystemTime| humantime::format_rfc3339_micros(time).to_string();
    assert!(*ts >= instant(before) && *ts <= instant(after), "{ts}");
    assert_eq!((crossing.tcp_mem, crossing.limit_pages), (limits, limits[2]), "{crossing:?}");
    assert!(crossing.pages > limits[2] && crossing.connections > 0, "{crossing:?}");
    if crossing.resolution != Resolution::Interval {
        let (local, remote) = (&crossing.socket.local, &crossing.socket.remote);
        assert!([local, remote].contains(&&Some(address.to_string())), "{crossing:?}");
    }
}

fn check_end(watch: &Watch, ended: &Ended, opened: u64) {
    assert_eq!((ended.watched.opened, ended.watched.closed), (Some(opened), Some(opened)));
    let causes = watch.last(only!(Record::Verdict)).unwrap().causes;
    let high = causes.iter().find(|cause| cause.limit == LimitName::TcpMemHigh);
    assert_eq!(high.unwrap().confidence, Confidence::Certain, "{causes:?}");
    assert!(ended.limit.is_some(), "{ended:?}");
    // What lasted is what the kernel itself says when it is over: some ticks apart.
    let kernel = ended.refused.kernel["TCPMemoryPressuresChrono"];
    let total = Duration::from_secs_f64(ended.host.pressure.total_ms.unwrap() / 1000.0);
    let kernel = Duration::from_millis(kernel);
    assert!(total >= kernel && total - kernel < Duration::from_millis(500), "{total:?} {kernel:?}");
}

pub(crate) fn what_was_there() -> Result<(), Skip> {
    needs_ebpf()?;
    let [one, two, other] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [&one, &two].map(|it| it.local_addr().unwrap().port());
    let mut to_one: Vec<_> = (0..60).map(|_| pair(&one)).collect();
    let to_other: Vec<_> = (0..5).map(|_| pair(&other)).collect();
    let flag = format!("{},{}", ports[0], ports[1]);
    let mut watch = Watch::start(&["--port", &flag, "--netns", "self", "--interval", INTERVAL]);
    assert_eq!(watch.watching().connections, Some(60));
    let to_two: Vec<_> = (0..40).map(|_| pair(&two)).collect();
    let up = watch.usage("both", |usage| usage.watched.connections == Some(100));
    assert_eq!((up.watched.opened, up.watched.closed), (Some(40), Some(0)), "{up:?}");
    for (client, _) in to_one.drain(..50) {
        reset(client);
    }
    drop(to_other);
    let down = watch.usage("50 gone", |usage| usage.watched.connections == Some(50));
    assert_eq!((down.watched.opened, down.watched.closed), (Some(40), Some(50)), "{down:?}");
    drop(to_two);
    watch.finish();
    Ok(())
}

/// A listener whose accept queue has the length 0 takes one connection after the other: each is born and ends like any other.
pub(crate) fn backlog_of_zero() -> Result<(), Skip> {
    with_backlog_of_zero("127.0.0.1:0".parse().unwrap())
}

/// The listener of IPv6 takes both.
pub(crate) fn backlog_of_zero_over_ipv6() -> Result<(), Skip> {
    TcpListener::bind("[::1]:0").map_err(|error| Skip(format!("no IPv6: {error}")))?;
    with_backlog_of_zero("[::]:0".parse().unwrap())
}

fn with_backlog_of_zero(address: SocketAddr) -> Result<(), Skip> {
    needs_ebpf()?;
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    let accepted = |to: SocketAddr| (connect(to), listener.accept().unwrap().0);
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    let to = if address.is_ipv6() { vec![v4, v6] } else { vec![v4] };
    let before: Vec<_> = to.iter().map(|to| accepted(*to)).collect();
    let flag = port.to_string();
    let mut watch = Watch::start(&["--port", &flag, "--netns", "self", "--interval", INTERVAL]);
    let present = before.len() as u64;
    assert_eq!(watch.watching().connections, Some(present), "{address}");
    let pairs: Vec<_> = to.iter().cycle().take(20).map(|to| accepted(*to)).collect();
    let up = watch.usage("all up", |usage| usage.watched.opened == Some(20));
    assert_eq!(up.watched.connections, Some(20 + present), "{up:?}");
    before.into_iter().chain(pairs).for_each(|(client, server)| {
        reset(client);
        drop(server);
    });
    let down = watch.usage("all gone", |usage| usage.watched.closed == Some(20 + present));
    assert_eq!(down.watched.connections, Some(0), "{down:?}");
    watch.finish();
    Ok(())
}

/// Of a process that is named, by the ports on which it listens.
pub(crate) fn ports_of_a_process() -> Result<(), Skip> {
    needs_ebpf()?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut watch = Watch::start(&["--pid", &std::process::id().to_string()]);
    let watching = watch.watching();
    assert!(watching.ports.contains(&port), "{watching:?}");
    assert_eq!(watching.netns, c1m_host::namespaces::own_inode());
    let limits = watch.wait_for("limits", only!(Record::Limits));
    let nofile = limits.limits.iter().find(|line| line.limit == LimitName::Nofile).unwrap();
    let (soft, _) = c1m_sys::process::nofile().unwrap();
    assert_eq!(nofile.ceiling, Some(soft), "{nofile:?}");
    watch.finish();
    Ok(())
}

/// A network namespace shows neither tcp_mem nor its limits: the kernel's own variables do.
pub(crate) fn in_a_namespace() -> Result<(), Skip> {
    needs_ebpf()?;
    let shown = c1m_host::settings::read().tcp_mem;
    let inside = thread::spawn(move || {
        if let Err(error) = confine::unshare_network() {
            return Err(Skip(format!("no network namespace: {error}")));
        }
        let mut watch = Watch::start(&["--netns", "self"]);
        let watching = watch.watching();
        assert_ne!(watching.netns, c1m_host::namespaces::own_inode());
        let limits = watch.wait_for("limits", only!(Record::Limits));
        let ended = watch.finish();
        assert_eq!(ended.host.tcp_mem, shown, "{ended:?}");
        let high = limits.limits.iter().find(|line| line.limit == LimitName::TcpMemHigh).unwrap();
        assert_eq!(high.ceiling, shown.map(|[.., high]| high), "{high:?}");
        let nofile = limits.limits.iter().find(|line| line.limit == LimitName::Nofile).unwrap();
        assert_eq!((nofile.used, nofile.ceiling), (None, None), "nobody was named: {nofile:?}");
        Ok(())
    });
    inside.join().unwrap()
}

/// The file to which the facts of a watch go.
fn facts() -> PathBuf {
    env::temp_dir().join(format!("c1m-kernel-watch-{}.jsonl", std::process::id()))
}

/// Runs a command to its end under a watch, whose facts go to a file: exit code and last record.
fn run(role: &str, command: &[&str]) -> (Option<i32>, Ended) {
    let (code, mut records) = recorded(role, command);
    match records.pop() {
        Some(Record::Ended(ended)) => (code, ended),
        other => panic!("{other:?}"),
    }
}

fn recorded(role: &str, command: &[&str]) -> (Option<i32>, Vec<Record>) {
    let file = facts();
    let mut watch = Command::new(binary());
    watch.args(["watch", "--output", file.to_str().unwrap(), "--cmd"]).args(command);
    let outcome = outcome(watch.env(ROLE, role));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    text.lines().for_each(|line| schema::SERVER.check(line));
    let record = |line: &str| serde_json::from_str::<Line<Record>>(line).unwrap().record;
    (outcome.code, text.lines().map(record).collect())
}

/// More processes than are looked at: it is said once how many are not.
pub(crate) fn many_children() -> Result<(), Skip> {
    needs_ebpf()?;
    // They end when the warning is there, and by themselves in any case.
    let script = format!(
        "i=0; all=; while [ $i -lt {more} ]; do sleep 120 & all=\"$all $!\"; i=$((i + 1)); done; \
         i=0; until grep -q '\"left_out\"' {facts} || [ $i -gt 300 ]; do sleep 0.3; i=$((i + 1)); done; \
         sleep 2; kill $all",
        more = task::PROCESSES_MAX + 70,
        facts = facts().display(),
    );
    let (_, records) = recorded("", &["sh", "-c", &script]);
    let said: Vec<&Warning> = records
        .iter()
        .filter_map(|record| match record {
            Record::Warning(warning) if warning.name == "left_out" => Some(warning),
            _ => None,
        })
        .collect();
    let [warning] = said[..] else { panic!("{said:?}") };
    let (count, rest) = warning
        .text
        .split_once("the limits and descriptors of ")
        .unwrap()
        .1
        .split_once(' ')
        .unwrap();
    assert!((1..200).contains(&count.parse::<u32>().unwrap()), "{warning:?}");
    assert!(rest.starts_with(&format!("processes beyond the first {}", task::PROCESSES_MAX)));
    Ok(())
}

pub(crate) fn commands() -> Result<(), Skip> {
    needs_ebpf()?;
    let own = env::current_exe().unwrap();
    let (own, server) = (own.to_str().unwrap(), binary());
    let server = server.to_str().unwrap();
    let (code, ended) = run("exhaust", &[own]);
    assert_eq!((code, ended.limit), (Some(1), Some(LimitName::Nofile)), "{ended:?}");
    assert_eq!(ended.command.unwrap().code, Some(0));
    // What others do on the host in the same instant is reported as well.
    let quiet = |command: &[&str], expected| {
        // tcp_mem and failed calls are the host's: other programs may trip a limit meanwhile.
        let ended = undisturbed(|| {
            let (code, ended) = run("", command);
            if ended.limit.is_some() {
                return Ok(Err(format!("a limit was reported: {ended:?}")));
            }
            assert_eq!(code, Some(expected), "{ended:?}");
            Ok::<_, Skip>(Ok(ended))
        });
        ended.unwrap_or_else(|_| unreachable!("nothing here skips"))
    };
    assert_eq!(quiet(&[server, "--version"], 0).command.unwrap().code, Some(0));
    assert_eq!(quiet(&["--", server, "--no-such-flag"], 5).command.unwrap().code, Some(2));
    ends_with_5(|| {
        Command::new(binary())
            .args(["watch", "--cmd", server, "--no-such-flag"])
            .stdout(Stdio::null())
            .stderr(closed_pipe())
            .status()
            .unwrap()
            .code()
    });
    let absent =
        Command::new(binary()).args(["watch", "--cmd", "/no/such/program"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(2), "{absent:?}");
    Ok(())
}

/// The command failed, and no limit was met. tcp_mem and failed calls are the host's: other programs may trip a limit meanwhile, which is exit code 1.
fn ends_with_5(mut run: impl FnMut() -> Option<i32>) {
    let ended = undisturbed(|| match run() {
        Some(1) => Ok::<_, Skip>(Err("a limit was reported".into())),
        code => Ok(Ok(code)),
    });
    assert_eq!(ended.expect("nothing here skips"), Some(5));
}

/// A signal is the command's, and the command never outlives the watch.
pub(crate) fn signals() -> Result<(), Skip> {
    needs_ebpf()?;
    let own = env::current_exe().unwrap();
    let started = || {
        let mut command = Command::new(binary());
        command.args(["watch", "--json", "--cmd"]).arg(&own).env(ROLE, "wait");
        let mut child = Child::start(&mut command).unwrap();
        // They are printed before the command is started.
        child.until("limits", |it| it.said().contains("\"kind\":\"limits\"")).unwrap();
        let pid = child.pid();
        let mut command = None;
        eventually(|| {
            command = c1m_host::task::family(pid).get(1).copied();
            command.is_some_and(|pid| c1m_host::task::comm(pid) != Some("c1m-server".into()))
        });
        (child, command.expect("the command"))
    };
    ends_with_5(|| {
        let (mut child, _) = started();
        let outcome = child.finish().unwrap();
        let last = outcome.stderr.lines().last().unwrap();
        let ended: Line<Record> = serde_json::from_str(last).unwrap();
        match ended.record {
            Record::Ended(Ended { command: Some(command), .. }) => {
                assert_eq!((command.code, command.signal), (None, Some(libc::SIGTERM)));
            }
            other => panic!("{other:?}"),
        }
        outcome.code
    });

    let (mut child, command) = started();
    child.kill();
    let folder = format!("/proc/{command}/exe");
    // One that nobody has waited for yet has no program any more.
    let is_gone = eventually(|| !Path::new(&folder).exists());
    assert!(is_gone, "{command} outlived its watch");
    Ok(())
}

/// An interval that no clock reaches: there is a first look and a last one.
pub(crate) fn any_interval() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut watch = Watch::start(&["--interval", "213503982334601d"]);
    watch.watching();
    watch.finish();
    Ok(())
}

/// A signal that comes while the probes are being attached ends the watch in order: with a last record, and without a command.
pub(crate) fn signal_while_attaching() -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("started");
    let touch = ["--cmd", "touch", proof.to_str().unwrap()];
    for (command, code) in [(&[][..], 0), (&touch[..], 5)] {
        let file = folder.path().join(format!("{code}.jsonl"));
        let mut watch = Command::new(binary());
        watch.args(["watch", "--output", file.to_str().unwrap()]).args(command);
        let mut child = Child::start(&mut watch).unwrap();
        let descriptors = format!("/proc/{}/fd", child.pid());
        let has_a_map = || {
            let links = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
            links
                .filter_map(|link| std::fs::read_link(link.path()).ok())
                .any(|target| target.to_string_lossy().contains("bpf-map"))
        };
        child.until("map", |_| has_a_map()).unwrap();
        let ended = child.finish().unwrap();
        assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.stderr);
        let text = std::fs::read_to_string(&file).unwrap();
        let last: Line<Record> = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(matches!(last.record, Record::Ended(_)), "{last:?}");
    }
    assert!(!proof.exists(), "the command was started");
    Ok(())
}

/// A file on a disk that is full, and then is not: the watch goes on, and says both.
pub(crate) fn full_disk() -> Result<(), Skip> {
    needs_ebpf()?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    // In a thread of its own: what it mounts is visible to itself and what it starts.
    let inside = thread::spawn(move || {
        confine::mount_memory(&path, 64 << 10)
            .map_err(|error| Skip(format!("no mount namespace: {error}")))?;
        let (file, rest) = (path.join("run.jsonl"), path.join("rest"));
        // The file system ends it where it is full.
        let _ = std::fs::write(&rest, vec![b'x'; 128 << 10]);
        let name = file.to_str().unwrap();
        let mut watch = Watch::start(&["--interval", "50ms", "--output", name]);
        let output = |record: &Record| match record {
            Record::Warning(warning) if warning.name == "output" => Some(warning.text.clone()),
            _ => None,
        };
        let text = watch.wait_for("warning that it is full", output);
        assert!(text.contains(name) && text.contains("No space left"), "{text}");
        std::fs::remove_file(rest).unwrap();
        // Something to write.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _pair = pair(&listener);
        let text = watch.wait_for("warning that it is written again", output);
        assert!(text.contains("is written again"), "{text}");
        let ended = watch.finish();
        assert!(ended.lines_dropped > 0, "{ended:?}");
        let text = std::fs::read_to_string(&file).unwrap();
        let records: Vec<Line<Record>> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let missing = records.iter().find_map(|line| output(&line.record)).unwrap();
        assert!(missing.contains("lines missing here"), "{missing}");
        assert!(matches!(records.last().unwrap().record, Record::Ended(_)));
        Ok(())
    });
    inside.join().unwrap()
}
