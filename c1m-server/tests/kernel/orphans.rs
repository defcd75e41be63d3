//! Orphans that the kernel resets for their number, held against its own counter.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
};

use c1m_record::{Aborted, Record, Refused};

use crate::{
    attempt::undisturbed,
    host::{Settings, connect, counter, eventually, reset, sockets},
    server::{PATIENCE, Server, Skip, needs_ebpf, nothing_lost_by_us},
};

const MAX_ORPHANS: usize = 50;
const BEFORE: usize = 60;
const AFTER: usize = 40;
const WRITERS: usize = 20;

pub(crate) fn aborted_orphans() -> Result<(), Skip> {
    needs_ebpf()?;
    // The setting is the host's, and so are orphans: those of other programs come and go between two readings.
    undisturbed(|| {
        let refused = attempt()?;
        let too_many = refused.orphans_aborted_too_many.unwrap();
        let sum = too_many + refused.orphans_aborted_out_of_memory.unwrap();
        assert!(too_many > 0, "{refused:?}");
        // Where the hook is on a function, what a timer gives up is told too, and the sum that is compared.
        assert!(refused.orphans_max.is_none_or(|max| max > MAX_ORPHANS as u64), "{refused:?}");
        assert!(refused.orphans_in_timers.is_none_or(|timers| timers <= sum), "{refused:?}");
        let is_right = sum == refused.kernel["TCPAbortOnMemory"] && sum >= AFTER as u64;
        Ok(if is_right { Ok(()) } else { Err(format!("not what the kernel counts: {refused:?}")) })
    })
}

fn attempt() -> Result<Refused, Skip> {
    let mut settings = Settings::take()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    let hook = server.needs("orphans_given_up")?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut peers = Vec::new();
    let mut open = |count: usize| -> Vec<TcpStream> {
        let pair = |_| {
            let closing = connect(address);
            peers.push(listener.accept().unwrap().0);
            closing
        };
        (0..count).map(pair).collect()
    };
    settings.set(&[
        // Above 60 s an orphan in FIN_WAIT2 stays a whole socket: net/ipv4/tcp.c, __tcp_close, 6.18.
        ("net.ipv4.tcp_fin_timeout", "120".into()),
        ("net.ipv4.tcp_max_orphans", MAX_ORPHANS.to_string()),
    ])?;
    let before = counter("TCPAbortOnMemory");
    let (first, last) = (open(BEFORE), open(AFTER));
    drop(first);
    // What the kernel compares is refreshed by a timer, each 100 ms at most: net/ipv4/tcp.c, tcp_orphan_update, 6.18.
    let is_noticed = eventually(PATIENCE, || {
        drop(open(1));
        counter("TCPAbortOnMemory") > before
    });
    assert!(is_noticed, "{} orphans are not too many", sockets().orphan);
    drop(last);
    peers.into_iter().for_each(reset);
    settings.put_back();

    let summary = server.finish();
    check_events(&server, address, &hook);
    nothing_lost_by_us(&summary);
    Ok(*summary.refused.unwrap())
}

/// The first ones are reported, each with its socket; in a close or a timer the current process is an accident.
fn check_events(server: &Server, address: SocketAddr, hook: &str) {
    let of_number: Vec<&Aborted> = server
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Aborted(aborted) if aborted.limit == "too_many_orphans" => Some(aborted),
            _ => None,
        })
        .collect();
    assert!(!of_number.is_empty(), "an example is reported");
    let remote = Some(address.to_string());
    assert!(of_number.iter().any(|aborted| aborted.socket.remote == remote), "{of_number:?}");
    for aborted in of_number {
        assert_eq!((aborted.socket.pid, &aborted.socket.comm), (None, &None), "{aborted:?}");
        assert_eq!(aborted.hook, hook);
        // At close an orphan counts once, in a timer up to four times.
        assert_eq!(aborted.penalty.is_some(), hook.ends_with("/tcp_check_oom"), "{aborted:?}");
        assert!(aborted.penalty.is_none_or(|times| matches!(times, 1 | 2 | 4)), "{aborted:?}");
        assert!(aborted.socket.local.is_some() && aborted.socket.netns.is_some(), "{aborted:?}");
    }
}

/// Senders whose peer does not read, closed above high.
pub(crate) fn out_of_memory() -> Result<(), Skip> {
    needs_ebpf()?;
    undisturbed(|| {
        let refused = attempt_out_of_memory()?;
        let of_memory = refused.orphans_aborted_out_of_memory.unwrap();
        let sum = of_memory + refused.orphans_aborted_too_many.unwrap();
        let is_right = sum == refused.kernel["TCPAbortOnMemory"] && of_memory >= 1;
        Ok(if is_right { Ok(()) } else { Err(format!("not what the kernel counts: {refused:?}")) })
    })
}

fn attempt_out_of_memory() -> Result<Refused, Skip> {
    let mut settings = Settings::take()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs("orphans_given_up")?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut peers, mut writers) = (Vec::new(), Vec::new());
    for _ in 0..WRITERS {
        let mut writer = connect(address);
        peers.push(listener.accept().unwrap().0);
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[0; 16 * 1024]).is_ok() {}
        writers.push(writer);
    }
    // What they hold is far above high from one moment to the next.
    settings.set(&[("net.ipv4.tcp_mem", "16 24 32".into())])?;
    assert!(sockets().tcp_mem_pages > 32, "{:?}", sockets());
    let before = counter("TCPAbortOnMemory");
    drop(writers);
    let is_done = eventually(PATIENCE, || counter("TCPAbortOnMemory") > before);
    settings.put_back();
    peers.into_iter().for_each(reset);
    assert!(is_done, "no orphan was given up: {:?}", sockets());
    let summary = server.finish();
    let is_of_memory = |record: &Record| matches!(record, Record::Aborted(aborted) if aborted.limit == "out_of_memory" && aborted.pages > aborted.tcp_mem[2]);
    assert!(server.records.iter().any(is_of_memory), "{:?}", server.records);
    Ok(*summary.refused.unwrap())
}
