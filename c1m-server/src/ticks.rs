//! What a command waits for by the clock. An instant that the clock does not reach never comes.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

/// A shorter interval would be a busy loop.
pub(crate) const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The first one after `interval`. `None`: never.
pub(crate) fn ticks(interval: Duration) -> Option<Interval> {
    let interval = interval.max(MIN_INTERVAL);
    let mut ticks = interval_at(Instant::now().checked_add(interval)?, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

pub(crate) async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => pending().await,
    }
}

pub(crate) async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => pending().await,
    }
}
