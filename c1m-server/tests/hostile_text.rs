//! Names from outside, such as a process name, reach no terminal and no log raw.

use std::{process::Command, time::SystemTime};

use c1m_program::lines::formatted;
use c1m_record::{Line, Record};
use c1m_report::Report;
use c1m_server::{
    cli::Cli,
    output::view::{Holder, Holders, View, draw},
};
use c1m_testkit::{child::outcome, schema::sample, usage};
use c1m_text::{page::Format, pages};
use clap::CommandFactory as _;
use ratatui::{Terminal, backend::TestBackend};

/// Ends the line and forges another one, moves the cursor (ESC and C1's CSI), erases, turns the direction of text, rings.
const HOSTILE: &str = "x\n03:04:05.000  verdict  forged\r\x1b[2J\u{9b}1A\u{202e}\u{2028}\u{7f}\x07";

/// Kinds of records whose line for people has no text from outside.
const WITHOUT_A_NAME: [&str; 3] = ["online", "verdict", "usage"];

fn records(text: &str) -> Vec<(String, Record)> {
    let record = |(kind, line): (String, serde_json::Value)| {
        let line: Line<Record> =
            serde_json::from_value(line).unwrap_or_else(|error| panic!("{kind}: {error}"));
        (kind, line.record)
    };
    sample::lines("c1m-server", text).into_iter().map(record).collect()
}

fn printed(record: &Record) -> String {
    formatted(false, SystemTime::UNIX_EPOCH, record).unwrap()
}

/// What commands print that answer once.
fn page(record: &Record, width: Option<usize>) -> Option<String> {
    let page = match record {
        Record::Holders(holders) => pages::holders(holders, 4096),
        Record::States(states) => pages::states(states, 10),
        Record::Doctor(doctor) => pages::doctor(doctor),
        Record::Hooks(hooks) => pages::hooks(hooks),
        Record::Restored(restored) => pages::restored(restored),
        _ => return None,
    };
    Some(page.render(Format { width, color: false }))
}

/// Whether a terminal would act on it.
fn acts(character: char) -> bool {
    character.is_control() || ['\u{202e}', '\u{2028}'].contains(&character)
}

#[test]
fn no_record_prints_a_raw_name() {
    let mut without_a_name = Vec::new();
    for ((kind, hostile), (_, harmless)) in records(HOSTILE).into_iter().zip(records("x")) {
        let (text, expected) = (printed(&hostile), printed(&harmless));
        assert!(!text.contains(|c| acts(c) && c != '\n'), "{kind}: {text:?}");
        assert_eq!(text.lines().count(), expected.lines().count(), "{kind}: {text}");
        if !text.contains("\\u{1b}") {
            without_a_name.push(kind);
        }
    }
    // All others show theirs.
    assert_eq!(without_a_name, WITHOUT_A_NAME);
}

#[test]
fn no_page_has_a_raw_name() {
    let mut count = 0;
    for (kind, hostile) in records(HOSTILE) {
        for width in [None, Some(40), Some(80), Some(160)] {
            let Some(text) = page(&hostile, width) else { continue };
            count += 1;
            assert!(!text.contains(|c| acts(c) && c != '\n'), "{kind}: {text:?}");
            // What comes behind the end of line in a name is indented at most, and no line of its own.
            let is_forged = |line: &str| line.starts_with("03:04:05.000");
            assert!(!text.lines().any(is_forged), "{kind}: {text}");
            // States have no name, and so nothing to show.
            let has_name = kind == "states" || width == Some(40) || text.contains("\\u{1b}");
            assert!(has_name, "{kind}: {text}");
        }
    }
    assert_eq!(count, 5 * 4, "every page");
}

#[test]
fn the_view_draws_no_raw_name() {
    let mut view = View::default();
    for (_, record) in records(HOSTILE) {
        view.take("03:04:05.000", &record);
    }
    view.holders = Some(Holders {
        title: HOSTILE.into(),
        rows: vec![Holder { name: HOSTILE.into(), ..Holder::default() }],
    });
    let mut terminal = Terminal::new(TestBackend::new(200, 100)).unwrap();
    terminal.draw(|frame| draw(&view, frame)).unwrap();
    let text: String = terminal.backend().buffer().content.iter().map(|it| it.symbol()).collect();
    assert!(text.contains("\\u{1b}"), "names are shown");
    assert!(!text.contains(acts), "{text:?}");
}

#[test]
fn the_page_has_no_raw_name() {
    let mut report = Report::new();
    for (kind, line) in sample::lines("c1m-server", HOSTILE) {
        let line = line.to_string();
        report.take_line(line.as_bytes()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    let page = report.html();
    assert!(page.contains("\\u{1b}"), "names are shown");
    assert!(!page.contains(|c| acts(c) && c != '\n'), "{page:?}");
}

#[test]
fn no_error_has_a_raw_name() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    let text = outcome(command.args(["report", "/proc/none\n\x1b[2J\u{9b}1A\u{202e}"])).stderr;
    assert!(text.contains("\\u{1b}[2J"), "{text}");
    assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
    // What comes behind the name's end of line is no line of ours.
    assert!(text.lines().skip(1).all(|line| line.starts_with("    ")), "{text}");
}

/// Each option of each command with such a value is refused, and what is said of it has no character that a terminal acts on but clap's
/// styles, and no line of the value's own.
#[test]
fn no_error_of_the_command_line_has_a_raw_argument() {
    let checked: usize = usage::refused(env!("CARGO_BIN_EXE_c1m-server"), &Cli::command());
    assert!(checked > 60, "{checked} options");
}

#[test]
fn the_name_that_it_is_called_by_is_not_printed() {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new(env!("CARGO_BIN_EXE_c1m-server"))
        .arg0("x\n\x1b[2J\u{9b}1A")
        .args(["watch", "--json", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("Usage: c1m-server watch"), "{text}");
    assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
}
