//! Two objects, program by program.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result};
use similar::TextDiff;

use super::object::{Contents, Function};

/// Lines of a difference that are shown.
const LINES_SHOWN: usize = 40;

/// The first difference in what two objects do, as a short text, `-` for the first and `+` for the second.
///
/// `None` when programs, functions and data are the same. Symbols that nothing refers to and BTF are not compared.
pub(crate) fn difference(first: &[u8], second: &[u8]) -> Result<Option<String>> {
    let first = Contents::parse(first).context("the committed object")?;
    let second = Contents::parse(second).context("the object built anew")?;
    Ok(code_difference("program", &first.programs, &second.programs)
        .or_else(|| code_difference("function", &first.functions, &second.functions))
        .or_else(|| data_difference(&first.data, &second.data)))
}

fn code_difference(
    what: &str,
    first: &BTreeMap<String, Function>,
    second: &BTreeMap<String, Function>,
) -> Option<String> {
    names(first, second).find_map(|name| match (first.get(name), second.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => {
            let mut text = format!(
                "{what} {name}: {} instructions against {}\n",
                a.instructions, b.instructions
            );
            text.push_str(&shortened(&unified(&a.listing, &b.listing)));
            Some(text)
        }
        (Some(_), None) => Some(format!("- {what} {name}")),
        (None, _) => Some(format!("+ {what} {name}")),
    })
}

fn data_difference(
    first: &BTreeMap<String, Vec<u8>>,
    second: &BTreeMap<String, Vec<u8>>,
) -> Option<String> {
    names(first, second).find_map(|name| match (first.get(name), second.get(name)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => {
            let diff = shortened(&unified(&hex_lines(a), &hex_lines(b)));
            Some(format!("section {name}: {} bytes against {}\n{diff}", a.len(), b.len()))
        }
        (Some(_), None) => Some(format!("- section {name}")),
        (None, _) => Some(format!("+ section {name}")),
    })
}

/// The names in either, each once, in order.
fn names<'a, T>(
    first: &'a BTreeMap<String, T>,
    second: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a String> {
    let mut names: Vec<&String> = first.keys().chain(second.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter()
}

fn unified(first: &str, second: &str) -> String {
    TextDiff::from_lines(first, second).unified_diff().context_radius(3).to_string()
}

fn shortened(diff: &str) -> String {
    let total = diff.lines().count();
    let mut text = diff.lines().take(LINES_SHOWN).collect::<Vec<_>>().join("\n");
    if total > LINES_SHOWN {
        text.push_str(&format!("\n… and {} lines more", total - LINES_SHOWN));
    }
    text
}

fn hex_lines(bytes: &[u8]) -> String {
    let mut text = String::new();
    for row in bytes.chunks(16) {
        for byte in row {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x} ");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(listings: &[(&str, &str)]) -> BTreeMap<String, Function> {
        listings
            .iter()
            .map(|(name, listing)| {
                let function =
                    Function { instructions: listing.lines().count(), listing: (*listing).into() };
                ((*name).to_owned(), function)
            })
            .collect()
    }

    #[test]
    fn the_first_program_that_differs_is_shown() {
        let first = code(&[("a", "exit\n"), ("b", "mov64 r0, 0\nexit\n"), ("c", "exit\n")]);
        let second = code(&[("a", "exit\n"), ("b", "mov64 r0, 1\nexit\n"), ("c", "ja +0\n")]);
        let text = code_difference("program", &first, &second).unwrap();
        assert!(text.starts_with("program b: 2 instructions against 2\n"), "{text}");
        assert!(text.contains("-mov64 r0, 0\n+mov64 r0, 1\n"), "{text}");
        assert!(!text.contains("ja +0"), "{text}");
        assert_eq!(code_difference("program", &first, &first), None);
    }

    #[test]
    fn a_program_on_one_side_only_is_a_difference() {
        let (with, without) = (code(&[("a", "exit\n")]), code(&[]));
        assert_eq!(code_difference("program", &with, &without).unwrap(), "- program a");
        assert_eq!(code_difference("program", &without, &with).unwrap(), "+ program a");
    }

    #[test]
    fn data_is_compared_and_long_differences_are_cut() {
        let first = BTreeMap::from([(".rodata".to_owned(), vec![0; 4096])]);
        let second = BTreeMap::from([(".rodata".to_owned(), vec![1; 4096])]);
        let text = data_difference(&first, &second).unwrap();
        assert!(text.starts_with("section .rodata: 4096 bytes against 4096\n"), "{text}");
        assert!(text.ends_with("lines more"), "{text}");
        assert!(text.lines().count() < LINES_SHOWN + 5);
    }
}
