//! The page: what a run comes to first, then what it stands on, and the raw events last.
//!
//! - [`summary`]: titles, the verdict in one line, the figures that matter; [`article`]: a
//!   reproduction beside the article.
//! - [`verdict`], [`crossings`], [`limits`], [`memory`], [`holders`], [`refused`]: the parts of a
//!   run.
//! - [`hooks`]: how all of it was seen; [`events`]: what happened, line by line, and what the page
//!   left out.

mod article;
mod crossings;
mod events;
mod holders;
mod hooks;
mod limits;
mod memory;
mod refused;
mod summary;
mod verdict;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Report, plot,
    run::{Run, title},
};

const STYLE: &str = include_str!("page/page.css");
/// Nothing but what stands in the file: no script, no network. The empty icon keeps a browser from
/// asking for one.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// The whole page.
pub(super) fn page(report: &Report) -> Markup {
    let heading = summary::heading(report);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "c1m-server " (env!("CARGO_PKG_VERSION")) };
                link rel="icon" href="data:,";
                title { (heading) " – c1m" }
                style { (PreEscaped(plot::STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                header { (summary::header(report, &heading)) }
                main {
                    (article::section(report))
                    @if report.runs.is_empty() { (nothing()) }
                    @for (index, run) in report.runs.iter().enumerate() {
                        (section(run, index, report.runs.len() > 1))
                    }
                }
                footer { (events::about(report)) }
            }
        }
    }
}

fn nothing() -> Markup {
    html! {
        section { p.empty {
            "There is no record of a run here: neither what a server held nor what a watch saw. Give the lines that "
            code { "c1m-server --trace --json" } ", " code { "c1m-server watch --output FILE" } " or "
            code { "cargo xtask reproduce --output FILE" } " write."
        } }
    }
}

/// One run. Where there are several each has its own heading and verdict.
fn section(run: &Run, index: usize, is_one_of_many: bool) -> Markup {
    let id = |part: &str| format!("run{index}-{part}");
    html! {
        section.run id=(format!("run{index}")) {
            @if is_one_of_many {
                h2 { (title(run)) }
                (summary::verdict_line(run))
                (summary::tiles(run))
            }
            (figure(&id("connections"), plot::over_connections(run), "No reading has connections and pages of tcp_mem together, so nothing is drawn over connections."))
            (figure(&id("time"), plot::over_time(run), "There are no readings over time in these records, so nothing is drawn over time."))
            (crossings::section(run))
            (verdict::section(run))
            (limits::section(run))
            (memory::section(run, &id("memory")))
            (holders::section(run))
            (refused::section(run))
            (hooks::section(run))
            (events::section(run))
        }
    }
}

/// A plot with its title, or why there is none.
fn figure(id: &str, plot: Option<plot::Plot>, none: &str) -> Markup {
    html! {
        @match plot {
            Some(plot) => figure {
                figcaption { h3 { (plot.title) } }
                (plot.markup(id))
                details.words { summary { "In words" } p { (plot.description) } }
            },
            None => p.empty { (none) },
        }
    }
}

/// A table that scrolls by itself where it is wider than the page, and can be reached by keyboard
/// then.
fn table(name: &str, body: Markup) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label=(name) { table { (body) } }
    }
}

/// A bar for a share of a whole; the numbers stand beside it.
fn meter(share: f64) -> Markup {
    let width = (share.clamp(0.0, 1.0) * 100.0).max(if share > 0.0 { 1.0 } else { 0.0 });
    let class = match share {
        past if past >= 1.0 => "meter past",
        near if near >= 0.5 => "meter near",
        _ => "meter",
    };
    html! {
        svg class=(class) viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="10" {}
            rect.fill width=(format!("{width:.1}")) height="10" {}
        }
    }
}
