//! Local ports of one source, for one destination.

use std::net::{SocketAddr, TcpStream};

use super::super::{
    program::Confined,
    stand::{PATIENCE, Stand, Step, Stop, answers},
};

const PORTS: usize = 10;
const CONNECTS: usize = 15;

/// The source is left to the kernel: it has ten ports for this destination, and no eleventh.
pub(crate) fn exhausted(stand: &mut Stand<'_>) -> Step {
    let address = stand.observe(&[], Confined::default())?;
    let first = outside(address);
    let range = format!("{first} {}", usize::from(first) + PORTS - 1);
    stand.set_own("net.ipv4.ip_local_port_range", &range)?;
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..CONNECTS {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                streams.push(stream);
            }
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    if (streams.len(), refused) != (PORTS, CONNECTS - PORTS) {
        let opened = streams.len();
        return Err(Stop::wrong(format!("not tripped: {opened} connections, {refused} refused")));
    }
    let refused = refused as u64;
    stand.count("connect: EADDRNOTAVAIL", refused, "/ports_exhausted");
    stand.count("connect: EADDRNOTAVAIL", refused, "/call_errors/connect EADDRNOTAVAIL");
    // A new one would find no port either.
    streams.iter_mut().try_for_each(answers)
}

/// A range of ports in which the server's own is not.
fn outside(address: SocketAddr) -> u16 {
    if address.port() < 45_000 { 50_000 } else { 40_000 }
}
