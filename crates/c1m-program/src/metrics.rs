//! Metrics for Prometheus: what a table of them is, and their text format. Asks nothing of the kernel: a page is a function of
//! what was taken before.
//!
//! What is not known has no sample. It is never 0.

mod own;
mod page;

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub use self::{
    own::{OWN, Own},
    page::rows,
};

/// Of a page in this format.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// One metric: what it is called, and how it is read off an `S`.
#[derive(Debug)]
pub struct Metric<S: 'static> {
    /// Without its unit, and without `_total`: see [`Metric::exported`].
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Base,
    pub labels: &'static [&'static str],
    /// One sentence, without a full stop.
    pub help: &'static str,
    /// The record's field that it equals, or what it is read from.
    pub source: &'static str,
    pub read: fn(&S) -> Vec<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Never falls while the program runs.
    Counter,
    Gauge,
    /// Counts by size, and their sum; as [`Histogram`] has them.
    Histogram,
}

/// A base unit of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// A number of things, which the name says.
    Count,
    Bytes,
    Seconds,
    Ratio,
}

impl<S> Metric<S> {
    /// The name in the page, with unit and `_total`.
    #[must_use]
    pub fn exported(&self) -> String {
        let unit = self.unit.unit().map_or(String::new(), |unit| format!("_{}", unit.as_str()));
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Base {
    fn unit(self) -> Option<Unit> {
        match self {
            Self::Count => None,
            Self::Bytes => Some(Unit::Bytes),
            Self::Seconds => Some(Unit::Seconds),
            // The library's own name is in the plural, which nobody else uses.
            Self::Ratio => Some(Unit::Other("ratio".into())),
        }
    }
}

/// One value, with its labels in the order of [`Metric::labels`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: Vec<String>,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
    /// Of a metric of [`Kind::Histogram`], and no other.
    Histogram(Histogram),
}

/// How many of the values lie in which range.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds, which belong to their bucket, in ascending order; and how many values are in the bucket, those of the ones before not included.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values, those above the last bound included.
    pub count: u64,
    /// Of the values that are known.
    pub sum: f64,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<Histogram> for Value {
    fn from(value: Histogram) -> Self {
        Self::Histogram(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// The sample of a metric that has no labels; none of what is not known.
#[must_use]
pub fn one(value: Option<impl Into<Value>>) -> Vec<Sample> {
    value.map(|value| Sample { labels: Vec::new(), value: value.into() }).into_iter().collect()
}

/// A sample with one label.
#[must_use]
pub fn labelled<const N: usize>(labels: [&str; N], value: impl Into<Value>) -> Sample {
    Sample { labels: labels.map(str::to_owned).into(), value: value.into() }
}

/// Several, of which those that are not known are left out.
pub fn known<const N: usize>(
    samples: impl IntoIterator<Item = ([&'static str; N], Option<u64>)>,
) -> Vec<Sample> {
    let known = |(labels, value): ([&str; N], Option<u64>)| Some(labelled(labels, value?));
    samples.into_iter().filter_map(known).collect()
}

/// A page that is being made.
#[derive(Debug, Default)]
pub struct Page(Registry);

impl Page {
    /// Adds what `seen` has of a table.
    #[must_use]
    pub fn with<S>(mut self, table: &[Metric<S>], seen: &S) -> Self {
        for metric in table {
            let samples = (metric.read)(seen);
            if samples.is_empty() {
                continue;
            }
            let samples = Samples { kind: metric.kind, names: metric.labels, samples };
            match metric.unit.unit() {
                None => self.0.register(metric.name, metric.help, samples),
                Some(unit) => self.0.register_with_unit(metric.name, metric.help, unit, samples),
            }
        }
        self
    }

    /// The text format, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = prometheus_text::encode(&mut text, &self.0);
        text
    }
}

#[derive(Debug)]
struct Samples {
    kind: Kind,
    names: &'static [&'static str],
    samples: Vec<Sample>,
}

impl EncodeMetric for Samples {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for Sample { labels, value } in &self.samples {
            let labels: Vec<(&str, &str)> =
                self.names.iter().copied().zip(labels.iter().map(String::as_str)).collect();
            let mut encoder = encoder.encode_family(&labels)?;
            match (value, self.kind) {
                (Value::Whole(value), Kind::Counter) => {
                    encoder.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                }
                (Value::Real(value), Kind::Counter) => {
                    encoder.encode_counter::<NoLabelSet, _, f64>(value, None)?;
                }
                (Value::Whole(value), _) => encoder.encode_gauge(value)?,
                (Value::Real(value), _) => encoder.encode_gauge(value)?,
                (Value::Histogram(Histogram { buckets, count, sum }), _) => {
                    encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        }
    }
}
