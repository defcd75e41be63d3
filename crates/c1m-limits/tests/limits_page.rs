//! docs/limits.md is the table of limits, as it is in the program.

use std::{fs, path::PathBuf};

use c1m_limits::catalog;
use c1m_record::LimitName;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md")
}

#[test]
fn the_page_is_that_of_the_table() {
    let present = fs::read_to_string(page()).unwrap();
    assert!(
        present == catalog::markdown(),
        "docs/limits.md is stale: run `cargo test -p c1m-limits --test limits_page -- --ignored`"
    );
}

#[test]
fn every_limit_stands_in_it() {
    let present = fs::read_to_string(page()).unwrap();
    for limit in LimitName::ALL {
        assert_eq!(present.matches(&format!("\n## {}\n", limit.name())).count(), 1, "{limit:?}");
    }
}

#[test]
#[ignore = "writes the page"]
fn write_the_page() {
    fs::write(page(), catalog::markdown()).unwrap();
}
