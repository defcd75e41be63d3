//! The table: for people on a terminal, and as Markdown for docs/benchmarks.md.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use c1m_text::units;

use super::record::{Bench, Figure};

/// Between these lines of docs/benchmarks.md everything is printed by the bench.
const BEGIN: &str = "<!-- begin: printed by `cargo xtask bench --write-docs` -->";
const END: &str = "<!-- end -->";

/// A number with four digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => grouped(value),
        middle if middle >= 100.0 => format!("{value:.1}"),
        small if small >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// 1024000.4 as 1,024,000.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and the sign is set before it"
)]
fn grouped(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", units::grouped(value.abs().round() as u64))
}

/// `median (min to max)`, or why there is none.
fn spread(median: Option<f64>, min: Option<f64>, max: Option<f64>) -> Option<String> {
    let (median, min, max) = (median?, min?, max?);
    match min < max {
        true => Some(format!("{} ({} to {})", number(median), number(min), number(max))),
        false => Some(number(median)),
    }
}

fn measured(figure: &Figure) -> String {
    match spread(figure.median, figure.min, figure.max) {
        Some(text) => format!("{text} {}", figure.unit),
        None => "not measured".into(),
    }
}

fn ratio(figure: &Figure) -> String {
    spread(figure.ratio, figure.ratio_min, figure.ratio_max)
        .map_or_else(|| "–".into(), |text| format!("{text} ×"))
}

fn against(figure: &Figure) -> String {
    match (&figure.against, figure.against_median) {
        (None, _) => "–".into(),
        (Some(what), Some(median)) => format!("{what}: {}", number(median)),
        (Some(what), None) => format!("{what}: not measured"),
    }
}

fn met(figure: &Figure) -> &'static str {
    match figure.met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None if figure.median.is_none() => "not measured",
        None => "–",
    }
}

/// What stands below the table: what was seen besides, and what was not measured and why.
fn remarks(figure: &Figure) -> Vec<String> {
    let reason = figure.reason.iter().map(|reason| match figure.median {
        None => format!("not measured: {reason}"),
        Some(_) => format!("not measured as often as it should be: {reason}"),
    });
    let violations = figure.violations.iter().map(|what| format!("must not be: {what}"));
    reason.chain(violations).chain(figure.notes.iter().cloned()).collect()
}

/// Where and how it was measured.
fn head(bench: &Bench) -> String {
    format!(
        "{}; Linux {}; load average before the start {:.2}; {} connections; the bench took {:.0} s",
        bench.machine,
        bench.kernel,
        bench.load_average,
        units::grouped(bench.connections),
        bench.elapsed_s
    )
}

/// For a terminal.
pub(crate) fn text(bench: &Bench) -> Vec<String> {
    let mut lines = vec![head(bench)];
    for figure in &bench.figures {
        let to_reach = figure.to_reach.as_deref().unwrap_or("–");
        lines.push(format!("{:<16} {}", figure.name, measured(figure)));
        lines.push(format!("{:<16}   {}", "", figure.about));
        if figure.against.is_some() {
            lines.push(format!(
                "{:<16}   against {}, ratio {}",
                "",
                against(figure),
                ratio(figure)
            ));
        }
        if figure.to_reach.is_some() {
            lines.push(format!(
                "{:<16}   to reach {to_reach}: {}",
                "",
                met(figure).trim_matches('*')
            ));
        }
        lines.extend(remarks(figure).iter().map(|remark| format!("{:<16}   {remark}", "")));
    }
    lines
}

/// As Markdown.
pub(crate) fn markdown(bench: &Bench) -> String {
    let mut text = format!(
        "{}.\n\n| figure | what | median (min to max) | against | ratio | to reach | met |\n|---|---|---|---|---|---|---|\n",
        head(bench)
    );
    for figure in &bench.figures {
        text += &format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            figure.name,
            figure.about,
            measured(figure),
            against(figure),
            ratio(figure),
            figure.to_reach.as_deref().unwrap_or("–"),
            met(figure)
        );
    }
    text.push('\n');
    for figure in &bench.figures {
        let remarks = remarks(figure);
        if !remarks.is_empty() {
            text += &format!("- `{}`: {}.\n", figure.name, remarks.join("; "));
        }
    }
    text
}

/// Puts the table into the page, between its two marks.
pub(crate) fn write_docs(page: &Path, bench: &Bench) -> Result<()> {
    let text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let new = replaced(&text, &markdown(bench))
        .with_context(|| format!("{} has no place for the table", page.display()))?;
    fs::write(page, new).with_context(|| format!("cannot write {}", page.display()))
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{board::Board, cli::Part};

    fn bench() -> Bench {
        let mut board = Board::default();
        for (value, against) in [(11.0, 10.0), (30.0, 20.0), (10.0, 10.0)] {
            board.value("ramp", value);
            board.against("ramp", against);
        }
        board.note("ramp", "0 events dropped");
        board.unmeasured(Part::Watch, "no eBPF here");
        Bench {
            machine: "a machine".into(),
            kernel: "6.18.0".into(),
            load_average: 0.1,
            connections: 1_024_000,
            quick: false,
            figures: board.figures(|part| [Part::Ramp, Part::Watch].contains(&part), true),
            elapsed_s: 12.3,
        }
    }

    #[test]
    fn the_page_keeps_what_stands_around_the_table() {
        let page = format!("# Before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&page, &markdown(&bench())).unwrap();
        assert!(new.starts_with("# Before\n") && new.ends_with(&format!("{END}\nafter\n")));
        assert!(!new.contains("old"));
        // Again: the same.
        assert_eq!(replaced(&new, &markdown(&bench())).unwrap(), new);
        assert_eq!(replaced("no marks", ""), None);
    }

    #[test]
    fn a_row_says_median_range_ratio_and_whether_it_is_met() {
        let text = markdown(&bench());
        assert!(text.contains("11.00 (10.00 to 30.00) s"), "{text}");
        assert!(text.contains("| 1.100 (1.000 to 1.500) × | ≤ 1.10 × | yes |"), "{text}");
        assert!(text.contains("- `watch`: not measured: no eBPF here."), "{text}");
        assert!(text.contains("1,024,000 connections"), "{text}");
    }

    #[test]
    fn every_figure_is_told_to_people() {
        let lines = super::text(&bench()).join("\n");
        for name in ["ramp ", "ramp_idle", "watch"] {
            assert!(lines.contains(name), "{lines}");
        }
        assert!(lines.contains("not measured: no eBPF here"), "{lines}");
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.12345, 9.99, 12.345, 123.45, 1_024_000.4, -1_500.0].map(number);
        assert_eq!(numbers, ["0.000", "0.123", "9.990", "12.35", "123.5", "1,024,000", "-1,500"]);
    }
}
