//! What a connection costs, by component: two bars, one of the article and one of this run.

use maud::html;

use super::{
    Picture, Plot, Size,
    axis::{Axis, counts},
    n,
};
use crate::{
    run::Run,
    say::{bytes, foreign},
};

/// A bar: whose, and its parts with their bytes.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Bar {
    pub(in super::super) name: String,
    pub(in super::super) parts: Vec<(String, f64)>,
}

impl Bar {
    pub(in super::super) fn total(&self) -> f64 {
        self.parts.iter().map(|(_, bytes)| bytes.max(0.0)).sum()
    }
}

/// `None`: of this run nothing is known.
pub(in super::super) fn bars(bars: &[Bar]) -> Option<Plot> {
    let most = bars.iter().map(Bar::total).fold(0.0, f64::max);
    if bars.len() < 2 || most <= 0.0 {
        return None;
    }
    let told = |bar: &Bar| {
        let parts: Vec<String> = bar
            .parts
            .iter()
            .map(|(name, size)| format!("{} {}", foreign(name), bytes(*size)))
            .collect();
        format!("{}: {} ({}).", bar.name, bytes(bar.total()), parts.join(", "))
    };
    let description = bars.iter().map(told).collect::<Vec<_>>().join(" ");
    let draw = |size: Size| {
        const THICK: f64 = 34.0;
        const EACH: f64 = THICK + 40.0;
        let axis = Axis { from: 0.0, to: most * 1.02, begin: 4.0, end: size.width - 14.0 };
        let bottom = 10.0 + EACH * super::as_f64(bars.len() as u64);
        let ticks = counts(most / 1024.0, if size.is_narrow() { 4.0 } else { 10.0 });
        let drawn = html! {
            @for (kib, label) in &ticks {
                @let at = axis.place(kib * 1024.0);
                path class="grid" d={ "M" (n(at)) " 8V" (n(bottom)) } {}
                text class={ "tick " @if *kib == 0.0 { "start" } @else { "middle" } } x=(n(at)) y=(n(bottom + 18.0)) { (label) }
            }
            text class="name end" x=(n(axis.end)) y=(n(bottom + 36.0)) { "KiB a connection" }
            @for (index, bar) in bars.iter().enumerate() {
                @let top = 10.0 + EACH * super::as_f64(index as u64);
                text class="label" x=(n(axis.begin)) y=(n(top + 14.0)) { (bar.name) ": " (bytes(bar.total())) }
                @let ends = ends(bar);
                @for (number, ((name, size), (from, to))) in bar.parts.iter().zip(&ends).enumerate() {
                    @let (left, right) = (axis.place(*from), axis.place(*to));
                    g class={ "part part" (number % 6) } {
                        title { (foreign(name)) ": " (bytes(*size)) }
                        rect x=(n(left)) y=(n(top + 22.0)) width=(n((right - left).max(0.6))) height=(n(THICK)) {}
                        // The number under which the table has it.
                        @if right - left > 16.0 {
                            text class="inside middle" x=(n((left + right) / 2.0)) y=(n(top + 22.0 + THICK / 2.0 + 4.0)) { (number + 1) }
                        }
                    }
                }
            }
        };
        Picture { height: bottom + 44.0, drawn }
    };
    Some(Plot::new("Memory per connection, by component".into(), description, draw))
}

/// Where each part begins and ends.
fn ends(bar: &Bar) -> Vec<(f64, f64)> {
    let mut end = 0.0;
    bar.parts
        .iter()
        .map(|(_, size)| {
            let begin = end;
            end += size.max(0.0);
            (begin, end)
        })
        .collect()
}

/// The article's server: 76 bytes of user memory a connection, and (7,701 - 171) MiB by 1,024,000 connections in all.
pub(crate) const ARTICLE_USER_BYTES: f64 = 76.0;
pub(crate) const ARTICLE_BYTES: f64 = 7530.0 * 1_048_576.0 / 1_024_000.0;

/// Components of the article's connection and of one of this run; `None` where slab was not measured.
pub(crate) fn costs(run: &Run) -> Option<Vec<Bar>> {
    let act = &run.act.as_ref()?.record;
    let mut parts = Vec::new();
    if let Some(user) = act.server_user_bytes_per_connection {
        parts.push(("user memory of the server".to_owned(), user));
    }
    parts.extend(
        act.slab
            .as_ref()?
            .iter()
            .map(|share| (format!("slab {}", share.cache), share.bytes_per_connection)),
    );
    let known: f64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let rest = act.memory_bytes_per_connection - known;
    if rest > 0.0 {
        parts.push(("everything else: the client, data in pages, page tables".into(), rest));
    }
    let article = vec![
        ("user memory of the server".to_owned(), ARTICLE_USER_BYTES),
        ("kernel, not told apart".into(), ARTICLE_BYTES - ARTICLE_USER_BYTES),
    ];
    Some(vec![
        Bar { name: "article, the server's end".into(), parts: article },
        Bar { name: "this run, both ends".into(), parts },
    ])
}
