//! What every plot has: axes with their numbers, a grid, and the levels of tcp_mem.

use c1m_record::Level;
use maud::{Markup, html};

use super::{
    CHARACTER, Size,
    axis::Axis,
    labels::{Area, LINE, Labels, width},
    n,
};
use crate::say::{as_f64, grouped};

/// A place for a curve, with its axes.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) labels: Labels,
}

/// Where a frame stands in its picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) top: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
}

/// Space for the numbers of the vertical axis, whose largest one is `to`.
pub(super) fn left_of(to: f64) -> f64 {
    (width(&grouped(super::axis::rounded(to))) + 14.0).max(40.0)
}

impl Frame {
    pub(super) fn new(place: Place, x_to: f64, y_to: f64) -> Self {
        let (begin, end) = (place.left, place.right);
        let bottom = place.top + place.height;
        let area = Area {
            left: begin + 3.0,
            top: place.top - 4.0,
            width: end - begin - 3.0,
            height: place.height + 2.0,
        };
        Self {
            x: Axis { from: 0.0, to: x_to, begin, end },
            y: Axis { from: 0.0, to: y_to, begin: bottom, end: place.top },
            labels: Labels::new(area),
        }
    }

    /// Grid and numbers; the vertical axis is named above itself.
    pub(super) fn grid(
        &self,
        name: &str,
        x: &[(f64, String)],
        y: &[(f64, String)],
        numbers_x: bool,
    ) -> Markup {
        let (left, right, top, bottom) = (self.x.begin, self.x.end, self.y.end, self.y.begin);
        html! {
            @for (value, label) in y {
                @let at = self.y.place(*value);
                path class="grid" d={ "M" (n(left)) " " (n(at)) "H" (n(right)) } {}
                text class="tick end" x=(n(left - 7.0)) y=(n(at + 4.0)) { (label) }
            }
            @for (value, label) in x {
                @let at = self.x.place(*value);
                path class="axis" d={ "M" (n(at)) " " (n(bottom)) "v5" } {}
                @if numbers_x { (x_number(at, right, bottom, label)) }
            }
            path class="axis" d={ "M" (n(left)) " " (n(bottom)) "H" (n(right)) } {}
            text class="name" x=(n(0.0)) y=(n(top - 12.0)) { (name) }
        }
    }

    /// The levels as lines across the whole frame, each with its name and its number.
    pub(super) fn levels(&mut self, levels: [Option<u64>; 3], size: Size) -> Markup {
        let mut known: Vec<(Level, f64, u64)> = Level::ALL
            .into_iter()
            .zip(levels)
            .filter_map(|(level, pages)| Some((level, self.y.place(as_f64(pages?)), pages?)))
            .collect();
        // From the top down, each label at its line or below the label before it.
        known.reverse();
        let (left, right) = (self.x.begin, self.x.end);
        let mut free_from = f64::MIN;
        let mut lines = Vec::new();
        for (level, at, pages) in known {
            let text = label(level, pages, size);
            let base = (at - 5.0).max(free_from + LINE - 2.0);
            free_from = base;
            let x = left + 8.0;
            self.labels.take(Area { left: x, top: base - 12.0, width: width(&text), height: LINE });
            lines.push(html! {
                path class={ "level " (level.name()) } d={ "M" (n(left)) " " (n(at)) "H" (n(right)) } {}
                text class={ "label level-label " (level.name()) } x=(n(x)) y=(n(base)) { (text) }
            });
        }
        html! { @for line in lines { (line) } }
    }

    /// Labels keep clear of this curve.
    pub(super) fn avoid(&mut self, points: &[(f64, f64)]) {
        let line: Vec<_> =
            points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y))).collect();
        self.labels.avoid(&line);
    }

    /// A line through all of `points`, and dots where they are few: what is between them was not
    /// read.
    pub(super) fn curve(&self, class: &str, points: &[(f64, f64)]) -> Markup {
        const DOTS: usize = 80;
        let places: Vec<(f64, f64)> =
            points.iter().map(|(x, y)| (self.x.place(*x), self.y.place(*y))).collect();
        let steps: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        html! {
            @if places.len() > 1 {
                path class={ "curve " (class) } d={ "M" (steps.join("L")) } {}
            }
            @if places.len() <= DOTS {
                @for (x, y) in &places {
                    circle class={ "dot " (class) } cx=(n(*x)) cy=(n(*y)) r="2.2" {}
                }
            }
        }
    }
}

/// The first and the last one stay inside the picture.
fn x_number(at: f64, right: f64, bottom: f64, label: &str) -> Markup {
    let half = super::as_f64(label.chars().count() as u64) * CHARACTER / 2.0;
    let (class, x) =
        if at + half > right + 8.0 { ("tick end", right + 8.0) } else { ("tick middle", at) };
    html! { text class=(class) x=(n(x)) y=(n(bottom + 18.0)) { (label) } }
}

fn label(level: Level, pages: u64, size: Size) -> String {
    let unit = if size.is_narrow() { "" } else { " pages" };
    format!("{} {}{unit}", level.name(), grouped(pages))
}
