//! System calls that fail, held against the errors that their callers get.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use c1m_server::output::record::{CallError, Ports, Record, Refused};
use socket2::{Domain, Socket, Type};

use crate::{
    host::{Settings, reset},
    server::{Server, Skip, needs_ebpf},
};

const PORTS: usize = 10;
const CONNECTIONS: usize = 15;
const FAILURES: u64 = 12;
/// Of each call and errno; see docs/events.md.
const FIRST_EVENTS: usize = 8;

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
    let (mut streams, mut failed) = (Vec::new(), 0);
    for _ in 0..CONNECTIONS {
        match TcpStream::connect(address) {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
                failed += 1;
            }
        }
    }
    settings.put_back();
    streams.into_iter().for_each(reset);
    assert!(failed >= CONNECTIONS - PORTS, "{failed} failed");

    let refused = server.finish().refused.unwrap();
    let me = std::process::id();
    if hook.starts_with("fexit/") {
        let told: Vec<&Ports> = server
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Ports(ports) if ports.pid == me => Some(ports),
                _ => None,
            })
            .collect();
        assert_eq!(told.len(), failed.min(FIRST_EVENTS), "{told:?}");
        for ports in told {
            assert_eq!(ports.source.as_deref(), Some("127.0.0.1"), "{ports:?}");
            assert_eq!(ports.destination, Some(address.to_string()), "{ports:?}");
        }
    }
    check_calls(&server, "connect", "EADDRNOTAVAIL", failed);
    // Other programs of the host may fail as well.
    assert!(refused.ports_exhausted.unwrap() >= failed as u64, "{refused:?}");
    assert!(of(&refused, "connect EADDRNOTAVAIL") >= failed as u64, "{refused:?}");
    Ok(())
}

pub(crate) fn failed_calls() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs("call_errors")?;
    // For documentation (RFC 5737): nobody's address.
    let nowhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    for _ in 0..FAILURES {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = socket.bind(&nowhere.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
    }
    exhaust_descriptors();
    let refused = server.finish().refused.unwrap();
    assert!(of(&refused, "bind EADDRNOTAVAIL") >= FAILURES, "{refused:?}");
    assert!(of(&refused, "socket EMFILE") >= FAILURES, "{refused:?}");
    check_calls(&server, "bind", "EADDRNOTAVAIL", FIRST_EVENTS);
    check_calls(&server, "socket", "EMFILE", FIRST_EVENTS);
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

/// The first ones are told, with the process.
fn check_calls(server: &Server, call: &str, errno: &str, at_least: usize) {
    let me = std::process::id();
    let told: Vec<&CallError> = server
        .records
        .iter()
        .filter_map(|record| match record {
            Record::CallError(error) if error.call == call && error.errno == errno => Some(error),
            _ => None,
        })
        .collect();
    assert!(told.len() <= FIRST_EVENTS, "{told:?}");
    let ours = told.iter().filter(|error| error.pid == me && error.comm.starts_with("kernel"));
    // Those of others count among the first.
    let of_others = told.iter().filter(|error| error.pid != me).count();
    assert_eq!(ours.count(), at_least.min(FIRST_EVENTS - of_others), "{told:?}");
}
