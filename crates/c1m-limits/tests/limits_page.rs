//! docs/limits.md and the table of limits in README.md are made from the registry.

use std::{fs, path::PathBuf};

use c1m_limits::page;
use c1m_record::LimitName;

const STALE: &str =
    "is stale: run `cargo test -p c1m-limits --test limits_page -- --ignored`, which writes it";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// README.md with the present table, and what it should be.
fn readme() -> (String, String) {
    let text = read("README.md");
    let start = text.find("| limit | what you see |").unwrap();
    let end = start + text[start..].find("\n\n").unwrap() + 1;
    let wanted = format!("{}{}{}", &text[..start], page::summary(), &text[end..]);
    (text, wanted)
}

#[test]
fn the_pages_are_those_of_the_registry() {
    assert!(read("docs/limits.md") == page::markdown(), "docs/limits.md {STALE}");
    let (present, wanted) = readme();
    assert!(present == wanted, "the table of README.md {STALE}");
}

#[test]
fn every_limit_has_its_section() {
    let present = read("docs/limits.md");
    for limit in LimitName::ALL {
        assert_eq!(present.matches(&format!("\n## {}\n", limit.name())).count(), 1, "{limit:?}");
    }
}

#[test]
#[ignore = "writes the pages"]
fn write_the_pages() {
    fs::write(path("docs/limits.md"), page::markdown()).unwrap();
    fs::write(path("README.md"), readme().1).unwrap();
}
