//! Which members of the SO_REUSEPORT group get new connections.
//!
//! At most as many workers as there are cores take part at a time: more would only wake each other's cores. The first
//! ones with room are filled up to their margin, then the next; when none has more than its margin, those with most.

use std::{
    io,
    os::fd::RawFd,
    sync::{Mutex, PoisonError},
};

use super::room::Step;
use c1m_sys::socket::steer_reuseport;

/// What the workers know of each other's room. Locked only when a worker's step of room changes.
#[derive(Debug)]
pub(super) struct Group(Mutex<State>);

#[derive(Debug)]
struct State {
    steps: Vec<Step>,
    /// Members that get new connections, as the kernel was last told.
    active: Vec<u32>,
    window: usize,
    /// Cleared when the kernel refuses: all members stay active.
    steering: bool,
}

/// The first `window` of those with most room. When all are full that is anyone: connections wait in a queue anyway.
fn choose(steps: &[Step], window: usize) -> Vec<u32> {
    let best = steps.iter().min();
    (0u32..)
        .zip(steps)
        .filter(|(_, step)| Some(*step) == best)
        .map(|(index, _)| index)
        .take(window)
        .collect()
}

/// What the user is told when the kernel refuses.
pub(super) fn steering_refused(error: &io::Error) -> String {
    format!(
        "the kernel does not let new connections be steered ({error}): every worker gets some, \
         also one whose descriptor table is nearly full"
    )
}

impl Group {
    pub(super) fn new(members: usize, window: usize) -> Self {
        Self(Mutex::new(State {
            steps: vec![0; members],
            active: Vec::new(),
            window,
            steering: true,
        }))
    }

    /// Tells the kernel the first members, through any of the listeners.
    ///
    /// # Errors
    /// The kernel refuses the program: it is not asked again, and all members get connections.
    pub(super) fn begin(&self, listener: RawFd) -> io::Result<()> {
        self.update(listener, |_| ())
    }

    /// Member `index` now has this much room; `listener` is its own.
    ///
    /// # Errors
    /// As [`Group::begin`].
    pub(super) fn report(&self, index: usize, step: Step, listener: RawFd) -> io::Result<()> {
        self.update(listener, |steps| steps[index] = step)
    }

    fn update(&self, listener: RawFd, change: impl FnOnce(&mut [Step])) -> io::Result<()> {
        // The state is whole after every statement, so a poisoned lock is as good as another.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.steps);
        let active = choose(&state.steps, state.window);
        if !state.steering || active == state.active {
            return Ok(());
        }
        let result = steer_reuseport(&listener, &active);
        state.steering = result.is_ok();
        state.active = active;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::room::FULL;

    #[test]
    fn the_first_with_most_room_are_chosen() {
        assert_eq!(choose(&[0, 0, 0, 0], 2), [0, 1]);
        assert_eq!(choose(&[1, 0, 0, 0], 2), [1, 2]);
        assert_eq!(choose(&[1, 1, 1, 0], 2), [3]);
        assert_eq!(choose(&[2, 1, FULL, 1], 2), [1, 3]);
        assert_eq!(choose(&[FULL, FULL, FULL], 2), [0, 1]);
        assert_eq!(choose(&[0], 8), [0]);
    }

    #[test]
    fn a_refusal_is_told_once() {
        let group = Group::new(3, 1);
        let no_socket = -1;
        assert!(group.begin(no_socket).is_err());
        assert!(group.report(0, FULL, no_socket).is_ok());
    }
}
