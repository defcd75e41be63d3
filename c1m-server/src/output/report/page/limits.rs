//! Every limit with what is used of it, what is left, and when it is hit.

use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{as_f64, figure, foreign, percent, perhaps, span, tagged},
    },
    meter,
    summary::limit,
    table,
};
use crate::output::record::LimitReading;

/// fs.file-max and others have the largest number there is where nobody wants a limit.
const NO_LIMIT: u64 = i64::MAX as u64;

pub(super) fn section(run: &Run) -> Markup {
    let Some(limits) = &run.limits else {
        return html! { h3 { "Limits and headroom" } p.empty { "These records say nothing of limits: " code { "limits" } " lines come from c1m-server and its watch." } };
    };
    let mut rows: Vec<(usize, &LimitReading)> = limits.record.limits.iter().enumerate().collect();
    // The fullest first, those that are not known last.
    rows.sort_by(|(_, a), (_, b)| {
        share(b).partial_cmp(&share(a)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let line = limits.line;
    html! {
        h3 { "Limits and headroom" }
        p {
            "At the end. " @match limits.record.next {
                Some(next) => { "The next one to be hit as connections come: " strong { (limit(next)) } "." },
                None => "None is in sight.",
            }
        }
        (table("Limits and headroom", html! {
            thead { tr {
                th scope="col" { "limit" } th scope="col" { "of the" } th scope="col" { "used" } th.number scope="col" { "share" }
                th.number scope="col" { "used" } th.number scope="col" { "of" } th.number scope="col" { "headroom" }
                th scope="col" { "unit" } th.number scope="col" { "hit at connection" } th.number scope="col" { "in" } th scope="col" { "read from" }
            } }
            tbody { @for (index, reading) in rows {
                @let place = |name: &str| format!("/limits/{index}/{name}");
                tr {
                    th scope="row" { (limit(reading.limit)) }
                    td { (reading.scope.name()) }
                    td.bar { @if let Some(share) = share(reading) { (meter(share)) } }
                    td.number { @if let (Some(used), Some(ceiling)) = (reading.used, bounded(reading)) { (percent(used, ceiling).unwrap_or_default()) @if used >= ceiling { " – past" } } @else { "–" } }
                    td.number { (perhaps(line, &place("used"), reading.used)) }
                    td.number { (or_none(line, &place("ceiling"), reading.ceiling)) }
                    td.number { (or_none(line, &place("headroom"), reading.headroom)) }
                    td { (foreign(&reading.unit)) }
                    td.number { @if let Some(at) = reading.at_connection { (figure(line, &place("at_connection"), at)) } @else { "–" } }
                    td.number { @match reading.in_s { Some(0.0) => "now", Some(seconds) => (tagged(line, &place("in_s"), seconds, span(seconds))), None => "–" } }
                    td { (foreign(&reading.source)) }
                }
            } }
        }))
        p.note { "“unknown” is not to be seen from where the program ran, which is not 0. “–”: it does not grow with connections, as far as is known." }
    }
}

fn bounded(reading: &LimitReading) -> Option<u64> {
    reading.ceiling.filter(|ceiling| *ceiling < NO_LIMIT)
}

fn share(reading: &LimitReading) -> Option<f64> {
    let ceiling = reading.ceiling.filter(|ceiling| *ceiling > 0)?;
    Some(as_f64(reading.used?) / as_f64(ceiling))
}

fn or_none(line: u64, pointer: &str, value: Option<u64>) -> Markup {
    match value {
        Some(value) if value >= NO_LIMIT / 2 => tagged(line, pointer, value, "no limit"),
        value => perhaps(line, pointer, value),
    }
}
