//! Command lines with hostile values.

use std::process::Command;

use crate::child::outcome;

/// Ends the line and forges another one, moves the cursor (ESC and C1's CSI), erases, turns the direction of text. The second one begins as a
/// number, an address or a size does.
const HOSTILE: [&str; 2] =
    ["x\nerror: forged\r\x1b[2J\u{9b}1A\u{202e}", "1\nerror: forged\r\x1b[2J\u{9b}1A\u{202e}"];

/// Runs `program` with each option and argument of `command` and of the commands inside of it, each with a hostile value and before an option that there
/// is not, so that nothing is started. Returns how many there were.
///
/// # Panics
/// One of them is taken, or what is said of it has a character that a terminal acts on, or a line of the value's own.
#[track_caller]
pub fn refused(program: &str, command: &clap::Command) -> usize {
    each(program, command, &mut Vec::new())
}

fn each(program: &str, command: &clap::Command, inside: &mut Vec<String>) -> usize {
    let mut checked = 0;
    for hostile in HOSTILE {
        let values = command.get_arguments().filter_map(|argument| {
            let name = argument.get_long().filter(|_| argument.get_action().takes_values());
            name.map(|name| format!("--{name}={hostile}"))
        });
        for typed in values.chain([hostile.into(), format!("--{hostile}"), format!("-{hostile}")]) {
            refuse(program, inside, &[&typed, "--there-is-no-such-option"]);
            refuse(program, inside, &["--there-is-no-such-option", &typed]);
            checked += 1;
        }
        let none = format!("--there-is-no={hostile}");
        refuse(program, inside, &[&none]);
    }
    for sub in command.get_subcommands() {
        inside.push(sub.get_name().into());
        checked += each(program, sub, inside);
        inside.pop();
    }
    checked
}

fn refuse(program: &str, inside: &[String], typed: &[&str]) {
    // Styles as on a terminal: without them clap's printer would take ESC sequences out, whoever wrote them.
    let mut command = Command::new(program);
    let refused = outcome(command.args(inside).args(typed).env("CLICOLOR_FORCE", "1"));
    let text = refused.stderr;
    assert_eq!(refused.code, Some(2), "{inside:?} {typed:?}: {text}");
    let plain = without_styles(&text);
    let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!plain.contains(acts), "{inside:?} {typed:?}: {plain:?}");
    let forged = plain.lines().any(|line| line.starts_with("error: forged"));
    assert!(!forged, "{inside:?} {typed:?}: {plain}");
}

/// The text without ESC [ numbers m.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => {
                plain.push_str("\x1b[");
                plain.push_str(part);
            }
        }
    }
    plain
}
