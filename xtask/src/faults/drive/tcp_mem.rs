//! The three values of net.ipv4.tcp_mem.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use c1m_testkit::{
    host::{cpus, reserve_pages, sockets, until_quiet},
    net::{ask, connections},
    trip::{Step, Stop, TWO_PAGES, reset_all, slow_readers, unread},
};

use super::super::fixture::{Fixture, all_answer, eventually};

/// Of an unread answer.
const PAGES: u64 = 2;
/// Pages that a connection which is being opened may have on its way.
const IN_FLIGHT_PAGES: u64 = 64;
/// Connections that ask once more.
const AGAIN: usize = 100;
/// Connections that ask for nothing until the end.
const HEALTHY: usize = 5;
/// Two of the observer's intervals: its look at usage is not for the new limits alone then.
const LOOK: Duration = Duration::from_millis(250);

/// The scale of all figures: each CPU may keep pages to itself.
fn scale() -> Step<u64> {
    Ok(cpus()?.max(2))
}

/// Waits for quiet, starts the server, sets `tcp_mem`, and opens a few connections that stay idle.
fn begin(fixture: &mut Fixture<'_>, tcp_mem: [u64; 3]) -> Step<(SocketAddr, Vec<TcpStream>)> {
    until_quiet()?;
    let address = fixture.serve()?;
    let [low, pressure, high] = tcp_mem;
    fixture.set(&[("net.ipv4.tcp_mem", format!("{low} {pressure} {high}"))])?;
    thread::sleep(LOOK);
    Ok((address, connections(address, HEALTHY)?))
}

/// Opens connections with an unread answer until `pages` are held, whatever the CPUs keep to themselves.
fn pin(address: SocketAddr, pages: u64) -> Step<Vec<TcpStream>> {
    let count = (pages + reserve_pages()? + IN_FLIGHT_PAGES).div_ceil(PAGES);
    Ok((0..count).map(|_| unread(address)).collect::<io::Result<_>>()?)
}

fn past(limit: u64) -> Step {
    eventually(
        &format!("usage is not above {limit} pages"),
        || Ok(sockets()?.tcp_mem_pages > limit),
    )
}

/// Gives everything back: with the queues gone, whoever was idle answers, and so does somebody new.
fn end(address: SocketAddr, streams: Vec<TcpStream>, healthy: &mut [TcpStream]) -> Step {
    // A reset takes the peer's queues with it: nothing is sent again from here on.
    reset_all(streams)?;
    until_quiet()?;
    all_answer(address, healthy)?;
    thread::sleep(LOOK);
    Ok(())
}

/// Past low only.
pub(crate) fn low(fixture: &mut Fixture<'_>) -> Step {
    let scale = scale()?;
    let limits = [512 * scale, 16_384 * scale, 32_768 * scale];
    let (address, mut healthy) = begin(fixture, limits)?;
    let streams = pin(address, limits[0])?;
    past(limits[0])?;
    end(address, streams, &mut healthy)?;
    match fixture.moved("TCPMemoryPressures")? {
        0 => Ok(()),
        _ => Err(Stop::wrong("usage went past more than low")),
    }
}

/// Past pressure, with so much room up to high that nobody is above the fair share.
pub(crate) fn pressure(fixture: &mut Fixture<'_>) -> Step {
    let scale = scale()?;
    let limits = [256 * scale, 512 * scale, 65_536 * scale];
    let (address, mut healthy) = begin(fixture, limits)?;
    let streams = pin(address, limits[1])?;
    past(limits[1])?;
    fixture.until_moved("TCPMemoryPressures", 1)?;
    end(address, streams, &mut healthy)?;
    match fixture.moved("TCPRcvQDrop")? {
        0 => Ok(()),
        _ => Err(Stop::wrong("segments were dropped, which this fault must not do")),
    }
}

/// Under pressure a socket may have high / sockets pages (net/core/sock.c, `__sk_mem_raise_allocated`, 5.4 to 6.18): with two sockets
/// a connection and high below twice the connections that is one, so that a second answer is refused.
pub(crate) fn fair_share(fixture: &mut Fixture<'_>) -> Step {
    let scale = scale()?;
    let limits = [256 * scale, 512 * scale, 2_048 * scale];
    let (address, mut healthy) = begin(fixture, limits)?;
    let mut streams = pin(address, 1_000 * scale)?;
    past(limits[1])?;
    for stream in streams.iter_mut().take(AGAIN) {
        ask(stream, TWO_PAGES)?;
    }
    fixture.until_moved("TCPRcvQDrop", AGAIN as u64 / 2)?;
    let held = sockets()?.tcp_mem_pages;
    if held > limits[2] {
        return Err(Stop::wrong(format!("{held} pages are above high, {}", limits[2])));
    }
    end(address, streams, &mut healthy)
}

/// Past high; second answers find a queue that is not empty, and are dropped.
pub(crate) fn high_unread(fixture: &mut Fixture<'_>) -> Step {
    let scale = scale()?;
    let limits = [512 * scale, 768 * scale, 1024 * scale];
    let (address, mut healthy) = begin(fixture, limits)?;
    let mut streams = pin(address, limits[2])?;
    past(limits[2])?;
    for stream in streams.iter_mut().take(AGAIN) {
        ask(stream, TWO_PAGES)?;
    }
    fixture.until_moved("TCPRcvQDrop", AGAIN as u64 / 2)?;
    end(address, streams, &mut healthy)
}

/// Clients that ask for much and take little: it stays in the server's send queues.
pub(crate) fn high_unsent(fixture: &mut Fixture<'_>) -> Step {
    let scale = scale()?;
    let limits = [512 * scale, 768 * scale, 1024 * scale];
    let (address, mut healthy) = begin(fixture, limits)?;
    let streams = slow_readers(address, limits[2], AGAIN)?;
    past(limits[2])?;
    fixture.until_moved("TCPMemoryPressures", 1)?;
    end(address, streams, &mut healthy)
}
