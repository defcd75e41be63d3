//! What came of it: histograms, counts, errors by name.

use std::{collections::BTreeMap, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2DeflateSerializer},
};

use crate::record::{Heartbeats, Histograms, Latency, Sample};

/// Times of one kind, microseconds: exact to three digits, from 1 µs to 2 h; what lies outside
/// counts as the nearest of those.
///
/// What was not answered within the timeout has no time, and takes longer than everything that has
/// one. Without it a server that answers half of the requests would have the percentiles of one
/// that answers all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    answered: Histogram<u64>,
    unanswered: u64,
}

impl Default for Times {
    fn default() -> Self {
        let longest = 2 * 3600 * 1_000_000;
        let histogram = Histogram::new_with_bounds(1, longest, 3);
        let answered = histogram.expect("bounds and digits are constants that the histogram takes");
        Self { answered, unanswered: 0 }
    }
}

impl Times {
    pub fn record(&mut self, microseconds: u64) {
        self.answered.saturating_record(microseconds.max(1));
    }

    /// So many more were not answered within the timeout.
    pub fn miss(&mut self, count: u64) {
        self.unanswered = self.unanswered.saturating_add(count);
    }

    pub fn add(&mut self, other: &Self) {
        self.answered.add(&other.answered).expect("both have the same bounds");
        self.miss(other.unanswered);
    }

    /// How many were not answered within the timeout.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// All of them, answered or not.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.answered.len().saturating_add(self.unanswered)
    }

    /// The time within which this share of all of them was answered, from 0 to 1. `None`: there
    /// were none, or fewer were answered.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Option<u64> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are far below 2^52, and a share of one is not larger"
        )]
        // Without what the product is rounded up by: 99 % of 100 are 99.
        let rank = (quantile * self.asked() as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil() as u64;
        let mut left = rank.max(1);
        for step in self.answered.iter_recorded() {
            left = left.saturating_sub(step.count_since_last_iteration());
            if left == 0 {
                return Some(step.value_iterated_to().min(self.answered.max()));
            }
        }
        None
    }

    /// Of those that were answered, as in [`Histograms`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&self.answered, &mut bytes);
        written.expect("counts are below 2^63, and memory takes what is written");
        BASE64_STANDARD.encode(bytes)
    }

    /// What [`Self::encode`] made, and how many were not answered.
    ///
    /// # Errors
    /// Why the text is not a histogram of [`Self::encode`].
    pub fn decode(text: &str, unanswered: u64) -> Result<Self, String> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| error.to_string())?;
        let bounds = |it: &Histogram<u64>| (it.low(), it.high(), it.sigfig());
        match bounds(&histogram) == bounds(&Self::default().answered) {
            true => Ok(Self { answered: histogram, unanswered }),
            false => Err("it has another range or precision".into()),
        }
    }

    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency {
            count: self.answered.len(),
            unanswered: self.unanswered,
            p50: self.at(0.5),
            p90: self.at(0.9),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: self.at(1.0),
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
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of all names.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    #[must_use]
    pub fn into_inner(self) -> BTreeMap<String, u64> {
        self.0
    }
}

/// Everything that was measured in a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AllTimes {
    pub connect: Times,
    pub first_byte: Times,
    /// `None`: there was no sample.
    pub sample: Option<Times>,
    /// `None` without heartbeats.
    pub heartbeat: Option<Times>,
}

impl AllTimes {
    #[must_use]
    pub fn record(&self) -> Histograms {
        Histograms {
            connect: self.connect.encode(),
            first_byte: self.first_byte.encode(),
            sample: self.sample.as_ref().map(Times::encode),
            heartbeat: self.heartbeat.as_ref().map(Times::encode),
        }
    }
}

/// What one worker, or all of them, saw of heartbeats.
#[derive(Debug, Clone, Default)]
pub struct Beats {
    pub due: u64,
    pub answered: u64,
    pub late: u64,
    pub wrong: u64,
    pub times: Times,
}

impl Beats {
    pub fn add(&mut self, other: &Self) {
        self.due += other.due;
        self.answered += other.answered;
        self.late += other.late;
        self.wrong += other.wrong;
        self.times.add(&other.times);
    }

    #[must_use]
    pub fn record(&self) -> Heartbeats {
        Heartbeats {
            due: self.due,
            answered: self.answered,
            late: self.late,
            wrong: self.wrong,
            missed: self.due.saturating_sub(self.answered).saturating_sub(self.wrong),
            latency_us: self.times.latency(),
        }
    }
}

/// What one worker saw of its part of a sample.
#[derive(Debug, Clone, Default)]
pub struct SamplePart {
    pub asked: u64,
    pub answered: u64,
    pub wrong: u64,
    pub times: Times,
}

/// A sample so far, of all workers.
#[derive(Debug, Clone, Default)]
pub struct Sampled {
    began: Option<Instant>,
    all: SamplePart,
}

impl Sampled {
    /// The workers are told to ask.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
    }

    pub fn add(&mut self, part: &SamplePart) {
        self.all.asked += part.asked;
        self.all.answered += part.answered;
        self.all.wrong += part.wrong;
        self.all.times.add(&part.times);
    }

    /// `None`: nobody was asked.
    #[must_use]
    pub fn times(&self) -> Option<Times> {
        self.began.map(|_| self.all.times.clone())
    }

    #[must_use]
    pub fn record(&self) -> Sample {
        let SamplePart { asked, answered, wrong, times } = &self.all;
        Sample {
            asked: *asked,
            answered: *answered,
            wrong: *wrong,
            missed: asked.saturating_sub(*answered).saturating_sub(*wrong),
            took_s: self.began.map_or(0.0, |began| began.elapsed().as_secs_f64()),
            latency_us: times.latency(),
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
        "sample timeout" | "heartbeat timeout" => {
            "no complete answer within --timeout; a body without end, such as that of c1m-server's /, is never complete"
        }
        "sample status 404" | "heartbeat status 404" => {
            "this server has no such path: --request names one that it has"
        }
        "response unasked" => {
            "the server sent what no request asked for: the connection is only held from then on"
        }
        "first byte timeout" => {
            "the server accepts late, or its data is held back (see what it says of tcp_mem)"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!((latency.count, latency.p50), (1002, Some(500)));
        assert!(latency.max.unwrap() >= 7_200_000_000);
    }

    #[test]
    fn an_unanswered_one_takes_longer_than_every_answer() {
        let mut times = Times::default();
        (1..=98).for_each(|us| times.record(us));
        times.miss(1);
        // 98 of 99: of 100 there would be one more.
        assert_eq!((times.at(0.98), times.at(0.99)), (Some(98), None));
        times.record(99);
        let latency = times.latency();
        assert_eq!((latency.count, latency.unanswered), (99, 1));
        assert_eq!((latency.p50, latency.p90, latency.p99), (Some(50), Some(90), Some(99)));
        assert_eq!((latency.p999, latency.max), (None, None));
        let mut none = Times::default();
        none.miss(3);
        assert_eq!((none.asked(), none.at(0.01)), (3, None));
        none.miss(u64::MAX);
        assert_eq!(none.unanswered(), u64::MAX);
    }

    #[test]
    fn what_is_no_histogram_is_told() {
        let other = Histogram::<u64>::new_with_bounds(1, 1000, 2).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&other, &mut bytes).unwrap();
        let error = Times::decode(&BASE64_STANDARD.encode(bytes), 0).unwrap_err();
        assert!(error.contains("another range"), "{error}");
        let whole = Times::default().encode();
        for text in ["", "*", "AAAA", &whole[..whole.len() / 8 * 4]] {
            assert!(Times::decode(text, 0).is_err(), "{text}");
        }
    }

    proptest! {
        // A histogram is 24,000 counters.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn histograms_add_up_after_a_journey(parts in prop::collection::vec(prop::collection::vec(0u64..8_000_000_000, 0..40), 1..5)) {
            let (mut whole, mut merged) = (Times::default(), Times::default());
            for part in &parts {
                let mut times = Times::default();
                for time in part {
                    times.record(*time);
                    whole.record(*time);
                }
                times.miss(part.len() as u64 / 9);
                whole.miss(part.len() as u64 / 9);
                let back = Times::decode(&times.encode(), times.unanswered()).unwrap();
                prop_assert_eq!(&back, &times);
                merged.add(&back);
            }
            prop_assert_eq!(merged.latency(), whole.latency());
            prop_assert_eq!(merged, whole);
        }
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
