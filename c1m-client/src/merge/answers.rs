//! What a part says of answers, beside itself: each sample and heartbeat is answered, wrong or
//! missed, and what is unanswered was asked.

use crate::record::{EndedBy, Heartbeats, Latency, Sample, Summary};

/// # Errors
/// Which figures contradict each other.
pub(super) fn check(result: &Summary) -> Result<(), String> {
    let (connect, first_byte) = (result.connect_us.unanswered, &result.first_byte_us);
    let is_counted = match result.ended_by {
        // A worker that could not go on takes its histogram with it.
        EndedBy::Failure => connect <= result.failed,
        _ => connect == result.failed,
    };
    if !is_counted {
        return Err(format!("connect_us.unanswered is {connect}, and failed {}", result.failed));
    }
    if first_byte.count.saturating_add(first_byte.unanswered) > result.connected {
        return Err(format!(
            "first_byte_us has count={} and unanswered={}, and connected is {}",
            first_byte.count, first_byte.unanswered, result.connected
        ));
    }
    if let Some(Sample { asked, answered, wrong, missed, latency_us, .. }) = result.sample {
        of("sample", "asked", asked, [answered, wrong, missed], &latency_us)?;
    }
    if let Some(Heartbeats { due, answered, wrong, missed, latency_us, .. }) = &result.heartbeats {
        of("heartbeats", "due", *due, [*answered, *wrong, *missed], latency_us)?;
    }
    Ok(())
}

fn of(
    kind: &str,
    name: &str,
    all: u64,
    [answered, wrong, missed]: [u64; 3],
    latency: &Latency,
) -> Result<(), String> {
    let unanswered = wrong.checked_add(missed);
    if unanswered.and_then(|it| it.checked_add(answered)) != Some(all) {
        return Err(format!(
            "{kind}: answered={answered}, wrong={wrong} and missed={missed} are not {name}={all}"
        ));
    }
    if latency.count != answered || Some(latency.unanswered) != unanswered {
        return Err(format!(
            "{kind}: answered={answered}, wrong={wrong} and missed={missed} are not those of its latencies (count={}, unanswered={})",
            latency.count, latency.unanswered
        ));
    }
    Ok(())
}
