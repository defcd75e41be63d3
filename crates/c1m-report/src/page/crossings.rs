//! Every crossing of tcp_mem: the first of each level and direction, with its connection, its
//! socket and how sharply it is known.

use c1m_record::{Crossing, Direction, Resolution};
use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{clock, figure, foreign, grouped, perhaps, tagged},
    },
    table,
};

pub(super) fn section(run: &Run) -> Markup {
    html! {
        h3 { "Crossings of tcp_mem" }
        @if run.crossings.first.is_empty() { (without(run)) } @else { (seen(run)) }
    }
}

fn without(run: &Run) -> Markup {
    let Some(act) = &run.act else {
        return html! { p {
            @if run.hooks.is_some() { "None was seen." } @else { "Not known: nothing was traced." }
        } };
    };
    if act.record.crossings.is_empty() {
        return html! { p { "None is expected of connections that leave nothing queued." } };
    }
    table(
        "Crossings",
        html! {
            thead { tr {
                th scope="col" { "level" } th.number scope="col" { "connection" } th.number scope="col" { "expected" }
                th.number scope="col" { "pages" } th.number scope="col" { "limit" } th scope="col" { "resolution" } th scope="col" { "hook" }
            } }
            tbody { @for (index, crossing) in act.record.crossings.iter().enumerate() {
                @let place = |name: &str| format!("{}/crossings/{index}/{name}", act.record.place);
                tr {
                    th scope="row" { "▲ " (crossing.level.name()) }
                    td.number { (perhaps(act.line, &place("connections"), crossing.connections)) }
                    td.number { (perhaps(act.line, &place("expected"), crossing.expected)) }
                    td.number { (perhaps(act.line, &place("pages"), crossing.pages)) }
                    td.number { (figure(act.line, &place("limit_pages"), crossing.limit_pages)) }
                    td { @if let Some(resolution) = crossing.resolution { (precise(resolution)) } @else { "–" } }
                    td { @if let Some(hook) = &crossing.hook { code { (foreign(hook)) } } @else { "–" } }
                }
            } }
        },
    )
}

fn seen(run: &Run) -> Markup {
    let mut first: Vec<_> = run.crossings.first.iter().collect();
    first.sort_by_key(|kept| kept.at);
    html! {
        (table("Crossings", html! {
            thead { tr {
                th scope="col" { "level" } th scope="col" { "first, UTC" } th.number scope="col" { "connection" }
                @if run.act.is_some() { th.number scope="col" { "expected" } }
                th.number scope="col" { "pages" }
                th scope="col" { "resolution, hook" } th scope="col" { "by" }
            } }
            tbody { @for kept in first {
                @let crossing = &kept.record;
                @let is_up = crossing.direction == Direction::Up;
                tr {
                    th scope="row" { (if is_up { "▲ above " } else { "▽ below " }) (crossing.level.name()) @if crossing.limit_moved { " (it was written)" } br; span.quiet { (times(run, crossing)) } }
                    td { (clock(kept.at)) }
                    td.number { (figure(kept.line, "/connections", crossing.connections)) }
                    @if run.act.is_some() { td.number { @if is_up { (expected(run, crossing)) } } }
                    td.number { (figure(kept.line, "/pages", crossing.pages)) br; span.quiet { "of " (figure(kept.line, "/limit_pages", crossing.limit_pages)) } }
                    td { (precise(crossing.resolution)) br; code.quiet { (foreign(&crossing.hook)) } }
                    td { (by(crossing)) }
                }
            } }
        }))
        p.note {
            "Pages are what the kernel's own counter held at that instant, connections what it had counted by then. Further crossings than these were counted in the kernel and not reported one by one: "
            (grouped(run.crossings.suppressed)) "."
        }
    }
}

/// How often this level was crossed in this direction.
fn times(run: &Run, crossing: &Crossing) -> String {
    let is_up = crossing.direction == Direction::Up;
    match run.crossings.counts.get(&(crossing.level, is_up)).copied().unwrap_or_default() {
        1 => "once".into(),
        count => format!("{} times", grouped(count)),
    }
}

fn expected(run: &Run, crossing: &Crossing) -> Markup {
    let Some(act) = &run.act else { return html! {} };
    let at = act.record.crossings.iter().position(|expected| expected.level == crossing.level);
    let Some(index) = at else { return html! {} };
    let expected = &act.record.crossings[index];
    let place = |name: &str| format!("{}/crossings/{index}/{name}", act.record.place);
    html! {
        (perhaps(act.line, &place("expected"), expected.expected))
        @if let Some(error) = expected.error_percent {
            br; span.quiet { (tagged(act.line, &place("error_percent"), error, format!("{error:.3} %"))) " off" }
        }
    }
}

/// Who made the call, as far as the hook knows.
fn by(crossing: &Crossing) -> Markup {
    html! {
        @match (&crossing.socket.comm, crossing.socket.pid) {
            (Some(comm), Some(pid)) => { (foreign(comm)) " (" (pid) ")" },
            (_, Some(pid)) => { "process " (pid) },
            _ => "a softirq",
        }
        @if let Some(remote) = &crossing.socket.remote { br; span.quiet { "of " (foreign(remote)) } }
    }
}

pub(super) fn precise(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Exact => "exact",
        Resolution::Connection => "per connection",
        Resolution::Interval => "per interval",
    }
}
