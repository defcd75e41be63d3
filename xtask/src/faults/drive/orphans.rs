//! Connections that nobody owns any more.

use std::net::TcpListener;

use c1m_testkit::{
    host::sockets,
    net::connect,
    trip::{self, MAX_ORPHANS, Step, reset_all},
};

use super::super::{
    fixture::{Fixture, all_answer, eventually},
    program::Confined,
};

/// Closes connections whose peers stay.
pub(crate) fn too_many(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    reset_all(trip::too_many_orphans(&listener, fixture.settings())?)?;
    eventually("the orphans stay", || Ok(sockets()?.orphan < MAX_ORPHANS))?;
    fixture.put_back()?;
    all_answer(address, &mut healthy)
}

/// Closes connections with unsent data while usage is above high.
pub(crate) fn out_of_memory(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let mut healthy = vec![connect(address)?];
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let readers = trip::orphans_out_of_memory(&listener, fixture.settings())?;
    fixture.put_back()?;
    reset_all(readers)?;
    all_answer(address, &mut healthy)
}
