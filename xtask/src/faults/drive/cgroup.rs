//! The limits of a memory cgroup, version 1 and 2.

use std::{
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::super::{
    program::{Confined, Program},
    stand::{
        PATIENCE, Stand, Step, Stop, answers, ask, bound, connect, connected, eventually, reset,
    },
};

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";
/// What sockets may hold, and what a server may grow by.
const SOCKETS_BYTES: u64 = 1 << 20;
const GROWTH_BYTES: u64 = 3 << 20;
const LARGE: u64 = 1 << 20;
/// More than one page in the sender's call, and less than SOCK_MIN_SNDBUF.
const TWO_PAGES: u64 = 5_000;
const LOOK: Duration = Duration::from_millis(200);
const SMALL_BUFFER: usize = 4096;
const SLOW_READERS: usize = 50;
const GREEDY: usize = 10_000;
/// A request without an end: the server has to keep it.
const ENDLESS: usize = 6_000;

/// A memory cgroup of the run's own, which goes with this value.
struct Cgroup {
    folder: PathBuf,
    is_v1: bool,
}

impl Cgroup {
    fn new() -> Step<Self> {
        let has_v1 = Path::new(V1).join("memory.usage_in_bytes").exists();
        let is_v2 = fs::read_to_string(Path::new(V2).join("cgroup.controllers"))
            .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"));
        if !has_v1 && !is_v2 {
            return Err(Stop::skip("no memory cgroups are mounted below /sys/fs/cgroup"));
        }
        if !has_v1 {
            fs::write(Path::new(V2).join("cgroup.subtree_control"), "+memory")
                .map_err(|error| Stop::skip(format!("no memory cgroups for children: {error}")))?;
        }
        let root = if has_v1 { V1 } else { V2 };
        let folder = Path::new(root).join(format!("c1m-faults-{}", std::process::id()));
        fs::create_dir(&folder)
            .map_err(|error| Stop::skip(format!("cannot make {}: {error}", folder.display())))?;
        Ok(Self { folder, is_v1: has_v1 })
    }

    fn write(&self, file: &str, value: impl ToString) -> Step {
        fs::write(self.folder.join(file), value.to_string())
            .map_err(|error| Stop::skip(format!("cannot write {file}: {error}")))
    }

    fn add(&self, program: &Program) -> Step {
        self.write("cgroup.procs", program.pid())
    }

    fn usage_bytes(&self) -> Step<u64> {
        let file = if self.is_v1 { "memory.usage_in_bytes" } else { "memory.current" };
        let text = fs::read_to_string(self.folder.join(file))?;
        text.trim().parse().map_err(|_| Stop::wrong(format!("{file} is {text:?}")))
    }

    fn limit(&self, bytes: u64) -> Step {
        self.write(if self.is_v1 { "memory.limit_in_bytes" } else { "memory.max" }, bytes)
    }

    /// Processes that the OOM killer took from it.
    fn oom_kills(&self) -> Step<u64> {
        let file = if self.is_v1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.folder.join(file))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        // Who was in it may still be on the way out.
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Slow readers: what the server could not send is charged to its cgroup from accept on
/// (net/ipv4/inet_connection_sock.c, `inet_csk_accept`, 6.18).
pub(crate) fn sockets(stand: &mut Stand<'_>) -> Step {
    let cgroup = Cgroup::new()?;
    if !cgroup.is_v1 {
        return Err(Stop::skip(
            "on cgroup v2 the charge of a socket is forced, not refused (mm/memcontrol.c, try_charge_memcg): \
             the limit shows as an OOM kill, which oom_kill_in_cgroup is for",
        ));
    }
    // Before there is a socket: those of a cgroup without this limit are never charged.
    cgroup.write("memory.kmem.tcp.limit_in_bytes", SOCKETS_BYTES)?;
    stand.observe(&[], Confined::default())?;
    let mut server = stand.start(&["--workers", "1"], Confined::default())?;
    cgroup.add(&server)?;
    let mut healthy = connect(server.address)?;
    answers(&mut healthy)?;
    let mut streams = Vec::new();
    for _ in 0..SLOW_READERS {
        let socket = bound()?;
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
        let mut stream = connected(socket, server.address)?;
        ask(&mut stream, LARGE)?;
        streams.push(stream);
    }
    // Its counter of failures does not move on every kernel.
    let usage = cgroup.folder.join("memory.kmem.tcp.usage_in_bytes");
    eventually("memory.kmem.tcp.usage_in_bytes is below its limit", || {
        let text = fs::read_to_string(&usage)?;
        Ok(text.trim().parse::<u64>().is_ok_and(|bytes| bytes >= SOCKETS_BYTES))
    })?;
    // Who has little queued is refused; of the slow readers the kernel shrinks the send buffers instead
    // (net/core/sock.c, `__sk_mem_raise_allocated`, 5.4 to 6.18).
    for _ in 0..SLOW_READERS {
        let mut stream = connect(server.address)?;
        ask(&mut stream, TWO_PAGES)?;
        streams.push(stream);
    }
    thread::sleep(LOOK);
    streams.into_iter().try_for_each(reset)?;
    answers(&mut healthy)?;
    answers(&mut connect(server.address)?)?;
    server.finish()
}

/// Requests without an end, which the server has to keep, until it is killed.
pub(crate) fn oom_kill(stand: &mut Stand<'_>) -> Step {
    let cgroup = Cgroup::new()?;
    let observer = stand.observe(&[], Confined::default())?;
    let mut server = stand.start(&["--workers", "1"], Confined::default())?;
    cgroup.add(&server)?;
    answers(&mut connect(server.address)?)?;
    cgroup.limit(cgroup.usage_bytes()? + GROWTH_BYTES)?;
    let request = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; ENDLESS]].concat();
    let mut streams = Vec::new();
    while server.ended().is_none() && streams.len() < GREEDY {
        // Once the server is dead nobody listens.
        let Ok(mut stream) = connect(server.address) else { break };
        if stream.write_all(&request).is_err() {
            break;
        }
        streams.push(stream);
    }
    let end = Instant::now() + PATIENCE;
    while server.ended().is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    let signal = server.ended().and_then(|status| status.signal());
    if signal != Some(libc::SIGKILL) || cgroup.oom_kills()? == 0 {
        let opened = streams.len();
        return Err(Stop::wrong(format!(
            "not tripped: after {opened} connections the server has ended by {signal:?}, with {} OOM kills",
            cgroup.oom_kills()?
        )));
    }
    answers(&mut connect(observer)?)
}
