//! Pages in docs/ are what the programs print of records that were measured: those in tests/records.

use std::{fs, path::Path};

use c1m_record::{Line, Record};
use c1m_text::{page::Format, pages};

/// Two pages fit beside each other with it, as the lines of docs/ do.
const COLUMNS: usize = 100;

/// The page of the record in this file.
fn page(file: &Path) -> String {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let line: Line<Record> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let page = match &line.record {
        Record::Doctor(doctor) => pages::doctor(doctor),
        Record::Holders(holders) => pages::holders(holders, 4096),
        Record::States(states) => pages::states(states, 40),
        Record::Hooks(hooks) => pages::hooks(hooks),
        other => panic!("{}: {other:?} has no page", file.display()),
    };
    page.render(Format { width: Some(COLUMNS), color: false })
}

#[test]
fn quoted_pages_are_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (record, doc) in
        [("doctor", "doctor.md"), ("holders", "holders.md"), ("states", "holders.md")]
    {
        let page = page(&root.join("tests/records").join(record).with_extension("json"));
        let text = fs::read_to_string(root.join("../../docs").join(doc)).unwrap();
        assert!(text.contains(&format!("```\n{page}```\n")), "docs/{doc} has not:\n{page}");
        assert!(page.lines().all(|line| line.chars().count() <= COLUMNS), "{page}");
    }
}
