//! What can be required of: the figures of the result, by name.

use std::fmt;

use super::lossy;
use crate::{
    record::Summary,
    summary::{AllTimes, Times},
};

/// A result with everything that was measured for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured<'a> {
    pub(super) result: &'a Summary,
    pub(super) times: &'a AllTimes,
}

/// A figure of the result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Metric {
    Count(&'static Count),
    Time(&'static Time),
    /// The time within which so many parts of `1` were.
    Quantile {
        family: &'static Family,
        quantile: f64,
    },
}

/// What a metric says of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// In units of 1 / `scale`.
    Count {
        count: u64,
        whole: Option<u64>,
        scale: u64,
    },
    Time {
        ns: u128,
    },
}

/// A number of things; of `whole` it can be a share.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) name: &'static str,
    value: fn(&Summary) -> Option<u64>,
    pub(super) whole: Option<fn(&Summary) -> Option<u64>>,
    /// `value` and `whole` are in units of 1 / `scale`.
    scale: u64,
    unknown: &'static str,
}

/// A span of time that is measured once.
#[derive(Debug)]
pub(super) struct Time {
    name: &'static str,
    seconds: fn(&Summary) -> Option<f64>,
    unknown: &'static str,
}

/// Times of one kind, of which there are many.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    times: fn(&AllTimes) -> Option<&Times>,
    unknown: &'static str,
}

/// Each has a name of its own.
macro_rules! same_by_name {
    ($($kind:ty),*) => {$(
        impl PartialEq for $kind {
            fn eq(&self, other: &Self) -> bool {
                self.name == other.name
            }
        }
    )*};
}
same_by_name!(Count, Time, Family);

const NO_SAMPLE: &str = "no sample was asked (--sample), or the run ended before";
const NO_HEARTBEAT: &str = "there were no heartbeats (--heartbeat)";
const ALWAYS: &str = "not measured";

const fn of_connections(name: &'static str, value: fn(&Summary) -> Option<u64>) -> Count {
    Count {
        name,
        value,
        whole: Some(|result| Some(result.plan.connections)),
        scale: 1,
        unknown: ALWAYS,
    }
}

const fn of_sample(name: &'static str, value: fn(&Summary) -> Option<u64>) -> Count {
    let whole: fn(&Summary) -> Option<u64> = |result| Some(result.sample?.asked);
    Count { name, value, whole: Some(whole), scale: 1, unknown: NO_SAMPLE }
}

const fn of_beats(
    name: &'static str,
    value: fn(&Summary) -> Option<u64>,
    whole: fn(&Summary) -> Option<u64>,
) -> Count {
    Count { name, value, whole: Some(whole), scale: 1, unknown: NO_HEARTBEAT }
}

fn due(result: &Summary) -> Option<u64> {
    Some(result.heartbeats.as_ref()?.due)
}

fn beats_answered(result: &Summary) -> Option<u64> {
    Some(result.heartbeats.as_ref()?.answered)
}

/// Thousandths of connections per second, rounded down.
fn thousandths(per_s: f64) -> Option<u64> {
    let whole = (per_s * 1000.0).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and below 2^53"
    )]
    (0.0..9e15).contains(&whole).then_some(whole as u64)
}

/// `--rate`, of this part.
fn planned_rate(result: &Summary) -> Option<u64> {
    let rate = result.plan.asked.rate_per_s?.checked_mul(1000)?;
    Some(rate / result.plan.shard.as_ref().map_or(1, |shard| shard.of.max(1)))
}

static COUNTS: [Count; 16] = [
    of_connections("connected", |result| Some(result.connected)),
    of_connections("held_at_end", |result| Some(result.held_at_end)),
    of_connections("lost", |result| Some(result.lost)),
    of_connections("answered", |result| Some(result.answered)),
    of_connections("failed", |result| Some(result.failed)),
    Count {
        name: "rate",
        value: |result| thousandths(result.rate_per_s?),
        whole: Some(planned_rate),
        scale: 1000,
        unknown: "fewer than two connections were established",
    },
    Count {
        name: "errors",
        value: |result| Some(result.errors.values().sum()),
        whole: None,
        scale: 1,
        unknown: ALWAYS,
    },
    Count {
        name: "sample_asked",
        value: |result| Some(result.sample?.asked),
        whole: None,
        scale: 1,
        unknown: NO_SAMPLE,
    },
    of_sample("sample_answered", |result| Some(result.sample?.answered)),
    of_sample("sample_wrong", |result| Some(result.sample?.wrong)),
    of_sample("sample_missed", |result| Some(result.sample?.missed)),
    Count { name: "heartbeat_due", value: due, whole: None, scale: 1, unknown: NO_HEARTBEAT },
    of_beats("heartbeat_answered", beats_answered, due),
    of_beats("heartbeat_late", |result| Some(result.heartbeats.as_ref()?.late), beats_answered),
    of_beats("heartbeat_wrong", |result| Some(result.heartbeats.as_ref()?.wrong), due),
    of_beats("heartbeat_missed", |result| Some(result.heartbeats.as_ref()?.missed), due),
];

static TIMES: [Time; 5] = [
    Time {
        name: "ramp",
        seconds: |result| result.ramp_s,
        unknown: "the run ended before every connection was tried",
    },
    Time { name: "elapsed", seconds: |result| Some(result.elapsed_s), unknown: ALWAYS },
    Time { name: "cpu_user", seconds: |result| Some(result.cpu_user_s), unknown: ALWAYS },
    Time { name: "cpu_system", seconds: |result| Some(result.cpu_system_s), unknown: ALWAYS },
    Time { name: "sample_took", seconds: |result| Some(result.sample?.took_s), unknown: NO_SAMPLE },
];

static FAMILIES: [Family; 4] = [
    Family {
        name: "connect",
        times: |all| Some(&all.connect),
        unknown: "no connection was established",
    },
    Family {
        name: "first_byte",
        times: |all| Some(&all.first_byte),
        unknown: "no first byte came, or none was asked for (--idle)",
    },
    Family { name: "sample", times: |all| all.sample.as_ref(), unknown: NO_SAMPLE },
    Family { name: "heartbeat", times: |all| all.heartbeat.as_ref(), unknown: NO_HEARTBEAT },
];

/// All there is, in words.
pub(super) fn names() -> String {
    fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
        names.collect::<Vec<_>>().join(", ")
    }
    format!(
        "counts {} (1024000, 64k), of which {} can be shares (99.9%); times {} (50ms); and of {} the times NAME_p50 (any percentile: NAME_p99.9, or \
         NAME_p999) and NAME_max",
        listed(COUNTS.iter().map(|it| it.name)),
        listed(COUNTS.iter().filter(|it| it.whole.is_some()).map(|it| it.name)),
        listed(TIMES.iter().map(|it| it.name)),
        listed(FAMILIES.iter().map(|it| it.name)),
    )
}

impl Metric {
    pub(super) fn named(name: &str) -> Option<Self> {
        if let Some(count) = COUNTS.iter().find(|it| it.name == name) {
            return Some(Self::Count(count));
        }
        if let Some(time) = TIMES.iter().find(|it| it.name == name) {
            return Some(Self::Time(time));
        }
        FAMILIES.iter().find_map(|family| {
            let point = name.strip_prefix(family.name)?.strip_prefix('_')?;
            let quantile = match point {
                "max" => 1.0,
                _ => quantile(point.strip_prefix('p')?)?,
            };
            Some(Self::Quantile { family, quantile })
        })
    }

    /// `Err`: why it is unknown.
    pub(super) fn value(&self, measured: &Measured<'_>) -> Result<Known, String> {
        match self {
            Self::Count(count) => {
                let value = (count.value)(measured.result).ok_or(count.unknown)?;
                let whole = count.whole.and_then(|whole| whole(measured.result));
                Ok(Known::Count { count: value, whole, scale: count.scale })
            }
            Self::Time(time) => {
                let seconds = (time.seconds)(measured.result).ok_or(time.unknown)?;
                let ns = std::time::Duration::try_from_secs_f64(seconds)
                    .map_err(|error| error.to_string())?
                    .as_nanos();
                Ok(Known::Time { ns })
            }
            Self::Quantile { family, quantile } => {
                let times = (family.times)(measured.times).filter(|times| times.asked() > 0);
                let times = times.ok_or(family.unknown)?;
                let us = times.at(*quantile).ok_or_else(|| {
                    format!(
                        "{} of {} had no right answer within --timeout, and this one is among them",
                        times.unanswered(),
                        times.asked()
                    )
                })?;
                Ok(Known::Time { ns: u128::from(us) * 1000 })
            }
        }
    }
}

/// `99`, `99.9`, and `999` as the usual short form of it: of nines alone, all after the second one
/// stand behind the point. Any other number above 100 is none: `101` is not 10.1.
fn quantile(percentile: &str) -> Option<f64> {
    let (digits, scale) = c1m_text::units::decimal(percentile)?;
    if percentile.contains(['_', ','])
        || (percentile.len() > 1 && percentile.starts_with('0') && scale == 0)
    {
        return None;
    }
    let scale = match percentile.len() {
        length @ 3..=7 if percentile.bytes().all(|byte| byte == b'9') => {
            u32::try_from(length - 2).ok()?
        }
        _ => scale,
    };
    let whole = 100 * 10u128.pow(scale);
    (1..=whole).contains(&digits).then(|| lossy(digits) / lossy(whole))
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.write_str(count.name),
            Self::Time(time) => f.write_str(time.name),
            Self::Quantile { family, quantile } if *quantile >= 1.0 => {
                write!(f, "{}_max", family.name)
            }
            Self::Quantile { family, quantile } => {
                // Not 99.89999999999999.
                write!(f, "{}_p{}", family.name, (quantile * 1e11).round() / 1e9)
            }
        }
    }
}
