//! Pictures as SVG, each drawn for a wide and for a narrow page; without colours as readable as
//! with them.
//!
//! - [`axis`]: from numbers to places; [`labels`]: text that lies on nothing; [`frame`]: axes,
//!   grid, the levels of tcp_mem.
//! - [`panels`]: curves of a bench.
//! - [`tcp_mem`]: pages over connections, and over time; [`memory`]: what a connection costs, by
//!   component.

mod axis;
mod frame;
mod labels;
pub(super) mod memory;
pub mod panels;
mod tcp_mem;

use maud::{Markup, PreEscaped, html};

use super::{
    PlotName, Report,
    run::{Run, title},
    say::as_f64,
};
use labels::CHARACTER;
pub(super) use tcp_mem::{over_connections, over_time};

/// Colours and strokes, for the page and for a file of its own.
pub(super) const STYLE: &str = include_str!("plot/plot.css");

/// How much room a picture has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    pub(super) width: f64,
    /// `wide` or `narrow`: the class by which the page shows one of them.
    pub(super) name: &'static str,
}

pub(super) const WIDE: Size = Size { width: 860.0, name: "wide" };
pub(super) const NARROW: Size = Size { width: 400.0, name: "narrow" };

impl Size {
    fn is_narrow(self) -> bool {
        self == NARROW
    }
}

/// One picture in one size.
#[derive(Debug)]
pub(super) struct Picture {
    height: f64,
    drawn: Markup,
}

/// What a picture shows, for those who don't see it, and what is drawn in each size.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) description: String,
    wide: Picture,
    narrow: Picture,
}

impl Plot {
    fn new(title: String, description: String, draw: impl Fn(Size) -> Picture) -> Self {
        Self { title, description, wide: draw(WIDE), narrow: draw(NARROW) }
    }

    /// Both sizes, of which the page shows one. `id` is of this plot alone.
    pub(super) fn markup(&self, id: &str) -> Markup {
        html! {
            @for (size, picture) in [(WIDE, &self.wide), (NARROW, &self.narrow)] {
                (self.svg(id, size, picture))
            }
        }
    }

    fn svg(&self, id: &str, size: Size, picture: &Picture) -> Markup {
        let (title, description) =
            (format!("{id}-{}-title", size.name), format!("{id}-{}-desc", size.name));
        html! {
            svg class={ "plot " (size.name) } xmlns="http://www.w3.org/2000/svg" role="img"
                viewBox={ "0 0 " (n(size.width)) " " (n(picture.height)) } aria-labelledby={ (title) " " (description) } {
                title id=(title) { (self.title) }
                desc id=(description) { (self.description) }
                (picture.drawn)
            }
        }
    }
}

/// A place, to a tenth of a unit.
fn n(value: f64) -> String {
    format!("{value:.1}")
}

/// All plots of a report as one file.
pub(super) fn file(report: &Report) -> String {
    let plots = report.runs.iter().flat_map(|run| {
        let plots = PlotName::ALL.into_iter().filter_map(|name| plot(run, name));
        plots.map(|plot| (title(run), plot))
    });
    drawn(&plots.collect::<Vec<_>>())
}

/// One plot of one run as a file. `None`: the run has no such plot.
pub(super) fn file_of(run: &Run, name: PlotName) -> Option<String> {
    Some(drawn(&[(title(run), plot(run, name)?)]))
}

/// Plots one below the other, each with what its run was of.
fn drawn(plots: &[(String, Plot)]) -> String {
    const HEADING: f64 = 62.0;
    const MARGIN: f64 = 20.0;
    let mut height = MARGIN;
    let mut drawn = Vec::new();
    for (index, (heading, plot)) in plots.iter().enumerate() {
        let svg = plot.svg(&format!("plot{index}"), WIDE, &plot.wide);
        drawn.push(html! {
            text class="heading" x=(n(MARGIN)) y=(n(height + 18.0)) { (heading) }
            text x=(n(MARGIN)) y=(n(height + 38.0)) { (plot.title) }
            svg x=(n(MARGIN)) y=(n(height + HEADING)) width=(n(WIDE.width)) height=(n(plot.wide.height)) { (svg) }
        });
        height += HEADING + plot.wide.height + MARGIN;
    }
    if drawn.is_empty() {
        let text = "These records hold nothing that can be drawn: no readings of tcp_mem or of connections.";
        drawn.push(html! { text class="heading" x=(n(MARGIN)) y=(n(height + 22.0)) { (text) } });
        height += HEADING;
    }
    let width = WIDE.width + 2.0 * MARGIN;
    let markup = html! {
        svg class="file" xmlns="http://www.w3.org/2000/svg" width=(n(width)) height=(n(height)) viewBox={ "0 0 " (n(width)) " " (n(height)) } {
            style { (PreEscaped(STYLE)) }
            rect class="paper" width="100%" height="100%" {}
            @for plot in drawn { (plot) }
        }
    };
    markup.into_string() + "\n"
}

fn plot(run: &Run, name: PlotName) -> Option<Plot> {
    match name {
        PlotName::Connections => over_connections(run),
        PlotName::Time => over_time(run),
        PlotName::Memory => memory::costs(run).as_deref().and_then(memory::bars),
    }
}
