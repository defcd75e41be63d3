//! What a part says of its samples and heartbeats, beside itself: each of them is answered, wrong or missed.

use crate::record::{Heartbeats, Latency, Sample, Summary};

/// # Errors
/// Which figures contradict each other.
pub(super) fn check(result: &Summary) -> Result<(), String> {
    if let Some(Sample { asked, answered, wrong, missed, latency_us, .. }) = result.sample {
        of("sample", "asked", asked, [answered, wrong, missed], &latency_us)?;
    }
    if let Some(Heartbeats { due, answered, wrong, missed, late, latency_us }) = &result.heartbeats
    {
        of("heartbeats", "due", *due, [*answered, *wrong, *missed], latency_us)?;
        if late > answered {
            return Err(format!("heartbeats: {late} late of {answered} answered"));
        }
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
