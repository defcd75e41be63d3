//! Sockets that are closed for the network, and held open by a program that does not look at them.

use std::{io::Write as _, net::TcpListener, thread, time::Duration};

use c1m_testkit::{
    host::{cpus, reserve_pages, sockets, until_quiet},
    net::{connect, pair, reset},
    trip::Step,
};

use super::super::{
    fixture::{Fixture, all_answer, eventually},
    program::Confined,
};

/// Two pages in a receive queue.
const UNREAD: [u8; 5_000] = [0; 5_000];
/// Pairs above high that get a second segment.
const ABOVE: u64 = 50;
const LOOK: Duration = Duration::from_millis(250);

/// Each peer sends and then resets. The state is CLOSE, so that no list of connections has the socket, but its receive queue stays
/// until the descriptor is closed (net/ipv4/tcp_input.c, `tcp_reset`, 6.18).
pub(crate) fn unread(fixture: &mut Fixture<'_>) -> Step {
    let scale = cpus()?.max(2);
    let reserve = reserve_pages()?;
    let high = 1024 * scale;
    until_quiet()?;
    let address = fixture.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    fixture.set(&[("net.ipv4.tcp_mem", format!("{} {} {high}", 512 * scale, 768 * scale))])?;
    thread::sleep(LOOK);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut held = Vec::new();
    let count = (high + reserve + 64) / 2 + ABOVE;
    for n in 0..count {
        let (mut near, far) = pair(&listener)?;
        near.write_all(&UNREAD)?;
        far.peek(&mut [0])?;
        if n + ABOVE >= count {
            // Above high it finds a queue that is not empty. Who sends it may be refused as well, and would wait.
            near.set_nonblocking(true)?;
            let _ = near.write(&UNREAD);
        }
        reset(near)?;
        held.push(far);
    }
    eventually("usage is not above high", || Ok(sockets()?.tcp_mem_pages > high))?;
    fixture.until_moved("TCPRcvQDrop", 1)?;
    drop(held);
    until_quiet()?;
    all_answer(address, &mut healthy)?;
    thread::sleep(LOOK);
    Ok(())
}
