//! Connections that nobody owns any more.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
};

use socket2::SockRef;

use super::super::{
    program::Confined,
    stand::{
        Stand, Step, Stop, all_answer, connect, eventually, pair, reserve_pages, reset, sockets,
    },
};

const MAX_ORPHANS: usize = 50;
const BEFORE: usize = 60;
const AFTER: usize = 40;

/// Writers that are closed with unsent data.
const WRITERS: usize = 40;
const SEND_BUFFER: usize = 1 << 18;
const HIGH_PAGES: u64 = 128;

fn pairs(listener: &TcpListener, count: usize) -> Step<(Vec<TcpStream>, Vec<TcpStream>)> {
    let pairs = (0..count).map(|_| pair(listener)).collect::<Step<Vec<_>>>()?;
    Ok(pairs.into_iter().unzip())
}

/// Closes connections whose peers stay.
pub(crate) fn too_many(stand: &mut Stand<'_>) -> Step {
    let address = stand.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    stand.set(&[
        // Above 60 s an orphan in FIN_WAIT2 stays a whole socket: net/ipv4/tcp.c, __tcp_close, 6.18.
        ("net.ipv4.tcp_fin_timeout", "120".into()),
        ("net.ipv4.tcp_max_orphans", MAX_ORPHANS.to_string()),
    ])?;
    let (first, mut peers) = pairs(&listener, BEFORE)?;
    let (last, others) = pairs(&listener, AFTER)?;
    peers.extend(others);
    drop(first);
    // What the kernel compares is refreshed by a timer, each 100 ms at most: net/ipv4/tcp.c, tcp_orphan_update, 6.18.
    eventually("the orphans are not too many", || {
        let (near, far) = pair(&listener)?;
        drop(near);
        peers.push(far);
        Ok(stand.moved("TCPAbortOnMemory")? > 0)
    })?;
    drop(last);
    stand.until_moved("TCPAbortOnMemory", AFTER as u64)?;
    peers.into_iter().try_for_each(reset)?;
    eventually("the orphans stay", || Ok(sockets()?.orphan < MAX_ORPHANS as u64))?;
    stand.put_back()?;
    all_answer(address, &mut healthy)
}

/// Fills send queues under the host's own tcp_mem, lowers it below what is held, and closes: no allocation is refused, but each
/// of the orphans has unsent data while usage is above high (net/ipv4/tcp.c, `tcp_check_oom`, 6.18).
pub(crate) fn out_of_memory(stand: &mut Stand<'_>) -> Step {
    let address = stand.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (writers, readers) = pairs(&listener, WRITERS)?;
    for mut writer in &writers {
        SockRef::from(writer).set_send_buffer_size(SEND_BUFFER)?;
        writer.set_nonblocking(true)?;
        let block = vec![0; SEND_BUFFER];
        while writer.write(&block).is_ok() {}
    }
    let enough = HIGH_PAGES + 2 * reserve_pages()?;
    let held = sockets()?.tcp_mem_pages;
    if held < enough {
        return Err(Stop::wrong(format!(
            "not tripped: {held} pages are queued, less than {enough}"
        )));
    }
    let [low, pressure] = [HIGH_PAGES / 2, HIGH_PAGES * 3 / 4];
    stand.set(&[("net.ipv4.tcp_mem", format!("{low} {pressure} {HIGH_PAGES}"))])?;
    drop(writers);
    stand.until_moved("TCPAbortOnMemory", WRITERS as u64)?;
    stand.put_back()?;
    readers.into_iter().try_for_each(reset)?;
    all_answer(address, &mut healthy)
}
