//! Who holds sockets, and in which states they are, compared with the test's own sockets, SO_MEMINFO, sock_diag and ss.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
};

use c1m_host::{sock_diag, sockstat};
use c1m_probe::snapshot::{Snapshots, Which};
use c1m_record::{
    Holder, HolderRow, Holders, HoldersScope, Memory, Record, Source, States, TcpState,
};
use c1m_sys::{
    confine, netns, process::page_bytes, socket::mem_info, thread::spawn_with_own_table,
};
use c1m_testkit::{
    Child, Outcome, Skip,
    child::{Copy, outcome},
    eventually, schema,
};
use socket2::{Domain, Socket, Type};

use crate::{
    host::{bound, connect, pair, reset},
    server::{Server, binary, needs_ebpf},
};

/// As many as were once lost from sight: reset, unread, and not closed.
const RESETS: usize = 1500;
const NOBODY: u32 = 65534;
/// More than one page of queued memory.
const BODY: [u8; 5000] = [b'x'; 5000];

/// In a network namespace of its own nobody else opens or closes anything. What `body` starts is in it as well.
pub(crate) fn apart(body: fn() -> Result<(), Skip>) -> Result<(), Skip> {
    needs_ebpf()?;
    let inside = thread::spawn(move || {
        confine::unshare_network()
            .map_err(|error| Skip(format!("no network namespace: {error}")))?;
        body()
    });
    inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn states() -> Result<(), Skip> {
    apart(|| {
        let sockets = in_many_states();
        let snapshot = count_states(&["--netns", "self"]);
        let mut rows = BTreeMap::new();
        for row in &snapshot.rows {
            rows.insert((row.state, row.port), row.count);
        }
        assert_eq!(snapshot.source, Source::Iterators);
        assert_eq!(rows.remove(&(TcpState::Unconnected, 0)), Some(1), "{rows:?}");
        assert_eq!(rows.remove(&(TcpState::ClosedButOpen, sockets.port)), Some(2), "{rows:?}");
        assert_eq!(rows, by_sock_diag(), "sock_diag");
        if let Some(shown) = by_ss() {
            assert_eq!(rows, shown, "ss -tan");
        }
        check_totals(&rows);
        let states: Vec<TcpState> = rows.keys().map(|(state, _)| *state).collect();
        for state in [
            TcpState::Established,
            TcpState::SynSent,
            TcpState::FinWait2,
            TcpState::TimeWait,
            TcpState::CloseWait,
            TcpState::Listen,
        ] {
            assert!(states.contains(&state), "{state:?}: {states:?}");
        }
        Ok(())
    })
}

/// What `ss -s` says of the namespace, and what it reads: /proc/net/sockstat and snmp.
fn check_totals(rows: &BTreeMap<(TcpState, u16), u64>) {
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let sockstat =
        sockstat::parse(&read("sockstat").unwrap(), &read("sockstat6").unwrap_or_default())
            .unwrap();
    let count = |states: &[TcpState]| -> u64 {
        rows.iter().filter(|((state, _), _)| states.contains(state)).map(|row| row.1).sum()
    };
    // `tw` are all minisocks, that which waits in FIN_WAIT2 included, and `inuse` are all others but requests.
    let all: u64 = rows.values().sum();
    let requests = count(&[TcpState::SynRecv]);
    let minisocks = count(&[TcpState::TimeWait]) + 1;
    assert_eq!(sockstat.tw, minisocks, "{rows:?}");
    assert_eq!(sockstat.inuse + sockstat.inuse6, all - requests - minisocks, "{rows:?}");
    if let Ok(output) = Command::new("ss").arg("-s").output() {
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
        let number = |name: &str| -> u64 {
            let rest = line.split_once(name).unwrap_or_else(|| panic!("{line}")).1;
            rest.trim_start().split([',', ')']).next().unwrap().parse().unwrap()
        };
        assert_eq!(number("timewait"), minisocks, "{line}");
        // CurrEstab of /proc/net/snmp.
        let established = count(&[TcpState::Established]);
        let half_closed = count(&[TcpState::CloseWait]);
        assert!(
            [established, established + half_closed].contains(&number("estab")),
            "{line}: {rows:?}"
        );
    }
}

/// Held open until the test has looked.
pub(crate) struct InManyStates {
    port: u16,
    _streams: Vec<TcpStream>,
    _others: Vec<Socket>,
    _listener: TcpListener,
}

pub(crate) fn in_many_states() -> InManyStates {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    let pair = || pair(&listener);
    for _ in 0..3 {
        let (client, server) = pair();
        streams.extend([client, server]);
    }
    // Half closed: by a shutdown, and by a close, which leaves a minisock.
    let (client, server) = pair();
    client.shutdown(Shutdown::Write).unwrap();
    streams.extend([client, server]);
    let (client, server) = pair();
    drop(client);
    streams.push(server);
    // Closed by both ends, the client's first.
    let (client, server) = pair();
    client.shutdown(Shutdown::Write).unwrap();
    drop(server);
    drop(client);
    // Reset, and not closed.
    for _ in 0..2 {
        let (client, server) = pair();
        reset(client);
        streams.push(server);
    }
    // A queue of length 1 is full with two, and the third one's SYN is dropped.
    let full = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    full.listen(1).unwrap();
    let full_address = full.local_addr().unwrap();
    let mut others = vec![full, Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()];
    for _ in 0..3 {
        let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        socket.set_nonblocking(true).unwrap();
        // Under way, or there at once.
        let _ = socket.connect(&full_address);
        others.push(socket);
    }
    let settled = || {
        let rows = by_sock_diag();
        let count = |state| rows.iter().filter(|((it, _), _)| *it == state).map(|it| it.1).sum();
        let counts: [u64; 3] =
            [TcpState::CloseWait, TcpState::FinWait2, TcpState::TimeWait].map(count);
        counts == [2, 2, 1]
    };
    assert!(eventually(settled), "{:?}", by_sock_diag());
    InManyStates { port: address.port(), _streams: streams, _others: others, _listener: listener }
}

pub(crate) fn reset_and_not_closed() -> Result<(), Skip> {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let held: Vec<TcpStream> = (0..RESETS).map(|_| one_reset(&listener, address)).collect();
        let by_port = |port| by_sock_diag().into_keys().filter(|key| key.1 == port).count();
        // The listener alone is left in the kernel's tables.
        assert!(eventually(|| by_port(address.port()) == 1), "{:?}", by_sock_diag());
        if let Some(shown) = by_ss() {
            let of_ours = shown.keys().filter(|(_, port)| *port == address.port());
            assert_eq!(of_ours.copied().collect::<Vec<_>>(), [(TcpState::Listen, address.port())]);
        }
        let pages: u64 = held.iter().map(pages_of).sum();
        assert!(pages >= 2 * RESETS as u64, "{pages}");

        let snapshot = look(&[]);
        let own = row(&snapshot, |row| row.pid == Some(std::process::id()));
        assert_eq!((own.holder, own.memory.pages), (Some(Holder::Process), pages), "{own:?}");
        assert_eq!(own.memory.closed_but_open, Some(RESETS as u64), "{own:?}");
        assert!(own.comm.is_some(), "{own:?}");
        // The kernel's own count has them too, but for what the CPUs hold.
        let accounted = snapshot.accounted_pages.unwrap();
        assert!(accounted + snapshot.reserve_pages.unwrap() >= pages, "{snapshot:?}");
        assert_eq!(
            snapshot.unexplained_pages.is_some(),
            snapshot.scope == HoldersScope::Host,
            "{snapshot:?}"
        );
        // And its count of sockets, which has the closed ones too.
        let (sockets, is_host) =
            (snapshot.accounted_sockets.unwrap(), snapshot.scope == HoldersScope::Host);
        assert!(sockets > RESETS as u64, "{snapshot:?}");
        let unlisted = sockets.cast_signed() - snapshot.total.sockets.cast_signed();
        assert_eq!(snapshot.unlisted_sockets, is_host.then_some(unlisted), "{snapshot:?}");

        // The same by every other grouping.
        let by_port = look(&["--by", "port", "--netns", "self"]);
        let of_port = row(&by_port, |row| row.port == Some(address.port()));
        assert_eq!((of_port.memory.pages, by_port.found_pages), (pages, pages), "{by_port:?}");
        let by_remote = look(&["--by", "remote", "--netns", "self"]);
        let remotes = by_remote.rows.iter().filter(|row| row.remote.is_some());
        assert_eq!(by_remote.pages_omitted + remotes.map(|it| it.memory.pages).sum::<u64>(), pages);
        let by_cgroup = look(&["--by", "cgroup", "--netns", "self"]);
        let all = by_cgroup.rows.iter().find(|row| row.cgroup == own.cgroup);
        assert_eq!(all.map(|it| it.memory.pages), Some(pages), "{by_cgroup:?}");
        drop(held);
        Ok(())
    })
}

/// The server's end of a connection that was reset with unread data in it.
fn one_reset(listener: &TcpListener, address: SocketAddr) -> TcpStream {
    let mut client = connect(address);
    let (server, _) = listener.accept().unwrap();
    client.write_all(&BODY).unwrap();
    server.peek(&mut [0]).unwrap();
    reset(client);
    server
}

fn pages_of(stream: &TcpStream) -> u64 {
    let memory = mem_info(stream.as_raw_fd()).unwrap();
    let bytes = u64::from(memory.rmem_alloc + memory.wmem_queued + memory.fwd_alloc);
    bytes.div_ceil(page_bytes().unwrap())
}

pub(crate) fn of_no_process() -> Result<(), Skip> {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Closed with more unsent than the peer takes.
        let mut client = connect(address);
        let (peer, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        while !matches!(client.write(&BODY), Err(error) if error.kind() == ErrorKind::WouldBlock) {}
        drop(client);
        // Not accepted, with something to read.
        let mut waiting = connect(address);
        waiting.write_all(&BODY).unwrap();
        let of = |snapshot: &Holders, holder| {
            snapshot
                .rows
                .iter()
                .find(|row| row.holder == Some(holder))
                .map(|row| row.memory.clone())
        };
        let is_there = |memory: &Option<Memory>| memory.as_ref().is_some_and(|it| it.pages > 0);
        let mut snapshot = look(&["--netns", "self"]);
        let arrived = eventually(|| {
            snapshot = look(&["--netns", "self"]);
            is_there(&of(&snapshot, Holder::Orphan))
                && is_there(&of(&snapshot, Holder::AcceptQueue))
        });
        assert!(arrived, "{snapshot:?}");
        let orphan = of(&snapshot, Holder::Orphan).unwrap();
        assert_eq!((orphan.sockets, orphan.closed_but_open), (1, Some(0)), "{orphan:?}");
        assert!(orphan.send_bytes > BODY.len() as u64 && orphan.receive_bytes == 0, "{orphan:?}");
        let queued = of(&snapshot, Holder::AcceptQueue).unwrap();
        assert_eq!(queued.states, BTreeMap::from([(TcpState::Established, 1)]));
        assert!(queued.receive_bytes >= BODY.len() as u64, "{queued:?}");
        reset(peer);
        Ok(())
    })
}

pub(crate) fn shared() -> Result<(), Skip> {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = connect(listener.local_addr().unwrap());
        let (server, _) = listener.accept().unwrap();
        client.write_all(&BODY).unwrap();
        server.peek(&mut [0]).unwrap();
        // Some program that has the socket too, and does nothing with it.
        let copy: OwnedFd = server.try_clone().unwrap().into();
        // One that holds nothing.
        let idle = connect(listener.local_addr().unwrap());
        let (idle_server, _) = listener.accept().unwrap();
        let idle_copy: OwnedFd = idle_server.try_clone().unwrap().into();
        let other = Child::as_is(
            Command::new(binary())
                .args(["--listen", "127.0.0.1:0", "--quiet"])
                .stdin(Stdio::from(copy))
                .stdout(Stdio::from(idle_copy))
                .stderr(Stdio::null()),
        )
        .unwrap();
        let port = listener.local_addr().unwrap().port();
        let of_port = || {
            let snapshot = look(&["--by", "port", "--netns", "self"]);
            row(&snapshot, |row| row.port == Some(port)).memory.clone()
        };
        let mut memory = of_port();
        let is_shared = eventually(|| {
            memory = of_port();
            memory.shared == 2
        });
        let by_process = look(&["--netns", "self"]).total;
        drop(other);
        assert!(is_shared, "{memory:?}");
        // The listener and both connections.
        assert_eq!((memory.sockets, memory.pages), (3, pages_of(&server)), "{memory:?}");
        assert_eq!(of_port().shared, 0);
        // Two connections have four ends.
        assert_eq!(by_process.shared, 2, "{by_process:?}");
        assert_eq!(by_process.states[&TcpState::Established], 4, "{by_process:?}");
        drop(idle);
        Ok(())
    })
}

/// What is loaded once tells the same as often as it is asked, and idle connections can be left out.
pub(crate) fn again_and_again() -> Result<(), Skip> {
    apart(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let closed: Vec<_> = (0..5).map(|_| one_reset(&listener, address)).collect();
        let mut pairs = Vec::new();
        for number in 0..20 {
            let mut client = connect(address);
            let (server, _) = listener.accept().unwrap();
            if number % 2 == 0 {
                client.write_all(&BODY).unwrap();
                server.peek(&mut [0]).unwrap();
            }
            pairs.push((client, server));
        }
        let own = || [netns::Namespace::open(Path::new(netns::OWN)).unwrap()];
        let inode = own()[0].inode;
        let mut snapshots = Snapshots::load().unwrap();
        let page = page_bytes().unwrap();
        let mut counts = Vec::new();
        for _ in 0..3 {
            let mut of = |which| {
                let snapshot = snapshots.take(which, &own(), false).unwrap();
                let mut sockets = snapshot.sockets;
                sockets.retain(|held| held.netns == inode);
                let pages = sockets.iter().map(|held| held.pages(page)).sum::<u64>();
                (sockets.iter().map(|held| held.sockets).sum::<u64>(), pages)
            };
            let (all, holding) = (of(Which::All), of(Which::Holding));
            assert_eq!(of(Which::ByProcess), all);
            let states = snapshots.count_states(&own(), false, false).unwrap().rows;
            let of_states = states.iter().filter(|row| row.netns == inode).map(|row| row.count);
            counts.push((all, holding, of_states.sum::<u64>()));
        }
        let pages: u64 = closed.iter().chain(pairs.iter().map(|pair| &pair.1)).map(pages_of).sum();
        // The listener, and both ends of each pair.
        let expected = ((1 + 5 + 40, pages), (5 + 10, pages), 1 + 5 + 40);
        assert_eq!(counts, [expected; 3]);
        Ok(())
    })
}

pub(crate) fn tables_of_threads() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut server = Server::start(&["--workers", "3", "--interval", "20ms"])?;
    let streams: Vec<TcpStream> = (0..300).map(|_| connect(server.address)).collect();
    server.wait_for("all of them", |record| {
        matches!(record, Record::Online(it) if it.online == 300).then_some(())
    });
    let snapshot = look(&["--top", "1000"]);
    let of_server = row(&snapshot, |row| row.pid == Some(server.pid()));
    let states = BTreeMap::from([(TcpState::Established, 300), (TcpState::Listen, 3)]);
    assert_eq!(of_server.memory.states, states, "{of_server:?}");
    assert_eq!(of_server.memory.shared, 0);
    streams.into_iter().for_each(reset);
    server.finish();
    // A table that two threads share, and their leader does not: the walk comes to it twice.
    apart(|| {
        let in_it = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let pair = (connect(listener.local_addr().unwrap()), listener.accept().unwrap());
            let snapshot = thread::spawn(|| look(&["--netns", "self"]).total).join().unwrap();
            let states = BTreeMap::from([(TcpState::Established, 2), (TcpState::Listen, 1)]);
            assert_eq!((snapshot.states, snapshot.shared), (states, 0));
            drop(pair);
        };
        let first = spawn_with_own_table("first".into(), 1 << 20, vec![0, 1, 2], in_it);
        first.unwrap().join().unwrap().unwrap();
        Ok(())
    })
}

pub(crate) fn other_namespaces() -> Result<(), Skip> {
    needs_ebpf()?;
    // In the namespace of a thread that no process as a whole is in.
    let (sender, answer) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let inside = thread::spawn(move || {
        if let Err(error) = confine::unshare_network() {
            sender.send(Err(error.to_string())).unwrap();
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut waiting = connect(listener.local_addr().unwrap());
        waiting.write_all(&BODY).unwrap();
        let own = netns::Namespace::open(Path::new(netns::OWN)).unwrap();
        sender.send(Ok((own.inode, listener.local_addr().unwrap().port()))).unwrap();
        // Until the test has looked.
        let _ = wait.recv();
    });
    let (inode, port) = answer.recv().unwrap().map_err(Skip)?;
    let name = format!("inode:{inode}");
    let here = |row: &HolderRow| row.netns == Some(inode) && row.port == Some(port);
    for choice in ["all", name.as_str()] {
        let snapshot = look(&["--by", "port", "--top", "100000", "--netns", choice]);
        let found = row(&snapshot, here);
        // The listener, and what waits in its queue: of no process, and found because a thread led there.
        assert_eq!(
            found.memory.states.get(&TcpState::Established),
            Some(&1),
            "{choice}: {found:?}"
        );
        assert!(found.memory.pages > 0, "{found:?}");
        let counted = count_states(&["--netns", choice]);
        let of_port = counted.rows.iter().filter(|row| row.netns == inode && row.port == port);
        assert_eq!(of_port.map(|row| row.count).sum::<u64>(), 2, "{choice}");
    }
    let own = look(&["--by", "port", "--top", "100000", "--netns", "self"]);
    assert!(!own.rows.iter().any(here), "{own:?}");
    done.send(()).unwrap();
    inside.join().unwrap();
    Ok(())
}

pub(crate) fn without_privilege() -> Result<(), Skip> {
    let copy = Copy::of(&binary()).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&copy.path);
        command.args(arguments);
        if c1m_sys::process::effective_capabilities().unwrap() != 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    // A server of the same user, which can be named, with one unread answer in each of its queues.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let server = Child::start(&mut as_nobody(&["--listen", &free.to_string(), "--quiet"])).unwrap();
    let mut stream = None;
    let connected = eventually(|| {
        stream = TcpStream::connect(free).ok();
        stream.is_some()
    });
    assert!(connected, "the server does not listen");
    let snapshot = holders_of(outcome(&mut as_nobody(&["holders", "--json", "--top", "1000"])));
    let counted = states_of(outcome(&mut as_nobody(&["states", "--json"])));
    let own = snapshot.rows.iter().find(|row| row.pid == Some(server.pid())).cloned();
    reset(stream.unwrap());
    drop(server);

    assert_eq!((snapshot.source, snapshot.scope), (Source::SockDiag, HoldersScope::Part));
    let own = own.unwrap_or_else(|| panic!("{snapshot:?}"));
    assert_eq!(own.comm.as_deref(), Some("c1m-server"));
    assert!(own.memory.states.contains_key(&TcpState::Listen), "{own:?}");
    // What is not visible is not zero.
    assert_eq!((own.memory.closed_but_open, snapshot.unexplained_pages), (None, None));
    assert!(snapshot.unseen.iter().any(|it| it.contains("CAP_BPF")), "{:?}", snapshot.unseen);
    assert_eq!(counted.source, Source::SockDiag);
    let is_listening = |port| {
        move |row: &c1m_record::StateRow| {
            row.port == port && row.state == TcpState::Listen && row.count > 0
        }
    };
    assert!(counted.rows.iter().any(is_listening(free.port())), "{counted:?}");

    for (arguments, code, part) in [
        (&["holders", "--netns", "nonsense"][..], 2, "inode:N"),
        (&["states", "--netns", "inode:1"], 3, "no network namespace"),
        (&["holders", "--netns", "4294967295"], 3, "can't be opened"),
    ] {
        let output = outcome(&mut as_nobody(arguments));
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(part) && output.lines.is_empty(), "{output:?}");
    }
    Ok(())
}

fn row(snapshot: &Holders, is_it: impl Fn(&HolderRow) -> bool) -> &HolderRow {
    snapshot
        .rows
        .iter()
        .find(|row| is_it(row))
        .unwrap_or_else(|| panic!("no such row: {snapshot:?}"))
}

pub(crate) fn look(arguments: &[&str]) -> Holders {
    holders_of(outcome(Command::new(binary()).args(["holders", "--json"]).args(arguments)))
}

pub(crate) fn count_states(arguments: &[&str]) -> States {
    states_of(outcome(Command::new(binary()).args(["states", "--json"]).args(arguments)))
}

fn holders_of(output: Outcome) -> Holders {
    match record(output) {
        Record::Holders(holders) => holders,
        other => panic!("not of holders: {other:?}"),
    }
}

fn states_of(output: Outcome) -> States {
    match record(output) {
        Record::States(states) => states,
        other => panic!("not of states: {other:?}"),
    }
}

/// The one line of the output.
fn record(output: Outcome) -> Record {
    assert_eq!((output.code, output.lines.len()), (Some(0), 1), "{output:?}");
    output.records(&schema::SERVER).remove(0)
}

/// What the kernel says by another way: by state and local port.
fn by_sock_diag() -> BTreeMap<(TcpState, u16), u64> {
    let dump = sock_diag::sockets(|rows: &mut BTreeMap<(TcpState, u16), u64>, row| {
        let state = TcpState::from_kernel(row.state.into(), true);
        *rows.entry((state, row.local_port)).or_default() += 1;
    });
    dump.unwrap().value
}

/// The same from `ss -tan`; `None` where there is none.
pub(crate) fn by_ss() -> Option<BTreeMap<(TcpState, u16), u64>> {
    let output = Command::new("ss").args(["-tanH"]).output().ok()?;
    assert!(output.status.success(), "{output:?}");
    let mut rows = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.split_ascii_whitespace();
        let state = match words.next().unwrap() {
            "ESTAB" => TcpState::Established,
            "SYN-SENT" => TcpState::SynSent,
            "SYN-RECV" => TcpState::SynRecv,
            "FIN-WAIT-1" => TcpState::FinWait1,
            "FIN-WAIT-2" => TcpState::FinWait2,
            "TIME-WAIT" => TcpState::TimeWait,
            "CLOSE-WAIT" => TcpState::CloseWait,
            "LAST-ACK" => TcpState::LastAck,
            "LISTEN" => TcpState::Listen,
            "CLOSING" => TcpState::Closing,
            other => panic!("{other}: {line}"),
        };
        let local = words.nth(2).unwrap();
        let port = local.rsplit_once(':').unwrap().1.parse().unwrap();
        *rows.entry((state, port)).or_default() += 1;
    }
    Some(rows)
}
