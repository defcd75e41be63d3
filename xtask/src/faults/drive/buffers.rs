//! The buffers of one socket.

use std::{io::Write as _, net::TcpListener, thread, time::Duration};

use socket2::SockRef;

use super::super::{
    program::Confined,
    stand::{Stand, Step, all_answer, connect, pair, reset},
};

const PAIRS: usize = 20;
const SEGMENT: [u8; 4_000] = [0; 4_000];
const SEGMENTS: usize = 4;

/// The receiver shrinks its buffer after it has promised a window: what fills the window no longer fits into the buffer
/// (net/ipv4/tcp_input.c, `tcp_try_rmem_schedule`, 5.4 to 6.18). The first segment is taken, as the queue is empty.
pub(crate) fn receive(stand: &mut Stand<'_>) -> Step {
    let address = stand.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut pairs = (0..PAIRS).map(|_| pair(&listener)).collect::<Step<Vec<_>>>()?;
    for (near, far) in &mut pairs {
        // The kernel makes the smallest buffer of it, and leaves it at that: the size was asked for.
        SockRef::from(&*far).set_recv_buffer_size(1)?;
        near.set_nodelay(true)?;
        for _ in 0..SEGMENTS {
            near.write_all(&SEGMENT)?;
        }
    }
    stand.until_moved("TCPRcvQDrop", PAIRS as u64)?;
    for (near, far) in pairs {
        reset(near)?;
        reset(far)?;
    }
    // Segments that were on their way are counted by both sides before either is read.
    thread::sleep(Duration::from_millis(250));
    all_answer(address, &mut healthy)
}
