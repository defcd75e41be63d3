//! A listener that does not accept.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use c1m_record::{Overflow, Record};
use socket2::{Domain, Socket, Type};

use crate::{
    attempt::undisturbed,
    host::{bound, counter, eventually, reset},
    server::{PATIENCE, Server, Skip, needs_ebpf},
};

const BACKLOG: i32 = 5;
const CONNECTIONS: usize = 20;

pub(crate) fn accept_queue() -> Result<(), Skip> {
    needs_ebpf()?;
    undisturbed(attempt)
}

fn attempt() -> Result<Result<(), String>, Skip> {
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs_function("accept_queue_syn")?;
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(BACKLOG).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();

    let before = counter("ListenOverflows");
    let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| begin(address)).collect();
    let is_full = eventually(PATIENCE, || {
        counter("ListenOverflows") >= before + CONNECTIONS as u64 - BACKLOG as u64 - 1
    });
    assert!(is_full, "{} of {CONNECTIONS} found it full", counter("ListenOverflows") - before);
    streams.into_iter().for_each(reset);
    drop(listener);
    std::thread::sleep(Duration::from_millis(100));

    let refused = server.finish().refused.unwrap();
    let (at_syn, at_ack) = (refused.accept_queue_syn.unwrap(), refused.accept_queue_ack);
    let overflows: Vec<&Overflow> = server
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Overflow(overflow) => Some(overflow),
            _ => None,
        })
        .collect();
    let of_ours = overflows.iter().filter(|it| it.listener == Some(address.to_string()));
    let mut count = 0;
    for overflow in of_ours {
        count += 1;
        assert_eq!(
            (overflow.queue.as_str(), overflow.max),
            ("accept", BACKLOG as u64),
            "{overflow:?}"
        );
        // The kernel takes one more than it was asked to: include/net/sock.h, sk_acceptq_is_full, 6.18.
        assert!(overflow.len > overflow.max, "{overflow:?}");
    }
    assert!(count > 0, "{overflows:?}");
    let counted = refused.kernel["ListenOverflows"];
    let told = at_syn + at_ack.unwrap_or(0);
    let is_equal = told == counted || at_ack.is_none() && told <= counted;
    Ok(if is_equal && at_syn > 0 { Ok(()) } else { Err(format!("{refused:?}")) })
}

/// Sends a SYN, and does not wait.
fn begin(address: SocketAddr) -> TcpStream {
    let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    socket.set_nonblocking(true).unwrap();
    if let Err(error) = socket.connect(&address.into()) {
        assert_eq!(error.raw_os_error(), Some(115), "EINPROGRESS, not {error}");
    }
    socket.into()
}
