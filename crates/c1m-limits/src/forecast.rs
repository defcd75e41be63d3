//! At which connection, and when, is each limit hit? From samples that were taken one after the other.

use c1m_record::{LimitReading, Limits};

pub use crate::history::History;
use crate::{
    history::{LIMITS, Point},
    limits::{Limit, shown},
    reading::{Peak, Readings, Usage},
};

/// Readings that say how things go now.
const RECENT: usize = 16;
/// Fewer new connections than this between two readings say nothing about what one of them takes.
const CONNECTIONS_MIN: u64 = 16;
/// Beyond this many connections a forecast is no news.
const FAR: u64 = 1_000_000_000;

/// Forecasts.
impl History {
    /// Adds a sample. They come in the order of their time.
    pub fn add(&mut self, readings: &Readings) {
        let mut used_of_all = [None; LIMITS];
        for (index, limit) in shown().enumerate() {
            let usage = limit.usage(readings);
            used_of_all[index] = usage.used;
            if let (Some(used), Some(ceiling)) = (usage.used, usage.ceiling) {
                let peak = Peak { used, ceiling };
                if self.peaks[index].is_none_or(|highest| peak.is_above(&highest)) {
                    self.peaks[index] = Some(peak);
                }
            }
            if usage.is_past() {
                self.past_at[index].get_or_insert(readings.connections);
            }
        }
        if let (Some(sockets), Some([low, _, _])) = (readings.sockstat, readings.tcp_mem) {
            self.past_low |= sockets.tcp_mem_pages > low;
        }
        if let Some(sockets) = readings.sockstat {
            self.sockets_max = self.sockets_max.max(sockets.alloc.saturating_add(sockets.tw));
        }
        if let Some(bytes) = readings.memory_available_bytes {
            self.available_bytes_min =
                Some(self.available_bytes_min.map_or(bytes, |least| least.min(bytes)));
        }
        let point = Point { readings: *readings, used: used_of_all };
        self.first.get_or_insert(point);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(point);
    }

    /// Every limit with its forecast, and which comes next.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let now = self.now();
        let limits: Vec<LimitReading> = shown().map(|limit| self.line(limit, &now)).collect();
        let next = limits
            .iter()
            .filter(|line| line.in_s != Some(0.0) && line.headroom != Some(0))
            .filter_map(|line| Some((line.at_connection?, line.limit)))
            .min_by_key(|(at, _)| *at)
            .map(|(_, limit)| limit);
        Limits { limits, next }
    }

    fn line(&self, limit: &dyn Limit, now: &Readings) -> LimitReading {
        let about = limit.about();
        let mut usage = limit.usage(now);
        let softer = limit.softer(now);
        if let Some(softer) = softer {
            usage = Usage::new(Some(softer.used), Some(softer.ceiling));
        }
        let (at_connection, in_s) = match softer {
            // How memory grows says nothing about what is queued.
            Some(softer) if softer.counts_sockets_alone => (None, None),
            _ => self.forecast(limit, &usage),
        };
        LimitReading {
            limit: about.name,
            scope: about.scope,
            unit: about.unit.into(),
            used: usage.used,
            ceiling: usage.ceiling,
            headroom: usage.headroom(),
            source: softer.map_or(about.source, |softer| softer.source).into(),
            at_connection,
            in_s,
        }
    }

    /// The connection at which it is hit, and in how many seconds.
    fn forecast(&self, limit: &dyn Limit, usage: &Usage) -> (Option<u64>, Option<f64>) {
        if usage.is_past() {
            return (self.past_at[limit.about().name as usize], Some(0.0));
        }
        let (Some(headroom), Some(last)) = (usage.headroom(), self.recent.back()) else {
            return (None, None);
        };
        let Some((grown, connections)) = self.growth(limit, last) else { return (None, None) };
        // Equal is not past: the connection behind the last one that fits.
        let more = u128::from(headroom) * u128::from(connections) / u128::from(grown) + 1;
        let Some(more) = u64::try_from(more).ok().filter(|more| *more <= FAR) else {
            return (None, None);
        };
        (Some(last.connections() + more), self.rate().map(|rate| as_float(more) / rate))
    }

    /// By how much usage grew over how many connections, the latter at least 1: as measured lately, else since the start, else as it is
    /// by construction. `None`: it does not grow.
    fn growth(&self, limit: &dyn Limit, last: &Point) -> Option<(u64, u64)> {
        let by_construction = limit.per_connection().map(|each| (each, 1));
        let before = self
            .recent
            .iter()
            .chain(&self.first)
            .find(|point| point.connections() + CONNECTIONS_MIN <= last.connections());
        let Some(before) = before else { return by_construction };
        let index = limit.about().name as usize;
        let (Some(was), Some(is)) = (before.used[index], last.used[index]) else {
            return by_construction;
        };
        let grown = is.saturating_sub(was);
        if grown > limit.noise(&last.readings) {
            return Some((grown, last.connections() - before.connections()));
        }
        by_construction
    }

    /// New connections per second, as it goes now; `None`: none come.
    fn rate(&self) -> Option<f64> {
        let last = self.recent.back()?;
        let before = self.recent.iter().rev().nth(1)?;
        // The last two must show it: a ramp that is over has no rate.
        if last.connections() <= before.connections() {
            return None;
        }
        let since = self.recent.iter().rev().nth(4).unwrap_or(before);
        let seconds = last.readings.at.checked_sub(since.readings.at)?.as_secs_f64();
        let more = last.connections().checked_sub(since.connections())?;
        (more > 0 && seconds > 0.0).then(|| as_float(more) / seconds)
    }
}

/// Numbers of connections are far below 2^52.
fn as_float(connections: u64) -> f64 {
    connections as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use c1m_record::{FileNr, LimitName, Sockstat};
    use proptest::prelude::*;

    use super::*;

    fn readings(seconds: u64, connections: u64, pages: u64) -> Readings {
        Readings {
            at: Duration::from_secs(seconds),
            connections,
            cpus: Some(1),
            tcp_mem: Some([10_000, 20_000, 40_000]),
            sockstat: Some(Sockstat { tcp_mem_pages: pages, ..Sockstat::default() }),
            ..Readings::default()
        }
    }

    fn of(history: &History, name: LimitName) -> LimitReading {
        history.limits().limits.into_iter().find(|line| line.limit == name).unwrap()
    }

    #[test]
    fn usage_that_grows_with_connections_names_the_connection_and_the_time() {
        let mut history = History::default();
        for step in 0..5 {
            // Two pages each, a thousand connections per second.
            history.add(&readings(step, step * 1000, step * 2000));
        }
        let line = of(&history, LimitName::TcpMemPressure);
        assert_eq!((line.used, line.headroom), (Some(8000), Some(12_000)));
        assert_eq!((line.at_connection, line.in_s), (Some(10_001), Some(6.001)));
        assert_eq!(of(&history, LimitName::TcpMemHigh).at_connection, Some(20_001));
        assert_eq!(history.limits().next, Some(LimitName::TcpMemPressure));
    }

    #[test]
    fn constant_usage_is_never_hit() {
        let mut history = History::default();
        for step in 0..5 {
            // What a CPU keeps apart comes and goes.
            history.add(&readings(step, step * 1000, if step % 2 == 0 { 0 } else { 252 }));
        }
        let line = of(&history, LimitName::TcpMemPressure);
        assert_eq!((line.at_connection, line.in_s), (None, None));
        assert_eq!(history.limits().next, None);
    }

    #[test]
    fn usage_that_is_past_says_when_that_began() {
        let mut history = History::default();
        for (step, pages) in [0, 15_000, 30_000, 45_000].into_iter().enumerate() {
            history.add(&readings(step as u64, step as u64 * 100, pages));
        }
        let line = of(&history, LimitName::TcpMemPressure);
        assert_eq!((line.at_connection, line.in_s, line.headroom), (Some(200), Some(0.0), Some(0)));
        assert_eq!(of(&history, LimitName::TcpMemHigh).at_connection, Some(300));
        assert_eq!(history.limits().next, None, "what is past does not come next");
    }

    #[test]
    fn a_ramp_that_is_over_has_no_time() {
        let mut history = History::default();
        for (step, connections) in [0, 1000, 2000, 2000].into_iter().enumerate() {
            history.add(&readings(step as u64, connections, connections));
        }
        let line = of(&history, LimitName::TcpMemPressure);
        assert_eq!((line.at_connection, line.in_s), (Some(20_001), None));
    }

    #[test]
    fn by_construction_a_connection_takes_a_descriptor_before_there_is_one() {
        let mut history = History::default();
        history.add(&Readings {
            descriptors: Some(7),
            descriptors_max: Some(1024),
            file_nr: Some(FileNr { allocated: 1000, max: i64::MAX as u64 }),
            ..readings(0, 0, 0)
        });
        assert_eq!(of(&history, LimitName::Nofile).at_connection, Some(1018));
        assert_eq!(of(&history, LimitName::FileMax).at_connection, None, "beyond all sense");
        assert_eq!(history.limits().next, Some(LimitName::Nofile));
        assert_eq!(of(&history, LimitName::Nofile).in_s, None);
    }

    #[test]
    fn what_was_near_stays_known_when_the_limit_moves_away() {
        let mut history = History::default();
        history.add(&readings(0, 0, 100));
        history.add(&Readings { tcp_mem: Some([1, 20, 30]), ..readings(1, 0, 40) });
        history.add(&readings(2, 0, 200));
        let peak = history.peak(LimitName::TcpMemHigh).unwrap();
        assert_eq!((peak.used, peak.ceiling, peak.is_past()), (40, 30, true));
        assert!(history.was_past_low());
        assert_eq!(of(&history, LimitName::TcpMemHigh).at_connection, None);
    }

    #[test]
    fn nothing_is_known_before_the_first_sample() {
        let limits = History::default().limits();
        assert_eq!(limits.limits.len(), LIMITS);
        assert!(
            limits.limits.iter().all(|line| line.used.is_none() && line.at_connection.is_none())
        );
    }

    proptest! {
        /// Whatever comes, no forecast lies behind what is held already, and none is at odds with the headroom.
        #[test]
        fn any_history_is_answered(looks in prop::collection::vec((0u64..5, 0u64..u64::MAX / 4, any::<u64>(), any::<[u64; 3]>()), 0..40)) {
            let mut history = History::default();
            let mut seconds = 0;
            for (step, connections, pages, limits) in looks {
                seconds += step;
                history.add(&Readings { tcp_mem: Some(limits), ..readings(seconds, connections, pages) });
                for line in history.limits().limits {
                    if let (Some(at), Some(1..)) = (line.at_connection, line.headroom) {
                        prop_assert!(at > connections);
                    }
                    prop_assert!(line.in_s.is_none_or(|seconds| seconds >= 0.0));
                }
            }
        }
    }
}
