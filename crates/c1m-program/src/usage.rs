//! What is wrong with a command line: clap's own text, with what was typed escaped.

use std::error::Error as _;

use c1m_text::escape::{line, paragraph};
use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue, Error, ErrorFormatter},
};

/// Ends the process as clap does: help and versions go to standard output, errors to standard error with exit code 2. Whoever wrote the
/// arguments of a command (a script, a unit, another host) does not write to the terminal of whoever runs it.
pub fn end(error: Error) -> ! {
    escaped(error).exit()
}

/// Finds the text in the error, instead of making one.
struct Rendered;

impl ErrorFormatter for Rendered {
    fn format_error(error: &Error<Self>) -> StyledStr {
        match error.get(ContextKind::Custom) {
            Some(ContextValue::StyledStr(text)) => text.clone(),
            _ => StyledStr::new(),
        }
    }
}

/// The error with clap's styles and line breaks, and no others.
///
/// What was typed is in the error in two ways: as values, from which clap makes its text, and inside of the text of the parser that refused
/// it, which clap puts behind the values.
fn escaped(mut error: Error) -> Error<Rendered> {
    let source = error.source().map(ToString::to_string);
    let mut shown = source.clone();
    let typed: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| Some((kind, value.clone(), escaped_value(value)?)))
        .collect();
    for (kind, raw, value) in typed {
        if let (Some(shown), ContextValue::String(raw)) = (&mut shown, &raw) {
            *shown = shown.replace(raw, &line(raw));
        }
        error.insert(kind, value);
        // Its text has styles and the argument in one.
        error.remove(ContextKind::Suggested);
    }
    let mut text = error.render().ansi().to_string();
    if let (Some(source), Some(shown)) = (source, shown)
        && let Some(start) = text.rfind(&format!(": {source}"))
    {
        text.replace_range(start + 2..start + 2 + source.len(), &paragraph(&shown));
    }
    error.insert(ContextKind::Custom, ContextValue::StyledStr(StyledStr::from(text)));
    error.apply()
}

/// `None`: it has nothing to escape.
fn escaped_value(value: &ContextValue) -> Option<ContextValue> {
    let is_shown = |text: &String| line(text) == text.as_str();
    match value {
        ContextValue::String(text) if !is_shown(text) => {
            Some(ContextValue::String(line(text).into_owned()))
        }
        ContextValue::Strings(texts) if !texts.iter().all(is_shown) => {
            let texts = texts.iter().map(|text| line(text).into_owned());
            Some(ContextValue::Strings(texts.collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    const HOSTILE: &str = "x\nerror: forged\r\x1b[2J\u{9b}1A\u{202e}";
    const ESCAPED: &str = "x\\nerror: forged\\r\\u{1b}[2J\\u{9b}1A\\u{202e}";

    fn command() -> Command {
        let refused = |text: &str| Err::<u64, _>(format!("no number: {text}\nbut one is needed"));
        Command::new("c1m-test")
            .arg(Arg::new("number").long("number").value_parser(refused))
            .arg(Arg::new("kind").long("kind").value_parser(["one", "two"]))
            .subcommand(Command::new("sub"))
    }

    fn refused(arguments: &[&str]) -> (Error, String) {
        let parse = || command().try_get_matches_from([&["c1m-test"], arguments].concat());
        (parse().unwrap_err(), escaped(parse().unwrap_err()).render().ansi().to_string())
    }

    #[test]
    fn what_was_typed_is_escaped() {
        for arguments in [
            vec!["--number".to_owned(), HOSTILE.to_owned()],
            vec!["--kind".to_owned(), HOSTILE.to_owned()],
            vec![HOSTILE.to_owned()],
            vec!["sub".to_owned(), HOSTILE.to_owned()],
            vec![format!("--{HOSTILE}")],
        ] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (raw, text) = refused(&arguments);
            assert!(raw.render().ansi().to_string().contains('\u{9b}'), "{arguments:?}");
            assert!(text.contains(ESCAPED), "{text:?}");
            assert!(!text.contains(['\r', '\u{9b}', '\u{202e}']), "{text:?}");
            assert!(!text.contains("\x1b[2J") && !text.contains("\nerror"), "{text:?}");
            assert!(text.contains("\x1b["), "clap's styles are kept: {text:?}");
        }
    }

    #[test]
    fn a_parser_s_own_lines_are_indented() {
        let (_, text) = refused(&["--number", HOSTILE]);
        assert!(text.contains(&format!("no number: {ESCAPED}\n    but one is needed")), "{text:?}");
    }

    #[test]
    fn a_value_of_nothing_but_line_breaks_leaves_those_of_clap() {
        let (_, text) = refused(&["--kind", "\n"]);
        assert!(text.contains("\\n") && text.contains("\n  [possible values"), "{text:?}");
    }

    #[test]
    fn other_errors_are_clap_s_own() {
        for arguments in [&["--number", "many"][..], &["--kind", "three"], &["--nmber=1"], &["sbu"]]
        {
            let (raw, text) = refused(arguments);
            let raw = raw.render().ansi().to_string();
            assert_eq!(text, raw.replace("\nbut one", "\n    but one"));
        }
    }
}
