//! What a line says: of sysctl.d(5), of limits.conf(5), of a unit of systemd(5), or of a shell script that calls sysctl(8).

/// One line that says something, and what it says. Comments and empty lines are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file, `-` for standard input, or [`super::NOW`].
    pub file: String,
    /// From 1 on; `None` where there are no lines.
    pub number: Option<u64>,
    pub statement: Statement,
    /// Somebody named the file: then every line is reported, and not only what harms.
    pub asked: bool,
    /// This host reads the file by itself, at boot or at log-in.
    pub installed: bool,
    /// The file of the same name in a folder before this one's, which is read instead.
    pub masked_by: Option<String>,
}

impl Line {
    #[must_use]
    pub fn new(file: &str, number: Option<u64>, statement: Statement) -> Self {
        let file = file.into();
        Self { file, number, statement, asked: false, installed: false, masked_by: None }
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// A kernel setting; the name with dots, as [`dotted`] has it. It may be a pattern of glob(7).
    Sysctl { name: String, value: String },
    /// `-name` without a value: patterns do not set it.
    Exclusion { name: String },
    /// A kernel setting in a line that the program which reads the file does not take for one.
    NotRead { name: String, value: String, why: &'static str },
    /// A line of limits.conf.
    Limit { domain: String, limit_type: LimitType, item: String, value: String },
    /// A line of a unit or of system.conf; `unit` is empty in the latter.
    Unit { unit: String, key: String, value: String },
    /// Neither of them.
    Other { text: String },
}

/// The limit that a line of limits.conf sets: its `type` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitType {
    Soft,
    Hard,
    Both,
}

const BYTE_ORDER_MARK: char = '\u{feff}';
const OF_A_MARK: &str = "the file begins with a byte order mark, which becomes part of this name: \
    there is no such setting, and the line sets nothing. Save the file without it";
const OF_A_COMMAND: &str =
    "this is a shell command, which sets nothing in a file of settings: write `name = value`";

/// All lines of one file. `file` is its name.
#[must_use]
pub fn lines(file: &str, text: &str) -> Vec<Line> {
    let reader = Reader::of(file, text);
    let line = |(index, line): (usize, String)| {
        let number = u64::try_from(index).ok().map(|index| index + 1);
        let each = reader.statements(&line).into_iter();
        each.map(move |statement| Line::new(file, number, statement)).collect::<Vec<_>>()
    };
    match reader {
        Reader::Unit { .. } => joined(text).into_iter().flat_map(line).collect(),
        Reader::Shell | Reader::Settings => {
            text.lines().map(str::to_owned).enumerate().flat_map(line).collect()
        }
    }
}

/// Lines as systemd reads them, each with the index of its first one: a backslash at the end of a line stands for a blank and the next line, comments
/// in between left out (systemd.syntax(7)).
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        if open.is_some() && line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (first, before) = open.take().unwrap_or((index, String::new()));
        let is_comment = before.is_empty() && is_comment(line.trim());
        match line.strip_suffix('\\').filter(|_| !is_comment) {
            Some(line) => open = Some((first, before + line + " ")),
            None => all.push((first, before + line)),
        }
    }
    all.extend(open);
    all
}

/// Who reads the file.
enum Reader {
    /// systemd: the file has `[Sections]`.
    Unit { unit: String },
    /// A shell.
    Shell,
    /// sysctl or `pam_limits`: the line says which one.
    Settings,
}

impl Reader {
    fn of(file: &str, text: &str) -> Self {
        let is_section = |line: &str| line.starts_with('[') && line.ends_with(']');
        let mut said = text.lines().map(str::trim).filter(|line| !is_comment(line)).peekable();
        if text.lines().any(|line| is_section(line.trim_start_matches(BYTE_ORDER_MARK).trim())) {
            return Self::Unit { unit: unit_of(file) };
        }
        // A list of commands, such as one that a page on the web shows, is run by a shell.
        let is_list = said.peek().is_some() && said.all(|line| command(line).is_some());
        if text.starts_with("#!") || is_list { Self::Shell } else { Self::Settings }
    }

    fn statements(&self, line: &str) -> Vec<Statement> {
        let marked = line.starts_with(BYTE_ORDER_MARK);
        let line = line.trim_start_matches(BYTE_ORDER_MARK).trim();
        if is_comment(line) {
            return Vec::new();
        }
        match self {
            Self::Unit { unit } => match line.split_once('=') {
                Some((key, value)) => vec![Statement::Unit {
                    unit: unit.clone(),
                    key: key.trim().into(),
                    value: value.trim().into(),
                }],
                None if line.starts_with('[') => Vec::new(),
                None => vec![Statement::Other { text: line.into() }],
            },
            Self::Shell => match command(line) {
                Some(settings) => settings
                    .into_iter()
                    .map(|(name, value)| Statement::Sysctl { name, value })
                    .collect(),
                // A script does other things as well, which are none of ours.
                None => Vec::new(),
            },
            Self::Settings => settings(line, marked),
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';'])
}

/// A line of a file that sysctl or `pam_limits` reads.
fn settings(line: &str, marked: bool) -> Vec<Statement> {
    if let Some(found) = command(line) {
        let not_read = |(name, value)| Statement::NotRead { name, value, why: OF_A_COMMAND };
        return found.into_iter().map(not_read).collect();
    }
    if let Some(limit) = limit(line) {
        return vec![limit];
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value.trim())),
        None => (line, None),
    };
    let ignores_errors = name.starts_with('-');
    let name = dotted(name.strip_prefix('-').unwrap_or(name).trim());
    vec![match value {
        Some(value) if marked => Statement::NotRead { name, value: value.into(), why: OF_A_MARK },
        Some(value) => Statement::Sysctl { name, value: value.into() },
        None if ignores_errors && !name.is_empty() => Statement::Exclusion { name },
        None => Statement::Other { text: line.into() },
    }]
}

/// A line of limits.conf: domain, type, item, value.
fn limit(line: &str) -> Option<Statement> {
    let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
    let [domain, limit_type, item, value] = words.as_slice() else { return None };
    let limit_type = match *limit_type {
        "soft" => LimitType::Soft,
        "hard" => LimitType::Hard,
        "-" => LimitType::Both,
        _ => return None,
    };
    Some(Statement::Limit {
        domain: (*domain).into(),
        limit_type,
        item: (*item).into(),
        value: (*value).into(),
    })
}

/// The settings that a shell command changes: `sysctl -w a.b=1 c.d="2 3"`, `echo 1 > /proc/sys/a/b`, `echo 1 | tee /proc/sys/a/b`. `None`: it is
/// no such command.
fn command(line: &str) -> Option<Vec<(String, String)>> {
    let words = words(line);
    let mut words =
        words.iter().map(String::as_str).skip_while(|word| *word == "sudo" || *word == "$");
    let program = words.next()?;
    match program.rsplit('/').next()? {
        "sysctl" => {
            let settings =
                words.take_while(|word| !matches!(*word, ";" | "&&" | "|" | "||" | "#" | ">"));
            let pair = |word: &str| {
                let (name, value) = word.split_once('=').filter(|_| !word.starts_with('-'))?;
                Some((dotted(name.trim()), value.trim().to_owned()))
            };
            let all: Vec<_> = settings.filter_map(pair).collect();
            (!all.is_empty()).then_some(all)
        }
        "echo" | "printf" => {
            let rest: Vec<&str> = words.collect();
            let to = rest
                .iter()
                .find_map(|word| word.trim_start_matches('>').strip_prefix("/proc/sys/"))?;
            let value = rest.iter().take_while(|word| !word.starts_with(['>', '|']));
            let value: Vec<&str> = value.copied().filter(|word| !word.starts_with('-')).collect();
            Some(vec![(to.replace('/', "."), value.join(" "))])
        }
        _ => None,
    }
}

/// The words of a shell command; quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quote, mut is_word) = (String::new(), None, false);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => (quote, is_word) = (Some(letter), true),
            (None, _) if letter.is_whitespace() => {
                if is_word {
                    all.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            (..) => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        all.push(word);
    }
    all
}

/// A name as systemd-sysctl understands it: the first separator says which one it is. After a slash, dots are part of names, such as of
/// interfaces; after a dot, slashes are. With dots between its parts, and slashes for dots inside of them.
#[must_use]
pub fn dotted(name: &str) -> String {
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name).trim_matches('/');
    let is_path = name.find(['/', '.']).is_some_and(|at| name[at..].starts_with('/'));
    let swap = |letter| match letter {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    if is_path { name.chars().map(swap).collect() } else { name.into() }
}

/// `nginx.service` of `/etc/systemd/system/nginx.service.d/a.conf`, and empty for system.conf.
fn unit_of(file: &str) -> String {
    let is_unit = |part: &str| {
        [".service", ".socket", ".slice", ".scope"].iter().any(|end| part.ends_with(end))
    };
    let mut parts = file.rsplit('/').take(2).map(|part| part.strip_suffix(".d").unwrap_or(part));
    parts.find(|part| is_unit(part)).unwrap_or_default().into()
}

/// Whether a name has what glob(7) takes for a pattern.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether `name` is one that `pattern` stands for. A dot is matched by a dot alone, as a slash is in a path.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let parts =
        |text: &str| text.split('.').map(|part| part.chars().collect()).collect::<Vec<Vec<char>>>();
    let (patterns, names) = (parts(pattern), parts(name));
    patterns.len() == names.len()
        && patterns.iter().zip(&names).all(|(pattern, name)| matches_part(pattern, name))
}

fn matches_part(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', '*', ..] => matches_part(&pattern[1..], name),
        ['*', rest @ ..] => (0..=name.len()).any(|skipped| matches_part(rest, &name[skipped..])),
        ['?', rest @ ..] => name.split_first().is_some_and(|(_, name)| matches_part(rest, name)),
        ['[', rest @ ..] if rest.contains(&']') => {
            let end = rest.iter().position(|it| *it == ']').unwrap_or(0);
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            let Some((letter, name)) = name.split_first() else { return false };
            let is_range = |it: &[char]| matches!(it, [a, '-', b] if a <= letter && letter <= b);
            let (negated, set) = match set {
                ['!' | '^', set @ ..] => (true, set),
                set => (false, set),
            };
            let is_in = set.contains(letter) || set.windows(3).any(is_range);
            is_in != negated && matches_part(rest, name)
        }
        [letter, rest @ ..] => {
            name.split_first().is_some_and(|(it, name)| it == letter && matches_part(rest, name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<Statement> {
        lines("f.conf", text).into_iter().map(|line| line.statement).collect()
    }

    fn sysctl(name: &str, value: &str) -> Statement {
        Statement::Sysctl { name: name.into(), value: value.into() }
    }

    #[test]
    fn names_are_those_of_systemd_sysctl() {
        for (written, name) in [
            ("net.ipv4.tcp_mem", "net.ipv4.tcp_mem"),
            ("net/ipv4/tcp_mem", "net.ipv4.tcp_mem"),
            ("/proc/sys/net/core/somaxconn", "net.core.somaxconn"),
            ("net/ipv4/conf/eth0.100/rp_filter", "net.ipv4.conf.eth0/100.rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "net.ipv4.conf.eth0/100.rp_filter"),
        ] {
            assert_eq!(dotted(written), name);
        }
    }

    #[test]
    fn each_line_is_what_its_reader_takes_it_for() {
        let text = "# c\n; c\n\n net/core/somaxconn=1\t2 \r\n-a.b = 3\n-c.d\nno setting\n* - nofile 7 # c\nroot soft nproc 9\n";
        assert_eq!(
            said(text),
            [
                sysctl("net.core.somaxconn", "1\t2"),
                sysctl("a.b", "3"),
                Statement::Exclusion { name: "c.d".into() },
                Statement::Other { text: "no setting".into() },
                Statement::Limit {
                    domain: "*".into(),
                    limit_type: LimitType::Both,
                    item: "nofile".into(),
                    value: "7".into()
                },
                Statement::Limit {
                    domain: "root".into(),
                    limit_type: LimitType::Soft,
                    item: "nproc".into(),
                    value: "9".into()
                },
            ]
        );
        assert_eq!(lines("f", text)[0].number, Some(4));
    }

    #[test]
    fn a_byte_order_mark_and_commands_keep_a_line_from_being_read() {
        let statements =
            said("\u{feff}a.b = 5\r\nsysctl -w c.d=6\necho 7 > /proc/sys/e/f\na.b = 8\n");
        let [
            Statement::NotRead { name, why, .. },
            Statement::NotRead { name: second, value, .. },
            Statement::NotRead { name: third, value: seven, .. },
            last,
        ] = statements.as_slice()
        else {
            panic!("{statements:?}")
        };
        assert!(name == "a.b" && why.contains("byte order mark"), "{name} {why}");
        assert_eq!((second.as_str(), value.as_str()), ("c.d", "6"));
        assert_eq!((third.as_str(), seven.as_str()), ("e.f", "7"));
        assert_eq!(*last, sysctl("a.b", "8"));
    }

    #[test]
    fn a_script_is_read_by_a_shell() {
        let commands =
            "sudo sysctl -q -w a.b=1 c.d=\"2 3\" # both\necho '4 5' | sudo tee /proc/sys/e/f\n";
        let expected = [sysctl("a.b", "1"), sysctl("c.d", "2 3"), sysctl("e.f", "4 5")];
        assert_eq!(said(commands), expected);
        assert_eq!(said(&format!("#!/bin/sh\nset -e\nx=7\n{commands}")), expected);
    }

    #[test]
    fn a_file_with_sections_is_systemd_s() {
        let unit = |file: &str| {
            lines(file, "\u{feff}[Service]\nLimitNOFILE = 1:2\n").pop().unwrap().statement
        };
        let expected = |unit: &str| Statement::Unit {
            unit: unit.into(),
            key: "LimitNOFILE".into(),
            value: "1:2".into(),
        };
        assert_eq!(unit("/etc/systemd/system/a.service.d/x.conf"), expected("a.service"));
        assert_eq!(unit("a.service"), expected("a.service"));
        assert_eq!(unit("/etc/systemd/system.conf"), expected(""));
    }

    #[test]
    fn systemd_joins_lines_that_end_with_a_backslash() {
        let text =
            "# no\\\n[Manager]\nDefaultLimitNOFILE=\\\n# a comment\n5\nLimitNOFILE=7\nNice=\\";
        let all: Vec<_> = lines("/etc/systemd/system.conf", text)
            .into_iter()
            .map(|line| match line.statement {
                Statement::Unit { key, value, .. } => (line.number, key, value),
                other => panic!("{other:?}"),
            })
            .collect();
        let unit =
            |number, key: &str, value: &str| (Some(number), key.to_owned(), value.to_owned());
        let expected =
            [unit(3, "DefaultLimitNOFILE", "5"), unit(6, "LimitNOFILE", "7"), unit(7, "Nice", "")];
        assert_eq!(all, expected);
    }

    #[test]
    fn patterns_match_within_a_part() {
        for (pattern, name, is) in [
            ("net.ipv4.tcp_*mem", "net.ipv4.tcp_rmem", true),
            ("net.*.somaxconn", "net.core.somaxconn", true),
            ("net.*", "net.core.somaxconn", false),
            ("net.ipv4.tcp_[rw]mem", "net.ipv4.tcp_wmem", true),
            ("net.ipv4.tcp_[!r]mem", "net.ipv4.tcp_rmem", false),
            ("net.ipv4.tcp_[a-s]mem", "net.ipv4.tcp_rmem", true),
            ("net.ipv4.tcp_?mem", "net.ipv4.tcp_mem", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }
}
