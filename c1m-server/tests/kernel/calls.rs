//! System calls that fail, compared with the errors that their callers get.

use std::{
    env,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    thread,
    time::Duration,
};

use c1m_probe::{
    Options, Tracer,
    decode::{Observation, What},
};
use c1m_record::{CallError, Ports, Record, Refused};
use c1m_sys::process::page_bytes;
use socket2::{Domain, Socket, Type};

use c1m_testkit::{
    Settings, Skip, only,
    trip::{reset_all, without_ports},
};

use crate::{
    server::{Server, needs_ebpf},
    watch::ROLE,
};

const PORTS: u64 = 10;
const CONNECTIONS: u64 = 15;
pub(crate) const FAILURES: u64 = 12;
/// Of each call, errno and process, one after the other; see docs/events.md.
const EXAMPLES: u64 = 8;
/// Of each, after this time.
const ANOTHER_AFTER: Duration = Duration::from_secs(10);

/// More connections than there are ports between two addresses.
pub(crate) fn ports() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut settings = Settings::take()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    let hook = server.needs("ports")?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let first = 61_200;
    let range = format!("{first} {}", first + PORTS - 1);
    settings.set(&[("net.ipv4.ip_local_port_range", range)])?;
    let (streams, failed) = without_ports(address, CONNECTIONS).unwrap();
    settings.put_back();
    reset_all(streams).unwrap();
    assert!(failed >= CONNECTIONS - PORTS, "{failed} failed");

    let refused = server.finish().refused.unwrap();
    let me = std::process::id();
    if hook.starts_with("fexit/") {
        let mut reported: Vec<Ports> = server.records().filter_map(only!(Record::Ports)).collect();
        reported.retain(|ports| ports.pid == me);
        assert!((failed.min(EXAMPLES)..=failed).contains(&(reported.len() as u64)), "{reported:?}");
        for ports in reported {
            assert_eq!(ports.source.as_deref(), Some("127.0.0.1"), "{ports:?}");
            assert_eq!(ports.destination, Some(address.to_string()), "{ports:?}");
        }
    }
    check_calls(&server, "connect", "EADDRNOTAVAIL", failed);
    // Other programs of the host may fail as well.
    assert!(refused.ports_exhausted.unwrap() >= failed, "{refused:?}");
    assert!(of(&refused, "connect EADDRNOTAVAIL") >= failed, "{refused:?}");
    Ok(())
}

pub(crate) fn failed_calls() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs("call_errors")?;
    fail(FAILURES);
    exhaust_descriptors();
    let refused = server.finish().refused.unwrap();
    assert!(of(&refused, "bind EADDRNOTAVAIL") >= FAILURES, "{refused:?}");
    assert!(of(&refused, "socket EMFILE") >= FAILURES, "{refused:?}");
    check_calls(&server, "bind", "EADDRNOTAVAIL", EXAMPLES);
    check_calls(&server, "socket", "EMFILE", EXAMPLES);
    Ok(())
}

/// Calls that fail with EADDRNOTAVAIL.
pub(crate) fn fail(times: u64) {
    // For documentation (RFC 5737): nobody's address.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    for _ in 0..times {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = socket.bind(&nowhere.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
    }
}

/// A process that fails all the time takes nobody else's examples, and has another one itself after a while. What is not shown is counted.
pub(crate) fn examples() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs("call_errors")?;
    fail(FAILURES);
    // The examples of all places in one second are limited.
    thread::sleep(Duration::from_secs(1));
    let mut other =
        Command::new(env::current_exe().unwrap()).env(ROLE, "fail").spawn().expect("another one");
    let of_other = other.id();
    assert!(other.wait().unwrap().success());
    thread::sleep(ANOTHER_AFTER);
    fail(FAILURES);
    let summary = server.finish();
    let shown_of = |pid: u32| {
        let is_it = |record: &&Record| matches!(record, Record::CallError(error) if error.pid == pid && error.call == "bind");
        server.records().filter(is_it).count() as u64
    };
    assert!((EXAMPLES..=FAILURES).contains(&shown_of(of_other)), "{:?}", server.lines);
    let shown = shown_of(std::process::id());
    assert!((EXAMPLES + 1..=2 * FAILURES).contains(&shown), "{shown}: {:?}", server.lines);
    let all_shown = server.records().filter_map(only!(Record::CallError)).count();
    let refused = summary.refused.unwrap();
    let failed: u64 = refused.call_errors.as_ref().unwrap().values().sum();
    // Examples of other kinds, of other programs of the host, are left out as well.
    assert!(all_shown as u64 + summary.not_shown.unwrap() >= failed, "{refused:?}");
    assert!(summary.not_shown.unwrap() > 0, "{refused:?}");
    Ok(())
}

/// A process whose examples found the ring buffer full has not used them up: they come once there is room.
pub(crate) fn full_ring() -> Result<(), Skip> {
    needs_ebpf()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let page = u32::try_from(page_bytes().unwrap()).unwrap();
    let options = Options {
        ports: Vec::new(),
        netns: None,
        present: Err("not asked for".into()),
        object: None,
        without: ["fentry", "fexit", "kprobe", "kretprobe"].map(Into::into).into(),
        ring_bytes: Some(page),
        verbosity: 0,
    };
    let (mut tracer, _) = Tracer::attach(&options).map_err(|error| Skip(error.to_string()))?;
    // Others fill it, as many in a second as one second has examples for.
    let events = u64::from(page) / size_of::<c1m_ebpf::Event>() as u64 + 1;
    for _ in 0..events.div_ceil(EXAMPLES) {
        if tracer.lost().ring > 0 {
            break;
        }
        let mut other = Command::new(env::current_exe().unwrap());
        assert!(other.env(ROLE, "fail").status().unwrap().success());
        thread::sleep(Duration::from_secs(1));
    }
    let lost = tracer.lost().ring;
    assert!(lost > 0, "{events} events have room in {page} bytes");
    fail(FAILURES);
    assert!(tracer.lost().ring >= lost + FAILURES, "each found it full, and none had an example");
    let own = |tracer: &mut Tracer| {
        let is_own = |it: &Observation| matches!(&it.what, What::CallError(error) if error.pid == std::process::id());
        tracer.drain().unwrap().iter().filter(|it| is_own(it)).count() as u64
    };
    assert_eq!(own(&mut tracer), 0);
    thread::sleep(Duration::from_secs(1));
    fail(FAILURES);
    // Other processes may take some of this second's.
    let shown = own(&mut tracer);
    assert!((1..=EXAMPLES).contains(&shown), "{shown}");
    Ok(())
}

/// Opens until nothing more is to be had, and asks on.
fn exhaust_descriptors() {
    let null = File::open("/dev/null").unwrap();
    let mut held = Vec::new();
    while let Ok(file) = null.try_clone() {
        held.push(file);
    }
    for _ in 0..FAILURES {
        let error = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(24), "EMFILE, not {error}");
    }
}

fn of(refused: &Refused, name: &str) -> u64 {
    refused.call_errors.as_ref().unwrap().get(name).copied().unwrap_or(0)
}

/// The first ones are reported, with the process.
fn check_calls(server: &Server, call: &str, errno: &str, at_least: u64) {
    let me = std::process::id();
    let mut ours: Vec<CallError> = server.records().filter_map(only!(Record::CallError)).collect();
    ours.retain(|error| error.call == call && error.errno == errno && error.pid == me);
    assert!(ours.iter().all(|error| error.comm.starts_with("kernel")), "{ours:?}");
    assert!(ours.len() as u64 >= at_least.min(EXAMPLES), "{ours:?}");
}
