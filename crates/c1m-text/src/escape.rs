//! Text for people that may contain a name from outside: a process name, a cgroup path, an error text of a peer.
//!
//! Such a name is chosen by whoever runs the process. Raw, it could move the cursor of root's terminal, or add a line to a log that
//! looks like one of ours. So each line passes [`line`] on its way out, and each error [`paragraph`].

use std::borrow::Cow;

/// One line: every character that a terminal or a log would act on, or that nobody would see, is written as an escape, such as `\n` or
/// `\u{1b}`.
///
/// These are the control characters (C0, DEL, C1), separators of lines, marks that change the direction of text (Unicode Standard
/// Annex 9, section 2), and what has no width. A backslash stays as it is: paths of systemd's units have them.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_hidden) else { return Cow::Borrowed(text) };
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(&text[..first]);
    for character in text[first..].chars() {
        if is_hidden(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// A text that may have several lines, such as an error with the verifier's log: each is escaped as by [`line`], and all but the first
/// are indented, so that none of them looks like a line of its own.
#[must_use]
pub fn paragraph(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(line).collect();
    lines.join("\n    ")
}

/// Control characters, marks of direction, what has no width, and the noncharacters (no XML may have them).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        )
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || (u32::from(character) & 0xfffe) == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_shown() {
        assert_eq!(line("\x1b]0;x\x07"), "\\u{1b}]0;x\\u{7}");
        assert_eq!(line("a\nb\r\tc"), "a\\nb\\r\\tc");
        assert_eq!(line("\u{7f}\u{9b}2J"), "\\u{7f}\\u{9b}2J");
        assert_eq!(line("\u{202e}txt.\u{2066}\u{2028}"), "\\u{202e}txt.\\u{2066}\\u{2028}");
    }

    #[test]
    fn other_text_is_not_copied() {
        for text in ["", "nginx[7]: 50 % of 1,024", "system-c1m\\x2dwatch.slice", "été 日本"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn lines_behind_the_first_are_indented() {
        assert_eq!(paragraph("one\ntwo\x1b[m"), "one\n    two\\u{1b}[m");
    }
}
