//! Nothing is wrong, and the verdict has to say so.

use std::{io, thread, time::Duration};

use c1m_testkit::{
    net::{answers, connect, connections},
    trip::Step,
};

use super::super::{
    fixture::{Fixture, all_answer},
    program::Confined,
};

const IDLE: usize = 100;
const RAMP: usize = 2_000;
const THREADS: usize = 4;
const REQUESTS: usize = 100;
/// Several of the observer's intervals.
const WHILE: Duration = Duration::from_millis(500);

/// Connections that do nothing.
pub(crate) fn idle(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let mut streams = connections(address, IDLE)?;
    thread::sleep(WHILE);
    all_answer(address, &mut streams)
}

/// Connections that come, ask once, and go by a FIN from the client's side.
pub(crate) fn ramp(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.serve()?;
    let mut streams = connections(address, RAMP)?;
    all_answer(address, &mut streams)?;
    drop(streams);
    thread::sleep(WHILE);
    all_answer(address, &mut [])
}

/// One short connection after the other, from several threads at once.
pub(crate) fn busy(fixture: &mut Fixture<'_>) -> Step {
    let address = fixture.observe(&[], Confined::default())?;
    let work = move || -> io::Result<()> {
        for _ in 0..REQUESTS {
            let mut stream = connect(address)?;
            for _ in 0..3 {
                answers(&mut stream)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(step) => step,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    all_answer(address, &mut [])
}
