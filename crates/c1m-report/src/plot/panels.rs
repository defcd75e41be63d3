//! Curves over the same steps, in panels one below the other: how cost grows with connections.

use maud::{Markup, PreEscaped, html};

use super::{
    STYLE, WIDE,
    axis::numbers,
    frame::{Frame, Place},
    n,
};
use crate::say::as_f64;

/// Colours of curves, in the order of their panel.
const CURVES: &str = ".curve.c0 { stroke: var(--part0); } .curve.c1 { stroke: var(--high); } \
    .curve.c2 { stroke: var(--part2); } .curve.c3 { stroke: var(--part4); } \
    .c0 rect, .dot.c0 { fill: var(--part0); } .c1 rect, .dot.c1 { fill: var(--high); } \
    .c2 rect, .dot.c2 { fill: var(--part2); } .c3 rect, .dot.c3 { fill: var(--part4); }";
const COLOURS: usize = 4;
const TOP: f64 = 70.0;
const PANEL: f64 = 230.0;
const HEIGHT: f64 = 160.0;
/// Right of a panel, for the names of its curves.
const NAMES: f64 = 180.0;

/// Values, one a step.
#[derive(Debug)]
pub struct Series {
    pub name: &'static str,
    pub values: Vec<f64>,
}

/// Series over one scale, which begins at 0.
#[derive(Debug)]
pub struct Panel {
    pub title: &'static str,
    pub series: Vec<Series>,
}

/// The panels as an SVG file. `steps` are the labels of the horizontal axis.
#[must_use]
pub fn svg(title: &str, steps: &[String], panels: &[Panel]) -> String {
    let height = TOP + PANEL * as_f64(panels.len() as u64);
    let markup = html! {
        svg class="file plot" xmlns="http://www.w3.org/2000/svg"
            viewBox={ "0 0 " (n(WIDE.width)) " " (n(height)) } {
            style { (PreEscaped(STYLE)) (PreEscaped(CURVES)) }
            rect class="paper" width="100%" height="100%" {}
            text class="heading" x="10" y="22" { (title) }
            @for (index, panel) in panels.iter().enumerate() {
                (drawn(panel, steps, TOP + PANEL * as_f64(index as u64)))
            }
        }
    };
    markup.into_string() + "\n"
}

fn drawn(panel: &Panel, steps: &[String], top: f64) -> Markup {
    let largest = panel.series.iter().flat_map(|it| &it.values).copied().fold(0.0, f64::max);
    let y = numbers(largest, 4.0);
    let most = y.last().map_or(1.0, |(value, _)| *value);
    let place = Place { top, height: HEIGHT, left: 70.0, right: WIDE.width - NAMES };
    let x: Vec<(f64, String)> = (0..).map(as_f64).zip(steps.iter().cloned()).collect();
    let frame = Frame::new(place, as_f64(steps.len().saturating_sub(1).max(1) as u64), most);
    html! {
        (frame.grid(panel.title, &x, &y, true))
        @for (index, series) in panel.series.iter().enumerate() {
            @let class = format!("c{}", index % COLOURS);
            @let points: Vec<_> = (0..).map(as_f64).zip(series.values.iter().copied()).collect();
            (frame.curve(&class, &points))
            @let row = top + 14.0 + 18.0 * as_f64(index as u64);
            g class=(class) {
                rect x=(n(place.right + 14.0)) y=(n(row - 5.0)) width="12" height="3" {}
                text x=(n(place.right + 32.0)) y=(n(row)) { (series.name) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[f64]) -> Panel {
        Panel { title: "a < b", series: vec![Series { name: "one", values: values.to_vec() }] }
    }

    #[test]
    fn the_largest_value_is_inside_and_the_scale_begins_at_zero() {
        let text = drawn(&panel(&[0.0, 4.0]), &["1".into(), "2".into()], 0.0).into_string();
        // 0 is at the bottom of the plot, 4 of 4 at its top.
        assert!(text.contains(r#"d="M70.0 160.0L680.0 0.0""#), "{text}");
    }

    #[test]
    fn text_is_escaped_and_one_point_is_enough() {
        let text = svg("x & y", &["1".into()], &[panel(&[3.0])]);
        assert!(text.contains("x &amp; y") && text.contains("a &lt; b"), "{text}");
        assert!(!text.contains("NaN") && text.ends_with("</svg>\n"));
        assert!(!svg("none", &[], &[panel(&[])]).contains("NaN"));
    }
}
