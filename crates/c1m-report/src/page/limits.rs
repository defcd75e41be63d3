//! Every limit with what is used of it, what is left, and when it is hit.

use std::cmp::Ordering;

use c1m_record::LimitReading;
use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{as_f64, bytes, figure, foreign, percent, perhaps, span, tagged},
    },
    meter,
    summary::limit,
    table,
};

/// fs.file-max and others have the largest number there is where nobody wants a limit.
const NO_LIMIT: u64 = i64::MAX.unsigned_abs();

pub(super) fn section(run: &Run) -> Markup {
    let Some(limits) = &run.limits else {
        return html! { h3 { "Limits and headroom" } p.empty { "These records say nothing of limits: " code { "limits" } " lines come from c1m-server and its watch." } };
    };
    let all: Vec<(usize, &LimitReading)> = limits.record.limits.iter().enumerate().collect();
    let (mut known, unknown): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, reading)| share(reading).is_some());
    // The fullest first.
    known.sort_by(|(_, a), (_, b)| share(b).partial_cmp(&share(a)).unwrap_or(Ordering::Equal));
    let line = limits.line;
    html! {
        h3 { "Limits and headroom" }
        p {
            "At the end. " @match limits.record.next {
                Some(next) => { "The next one to be hit as connections come: " strong { (limit(next)) } "." },
                None => "None is in sight.",
            }
        }
        @if !known.is_empty() { (rows("Limits and headroom", line, &known)) }
        @if !unknown.is_empty() {
            details {
                summary { (unknown.len()) " more, of which is not known from here how much is used" }
                (rows("Limits of which the use is not known", line, &unknown))
            }
        }
    }
}

fn rows(name: &str, line: u64, rows: &[(usize, &LimitReading)]) -> Markup {
    table(
        name,
        html! {
            thead { tr {
                th scope="col" { "limit" } th colspan="2" scope="col" { "share" }
                th.number scope="col" { "used" } th.number scope="col" { "of" } th.number scope="col" { "headroom" }
                th.number scope="col" { "hit at connection" }
            } }
            tbody { @for (index, reading) in rows { (row(line, *index, reading)) } }
        },
    )
}

fn row(line: u64, index: usize, reading: &LimitReading) -> Markup {
    let place = |name: &str| format!("/limits/{index}/{name}");
    let value = |name: &str, value| amount(line, &place(name), value, reading);
    html! {
        tr {
            th.wide scope="row" {
                (limit(reading.limit))
                br; span.quiet { (foreign(&reading.unit)) " of the " (reading.scope.name()) "; " (foreign(&reading.source)) }
            }
            td.bar { @if let Some(share) = share(reading) { (meter(share)) } }
            td.number {
                @if let (Some(used), Some(ceiling)) = (reading.used, bounded(reading)) {
                    (percent(used, ceiling).unwrap_or_default())
                    @if used >= ceiling { br; strong { "past" } }
                }
            }
            td.number { (value("used", reading.used)) }
            td.number { (value("ceiling", reading.ceiling)) }
            td.number { (value("headroom", reading.headroom)) }
            td.number {
                @match reading.at_connection { Some(at) => (figure(line, &place("at_connection"), at)), None => "–" }
                @match reading.in_s {
                    Some(0.0) => { br; span.quiet { "now" } },
                    Some(seconds) => { br; span.quiet { "in " (tagged(line, &place("in_s"), seconds, span(seconds))) } },
                    None => {},
                }
            }
        }
    }
}

/// In the limit's unit, bytes in a larger one.
fn amount(line: u64, pointer: &str, value: Option<u64>, reading: &LimitReading) -> Markup {
    match value {
        Some(value) if value >= NO_LIMIT / 2 => tagged(line, pointer, value, "no limit"),
        Some(value) if reading.unit == "bytes" => {
            tagged(line, pointer, value, bytes(as_f64(value)))
        }
        value => perhaps(line, pointer, value),
    }
}

fn bounded(reading: &LimitReading) -> Option<u64> {
    reading.ceiling.filter(|ceiling| *ceiling < NO_LIMIT)
}

fn share(reading: &LimitReading) -> Option<f64> {
    let ceiling = reading.ceiling.filter(|ceiling| *ceiling > 0)?;
    Some(as_f64(reading.used?) / as_f64(ceiling))
}
