//! The number of connections, counted in the kernel, compared with those that the test holds.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use c1m_record::Record;

use c1m_testkit::{PATIENCE, Skip};

use crate::{
    host::{bound, connect, connected, reset},
    server::{Server, nothing_lost_by_us},
};

const QUICK: [&str; 2] = ["--interval", "20ms"];

/// Connections of each way to end.
const EACH: usize = 600;

pub(crate) fn however_they_end() -> Result<(), Skip> {
    let mut server = Server::start(&QUICK)?;
    ends(&mut server, EACH);
    Ok(())
}

pub(crate) fn over_ipv6() -> Result<(), Skip> {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return Err(Skip(format!("no IPv6 on loopback: {error}")));
    }
    let mut server = Server::start_on("[::1]:0", &QUICK)?;
    ends(&mut server, EACH / 6);
    Ok(())
}

pub(crate) fn two_servers() -> Result<(), Skip> {
    let (mut one, mut other) = (Server::start(&QUICK)?, Server::start(&QUICK)?);
    let to_one = open(&one, 200);
    let to_other = open(&other, 300);
    give_back(&mut one, 200);
    give_back(&mut other, 300);
    to_one.into_iter().for_each(reset);
    give_back(&mut one, 0);
    give_back(&mut other, 300);
    // The hooks of the one go, those of the other stay.
    nothing_lost_by_us(&one.finish());
    to_other.into_iter().for_each(drop);
    give_back(&mut other, 0);
    nothing_lost_by_us(&other.finish());
    Ok(())
}

/// A client's own port can be the number that is watched: it is no connection of the server's.
pub(crate) fn clients_on_the_port() -> Result<(), Skip> {
    let mut server = Server::start(&QUICK)?;
    let held = open(&server, 10);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for end in [reset, drop] {
        let source = SocketAddr::from(([127, 0, 0, 2], server.address.port()));
        let stream = connected(bound(source), listener.local_addr().unwrap());
        let peer = listener.accept().unwrap().0;
        give_back(&mut server, 10);
        end(stream);
        reset(peer);
        give_back(&mut server, 10);
    }
    held.into_iter().for_each(reset);
    give_back(&mut server, 0);
    nothing_lost_by_us(&server.finish());
    Ok(())
}

/// Opens five times `each`, and ends them in as many ways.
fn ends(server: &mut Server, each: usize) {
    let held = |ways: usize| (ways * each).try_into().unwrap();
    let mut streams = open(server, 5 * each);
    give_back(server, held(5));
    let mut some = || streams.split_off(streams.len() - each);

    some().into_iter().for_each(reset);
    give_back(server, held(4));

    some().into_iter().for_each(drop);
    give_back(server, held(3));

    for mut stream in some() {
        stream.write_all(b"no HTTP\r\n\r\n").unwrap();
        assert!(to_the_end(&mut stream).starts_with("HTTP/1.1 400 "));
    }
    give_back(server, held(2));

    for mut stream in some() {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(to_the_end(&mut stream), "");
    }
    give_back(server, held(1));

    // A whole exchange, then both ends at the same time.
    for mut stream in some() {
        stream
            .write_all(b"GET /bytes/3 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(to_the_end(&mut stream).starts_with("HTTP/1.1 200 "));
    }
    give_back(server, 0);
    let summary = server.finish();
    assert_eq!(summary.held, 0, "{summary:?}");
    nothing_lost_by_us(&summary);
}

fn open(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(server.address)).collect()
}

fn to_the_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Waits until kernel and server both say `held`. A line comes only when the server's own number has changed since the last
/// one, so one more connection asks for it.
fn give_back(server: &mut Server, held: u64) {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < end {
        let probe = connect(server.address);
        let connections = connections_with(server, held + 1);
        reset(probe);
        // Else the next one could come before the server has looked, and would change nothing.
        connections_with(server, held);
        last = connections.or(last);
        if connections == Some(held + 1) {
            return;
        }
    }
    panic!("with {held} and one more held, the kernel counts {last:?}: {:?}", server.lines.last());
}

/// What the kernel counts when the server holds `held`; `None` when it does not come to that.
fn connections_with(server: &mut Server, held: u64) -> Option<u64> {
    server.find_in(Duration::from_secs(1), |record| match record {
        Record::Online(online) if online.online == held => online.connections,
        _ => None,
    })
}
