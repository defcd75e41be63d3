//! Makes one result of those of all parts of a run, and refuses what is not that.

mod answers;
mod read;

use std::{
    collections::BTreeMap,
    io::{self, BufReader},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use serde_json::{Value, json};
use thiserror::Error;

use self::read::{Found, read};
use crate::{
    cli::Merge,
    prepare::Failure,
    record::{ClientRecord, Heartbeats, Latency, Merged, Pin, PinStep, Plan, Sample, Summary},
    require,
    shard::Shard,
    show::Show,
    summary::{AllTimes, Times},
};

/// Why results can't be merged. A place is a file with a line.
#[derive(Debug, Error)]
pub enum MergeError {
    #[error("cannot read {0}: {1}")]
    Io(String, io::Error),
    #[error("{0} {1}")]
    Line(String, String),
    #[error("{0} has no result: its run did not end, or the end of its output is not there")]
    NoResult(String),
    #[error("{0} is merged already: give the results of the parts")]
    AlreadyMerged(String),
    #[error("{place} contradicts itself: {why}")]
    Contradiction { place: String, why: String },
    #[error(
        "{place} is of another run than {other}: {what} is {own} in it, and {others} in the other one"
    )]
    AnotherRun { place: String, other: String, what: String, own: String, others: String },
    #[error("part {shard} is there twice: {first} and {second}")]
    Twice { shard: Shard, first: String, second: String },
    #[error("{} of {of} parts are missing: {}", missing.len(), listed(missing))]
    Missing { of: u64, missing: Vec<Shard> },
}

fn listed(shards: &[Shard]) -> String {
    /// So that a thousand of them make no page.
    const SHOWN: usize = 10;
    let shown: Vec<String> = shards.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if shards.len() > SHOWN { ", ..." } else { "" };
    shown.join(", ") + more
}

/// Merges the files, judges the whole, and prints it. `Ok(true)`: it reached what was asked for.
pub fn run(flags: &Merge) -> Result<bool, Failure> {
    let (mut result, times) = files(&flags.files).map_err(|error| match error {
        MergeError::Io(..) => Failure::Environment(error.into()),
        _ => Failure::Usage(anyhow!(error)),
    })?;
    let reached = require::judge_all(&flags.require, &mut result, &times);
    Show::new(flags.json, true, 0).record(&ClientRecord::Summary(Box::new(result)))?;
    Ok(reached)
}

fn files(files: &[impl AsRef<Path>]) -> Result<(Summary, AllTimes), MergeError> {
    let mut all = Vec::new();
    for file in files {
        let file = file.as_ref();
        let name = file.display().to_string();
        let found = if file == Path::new("-") {
            read(&name, io::stdin().lock())
        } else {
            let opened = std::fs::File::open(file);
            read(
                &name,
                BufReader::new(opened.map_err(|error| MergeError::Io(name.clone(), error))?),
            )
        };
        all.extend(found?);
    }
    merge(all)
}

/// One part, with what it measured.
struct Part {
    place: String,
    shard: Shard,
    started: SystemTime,
    result: Box<Summary>,
    times: AllTimes,
}

fn merge(all: Vec<Found>) -> Result<(Summary, AllTimes), MergeError> {
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    let mut of = 1;
    for found in all {
        let part = Part::of(found)?;
        if let Some(first) = parts.values().next() {
            same_run(first, &part)?;
        }
        of = part.shard.of();
        if let Some(first) = parts.get(&part.shard.index()) {
            let (shard, first) = (part.shard, first.place.clone());
            return Err(MergeError::Twice { shard, first, second: part.place });
        }
        parts.insert(part.shard.index(), part);
    }
    let whole = Shard::new(0, of).unwrap_or(Shard::WHOLE);
    let missing: Vec<Shard> =
        whole.all().filter(|shard| !parts.contains_key(&shard.index())).collect();
    if !missing.is_empty() {
        return Err(MergeError::Missing { of, missing });
    }
    Ok(sum(&parts.into_values().collect::<Vec<_>>()))
}

impl Part {
    /// Takes a result apart, and holds what it says twice against each other.
    fn of(Found { place, result }: Found) -> Result<Self, MergeError> {
        if result.merged.is_some() {
            return Err(MergeError::AlreadyMerged(place));
        }
        let contradiction = |why: String| MergeError::Contradiction { place: place.clone(), why };
        let shard = match &result.plan.shard {
            None => Shard::WHOLE,
            Some(it) => {
                let shard = Shard::new(it.index, it.of).ok_or_else(|| {
                    contradiction(format!("there is no part {} of {}", it.index, it.of))
                })?;
                let share = shard.share(it.connections);
                if (share.start, share.end - share.start)
                    != (it.first_connection, result.plan.connections)
                {
                    return Err(contradiction(format!(
                        "part {shard} of {} connections has other ones",
                        it.connections
                    )));
                }
                shard
            }
        };
        let decode = |name: &str, text: &str, latency: &Latency| {
            let times = Times::decode(text, latency.unanswered)
                .map_err(|error| contradiction(format!("histogram {name}: {error}")))?;
            match times.latency() == *latency {
                true => Ok(times),
                false => Err(contradiction(format!("histogram {name} is not of its latencies"))),
            }
        };
        let optional =
            |name: &str, text: &Option<String>, latency: Option<&Latency>| match (text, latency) {
                (Some(text), Some(latency)) => decode(name, text, latency).map(Some),
                (None, None) => Ok(None),
                _ => Err(contradiction(format!(
                    "histogram {name} without its figures, or the reverse"
                ))),
            };
        let (histograms, sample) = (&result.histograms, result.sample.as_ref());
        let beats = result.heartbeats.as_ref();
        let times = AllTimes {
            connect: decode("connect", &histograms.connect, &result.connect_us)?,
            first_byte: decode("first_byte", &histograms.first_byte, &result.first_byte_us)?,
            sample: optional("sample", &histograms.sample, sample.map(|it| &it.latency_us))?,
            heartbeat: optional(
                "heartbeat",
                &histograms.heartbeat,
                beats.map(|it| &it.latency_us),
            )?,
        };
        answers::check(&result).map_err(contradiction)?;
        let started = humantime::parse_rfc3339(&result.started_at)
            .map_err(|error| contradiction(format!("started_at: {error}")))?;
        Ok(Self { place, shard, started, result, times })
    }

    /// When something was that came so many seconds after the start.
    fn at(&self, seconds: f64) -> SystemTime {
        self.started + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// What all parts of a run have in common, by name.
fn run_of(Plan { target, connections, shard, asked, .. }: &Plan) -> Value {
    let shard = shard.as_ref();
    let mut run = json!(asked);
    run["target"] = json!(target);
    run["connections of all parts"] = json!(shard.map_or(*connections, |it| it.connections));
    run["number of parts"] = json!(shard.map_or(1, |it| it.of));
    run["source addresses of all parts"] = json!(shard.and_then(|it| it.sources));
    run
}

fn same_run(first: &Part, part: &Part) -> Result<(), MergeError> {
    let (own, others) = (run_of(&part.result.plan), run_of(&first.result.plan));
    let members = own.as_object().into_iter().flatten();
    match members.into_iter().find(|(name, value)| others[name.as_str()] != **value) {
        None => Ok(()),
        Some((name, value)) => Err(MergeError::AnotherRun {
            place: part.place.clone(),
            other: first.place.clone(),
            what: name.clone(),
            own: value.to_string(),
            others: others[name.as_str()].to_string(),
        }),
    }
}

/// All parts of a run, in their order: not none.
fn sum(parts: &[Part]) -> (Summary, AllTimes) {
    let mut times = AllTimes::default();
    let (mut errors, mut heartbeats) = (BTreeMap::new(), None);
    let add = |sum: &mut Option<Times>, times: &Option<Times>| {
        if let Some(times) = times {
            sum.get_or_insert_default().add(times);
        }
    };
    for Part { result, times: own, .. } in parts {
        times.connect.add(&own.connect);
        times.first_byte.add(&own.first_byte);
        add(&mut times.sample, &own.sample);
        add(&mut times.heartbeat, &own.heartbeat);
        for (name, count) in &result.errors {
            *errors.entry(name.clone()).or_default() += count;
        }
        if let Some(own) = &result.heartbeats {
            let sum: &mut Heartbeats = heartbeats.get_or_insert_default();
            sum.due += own.due;
            sum.answered += own.answered;
            sum.late += own.late;
            sum.wrong += own.wrong;
            sum.missed += own.missed;
        }
    }
    if let (Some(beats), Some(times)) = (&mut heartbeats, &times.heartbeat) {
        beats.latency_us = times.latency();
    }
    let sample = sample_of(parts, &times);
    if sample.is_none() {
        times.sample = None;
    }
    let total = |figure: fn(&Summary) -> u64| parts.iter().map(|part| figure(&part.result)).sum();
    let seconds = |figure: fn(&Summary) -> f64| parts.iter().map(|part| figure(&part.result)).sum();
    let start = parts.iter().map(|part| part.started).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let last_start = parts.iter().map(|part| part.started).max().unwrap_or(start);
    let since = |time: SystemTime| time.duration_since(start).unwrap_or_default().as_secs_f64();
    let ends: Option<Vec<_>> =
        parts.iter().map(|part| Some(part.at(part.result.ramp_s?))).collect();
    let end = parts.iter().map(|part| part.at(part.result.elapsed_s)).max();
    let result = Summary {
        plan: plan_of(parts),
        started_at: humantime::format_rfc3339_micros(start).to_string(),
        merged: Some(Merged { shards: parts.len() as u64, started_apart_s: since(last_start) }),
        connected: total(|it| it.connected),
        held_at_end: total(|it| it.held_at_end),
        answered: total(|it| it.answered),
        failed: total(|it| it.failed),
        errors,
        sample,
        heartbeats,
        connect_us: times.connect.latency(),
        first_byte_us: times.first_byte.latency(),
        ramp_s: ends.and_then(|ends| ends.into_iter().max()).map(since),
        elapsed_s: end.map_or(0.0, since),
        cpu_user_s: seconds(|it| it.cpu_user_s),
        cpu_system_s: seconds(|it| it.cpu_system_s),
        histograms: times.record(),
        requirements: Vec::new(),
    };
    (result, times)
}

/// `None`: some part has none, and what it would have asked is not known.
fn sample_of(parts: &[Part], times: &AllTimes) -> Option<Sample> {
    let samples: Vec<Sample> =
        parts.iter().map(|part| part.result.sample).collect::<Option<_>>()?;
    Some(Sample {
        asked: samples.iter().map(|it| it.asked).sum(),
        answered: samples.iter().map(|it| it.answered).sum(),
        wrong: samples.iter().map(|it| it.wrong).sum(),
        missed: samples.iter().map(|it| it.missed).sum(),
        took_s: samples.iter().map(|it| it.took_s).fold(0.0, f64::max),
        latency_us: times.sample.as_ref()?.latency(),
    })
}

fn plan_of(parts: &[Part]) -> Plan {
    let plans = || parts.iter().map(|part| &part.result.plan);
    let total = |figure: fn(&Plan) -> u64| plans().map(figure).fold(0, u64::saturating_add);
    let mut plan = parts[0].result.plan.clone();
    plan.sources = plan.shard.take().and_then(|it| it.sources).unwrap_or(total(|it| it.sources));
    plan.connections = total(|it| it.connections);
    plan.capacity = total(|it| it.capacity);
    plan.ports_per_source = plans().map(|it| it.ports_per_source).min().unwrap_or(0);
    plan.workers = plans().map(|it| it.workers).sum();
    plan.in_flight = total(|it| it.in_flight);
    // That of one part says nothing of the whole.
    plan.metrics = None;
    plan.pin =
        plans().map(|it| it.pin.as_ref()).collect::<Option<Vec<_>>>().map(|pins| pin_of(&pins));
    plan
}

fn pin_of(pins: &[&Pin]) -> Pin {
    let mut steps: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for step in pins.iter().flat_map(|pin| &pin.plan) {
        *steps.entry((step.pages, step.response_bytes)).or_default() += step.connections;
    }
    let step =
        |((pages, response_bytes), connections)| PinStep { pages, response_bytes, connections };
    Pin {
        bytes_per_connection: pins.first().map_or(0, |pin| pin.bytes_per_connection),
        overhead_bytes: pins.iter().map(|pin| pin.overhead_bytes).max().unwrap_or(0),
        plan: steps.into_iter().map(step).collect(),
        planned_pages: pins.iter().map(|pin| pin.planned_pages).sum(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
