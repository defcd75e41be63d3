//! What one part says, beside itself: figures that a run cannot have come to are refused, with
//! their names, so that no sum is made of them.

mod errors;

use std::{io::Read as _, ops::RangeInclusive};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::read::ZlibDecoder;

use crate::{
    ramp::reached_per_s,
    record::{Asked, EndedBy, Pin, Plan, Summary},
};

/// Seconds that a run can take: more than ten years are not one, and stay far from the end of what
/// a clock can tell.
const SECONDS: RangeInclusive<f64> = 0.0..=315_576_000.0;
/// What the client's clock tells apart: no connection is established in less, other than at once.
const SHORTEST: f64 = 1e-6;
/// A histogram has about 24,000 counters of at most 9 bytes each.
const MOST_COUNTER_BYTES: u32 = 256 << 10;
/// HdrHistogram's V2_COOKIE_BASE with the word size.
const V2_COOKIE: u32 = 0x1c84_9303 | 0x10;

/// # Errors
/// Which figures contradict each other, and how.
pub(super) fn figures(result: &Summary) -> Result<(), String> {
    counts(result)?;
    errors::check(result)?;
    spans(result)?;
    asked(&result.plan.asked)?;
    plan(&result.plan)
}

/// A figure with its name.
pub(super) type Named = (&'static str, u64);

/// Not more of one thing than there are of another.
pub(super) fn at_most((part_name, part): Named, (whole_name, whole): Named) -> Result<(), String> {
    if part <= whole {
        return Ok(());
    }
    Err(format!("{part_name} is {part}, and {whole_name} {whole}"))
}

fn counts(result: &Summary) -> Result<(), String> {
    let plan = ("plan.connections", result.plan.connections);
    let connected = ("connected", result.connected);
    at_most(connected, plan)?;
    at_most(("failed", result.failed), plan)?;
    // Neither is above the plan, but both together can be more than 64 bits hold.
    let tried = result.connected.saturating_add(result.failed);
    at_most(("the sum of connected and failed", tried), plan)?;
    at_most(("held_at_end", result.held_at_end), connected)?;
    at_most(("lost", result.lost), connected)?;
    let ever_held = result.held_at_end.saturating_add(result.lost);
    at_most(("the sum of held_at_end and lost", ever_held), connected)?;
    at_most(("answered", result.answered), connected)?;
    let (connect, first_byte) = (result.connect_us.count, result.first_byte_us.count);
    at_most(("connect_us.count", connect), connected)?;
    at_most(("first_byte_us.count", first_byte), ("answered", result.answered))?;
    // A worker that could not go on takes its histogram with it.
    if result.ended_by != EndedBy::Failure && connect != result.connected {
        return Err(format!("connected is {}, and connect_us.count {connect}", result.connected));
    }
    if let Some(sample) = &result.sample {
        let asked = ("sample.asked", sample.asked);
        at_most(asked, connected)?;
        at_most(("sample.answered", sample.answered), asked)?;
        at_most(("sample.latency_us.count", sample.latency_us.count), asked)?;
    }
    if let Some(beats) = &result.heartbeats {
        let (due, answered) =
            (("heartbeats.due", beats.due), ("heartbeats.answered", beats.answered));
        at_most(answered, due)?;
        at_most(("heartbeats.late", beats.late), answered)?;
        at_most(
            ("heartbeats.missed", beats.missed),
            ("the unanswered ones", beats.due - beats.answered),
        )?;
        at_most(("heartbeats.latency_us.count", beats.latency_us.count), due)?;
    }
    Ok(())
}

fn spans(result: &Summary) -> Result<(), String> {
    let elapsed = ("elapsed_s", Some(result.elapsed_s));
    let ramp = ("ramp_s", result.ramp_s);
    let last = ("last_established_s", result.last_established_s);
    let sample = ("sample.took_s", result.sample.as_ref().map(|sample| sample.took_s));
    let (user, system) =
        (("cpu_user_s", Some(result.cpu_user_s)), ("cpu_system_s", Some(result.cpu_system_s)));
    for (name, seconds) in [elapsed, ramp, last, sample, user, system] {
        if let Some(seconds) = seconds.filter(|seconds| !SECONDS.contains(seconds)) {
            return Err(format!("{name} is {seconds}, which is no time that a run can take"));
        }
    }
    for (part, whole) in [(ramp, elapsed), (last, elapsed), (sample, elapsed), (last, ramp)] {
        within(part, whole)?;
    }
    match result.last_established_s {
        Some(seconds) if seconds < SHORTEST || result.connected == 0 => Err(format!(
            "last_established_s is {seconds}, and connected {}: no connection is established then",
            result.connected
        )),
        _ => rate(result),
    }
}

/// A time that is a part of another one, as far as both are known.
fn within(
    (part_name, part): (&str, Option<f64>),
    (whole_name, whole): (&str, Option<f64>),
) -> Result<(), String> {
    match part.zip(whole) {
        Some((part, whole)) if part > whole => {
            Err(format!("{part_name} is {part}, and {whole_name} {whole}"))
        }
        _ => Ok(()),
    }
}

fn rate(result: &Summary) -> Result<(), String> {
    let rate = reached_per_s(result.connected, result.last_established_s);
    let is_near = |own: f64, rate: f64| rate.is_finite() && (own - rate).abs() <= rate * 1e-6;
    match (result.rate_per_s, rate) {
        (None, None) => Ok(()),
        (Some(own), Some(rate)) if is_near(own, rate) => Ok(()),
        (own, rate) => Err(format!(
            "rate_per_s is {}, and connected and last_established_s make {}",
            shown(own),
            shown(rate)
        )),
    }
}

/// Flags are as long as the user likes, and none is negative.
fn asked(asked: &Asked) -> Result<(), String> {
    for (name, seconds) in [
        ("heartbeat_s", asked.heartbeat_s),
        ("hold_s", asked.hold_s),
        ("timeout_s", Some(asked.timeout_s)),
        ("give_up_s", Some(asked.give_up_s)),
    ] {
        if let Some(seconds) = seconds.filter(|it| !(it.is_finite() && *it >= 0.0)) {
            return Err(format!("plan.asked.{name} is {seconds}, which is no time"));
        }
    }
    Ok(())
}

fn shown(rate: Option<f64>) -> String {
    rate.map_or("null".into(), |rate| rate.to_string())
}

fn plan(plan: &Plan) -> Result<(), String> {
    let connections = ("plan.connections", plan.connections);
    at_most(connections, ("plan.capacity", plan.capacity))?;
    let Some(Pin { plan: steps, planned_pages, .. }) = &plan.pin else { return Ok(()) };
    let all = |figure: fn(&crate::record::PinStep) -> Option<u64>| {
        steps.iter().try_fold(0u64, |sum, step| sum.checked_add(figure(step)?))
    };
    if all(|step| Some(step.connections)) != Some(plan.connections) {
        return Err(format!("plan.pin.plan is not of plan.connections={}", plan.connections));
    }
    if all(|step| step.pages.checked_mul(step.connections)) != Some(*planned_pages) {
        return Err(format!(
            "plan.pin.planned_pages is {planned_pages}, and plan.pin.plan has other ones"
        ));
    }
    Ok(())
}

/// A histogram's text says how many bytes of counters it has, and what decodes it takes memory for
/// as many: 4 GiB for a text of 100 bytes.
///
/// # Errors
/// They are more than a histogram of ours has. What is no histogram passes: decoding it says why.
pub(super) fn histogram_size(text: &str) -> Result<(), String> {
    let Ok(bytes) = BASE64_STANDARD.decode(text) else { return Ok(()) };
    let mut head = [0; 8];
    let is_plain = bytes.starts_with(&V2_COOKIE.to_be_bytes());
    let read = match bytes.get(8..) {
        Some(deflated) if !is_plain => ZlibDecoder::new(deflated).read_exact(&mut head),
        _ => (&bytes[..]).read_exact(&mut head),
    };
    let [.., a, b, c, d] = head;
    match u32::from_be_bytes([a, b, c, d]) {
        size if read.is_ok() && size > MOST_COUNTER_BYTES => Err(format!(
            "it says that it has {size} bytes of counters, and one of c1m-client has {MOST_COUNTER_BYTES} at most"
        )),
        _ => Ok(()),
    }
}
