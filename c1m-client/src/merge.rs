//! Makes one result of those of all parts of a run, and refuses what is not that.

mod answers;
mod check;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
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
    ramp::reached_per_s,
    record::{
        ClientRecord, EndedBy, Heartbeats, Latency, Merged, Pin, PinStep, Plan, Sample, Summary,
    },
    require,
    shard::Shard,
    show,
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
    #[error(
        "{place}, part {shard}: {field} is {own}, and the sum of all parts is more than 64 bits hold"
    )]
    TooMuch { place: String, shard: Shard, field: String, own: u64 },
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
    show::once(flags.json, &ClientRecord::Summary(Box::new(result)))?;
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
    sum(&parts.into_values().collect::<Vec<_>>())
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
        let contradiction = |why: String| MergeError::Contradiction {
            place: format!("{place}, part {shard},"),
            why,
        };
        let decode = |name: &str, text: &str, latency: &Latency| {
            let times = check::histogram_size(text)
                .and_then(|()| Times::decode(text, latency.unanswered))
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
        check::figures(&result).map_err(contradiction)?;
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
    run["target"] = json!(without_scope(target));
    run["connections of all parts"] = json!(shard.map_or(*connections, |it| it.connections));
    run["number of parts"] = json!(shard.map_or(1, |it| it.of));
    run["source addresses of all parts"] = json!(shard.and_then(|it| it.sources));
    run
}

/// A target without the number of the interface that leads to it, which each host has of its own.
fn without_scope(target: &str) -> String {
    match target.split_once('%') {
        Some((address, rest)) => {
            format!("{address}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => target.into(),
    }
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

/// Adds what all parts say. `Err`: that of one of them is too much for the sum, and no run has come
/// to it.
fn total<'a>(
    parts: &'a [Part],
    field: &str,
    figure: impl Fn(&'a Summary) -> u64,
) -> Result<u64, MergeError> {
    parts.iter().try_fold(0u64, |sum, part| {
        let own = figure(&part.result);
        sum.checked_add(own).ok_or_else(|| MergeError::TooMuch {
            place: part.place.clone(),
            shard: part.shard,
            field: field.into(),
            own,
        })
    })
}

fn errors_of(parts: &[Part]) -> Result<BTreeMap<String, u64>, MergeError> {
    let names: BTreeSet<&String> =
        parts.iter().flat_map(|part| part.result.errors.keys()).collect();
    let of = |name: &String| {
        let count = |it: &Summary| it.errors.get(name).copied().unwrap_or(0);
        Ok((name.clone(), total(parts, &format!("errors.{name}"), count)?))
    };
    let errors = names.into_iter().map(of).collect::<Result<BTreeMap<_, _>, _>>()?;
    // `errors` is a metric as well.
    let all =
        |it: &Summary| it.errors.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
    total(parts, "errors", all).map(|_| errors)
}

/// `None`: no part has any.
fn beats_of(parts: &[Part], times: &AllTimes) -> Result<Option<Heartbeats>, MergeError> {
    let Some(times) = &times.heartbeat else { return Ok(None) };
    let all = |field: &str, figure: fn(&Heartbeats) -> u64| {
        total(parts, field, |it| it.heartbeats.as_ref().map_or(0, figure))
    };
    Ok(Some(Heartbeats {
        due: all("heartbeats.due", |it| it.due)?,
        answered: all("heartbeats.answered", |it| it.answered)?,
        late: all("heartbeats.late", |it| it.late)?,
        wrong: all("heartbeats.wrong", |it| it.wrong)?,
        missed: all("heartbeats.missed", |it| it.missed)?,
        latency_us: times.latency(),
    }))
}

/// All parts of a run, in their order: not none.
fn sum(parts: &[Part]) -> Result<(Summary, AllTimes), MergeError> {
    let mut times = AllTimes::default();
    let add = |sum: &mut Option<Times>, times: &Option<Times>| {
        if let Some(times) = times {
            sum.get_or_insert_default().add(times);
        }
    };
    for Part { times: own, .. } in parts {
        times.connect.add(&own.connect);
        times.first_byte.add(&own.first_byte);
        add(&mut times.sample, &own.sample);
        add(&mut times.heartbeat, &own.heartbeat);
    }
    let sample = sample_of(parts, &times)?;
    if sample.is_none() {
        times.sample = None;
    }
    let total = |field: &str, figure: fn(&Summary) -> u64| total(parts, field, figure);
    let seconds = |figure: fn(&Summary) -> f64| parts.iter().map(|part| figure(&part.result)).sum();
    let start = parts.iter().map(|part| part.started).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let last_start = parts.iter().map(|part| part.started).max().unwrap_or(start);
    let since = |time: SystemTime| time.duration_since(start).unwrap_or_default().as_secs_f64();
    let ends: Option<Vec<_>> =
        parts.iter().map(|part| Some(part.at(part.result.ramp_s?))).collect();
    let end = parts.iter().map(|part| part.at(part.result.elapsed_s)).max();
    let last = parts.iter().filter_map(|part| Some(part.at(part.result.last_established_s?))).max();
    let (connected, last_established_s) = (total("connected", |it| it.connected)?, last.map(since));
    let result = Summary {
        plan: plan_of(parts)?,
        started_at: humantime::format_rfc3339_micros(start).to_string(),
        merged: Some(Merged { shards: parts.len() as u64, started_apart_s: since(last_start) }),
        connected,
        held_at_end: total("held_at_end", |it| it.held_at_end)?,
        lost: total("lost", |it| it.lost)?,
        ended_by: parts.iter().map(|it| it.result.ended_by).max().unwrap_or(EndedBy::Hold),
        answered: total("answered", |it| it.answered)?,
        failed: total("failed", |it| it.failed)?,
        errors: errors_of(parts)?,
        sample,
        heartbeats: beats_of(parts, &times)?,
        connect_us: times.connect.latency(),
        first_byte_us: times.first_byte.latency(),
        ramp_s: ends.and_then(|ends| ends.into_iter().max()).map(since),
        last_established_s,
        rate_per_s: reached_per_s(connected, last_established_s),
        elapsed_s: end.map_or(0.0, since),
        cpu_user_s: seconds(|it| it.cpu_user_s),
        cpu_system_s: seconds(|it| it.cpu_system_s),
        histograms: times.record(),
        requirements: Vec::new(),
        lines_dropped: total("lines_dropped", |it| it.lines_dropped)?,
    };
    Ok((result, times))
}

/// `None`: some part has none, and what it would have asked is not known.
fn sample_of(parts: &[Part], times: &AllTimes) -> Result<Option<Sample>, MergeError> {
    let samples = || parts.iter().map(|part| part.result.sample.as_ref());
    let Some(times) = times.sample.as_ref().filter(|_| samples().all(|it| it.is_some())) else {
        return Ok(None);
    };
    let all = |field: &str, figure: fn(&Sample) -> u64| {
        total(parts, field, |it| it.sample.as_ref().map_or(0, figure))
    };
    Ok(Some(Sample {
        asked: all("sample.asked", |it| it.asked)?,
        answered: all("sample.answered", |it| it.answered)?,
        wrong: all("sample.wrong", |it| it.wrong)?,
        missed: all("sample.missed", |it| it.missed)?,
        took_s: samples().flatten().map(|it| it.took_s).fold(0.0, f64::max),
        latency_us: times.latency(),
    }))
}

fn plan_of(parts: &[Part]) -> Result<Plan, MergeError> {
    let plans = || parts.iter().map(|part| &part.result.plan);
    let total = |field: &str, figure: fn(&Plan) -> u64| total(parts, field, |it| figure(&it.plan));
    let mut plan = parts[0].result.plan.clone();
    plan.sources = match plan.shard.take().and_then(|it| it.sources) {
        Some(sources) => sources,
        None => total("plan.sources", |it| it.sources)?,
    };
    plan.connections = total("plan.connections", |it| it.connections)?;
    plan.capacity = total("plan.capacity", |it| it.capacity)?;
    plan.ports_per_source = plans().map(|it| it.ports_per_source).min().unwrap_or(0);
    let workers = total("plan.workers", |it| it.workers as u64)?;
    plan.workers = usize::try_from(workers).unwrap_or(usize::MAX);
    plan.in_flight = total("plan.in_flight", |it| it.in_flight)?;
    // That of one part says nothing of the whole.
    plan.metrics = None;
    let planned_pages =
        total("plan.pin.planned_pages", |it| it.pin.as_ref().map_or(0, |pin| pin.planned_pages))?;
    plan.pin = plans()
        .map(|it| it.pin.as_ref())
        .collect::<Option<Vec<_>>>()
        .map(|pins| pin_of(&pins, planned_pages));
    Ok(plan)
}

/// The connections of all steps are those of the parts, so that their sum is not too large.
fn pin_of(pins: &[&Pin], planned_pages: u64) -> Pin {
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
        planned_pages,
    }
}

#[cfg(test)]
pub(crate) mod tests;
