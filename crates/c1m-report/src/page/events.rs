//! What happened, line by line and folded away, and what the page leaves out.

use maud::{Markup, html};

use super::super::{
    RUNS, Report,
    run::{EVENTS, Event, Run},
    say::{clock, foreign, grouped},
    series::POINTS,
};

pub(super) fn section(run: &Run) -> Markup {
    let left_out = run.events.left_out();
    html! {
        (warnings(run))
        h3 { "Events" }
        @if run.events.seen == 0 {
            p { "None." }
        } @else {
            details.events {
                summary { (grouped(run.events.seen)) (if run.events.seen == 1 { " event" } else { " events" }) @if left_out > 0 { ", of which " (grouped(2 * EVENTS as u64)) " are here" } }
                ol {
                    @for event in &run.events.first { (one(event)) }
                    @if left_out > 0 {
                        li.gap { (grouped(left_out)) " events between these are not on the page: the first and the last " (EVENTS) " are. All of them are in the JSON lines." }
                    }
                    @for event in &run.events.last { (one(event)) }
                }
            }
        }
        (records(run))
    }
}

fn one(event: &Event) -> Markup {
    html! { li value=(event.line) { time { (clock(event.at)) } " " @for (index, line) in event.text.iter().enumerate() { @if index > 0 { br; } (line) } } }
}

fn warnings(run: &Run) -> Markup {
    html! {
        @if !run.warnings.is_empty() {
            h3 { "Warnings" }
            ul { @for (name, warned) in &run.warnings { li {
                strong { (foreign(name)) } " (" (grouped(warned.times)) @if warned.times == 1 { " time" } @else { " times" } ", first at " (clock(warned.first.at)) "): " (foreign(&warned.first.record.text))
            } } }
        }
    }
}

fn records(run: &Run) -> Markup {
    let drawn = run.series.points().len() as u64;
    html! {
        p.note {
            "Records of this run: " @for (index, (kind, count)) in run.kinds.iter().enumerate() { @if index > 0 { ", " } (kind) " " (grouped(*count)) } @if run.kinds.is_empty() { "none but the act itself" } "."
            @if run.series.seen > drawn {
                " Of " (grouped(run.series.seen)) " readings " (grouped(drawn)) " are drawn: of each stretch the highest and the lowest, at most " (grouped(POINTS as u64)) "."
            }
            @if run.pressure.seen > run.pressure.spans.len() as u64 { " Of " (grouped(run.pressure.seen)) " periods of memory pressure the first " (run.pressure.spans.len()) " are drawn." }
            @if run.tcp_mem.values.len() > 1 { " tcp_mem was written while it ran: the lines are its last value, dotted ones what it was before." }
            @if run.tcp_mem.is_cut { " It was written more often than is drawn." }
        }
    }
}

/// What this page was made of.
pub(super) fn about(report: &Report) -> Markup {
    html! {
        p {
            "Made by c1m-server " (env!("CARGO_PKG_VERSION")) " from " (grouped(report.lines)) " JSON lines. Figures are those of the lines: hidden in the page, each has the number of its line and its place there. "
            "This file has no script and asks no network for anything. Times are UTC."
        }
        @if report.is_cut_off { p.alarm { "The last line was cut off, as when a program is killed, and is left out." } }
        @if report.left_out > 0 { p.alarm { "There are more runs in these lines than the " (RUNS) " that are shown; records left out: " (grouped(report.left_out)) "." } }
        @if !report.unknown.is_empty() {
            p { "Records of kinds that this version does not show: " @for (index, (kind, count)) in report.unknown.iter().enumerate() { @if index > 0 { ", " } (foreign(kind)) " " (grouped(*count)) } "." }
        }
    }
}
