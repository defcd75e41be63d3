//! A listener that does not accept.

use std::{net::SocketAddr, time::Duration};

use c1m_record::{Overflow, Record};
use c1m_testkit::{
    Skip, only,
    trip::{overflow, reset_all},
    undisturbed,
};

use crate::{
    host::bound,
    server::{Server, needs_ebpf},
};

const BACKLOG: u8 = 5;
const CONNECTIONS: u8 = 20;

pub(crate) fn accept_queue() -> Result<(), Skip> {
    needs_ebpf()?;
    undisturbed(attempt)
}

fn attempt() -> Result<Result<(), String>, Skip> {
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs_function("accept_queue_syn")?;
    let listener = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    listener.listen(BACKLOG.into()).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();

    // The kernel takes one more than it was asked to: include/net/sock.h, sk_acceptq_is_full, 6.18.
    let dropped = CONNECTIONS - BACKLOG - 1;
    let waiting = overflow(address, CONNECTIONS.into(), dropped.into()).unwrap();
    reset_all(waiting.into_iter().map(Into::into)).unwrap();
    drop(listener);
    std::thread::sleep(Duration::from_millis(100));

    let refused = server.finish().refused.unwrap();
    let (at_syn, at_ack) = (refused.accept_queue_syn.unwrap(), refused.accept_queue_ack);
    let overflows: Vec<Overflow> = server.records().filter_map(only!(Record::Overflow)).collect();
    let of_ours = overflows.iter().filter(|it| it.listener == Some(address.to_string()));
    let mut count = 0;
    for overflow in of_ours {
        count += 1;
        assert_eq!(
            (overflow.queue.as_str(), overflow.max),
            ("accept", BACKLOG.into()),
            "{overflow:?}"
        );
        assert!(overflow.len > overflow.max, "{overflow:?}");
    }
    assert!(count > 0, "{overflows:?}");
    let counted = refused.kernel["ListenOverflows"];
    let reported = at_syn + at_ack.unwrap_or(0);
    let is_equal = reported == counted || at_ack.is_none() && reported <= counted;
    Ok(if is_equal && at_syn > 0 { Ok(()) } else { Err(format!("{refused:?}")) })
}
