//! The buffers of one socket.

use std::{io::Write as _, net::TcpListener, thread, time::Duration};

use c1m_testkit::{
    net::{connect, pairs},
    trip::{Step, reset_all},
};
use socket2::SockRef;

use super::super::{
    fixture::{Fixture, all_answer},
    program::Confined,
};

const PAIRS: usize = 20;
const SEGMENT: [u8; 4_000] = [0; 4_000];
const SEGMENTS: usize = 4;

/// The receiver shrinks its buffer after it has promised a window: what fills the window no longer fits into the buffer
/// (net/ipv4/tcp_input.c, `tcp_try_rmem_schedule`, 5.4 to 6.18). The first segment is taken, as the queue is empty.
pub(crate) fn receive(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (mut near, far) = pairs(&listener, PAIRS)?;
    for (near, far) in near.iter_mut().zip(&far) {
        // The kernel makes the smallest buffer of it, and leaves it at that: the size was asked for.
        SockRef::from(far).set_recv_buffer_size(1)?;
        near.set_nodelay(true)?;
        for _ in 0..SEGMENTS {
            near.write_all(&SEGMENT)?;
        }
    }
    fixture.until_moved("TCPRcvQDrop", PAIRS as u64)?;
    reset_all(near.into_iter().chain(far))?;
    // Segments that were on their way are counted by both sides before either is read.
    thread::sleep(Duration::from_millis(250));
    all_answer(address, &mut healthy)
}
