//! The form of a page: lines that fit, and a beginning that says what the page answers.

use pulldown_cmark::{Event, HeadingLevel, Tag};

use crate::{pages, root};

/// What two pages fit beside each other with, and a terminal beside an editor.
const COLUMNS: usize = 100;
/// The README is read in one go.
const LINES: usize = 150;
/// Between these lines a page is as its command prints it.
const GENERATED: [&str; 2] = ["<!-- begin: printed by", "<!-- end -->"];

/// Lines that are too long, with their numbers. Rows of tables and lines of code can't be cut,
/// nor can a single word.
fn too_long(text: &str) -> Vec<String> {
    let (mut is_code, mut is_generated) = (false, false);
    let mut long = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        is_generated |= line.starts_with(GENERATED[0]);
        is_generated &= line != GENERATED[1];
        let can_be_cut = !is_code
            && !is_generated
            && !line.starts_with('|')
            && line.trim_start().trim_start_matches("- ").contains(' ');
        if can_be_cut && line.chars().count() > COLUMNS {
            long.push(format!("{number}: {line}"));
        }
    }
    long
}

#[test]
fn lines_of_pages_fit() {
    for page in &pages::all(root()) {
        let long = too_long(&page.text);
        assert!(long.is_empty(), "{}: more than {COLUMNS} columns: {long:#?}", page.name());
    }
}

/// Tables and output included.
#[test]
fn the_readme_fits() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let count = text.lines().count();
    assert!(count <= LINES, "the README has {count} lines");
    let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// A title, a paragraph that says what the page answers, and an example before the first section.
#[test]
fn each_page_begins_with_what_it_answers_and_an_example() {
    let pages = pages::all(root());
    let lists = ["docs/SUMMARY.md", "README.md"];
    for page in pages.iter().filter(|page| !lists.contains(&page.name().as_str())) {
        let mut events = page.events().filter_map(|event| match event {
            Event::Start(tag) => Some(tag),
            _ => None,
        });
        let name = page.name();
        let is_title = |tag: &Tag<'_>| matches!(tag, Tag::Heading { level: HeadingLevel::H1, .. });
        assert!(events.next().is_some_and(|tag| is_title(&tag)), "{name} has no title");
        assert!(matches!(events.next(), Some(Tag::Paragraph)), "{name} says not what it answers");
        let mut intro = events.take_while(|tag| !matches!(tag, Tag::Heading { .. }));
        let has_example = intro.any(|tag| matches!(tag, Tag::CodeBlock(_)));
        assert!(has_example, "{name} has no example before its first section");
    }
}

#[test]
fn lines_that_can_be_cut_are_found() {
    let long = "word ".repeat(30);
    let text = format!("{long}\n| {long} |\n```\n{long}\n```\n- {}\n", "x".repeat(200));
    assert_eq!(too_long(&text), [format!("1: {long}")]);
    let generated = format!("{} x -->\n{long}\n{}\n{long}\n", GENERATED[0], GENERATED[1]);
    assert_eq!(too_long(&generated), [format!("4: {long}")]);
}
