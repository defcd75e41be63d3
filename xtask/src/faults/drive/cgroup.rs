//! The limits of a memory cgroup, version 1 and 2.

use std::{fs, io::Write as _, os::unix::process::ExitStatusExt as _, thread, time::Duration};

use c1m_testkit::{
    cgroup::Cgroup,
    net::{answers, ask, connect},
    trip::{Step, Stop, TWO_PAGES, reset_all, slow_reader},
};

use super::super::{
    fixture::{Fixture, eventually},
    program::Confined,
};

/// What sockets may hold, and what a server may grow by.
const SOCKETS_BYTES: u64 = 1 << 20;
const GROWTH_BYTES: u64 = 3 << 20;
const LOOK: Duration = Duration::from_millis(200);
const SLOW_READERS: usize = 50;
const GREEDY: usize = 10_000;
/// A request without an end: the server has to keep it.
const ENDLESS: usize = 6_000;

/// Slow readers: what the server could not send is charged to its cgroup from accept on
/// (net/ipv4/inet_connection_sock.c, `inet_csk_accept`, 6.18).
pub(crate) fn sockets(fixture: &mut Fixture<'_>) -> Step {
    let cgroup = Cgroup::new("faults")?;
    if !cgroup.is_v1 {
        return Err(Stop::skip(
            "on cgroup v2 the charge of a socket is forced, not refused (mm/memcontrol.c, try_charge_memcg): \
             the limit shows as an OOM kill, which oom_kill_in_cgroup is for",
        ));
    }
    // Before there is a socket: those of a cgroup without this limit are never charged.
    cgroup.write("memory.kmem.tcp.limit_in_bytes", SOCKETS_BYTES)?;
    fixture.observe(&[], Confined::default())?;
    let mut server = fixture.start(&["--workers", "1"], Confined::default())?;
    cgroup.add(server.pid())?;
    let mut healthy = connect(server.address)?;
    answers(&mut healthy)?;
    let mut streams = Vec::new();
    for _ in 0..SLOW_READERS {
        streams.push(slow_reader(server.address)?);
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
    reset_all(streams)?;
    answers(&mut healthy)?;
    answers(&mut connect(server.address)?)?;
    server.finish()
}

/// Requests without an end, which the server has to keep, until it is killed.
pub(crate) fn oom_kill(fixture: &mut Fixture<'_>) -> Step {
    let cgroup = Cgroup::new("faults")?;
    let observer = fixture.observe(&[], Confined::default())?;
    let mut server = fixture.start(&["--workers", "1"], Confined::default())?;
    cgroup.add(server.pid())?;
    answers(&mut connect(server.address)?)?;
    cgroup.limit(cgroup.usage_bytes() + GROWTH_BYTES)?;
    let request = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; ENDLESS]].concat();
    let mut streams = Vec::new();
    while server.child().ended()?.is_none() && streams.len() < GREEDY {
        // Once the server is dead nobody listens.
        let Ok(mut stream) = connect(server.address) else { break };
        if stream.write_all(&request).is_err() {
            break;
        }
        streams.push(stream);
    }
    eventually("the server does not end", || Ok(server.child().ended()?.is_some()))?;
    let signal = server.child().ended()?.and_then(|status| status.signal());
    if signal != Some(libc::SIGKILL) || cgroup.oom_kills() == 0 {
        let opened = streams.len();
        return Err(Stop::wrong(format!(
            "not tripped: after {opened} connections the server has ended by {signal:?}, with {} OOM kills",
            cgroup.oom_kills()
        )));
    }
    Ok(answers(&mut connect(observer)?)?)
}
