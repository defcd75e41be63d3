//! Names from outside, such as an error that a peer sent, reach no terminal and no log raw.

use std::time::SystemTime;

use c1m_client::{cli::Cli, record::ClientRecord, show::lines};
use c1m_record::Line;
use c1m_testkit::{schema::sample, usage};
use clap::CommandFactory as _;

/// Ends the line and forges another one, moves the cursor, turns the direction of text.
const HOSTILE: &str = "x\n03:04:05.000  summary  forged\r\x1b[2J\u{9b}1A\u{202e}";

/// Kinds of records whose lines for people have no text from outside.
const WITHOUT_A_NAME: [&str; 5] = ["progress", "waiting", "ramped", "sample", "verdict"];

fn printed(text: &str) -> Vec<(String, String)> {
    let print = |(kind, line): (String, serde_json::Value)| {
        let line: Line<ClientRecord> =
            serde_json::from_value(line).unwrap_or_else(|error| panic!("{kind}: {error}"));
        (kind, lines(SystemTime::UNIX_EPOCH, &line.record))
    };
    sample::lines("c1m-client", text).into_iter().map(print).collect()
}

#[test]
fn no_record_prints_a_raw_name() {
    let mut without_a_name = Vec::new();
    for ((kind, text), (_, harmless)) in printed(HOSTILE).into_iter().zip(printed("x")) {
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(acts), "{kind}: {text:?}");
        assert_eq!(text.lines().count(), harmless.lines().count(), "{kind}: {text}");
        if !text.contains("\\u{1b}") {
            without_a_name.push(kind);
        }
    }
    // All others show theirs.
    assert_eq!(without_a_name, WITHOUT_A_NAME);
}

/// Each option of each command with such a value is refused, and what is said of it has no character that a terminal acts on but clap's
/// styles, and no line of the value's own.
#[test]
fn no_error_of_the_command_line_has_a_raw_argument() {
    let checked: usize = usage::refused(env!("CARGO_BIN_EXE_c1m-client"), &Cli::command());
    assert!(checked > 40, "{checked} options");
}
