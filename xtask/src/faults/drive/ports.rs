//! Local ports of one source, for one destination.

use std::net::SocketAddr;

use c1m_testkit::{
    host::set_own,
    net::answers,
    trip::{Step, Stop, without_ports},
};

use super::super::{fixture::Fixture, program::Confined};

const PORTS: u64 = 10;
const CONNECTS: u64 = 15;

/// The source is left to the kernel: it has ten ports for this destination, and no eleventh.
pub(crate) fn exhausted(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let first = outside(address);
    let range = format!("{first} {}", u64::from(first) + PORTS - 1);
    set_own("net.ipv4.ip_local_port_range", &range)?;
    let (mut streams, refused) = without_ports(address, CONNECTS)?;
    if (streams.len() as u64, refused) != (PORTS, CONNECTS - PORTS) {
        let opened = streams.len();
        return Err(Stop::wrong(format!("not tripped: {opened} connections, {refused} refused")));
    }
    fixture.count("connect: EADDRNOTAVAIL", refused, "/ports_exhausted");
    fixture.count("connect: EADDRNOTAVAIL", refused, "/call_errors/connect EADDRNOTAVAIL");
    // A new one would find no port either.
    Ok(streams.iter_mut().try_for_each(answers)?)
}

/// A range of ports in which the server's own is not.
fn outside(address: SocketAddr) -> u16 {
    if address.port() < 45_000 { 50_000 } else { 40_000 }
}
