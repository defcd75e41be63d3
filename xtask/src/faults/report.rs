//! What people read.

use c1m_record::{LimitName, Tier};
use serde::Serialize;

use super::{
    catalog,
    record::{Fault, Run},
};

/// The name that JSON has for it.
fn name(value: impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|it| it.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn limit(limit: Option<LimitName>) -> String {
    limit.map_or_else(|| "quiet".into(), name)
}

fn tier(tier: Option<Tier>) -> String {
    tier.map_or_else(|| "-".into(), name)
}

/// One line of `--list`.
pub(crate) fn listed(fault: &catalog::Fault) -> String {
    format!("{:<22} {:<17} {}", fault.name, limit(fault.expect.limit()), fault.about)
}

/// What one run came to.
pub(crate) fn told(run: &Run) -> Vec<String> {
    let outcome = match (run.right, &run.skipped_because) {
        (_, Some(reason)) => format!("skipped: {reason}"),
        (Some(true), None) => format!("right: {}", limit(run.first)),
        _ => "WRONG".into(),
    };
    let mut lines = vec![format!("{:<22} {outcome} ({:.1} s)", run.name, run.elapsed_s)];
    lines.extend(run.wrong.iter().map(|wrong| format!("    {wrong}")));
    lines
}

/// All faults, one a line.
pub(crate) fn table(faults: &[Fault]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<22} {:<24} {:<12} {:>4} {:>5} {:>5}  {:<8} skipped because",
        "fault", "kernel", "tier", "runs", "right", "wrong", "counters"
    )];
    for fault in faults {
        let counters = match fault.counters_equal {
            None => "-",
            Some(true) => "equal",
            Some(false) => "UNEQUAL",
        };
        let line = format!(
            "{:<22} {:<24} {:<12} {:>4} {:>5} {:>5}  {counters:<8} {}",
            fault.name,
            fault.kernel,
            tier(fault.tier),
            fault.runs,
            fault.right,
            fault.wrong,
            fault.skipped_because.as_deref().unwrap_or_default()
        );
        lines.push(line.trim_end().to_owned());
    }
    let sum = |of: fn(&Fault) -> u64| faults.iter().map(of).sum::<u64>();
    let skipped = faults.iter().filter(|fault| fault.skipped_because.is_some()).count();
    lines.push(format!(
        "{} runs: {} right, {} wrong; {skipped} of {} faults skipped",
        sum(|fault| fault.runs),
        sum(|fault| fault.right),
        sum(|fault| fault.wrong),
        faults.len()
    ));
    lines
}
