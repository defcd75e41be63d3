//! What a run is called, what came of it in one line, and the figures that matter.

use c1m_limits::limits;
use c1m_record::{Cause, Confidence, Direction, LimitName};
use maud::{Markup, html};

use super::super::{
    Report,
    run::{Run, title},
    say::{
        UNKNOWN, as_f64, bytes, figure, foreign, grouped, moment, percent, perhaps, rfc3339, span,
        tagged,
    },
};

/// What the page is called.
pub(super) fn heading(report: &Report) -> String {
    match (&report.reproduction, report.runs.as_slice()) {
        (Some(whole), _) => {
            format!("Reproduction with {} connections", grouped(whole.record.connections))
        }
        (None, []) => "No run".into(),
        (None, [run]) => title(run),
        (None, runs) => format!("{} runs", runs.len()),
    }
}

pub(super) fn header(report: &Report, heading: &str) -> Markup {
    let times = report.runs.iter().filter_map(|run| run.times);
    let times = times.reduce(|(begin, end), (a, b)| (begin.min(a), end.max(b)));
    html! {
        p.brand { "c1m" span { "which limit it was, when, and who held the memory" } }
        h1 { (heading) }
        p.meta {
            @if let Some((begin, end)) = times {
                time datetime=(rfc3339(begin)) { (moment(begin)) }
                span { "for " (span(as_f64(end - begin) / 1e6)) }
            }
            span { "Linux " (kernel(report)) }
            @if let Some(whole) = &report.reproduction {
                span { (tagged(whole.line, "/cpus", whole.record.cpus, whole.record.cpus)) " CPUs" }
                span { (tagged(whole.line, "/memory_bytes", whole.record.memory_bytes, bytes(as_f64(whole.record.memory_bytes)))) " of memory" }
            }
        }
        @if let [run] = report.runs.as_slice() {
            (verdict_line(run))
            (tiles(run))
        } @else if report.runs.len() > 1 {
            nav aria-label="Runs" { ol {
                @for (index, run) in report.runs.iter().enumerate() {
                    li { a href={ "#run" (index) } { (title(run)) } " – " (in_a_word(run)) }
                }
            } }
        }
    }
}

fn kernel(report: &Report) -> String {
    let of_hooks =
        report.runs.iter().find_map(|run| run.hooks.as_ref()).map(|hooks| &hooks.record.kernel);
    let whole = report.reproduction.as_ref().map(|whole| &whole.record.kernel);
    of_hooks.or(whole).map_or(UNKNOWN.into(), |kernel| foreign(kernel))
}

fn in_a_word(run: &Run) -> String {
    match run.verdict.as_ref().map(|verdict| verdict.record.causes.first()) {
        None => "no verdict".into(),
        Some(None) => "no limit was hit".into(),
        Some(Some(cause)) => format!("{} ({})", limit(cause.limit), cause.confidence.name()),
    }
}

/// The answer, before anything else.
pub(super) fn verdict_line(run: &Run) -> Markup {
    let root = run.verdict.as_ref().map(|verdict| verdict.record.causes.first());
    let (class, mark) = match root {
        None => ("answer none", "?"),
        Some(None) => ("answer quiet", "✓"),
        Some(Some(Cause { confidence: Confidence::Possible, .. })) => ("answer possible", "?"),
        Some(Some(_)) => ("answer hit", "!"),
    };
    html! {
        div class=(class) {
            span.sign aria-hidden="true" { (mark) }
            p {
                @match root {
                    None => { strong { "No verdict." } " These records end before one was given; what follows is what was seen until then." },
                    Some(None) => { strong { "No limit was hit." } " Nothing was refused, lost or killed for one, as far as could be seen." },
                    Some(Some(cause)) => { strong { (limit(cause.limit)) " (" (cause.confidence.name()) ")." } " " (foreign(&cause.text)) },
                }
            }
        }
    }
}

/// A limit's name for people, with its sysctl where it is one.
pub(super) fn limit(name: LimitName) -> &'static str {
    limits::of(name).about().label
}

/// Figures with their unit, the most important first.
pub(super) fn tiles(run: &Run) -> Markup {
    html! { dl.tiles { (connections(run)) (most_pages(run)) (first_crossing(run)) (cost(run)) (pressure(run)) (lost(run)) } }
}

fn tile(name: &str, value: Markup, more: Markup) -> Markup {
    html! { div { dt { (name) } dd { strong { (value) } " " span.more { (more) } } } }
}

fn connections(run: &Run) -> Markup {
    if let Some(act) = &run.act {
        let pointer = format!("{}/held", act.record.place);
        return tile("connections held", figure(act.line, &pointer, act.record.held), html! {});
    }
    if let Some(summary) = &run.summary {
        let accepted = figure(summary.line, "/accepted", summary.record.accepted);
        return tile(
            "most connections",
            figure(summary.line, "/peak", summary.record.peak),
            html! { (accepted) " accepted" },
        );
    }
    let most = run.series.points().iter().filter_map(|point| point.connections).max();
    tile("most connections read", html! { (most.map_or(UNKNOWN.into(), grouped)) }, html! {})
}

fn most_pages(run: &Run) -> Markup {
    let most = run
        .most_pages()
        .and_then(|point| point.pages)
        .or(run.act.as_ref().map(|act| act.record.held_pages));
    let high = run.levels()[2];
    let share = most.zip(high).and_then(|(most, high)| percent(most, high));
    let value = match &run.ended {
        Some(ended) => perhaps(ended.line, "/tcp_mem_pages_max", ended.record.tcp_mem_pages_max),
        None => html! { (most.map_or(UNKNOWN.into(), grouped)) },
    };
    tile(
        "most tcp_mem pages",
        value,
        html! { @if let Some(share) = share { (share) " of high" } @else { "of the whole host" } },
    )
}

fn first_crossing(run: &Run) -> Markup {
    let first = run.crossings.first.iter().find(|kept| kept.record.direction == Direction::Up);
    let highest = run
        .crossings
        .first
        .iter()
        .filter(|kept| kept.record.direction == Direction::Up)
        .max_by_key(|kept| kept.record.level);
    match highest.or(first) {
        Some(kept) => tile(
            "highest crossed",
            html! { (kept.record.level.name()) },
            html! { "at connection " (figure(kept.line, "/connections", kept.record.connections)) },
        ),
        None => html! {},
    }
}

fn cost(run: &Run) -> Markup {
    if let Some(act) = &run.act {
        let value = act.record.memory_bytes_per_connection;
        let pointer = format!("{}/memory_bytes_per_connection", act.record.place);
        return tile(
            "memory a connection",
            tagged(act.line, &pointer, value, bytes(value)),
            html! { "both ends, kernel and user" },
        );
    }
    match run
        .summary
        .as_ref()
        .map(|summary| (summary.line, summary.record.user_bytes_per_connection))
    {
        Some((line, Some(value))) => tile(
            "user memory each",
            tagged(line, "/user_bytes_per_connection", value, bytes(value)),
            html! { "the server's PSS by connections, at the peak" },
        ),
        _ => html! {},
    }
}

fn pressure(run: &Run) -> Markup {
    let Some(ended) = &run.ended else { return html! {} };
    let Some(total) = ended.record.host.pressure.total_ms else { return html! {} };
    tile(
        "under memory pressure",
        tagged(ended.line, "/host/pressure/total_ms", total, span(total / 1000.0)),
        html! { "of the whole host" },
    )
}

fn lost(run: &Run) -> Markup {
    let value = match (run.lost(), &run.act) {
        (Some((line, lost, _)), _) => figure(line, "/dropped", lost),
        (None, Some(act)) => {
            perhaps(act.line, &format!("{}/dropped", act.record.place), act.record.dropped)
        }
        (None, None) => html! { (UNKNOWN) },
    };
    tile("events lost", value, html! {})
}
