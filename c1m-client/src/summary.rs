//! What came of it: histograms, counts, errors by name.

use std::{collections::BTreeMap, time::Instant};

use hdrhistogram::Histogram;

use crate::record::{Heartbeats, Latency, Sample};

/// Times of one kind, microseconds: exact to three digits, from 1 µs to 2 h; what lies outside counts as the nearest of those.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let longest = 2 * 3600 * 1_000_000;
        let histogram = Histogram::new_with_bounds(1, longest, 3);
        Self(histogram.expect("bounds and digits are constants that the histogram takes"))
    }
}

impl Times {
    pub fn record(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds.max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    #[must_use]
    pub fn latency(&self) -> Latency {
        if self.0.is_empty() {
            return Latency::default();
        }
        let at = |quantile| self.0.value_at_quantile(quantile).min(self.0.max());
        Latency {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        }
    }
}

/// Errors by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<String, u64>);

impl Errors {
    pub fn count(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(name.into(), 1)),
        }
    }

    pub fn add(&mut self, other: Self) {
        for (name, count) in other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    #[must_use]
    pub fn into_inner(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// What one worker, or all of them, saw of heartbeats.
#[derive(Debug, Clone, Default)]
pub struct Beats {
    pub due: u64,
    pub answered: u64,
    pub late: u64,
    pub times: Times,
}

impl Beats {
    pub fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        self.late += other.late;
        self.times.add(&other.times);
    }

    #[must_use]
    pub fn record(&self) -> Heartbeats {
        Heartbeats {
            due: self.due,
            answered: self.answered,
            late: self.late,
            missed: self.due.saturating_sub(self.answered),
            latency_us: self.times.latency(),
        }
    }
}

/// A sample so far, of all workers.
#[derive(Debug, Clone, Default)]
pub struct Sampled {
    began: Option<Instant>,
    asked: u64,
    answered: u64,
    times: Times,
}

impl Sampled {
    /// The workers are told to ask.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    pub fn add(&mut self, asked: u64, answered: u64, times: &Times) {
        self.asked += asked;
        self.answered += answered;
        self.times.add(times);
    }

    #[must_use]
    pub fn record(&self) -> Sample {
        Sample {
            asked: self.asked,
            answered: self.answered,
            took_s: self.began.map_or(0.0, |began| began.elapsed().as_secs_f64()),
            latency_us: self.times.latency(),
        }
    }
}

/// What opening connections took, and every error.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub connect: Times,
    pub first_byte: Times,
    pub errors: Errors,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.connect.add(&other.connect);
        self.first_byte.add(&other.first_byte);
        self.errors.add(other.errors);
    }
}

/// The limit behind an error's name, and what to turn. `None`: the name says all there is to say.
#[must_use]
pub fn remedy(name: &str) -> Option<&'static str> {
    Some(match name {
        "socket EMFILE" => {
            "descriptors of one table: more --workers, or a higher hard limit (ulimit -Hn)"
        }
        "socket ENFILE" => "descriptors of the host: fs.file-max",
        "socket ENOMEM" | "socket ENOBUFS" => {
            "memory for sockets: less of them, or a higher limit of the cgroup"
        }
        "epoll ENOSPC" => "watches of this user: fs.epoll.max_user_watches",
        "epoll ENOMEM" => "memory of the host or of the cgroup",
        "bind EADDRINUSE" | "connect EADDRNOTAVAIL" => {
            "taken by somebody else: the next planned 4-tuple was used while there was one"
        }
        "bind EACCES" => "ports below net.ipv4.ip_unprivileged_port_start",
        "connect ECONNREFUSED" => "nobody listens there",
        "connect timeout" | "connect ETIMEDOUT" => {
            "the server's SYN or accept queue (its --backlog, net.core.somaxconn), or a firewall's table of connections"
        }
        "first byte timeout" => {
            "the server accepts late, or its data is held back (see what it says of tcp_mem)"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_three_digits_and_never_lost() {
        let mut times = Times::default();
        assert_eq!(times.latency(), Latency::default());
        (0..=1000).for_each(|us| times.record(us));
        let mut other = Times::default();
        other.record(u64::MAX);
        times.add(&other);
        let latency = times.latency();
        assert_eq!((latency.count, latency.p50), (1002, 500));
        assert!(latency.max >= 7_200_000_000);
    }

    #[test]
    fn errors_add_up_by_name() {
        let mut errors = Errors::default();
        errors.count("a");
        let mut other = errors.clone();
        other.count("b");
        errors.add(other);
        assert_eq!(errors.into_inner(), BTreeMap::from([("a".into(), 2), ("b".into(), 1)]));
    }
}
