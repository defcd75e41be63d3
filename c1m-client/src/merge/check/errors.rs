//! What a part says of errors, beside the figures that they are errors of. Names of other errors
//! have no figure beside them.

use super::at_most;
use crate::record::{EndedBy, Summary};

/// Of an opening, by the call that failed.
const OPENING: [&str; 5] = ["socket ", "setsockopt ", "bind ", "connect ", "epoll "];
const NO_TUPLE_LEFT: &str = "no spare 4-tuple left";
/// The 4-tuple was of no use, and the next one was tried: no failed connection.
const TAKEN: [&str; 4] =
    ["bind EADDRINUSE", "connect EADDRNOTAVAIL", "no such 4-tuple", "source is the destination"];

/// # Errors
/// Which errors there cannot have been so many of.
pub(super) fn check(result: &Summary) -> Result<(), String> {
    let sum = |is_of: &dyn Fn(&str) -> bool| {
        let own = result.errors.iter().filter(|(name, _)| is_of(name));
        own.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    };
    let is_taken = |name: &str| TAKEN.contains(&name);
    let is_opening = |name: &str| {
        !is_taken(name)
            && (name == NO_TUPLE_LEFT || OPENING.iter().any(|call| name.starts_with(call)))
    };
    let failed = ("failed", result.failed);
    let openings = ("the sum of errors of openings", sum(&is_opening));
    at_most(openings, failed)?;
    at_most(
        ("the sum of errors of 4-tuples", sum(&is_taken)),
        ("plan.capacity", result.plan.capacity),
    )?;
    // A worker that could not go on takes its errors with it.
    if result.ended_by != EndedBy::Failure {
        at_most(failed, ("the sum of errors", sum(&|_| true)))?;
        at_most(
            ("errors.first byte timeout", sum(&|name| name == "first byte timeout")),
            ("first_byte_us.unanswered", result.first_byte_us.unanswered),
        )?;
    }
    let connected = ("connected", result.connected);
    let asked = result.sample.as_ref().map_or(connected, |it| ("sample.asked", it.asked));
    at_most(("the sum of errors of the sample", sum(&|name| name.starts_with("sample "))), asked)?;
    // Besides those that are due, each connection can have one under way at the end.
    let due = result.heartbeats.as_ref().map_or(0, |it| it.due);
    at_most(
        ("the sum of errors of heartbeats", sum(&|name| name.starts_with("heartbeat "))),
        ("the sum of heartbeats.due and connected", due.saturating_add(result.connected)),
    )
}
