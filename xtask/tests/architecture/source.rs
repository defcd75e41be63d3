//! Just enough reading of Rust to judge what a file uses: tokens without comments, and the paths in them.

/// A token of source text. Comments are gone; what stands between quotes is kept apart from code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, keyword or number.
    Word(String),
    /// The contents of a string literal, escapes as written.
    Text(String),
    /// Anything else, one character.
    Mark(char),
}

/// The tokens of `source`. Lifetimes and character literals become nothing: no rule looks at them.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = after_block_comment(&chars, i),
            '"' => {
                let end = after_string(&chars, i);
                tokens.push(text(&chars, i + 1, end - 1));
                i = end;
            }
            '\'' => i = after_quote(&chars, i),
            c if is_word(c) => {
                let start = i;
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                match raw_string(&chars, i).filter(|_| ["r", "br", "cr"].contains(&word.as_str())) {
                    Some((first, last, end)) => {
                        tokens.push(text(&chars, first, last));
                        i = end;
                    }
                    None => tokens.push(Token::Word(word)),
                }
            }
            c if c.is_whitespace() => i += 1,
            c => {
                tokens.push(Token::Mark(c));
                i += 1;
            }
        }
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn text(chars: &[char], first: usize, last: usize) -> Token {
    Token::Text(chars.get(first..last).unwrap_or_default().iter().collect())
}

/// Block comments nest.
fn after_block_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn after_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len() + 1
}

/// Of a raw string whose hashes begin at `start`: first and last place of its contents, and the place after it.
fn raw_string(chars: &[char], start: usize) -> Option<(usize, usize, usize)> {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let first = start + hashes + 1;
    if chars.get(first - 1) != Some(&'"') {
        return None;
    }
    let closes = |i: usize| {
        chars[i] == '"'
            && chars.get(i + 1..=i + hashes).is_some_and(|end| end.iter().all(|c| *c == '#'))
    };
    let last = (first..chars.len()).find(|i| closes(*i)).unwrap_or(chars.len());
    Some((first, last, last + 1 + hashes))
}

/// After a character literal, or after the quote of a lifetime.
fn after_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let end = chars.iter().skip(start + 3).position(|c| *c == '\'');
            end.map_or(chars.len(), |end| start + end + 4)
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

/// `tokens` without the modules that exist only in tests: what a rule says of the program need not hold there.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let gate: Vec<Token> = self::tokens("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if !tokens[i..].starts_with(&gate) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        i += gate.len();
        let mut depth = 0;
        while i < tokens.len() {
            let token = &tokens[i];
            i += 1;
            match token {
                Token::Mark('{' | '(' | '[') => depth += 1,
                Token::Mark('}' | ')' | ']') => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(token, Token::Mark(';' | '}')) {
                break;
            }
        }
    }
    kept
}

/// A path in the code, such as `["std", "fs", "read"]`.
pub(crate) type Path = Vec<String>;

/// Every path in `tokens`: those of `use`, with groups spread out, and those in expressions and types.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            Token::Word(word) if word == "use" => {
                let mut end = i + 1;
                use_tree(tokens, &mut end, &Path::new(), &mut found);
                i = end;
            }
            Token::Word(_) => {
                let (path, end) = plain_path(tokens, i);
                if path.len() > 1 {
                    found.push(path);
                }
                i = end;
            }
            _ => i += 1,
        }
    }
    found
}

fn is_separator(tokens: &[Token], i: usize) -> bool {
    tokens.get(i) == Some(&Token::Mark(':')) && tokens.get(i + 1) == Some(&Token::Mark(':'))
}

fn plain_path(tokens: &[Token], start: usize) -> (Path, usize) {
    let (mut path, mut i) = (Path::new(), start);
    while let Some(Token::Word(word)) = tokens.get(i) {
        path.push(word.clone());
        i += 1;
        if !is_separator(tokens, i) {
            break;
        }
        i += 2;
    }
    (path, i.max(start + 1))
}

fn use_tree(tokens: &[Token], i: &mut usize, prefix: &Path, found: &mut Vec<Path>) {
    let mut path = prefix.clone();
    loop {
        match tokens.get(*i) {
            Some(Token::Word(word)) => path.push(word.clone()),
            Some(Token::Mark('*')) => path.push("*".to_owned()),
            Some(Token::Mark(':')) => {
                *i += 1;
                continue;
            }
            Some(Token::Mark('{')) => {
                *i += 1;
                while !matches!(tokens.get(*i), None | Some(Token::Mark('}'))) {
                    use_tree(tokens, i, &path, found);
                    if tokens.get(*i) == Some(&Token::Mark(',')) {
                        *i += 1;
                    }
                }
                *i += 1;
                return;
            }
            _ => break,
        }
        *i += 1;
        if tokens.get(*i) == Some(&Token::Word("as".to_owned())) {
            *i += 2;
        }
    }
    if path.len() > prefix.len() {
        found.push(path);
    } else {
        // Nothing that a use can begin with: step over it rather than stand still.
        *i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(source: &str) -> Vec<String> {
        paths(&tokens(source)).into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let source =
            "// unsafe\n/* a /* unsafe */ b */ x \"unsafe \\\" {\" r#\"un\"safe\"# 'u' '\\'' &'a y";
        assert_eq!(
            tokens(source),
            [
                Token::Word("x".into()),
                Token::Text("unsafe \\\" {".into()),
                Token::Text("un\"safe".into()),
                Token::Mark('&'),
                Token::Word("a".into()),
                Token::Word("y".into()),
            ]
        );
    }

    #[test]
    fn use_groups_are_spread_out() {
        assert_eq!(
            joined("use std::{fs, io::{self, Read as _}, net::*}; pub use crate::a::B;"),
            ["std::fs", "std::io::self", "std::io::Read", "std::net::*", "crate::a::B"]
        );
    }

    #[test]
    fn paths_in_expressions_and_macros_are_seen() {
        assert_eq!(
            joined("fn f() { println!(\"{}\", crate::trace::count(std::time::Instant::now())) }"),
            ["crate::trace::count", "std::time::Instant::now"]
        );
    }

    #[test]
    fn modules_of_tests_are_left_out() {
        let source = "fn a() {} #[cfg(test)] mod tests { fn b() { {} } } #[cfg(test)] mod t;\
                      #[cfg(test)] const D: [u8; 2] = [0; 2]; fn c() {}";
        let words: Vec<Token> = without_tests(&tokens(source));
        let has = |name: &str| words.contains(&Token::Word(name.to_owned()));
        assert!(has("a") && has("c") && !has("b") && !has("t") && !has("D"), "{words:?}");
    }
}
