//! Pages of tcp_mem over connections, and over time, with low, pressure and high drawn in and each
//! crossing marked.

use c1m_record::{Direction, Level};
use maud::{Markup, html};

use super::{
    Picture, Plot, Size, axis,
    frame::{Frame, Place, left_of},
    labels::{self, Area, beside},
    n,
};
use crate::{
    run::Run,
    say::{as_f64, clock, grouped, moment},
};

/// A crossing as it is drawn.
#[derive(Debug, Clone)]
struct Mark {
    level: Level,
    is_up: bool,
    connections: u64,
    pages: u64,
    at: Option<u64>,
}

/// The first crossing of each level in each direction.
fn marks(run: &Run) -> Vec<Mark> {
    let seen = run.crossings.first.iter().map(|kept| Mark {
        level: kept.record.level,
        is_up: kept.record.direction == Direction::Up,
        connections: kept.record.connections,
        pages: kept.record.pages,
        at: Some(kept.at),
    });
    let told = run.act.iter().flat_map(|act| &act.record.crossings).filter_map(|crossing| {
        let (connections, pages) = (crossing.connections?, crossing.pages?);
        Some(Mark { level: crossing.level, is_up: true, connections, pages, at: None })
    });
    let seen: Vec<Mark> = seen.collect();
    if seen.is_empty() { told.collect() } else { seen }
}

/// Connections and pages that were read together.
fn pairs(run: &Run) -> Vec<(f64, f64)> {
    let pairs: Vec<(f64, f64)> = run
        .points()
        .iter()
        .filter_map(|point| Some((as_f64(point.connections?), as_f64(point.pages?))))
        .collect();
    if !pairs.is_empty() {
        return pairs;
    }
    // An act alone has its crossings, and where it ended.
    let Some(act) = &run.act else { return pairs };
    let crossings = act.record.crossings.iter();
    let crossings = crossings
        .filter_map(|crossing| Some((as_f64(crossing.connections?), as_f64(crossing.pages?))));
    crossings.chain([(as_f64(act.record.held), as_f64(act.record.held_pages))]).collect()
}

/// Where the vertical axis ends: above the highest reading and the highest level.
fn pages_to(run: &Run, most: f64) -> f64 {
    // Whoever writes the largest number there is wants no limit, and no picture of it.
    const NO_LIMIT: u64 = 1 << 50;
    let levels = run.levels().into_iter().flatten().filter(|pages| *pages < NO_LIMIT);
    levels.map(as_f64).fold(most, f64::max).max(1.0) * 1.08
}

fn drawn_levels(run: &Run, to: f64) -> [Option<u64>; 3] {
    run.levels().map(|level| level.filter(|pages| as_f64(*pages) <= to))
}

fn most<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().copied().fold(0.0, f64::max)
}

/// `None`: no reading has both.
pub(in super::super) fn over_connections(run: &Run) -> Option<Plot> {
    let pairs = pairs(run);
    let marks = marks(run);
    if pairs.is_empty() {
        return None;
    }
    let connections = most(pairs.iter().map(|(x, _)| x)).max(1.0);
    let pages = most(pairs.iter().map(|(_, y)| y));
    let description = format!(
        "{} readings from {} to {} connections; at most {} pages. {}{}",
        pairs.len(),
        grouped(axis::rounded(pairs.iter().map(|(x, _)| *x).fold(connections, f64::min))),
        grouped(axis::rounded(connections)),
        grouped(axis::rounded(pages)),
        levels_in_words(run),
        marks_in_words(&marks),
    );
    let draw = |size: Size| {
        let to = pages_to(run, pages);
        let height = if size.is_narrow() { 330.0 } else { 400.0 };
        let place = Place {
            top: 34.0,
            height: height - 34.0 - 46.0,
            left: left_of(to),
            right: size.width - 14.0,
        };
        let mut frame = Frame::new(place, connections * 1.02, to);
        let x = axis::counts(connections, if size.is_narrow() { 3.0 } else { 8.0 });
        let y = axis::counts(to, 6.0);
        let grid = frame.grid("tcp_mem, pages", &x, &y, true);
        let levels = frame.levels(drawn_levels(run, to), size);
        frame.avoid(&pairs);
        let marked = marked(&mut frame, &marks, size, |mark| Some(as_f64(mark.connections)));
        let drawn = html! {
            (grid) (levels)
            (frame.curve("pages", &pairs))
            (marked)
            text class="name end" x=(n(place.right)) y=(n(height - 8.0)) { "connections" }
        };
        Picture { height, drawn }
    };
    Some(Plot::new("tcp_mem pages over connections".into(), description, draw))
}

/// `None`: nothing was read more than once.
pub(in super::super) fn over_time(run: &Run) -> Option<Plot> {
    let points = run.points();
    let (begin, end) = (points.first()?.at, points.last()?.at);
    let start = run.times.map_or(begin, |(first, _)| first.min(begin));
    let seconds = |at: u64| as_f64(at.saturating_sub(start)) / 1e6;
    if end == begin {
        return None;
    }
    let curve = |value: fn(&super::super::series::Point) -> Option<u64>| -> Vec<(f64, f64)> {
        points.iter().filter_map(|point| Some((seconds(point.at), as_f64(value(point)?)))).collect()
    };
    let (pages, connections) = (curve(|point| point.pages), curve(|point| point.connections));
    let marks = marks(run);
    let description = format!(
        "From {} to {}; at most {} pages and {} connections. {}{}",
        moment(start),
        moment(end),
        grouped(axis::rounded(most(pages.iter().map(|(_, y)| y)))),
        grouped(axis::rounded(most(connections.iter().map(|(_, y)| y)))),
        levels_in_words(run),
        marks_in_words(&marks),
    );
    let last = run.times.map_or(end, |(_, last)| last.max(end));
    let draw = |size: Size| {
        let (pages_to, to) = (pages_to(run, most(pages.iter().map(|(_, y)| y))), seconds(last));
        let held_to = most(connections.iter().map(|(_, y)| y)).max(1.0) * 1.08;
        let left = left_of(pages_to.max(held_to));
        let upper = Place {
            top: 34.0,
            height: if size.is_narrow() { 210.0 } else { 260.0 },
            left,
            right: size.width - 14.0,
        };
        let lower = Place { top: upper.top + upper.height + 44.0, height: 96.0, ..upper };
        let height = lower.top + lower.height + 46.0;
        let x = axis::times(to, if size.is_narrow() { 4.0 } else { 9.0 });
        let mut frame = Frame::new(upper, to, pages_to);
        let mut held = Frame::new(lower, to, held_to);
        let grid = frame.grid("tcp_mem, pages", &x, &axis::counts(pages_to, 5.0), false);
        let under_pressure = under_pressure(run, &mut frame, seconds, to);
        let levels = steps(run, &mut frame, size, &seconds, pages_to);
        frame.avoid(&pages);
        held.avoid(&connections);
        let marked = marked(&mut frame, &marks, size, |mark| mark.at.map(seconds));
        let drawn = html! {
            (under_pressure) (grid) (levels)
            (frame.curve("pages", &pages))
            (marked)
            (held.grid("connections", &x, &axis::counts(held_to, 3.0), true))
            (held.curve("connections", &connections))
            (held_most(&mut held, &connections))
            text class="name end" x=(n(upper.right)) y=(n(height - 8.0)) { "time since " (clock(start)) " UTC" }
        };
        Picture { height, drawn }
    };
    Some(Plot::new("tcp_mem pages and connections over time".into(), description, draw))
}

/// The highest reading, in digits.
fn held_most(frame: &mut Frame, points: &[(f64, f64)]) -> Markup {
    let Some((x, y)) = points.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }) else {
        return html! {};
    };
    let text = format!("most: {}", grouped(axis::rounded(y)));
    let (x, y) = (frame.x.place(x), frame.y.place(y));
    match frame.labels.put(
        &text,
        x,
        y,
        &[(9.0, 4.0), (-9.0 - labels::width(&text), 4.0), (-9.0 - labels::width(&text), -6.0)],
    ) {
        Some((left, base)) => html! { text class="label" x=(n(left)) y=(n(base)) { (text) } },
        None => html! {},
    }
}

/// Levels as they were at each time: lines across, or steps where tcp_mem was written.
fn steps(
    run: &Run,
    frame: &mut Frame,
    size: Size,
    seconds: &impl Fn(u64) -> f64,
    to: f64,
) -> Markup {
    let values = &run.tcp_mem.values;
    let lines = frame.levels(drawn_levels(run, to), size);
    if values.len() < 2 {
        return lines;
    }
    // Labels stand at the last value; earlier ones are thin lines until they were written.
    html! {
        (lines)
        @for (index, (_, levels)) in values.iter().enumerate().take(values.len() - 1) {
            @let (from, until) = (seconds(values[index].0), seconds(values[index + 1].0));
            @for pages in levels.iter().flatten().filter(|pages| as_f64(**pages) <= to) {
                @let y = n(frame.y.place(as_f64(*pages)));
                path class="level earlier" d={ "M" (n(frame.x.place(from))) " " (y) "H" (n(frame.x.place(until))) } {}
            }
        }
    }
}

fn under_pressure(run: &Run, frame: &mut Frame, seconds: impl Fn(u64) -> f64, to: f64) -> Markup {
    const WORDS: &str = "memory pressure";
    let (top, bottom) = (frame.y.end, frame.y.begin);
    let spans = run.pressure.spans.iter().map(|(begin, end)| {
        let left = frame.x.place(seconds(*begin));
        let right = frame.x.place(end.map_or(to, &seconds));
        (left, (right - left).max(1.0), *begin, *end)
    });
    let spans: Vec<_> = spans.collect();
    // The first one that has room for it is named.
    let named = spans.iter().find(|(_, width, ..)| *width > labels::width(WORDS) + 12.0);
    let name = named.map(|(left, ..)| (left + 6.0, bottom - 8.0));
    if let Some((left, base)) = name {
        let width = labels::width(WORDS);
        frame.labels.take(Area { left, top: base - 12.0, width, height: labels::LINE });
    }
    html! {
        @for (left, width, begin, end) in spans {
            rect class="under-pressure" x=(n(left)) y=(n(top)) width=(n(width)) height=(n(bottom - top)) {
                title { "memory pressure from " (clock(begin)) " to " (end.map_or("the end".into(), clock)) }
            }
        }
        @if let Some((left, base)) = name {
            text class="label quiet" x=(n(left)) y=(n(base)) { (WORDS) }
        }
    }
}

/// Height of the triangle of a crossing.
const MARK: f64 = 10.5;

/// Triangles, filled upwards and hollow downwards, with the number of the connection. They stand on
/// the crossing and hang below it, so that neither of two at one place covers the other.
fn marked(
    frame: &mut Frame,
    marks: &[Mark],
    size: Size,
    x: impl Fn(&Mark) -> Option<f64>,
) -> Markup {
    let places: Vec<(&Mark, f64, f64)> = marks
        .iter()
        .filter_map(|mark| Some((mark, frame.x.place(x(mark)?), frame.y.place(as_f64(mark.pages)))))
        .collect();
    for (mark, x, y) in &places {
        let top = if mark.is_up { y - MARK } else { *y };
        frame.labels.take(Area { left: x - 6.0, top, width: 12.0, height: MARK });
    }
    // Going up is what it is about: its labels choose first, and its marks lie on top.
    let (ups, downs): (Vec<_>, Vec<_>) = places.into_iter().partition(|(mark, ..)| mark.is_up);
    let drawn: Vec<Markup> =
        ups.into_iter().chain(downs).map(|place| one_mark(frame, size, place)).collect();
    html! { @for mark in drawn.iter().rev() { (mark) } }
}

fn one_mark(frame: &mut Frame, size: Size, (mark, x, y): (&Mark, f64, f64)) -> Markup {
    html! {
            @let text = number(mark, size);
            g class={ "mark " (mark.level.name()) @if !mark.is_up { " down" } } {
                title { (in_words(mark)) }
                @if mark.is_up {
                    path d={ "M" (n(x)) " " (n(y - MARK)) "l6 " (MARK) "h-12z" } {}
                } @else {
                    path d={ "M" (n(x)) " " (n(y + MARK)) "l6 -" (MARK) "h-12z" } {}
                }
            }
            @if let Some((left, base)) = frame.labels.put(&text, x, y, &beside(&text)) {
                text class="label" x=(n(left)) y=(n(base)) { (text) }
            }
    }
}

fn number(mark: &Mark, size: Size) -> String {
    let number = grouped(mark.connections);
    match (size.is_narrow(), mark.is_up) {
        (true, _) => number,
        (false, true) => format!("at connection {number}"),
        (false, false) => format!("down at {number}"),
    }
}

fn in_words(mark: &Mark) -> String {
    format!(
        "{} {} at connection {}, {} pages",
        if mark.is_up { "above" } else { "below" },
        mark.level.name(),
        grouped(mark.connections),
        grouped(mark.pages)
    )
}

fn marks_in_words(marks: &[Mark]) -> String {
    if marks.is_empty() {
        return "No level was crossed.".into();
    }
    let words: Vec<String> = marks.iter().map(in_words).collect();
    format!("Crossings: {}.", words.join("; "))
}

fn levels_in_words(run: &Run) -> String {
    let known = |level: Option<u64>| level.map_or("unknown".into(), grouped);
    let [low, pressure, high] = run.levels().map(known);
    format!("tcp_mem: low {low}, pressure {pressure}, high {high} pages. ")
}
