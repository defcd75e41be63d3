//! What a page quotes is what the page says that has all of it: limits, comparison, output and
//! figures. (Commands run in tests/docs.rs and tests/package; the table of the main job is compared
//! with the records of the run by xtask/reproduce.)

use std::{collections::BTreeMap, fs};

use c1m_record::LimitName;
use pulldown_cmark::{CodeBlockKind, Event, Tag, TagEnd};

use crate::{
    pages::{self, Page},
    root,
};

/// The rows of the tables below the heading that begins with this, as cells; with the first
/// row, without the rule below it.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let section = text.split_once(&format!("\n{heading}\n")).expect(heading).1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = |row: &str| {
        let row = row.trim_start_matches('|').trim_end_matches('|');
        row.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_limit_is_named_as_the_page_of_limits_has_it() {
    let (readme, limits) = (read("README.md"), read("docs/limits.md"));
    let rows = table(&readme, "## What it names");
    let names: Vec<&str> = rows[1..].iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(names, LimitName::ALL.map(LimitName::name));
    for row in &rows[1..] {
        let page: BTreeMap<String, String> =
            table(&limits, &format!("## {}", row[0].trim_matches('`')))
                .into_iter()
                .map(|row| (row[0].clone(), row[1].clone()))
                .collect();
        for (told, whole) in [(&row[1], &page["symptom"]), (&row[2], &page["knob"])] {
            assert!(has_parts(whole, told), "{}: `{told}` is not in `{whole}`", row[0]);
        }
    }
}

#[test]
fn the_comparison_is_that_of_its_page() {
    let (readme, page) = (read("README.md"), read("docs/comparison.md"));
    let short = table(&readme, "## How it compares");
    let whole = table(&page, "## The table");
    assert_eq!(short.len(), 6, "five rows and a heading");
    for row in &short[1..] {
        let of_page = whole.iter().find(|it| it[0] == row[0]);
        let of_page = of_page.unwrap_or_else(|| panic!("docs/comparison.md has no {}", row[0]));
        for (column, cell) in short[0].iter().zip(row) {
            let at = whole[0].iter().position(|it| it == column);
            let at = at.unwrap_or_else(|| panic!("docs/comparison.md has no column {column}"));
            assert_eq!(*cell, of_page[at], "{}, {column}", row[0]);
        }
    }
}

/// The picture's description has the numbers of the lines beside the table.
#[test]
fn the_picture_is_described_by_the_run() {
    let (readme, page) = (read("README.md"), read("docs/reproduction.md"));
    let (words, _) = readme.split_once("](docs/reproduction/tcp_mem.svg)").unwrap();
    let words = words.rsplit_once("![").unwrap().1;
    let is_figure = |it: &&str| it.contains(',') && it.ends_with(|end: char| end.is_ascii_digit());
    let figures: Vec<&str> = words
        .split(|it: char| it.is_whitespace() || "()".contains(it))
        .map(|word| word.trim_end_matches(','))
        .filter(is_figure)
        .collect();
    assert_eq!(figures.len(), 7, "{figures:?}");
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("act 1: ")).collect();
    for figure in figures {
        assert!(lines.iter().any(|line| line.contains(figure)), "{figure} is not in {lines:#?}");
    }
}

/// The last lines of a watch, and lines of the run that is kept, stand whole on one page;
/// others have them as they are, with `…` for words that
/// are left out.
#[test]
fn output_is_quoted_as_the_page_that_has_it_whole() {
    let whole = [read("docs/diagnosing.md"), read("docs/reproduction.md")].join("\n");
    let lines: Vec<&str> = whole.lines().collect();
    let mut quoted = 0;
    for page in pages::all(root()) {
        for quote in output(&page) {
            quoted += 1;
            let is_it = |line: &&str| has_parts(line, &quote);
            assert!(lines.iter().any(is_it), "{}: who printed this? {quote}", page.name());
        }
    }
    assert!(quoted > 20, "{quoted} lines of output");
}

/// The lines of blocks of text that a program of c1m prints: a word, and two blanks behind it.
fn output(page: &Page) -> Vec<String> {
    let (mut lines, mut is_text) = (Vec::new(), false);
    for event in page.events() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                is_text = &*language == "text";
            }
            Event::End(TagEnd::CodeBlock) => is_text = false,
            Event::Text(text) if is_text => lines.extend(text.lines().map(str::to_owned)),
            _ => {}
        }
    }
    let is_output = |line: &String| line.starts_with("act ") || line.contains("  ");
    lines.retain(is_output);
    lines
}

/// Whether these words, with `…` for what is left out, are in this text in their order.
fn has_parts(text: &str, words: &str) -> bool {
    let mut rest = text;
    words.split('…').map(str::trim).all(|part| match rest.split_once(part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

/// A target that the printed table has as missed is explained, with the ratio of that table.
#[test]
fn every_missed_target_is_explained() {
    let (printed, page) = (read("docs/benchmarks.md"), read("docs/performance.md"));
    let explained = table(&page, "## Which targets are missed, and why");
    let mut missed = Vec::new();
    for row in table(&printed, "## The table").iter().filter(|row| row.last().unwrap() == "**no**")
    {
        let (figure, ratio) = (&row[0], row[4].split(' ').next().unwrap());
        let ratio: f64 = ratio.parse().unwrap();
        // The page has two digits.
        let is_it = |word: &str| word.parse::<f64>().is_ok_and(|it| (it - ratio).abs() < 0.0051);
        let has = |row: &Vec<String>| row[0].contains(figure) && row[1].split(' ').any(is_it);
        assert!(explained.iter().any(has), "{figure} misses its target: {ratio}");
        missed.push(figure.clone());
    }
    let names = explained[1..].iter().flat_map(|row| row[0].split(", "));
    for name in names {
        assert!(missed.iter().any(|it| it == name), "{name} does not miss its target");
    }
}
