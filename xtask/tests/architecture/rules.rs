//! The rules, each a function from one file to what it breaks: so each can be shown to fail on a few lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Path, Token, paths, tokens, without_tests};

/// The crates by layer, lowest first: each depends on those of lower layers alone. What only tests and tools may depend on is beside the programs.
pub(crate) const LAYERS: [&[&str]; 7] = [
    &["c1m-btf", "c1m-commit", "c1m-ebpf", "c1m-record", "c1m-sys"],
    &["c1m-text"],
    &["c1m-host"],
    &["c1m-limits", "c1m-probe", "c1m-program"],
    &["c1m-preflight", "c1m-report"],
    &["c1m-client", "c1m-server", "c1m-testkit", "xtask-launcher", "xtask-reproduce"],
    &["xtask"],
];

/// Every dependency of one crate of this project on another, as `(crate, what it depends on)`, that does not go down the layers.
pub(crate) fn upward(dependencies: &[(String, String)]) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|names| names.contains(&name));
    let goes_down = |from: &str, to: &str| match (layer(from), layer(to)) {
        (Some(from), Some(to)) => from > to,
        _ => false,
    };
    let broken = dependencies.iter().filter(|(from, to)| !goes_down(from, to));
    broken.map(|(from, to)| format!("{from} depends on {to}, which is not below it")).collect()
}

/// Modules that import each other in circles, of one crate whose sources are `files`. A module and those inside of it may
/// name each other. Tests may import what they like.
pub(crate) fn circles(files: &[(&str, &str)]) -> BTreeSet<Vec<String>> {
    let files = files.iter().filter(|(file, _)| !is_of_tests(file));
    let sources: BTreeMap<Path, (&str, &str)> =
        files.map(|(file, text)| (module_of(file), (*file, *text))).collect();
    let imports = |module: &Path| -> BTreeSet<Path> {
        let (file, text) = sources[module];
        let home = |path: Path| {
            (1..=path.len())
                .rev()
                .map(|end| path[..end].to_vec())
                .find(|it| sources.contains_key(it))
        };
        used(file, text)
            .into_iter()
            .filter_map(home)
            .filter(|other| !other.starts_with(module) && !module.starts_with(other))
            .collect()
    };
    let graph: BTreeMap<&Path, BTreeSet<Path>> =
        sources.keys().map(|module| (module, imports(module))).collect();
    let reached = |from: &Path| -> BTreeSet<Path> {
        let (mut found, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(graph[&module].iter().filter(|it| found.insert((*it).clone())).cloned());
        }
        found
    };
    let reach: BTreeMap<&Path, BTreeSet<Path>> =
        sources.keys().map(|module| (module, reached(module))).collect();
    let circle = |module: &Path| -> Vec<String> {
        let others = reach[module].iter().filter(|other| reach[*other].contains(module));
        others.map(|other| other[1..].join("::")).collect()
    };
    sources.keys().map(circle).filter(|circle| !circle.is_empty()).collect()
}

/// The folders of c1m-server that know nothing of each other. Only its commands bring them together.
pub(crate) const ROOMS: [&str; 2] = ["serve", "output"];

/// `unsafe` outside the two places for it, each with its reason. An entry that is no longer needed fails too.
pub(crate) const UNSAFE_ELSEWHERE: [(&str, &str); 0] = [];

/// Files of `trace` that print all the same, each with its reason. An entry that is no longer needed fails too.
pub(crate) const PRINTING_TRACE: [(&str, &str); 1] = [(
    "crates/c1m-probe/src/log.rs",
    "lines of aya-log, which only an object built for debugging has; they are no result",
)];

/// What c1m-limits may use of std: nothing that reaches outside the process, and no clock.
const PURE_STD: [&str; 23] = [
    "any",
    "array",
    "ascii",
    "borrow",
    "clone",
    "cmp",
    "collections",
    "convert",
    "default",
    "error",
    "fmt",
    "hash",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "option",
    "result",
    "slice",
    "str",
    "string",
    "vec",
];

/// Macros that print.
const PRINTS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// The paths of the program in `source`, which stands in `file`, with `super` and `self` resolved to `crate::…`.
fn used(file: &str, source: &str) -> Vec<Path> {
    let module = module_of(file);
    paths(&without_tests(&tokens(source))).into_iter().map(|path| resolved(&module, path)).collect()
}

/// `c1m-server/src/limits/forecast.rs` is `crate::limits::forecast`.
fn module_of(file: &str) -> Path {
    let inside = file.split_once("/src/").map_or(file, |(_, inside)| inside);
    let inside = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    let names = inside.split('/').filter(|name| !["lib", "main"].contains(name));
    std::iter::once("crate").chain(names).map(str::to_owned).collect()
}

fn resolved(module: &Path, path: Path) -> Path {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let base = match path.first().map(String::as_str) {
        Some("super") => &module[..module.len().saturating_sub(ups).max(1)],
        Some("self") => &module[..],
        // The binary and the other crates name the library by its package.
        Some("c1m_server") => &module[..1],
        _ => return path,
    };
    base.iter().cloned().chain(path.into_iter().skip(ups.max(1))).collect()
}

fn begins(path: &Path, with: &[&str]) -> bool {
    path.len() >= with.len() && path.iter().zip(with).all(|(a, b)| a == b)
}

fn refuse(file: &str, path: &Path, why: &str) -> String {
    format!("{file} uses {}: {why}", path.join("::"))
}

/// The server holds connections without knowing of eBPF, so that it needs no privilege and no kernel feature.
pub(crate) fn serve_knows_nothing_of_ebpf(file: &str, source: &str) -> Vec<String> {
    let foreign = [&["c1m_probe"][..], &["aya"], &["aya_log"], &["c1m_ebpf"], &["c1m_limits"]];
    if !is_of(file, "c1m-server/src/serve") {
        return Vec::new();
    }
    used(file, source)
        .iter()
        .filter(|path| foreign.iter().any(|foreign| begins(path, foreign)))
        .map(|path| refuse(file, path, "serve knows nothing of eBPF and of limits"))
        .collect()
}

/// Whether a file is that of a module, or of one inside of it.
fn is_of(file: &str, module: &str) -> bool {
    file.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// A module of tests alone, in a file of its own, or one inside of it.
fn is_of_tests(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// What decides from readings must be the same for the same readings: no I/O, no clock, no unsafe, data types only.
pub(crate) fn limits_is_pure(file: &str, source: &str) -> Vec<String> {
    if !file.starts_with("crates/c1m-limits/src/") || is_of_tests(file) {
        return Vec::new();
    }
    let code = without_tests(&tokens(source));
    let local = local_names(&code);
    let mut broken: Vec<String> = used(file, source)
        .iter()
        .filter(|path| !is_pure(path) && !local.contains(&path[0]))
        .map(|path| refuse(file, path, "limits imports only data types"))
        .collect();
    for name in PRINTS.iter().chain(&["include_str", "include_bytes", "env", "option_env"]) {
        if calls_macro(&code, name) {
            broken.push(format!("{file} calls {name}!: limits has no input and no output"));
        }
    }
    if code.contains(&Token::Word("unsafe".to_owned())) {
        broken.push(format!("{file} is unsafe: limits is not"));
    }
    broken
}

/// What a path in this file may begin with because the file itself brought it: its modules, and what it imports, which is
/// judged where it is imported.
fn local_names(code: &[Token]) -> Vec<String> {
    let modules = code.windows(2).filter_map(|pair| match pair {
        [Token::Word(word), Token::Word(name)] if word == "mod" => Some(name.clone()),
        _ => None,
    });
    let brought = |mut path: Path| {
        let last = path.pop()?;
        // `use a::b::{self, c}` brings b.
        if last == "self" { path.pop() } else { Some(last) }
    };
    modules.chain(paths(code).into_iter().filter_map(brought)).collect()
}

fn is_pure(path: &Path) -> bool {
    let [first, rest @ ..] = path.as_slice() else { return true };
    match first.as_str() {
        "std" | "core" | "alloc" => {
            let address =
                ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"];
            match rest {
                [module, name, ..] if module == "net" => address.contains(&name.as_str()),
                [module, name, ..] if module == "time" => name == "Duration",
                [module, ..] => PURE_STD.contains(&module.as_str()) || is_primitive(module),
                [] => false,
            }
        }
        "crate" | "c1m_record" | "serde" | "thiserror" => true,
        // A type or constant of the file itself, or a primitive, such as `Level::High` or `u64::MAX`.
        name => name.starts_with(char::is_uppercase) || is_primitive(name),
    }
}

fn is_primitive(name: &str) -> bool {
    ["bool", "char", "str", "usize", "isize"].contains(&name)
        || name.strip_prefix(['u', 'i', 'f']).is_some_and(|bits| bits.parse::<u32>().is_ok())
}

/// Where a limit may be named: in its own file, in the registry, in the record that declares the names, and in the table of faults.
const NAMING_LIMITS: [&str; 4] = [
    "crates/c1m-limits/src/limits/",
    "crates/c1m-limits/src/limits.rs",
    "crates/c1m-record/src/",
    "xtask/src/faults/catalog.rs",
];

/// What is to be known of one limit stands in its file, so that another one is added there and nowhere else.
pub(crate) fn limits_are_named_in_their_files(file: &str, source: &str) -> Vec<String> {
    let is_ours = file.contains("/src/") && !is_of_tests(file);
    if !is_ours || NAMING_LIMITS.iter().any(|it| file.starts_with(it)) {
        return Vec::new();
    }
    let names_one = |path: &&Path| match path.iter().rev().take(2).collect::<Vec<_>>()[..] {
        [name, of] => of == "LimitName" && name.starts_with(char::is_uppercase) && name != "ALL",
        _ => false,
    };
    let why = "what is known of a limit stands in its own file of c1m-limits";
    let used = used(file, source);
    used.iter().filter(names_one).map(|path| refuse(file, path, why)).collect()
}

/// Where records become text, metrics and pages.
const PRINTING: [&str; 4] = [
    "c1m-server/src/output",
    "crates/c1m-record/src",
    "crates/c1m-report/src",
    "crates/c1m-text/src/records",
];

/// What prints must print what it was given: it never looks by itself.
pub(crate) fn output_asks_nothing_of_the_kernel(file: &str, source: &str) -> Vec<String> {
    if !PRINTING.iter().any(|module| is_of(file, module)) {
        return Vec::new();
    }
    let reaching = [
        &["std", "fs"][..],
        &["std", "process"],
        &["std", "os"],
        &["fs"],
        &["libc"],
        &["aya"],
        &["c1m_host"],
        &["c1m_probe"],
        &["crate", "serve"],
        &["c1m_sys"],
    ];
    let paths = used(file, source);
    let by_path = paths
        .iter()
        .filter(|path| reaching.iter().any(|reaching| begins(path, reaching)))
        .map(|path| refuse(file, path, "output asks nothing of the kernel"));
    let code = without_tests(&tokens(source));
    let by_text = code
        .iter()
        .filter_map(|token| match token {
            Token::Text(text) if ["/proc/", "/sys/"].iter().any(|it| text.starts_with(it)) => {
                Some(text)
            }
            _ => None,
        })
        .map(|text| format!("{file} names {text}: output asks nothing of the kernel"));
    by_path.chain(by_text).collect()
}

/// Each of these folders knows its own files and the records; who needs two of them is a command.
pub(crate) fn rooms_meet_in_commands_only(file: &str, source: &str) -> Vec<String> {
    let Some(inside) = file.strip_prefix("c1m-server/src/") else { return Vec::new() };
    let home = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    if !ROOMS.contains(&home) {
        return Vec::new();
    }
    used(file, source)
        .iter()
        .filter(|path| match path.as_slice() {
            [first, room, ..] if first == "crate" => room != home,
            [name, ..] => {
                ["c1m_host", "c1m_limits", "c1m_preflight", "c1m_probe"].contains(&name.as_str())
                    && !begins(path, &["c1m_preflight", "plan"])
                    // Names and metrics of limits: constants.
                    && !begins(path, &["c1m_limits", "limits"])
            }
            [] => false,
        })
        .map(|path| refuse(file, path, "folders meet in commands only"))
        .collect()
}

/// What follows the kernel hands up values; who prints them is somebody else.
pub(crate) fn trace_prints_nothing(file: &str, source: &str, exempt: Exempt<'_>) -> Vec<String> {
    if !file.starts_with("crates/c1m-probe/src/") {
        return Vec::new();
    }
    let code = without_tests(&tokens(source));
    let prints = PRINTS.iter().any(|name| calls_macro(&code, name));
    exempted(file, prints, exempt, "prints: what trace finds is printed by output")
}

/// Files that need not keep a rule, each with its reason.
type Exempt<'a> = &'a [(&'a str, &'a str)];

/// A breach counts unless it is listed with a reason; an entry without a breach is one too.
fn exempted(file: &str, breaks: bool, exempt: Exempt<'_>, what: &str) -> Vec<String> {
    match (breaks, exempt.iter().find(|(name, _)| *name == file)) {
        (true, None) => vec![format!("{file} {what}")],
        (true, Some((_, ""))) => vec![format!("{file} is exempt without a reason: it {what}")],
        (false, Some(_)) => vec![format!("{file} is exempt for nothing: take it off the list")],
        _ => Vec::new(),
    }
}

fn calls_macro(code: &[Token], name: &str) -> bool {
    code.windows(2)
        .any(|pair| pair[0] == Token::Word(name.to_owned()) && pair[1] == Token::Mark('!'))
}

/// `unsafe` stands where system calls are wrapped, and in what runs in the kernel.
pub(crate) fn unsafe_has_two_places(file: &str, source: &str, exempt: Exempt<'_>) -> Vec<String> {
    let home = ["crates/c1m-sys/", "c1m-ebpf/"].iter().any(|home| file.starts_with(home));
    let breaks = !home && tokens(source).contains(&Token::Word("unsafe".to_owned()));
    exempted(file, breaks, exempt, "is unsafe: that belongs into c1m-sys")
}

/// A module with others inside of it is `x.rs` beside the folder `x`, so that its name is that of its file.
pub(crate) fn modules_have_one_form(file: &str) -> Vec<String> {
    let breaks = file.contains("/src/") && file.ends_with("/mod.rs");
    breaks
        .then(|| format!("{file} belongs beside its folder, under its name"))
        .into_iter()
        .collect()
}

/// What is not done is an issue, not a line in the source.
pub(crate) fn nothing_is_left_undone(file: &str, source: &str) -> Vec<String> {
    // Taken apart, so that this file does not break its own rule.
    let marks = [["FIX", "ME"].concat(), ["TO", "DO"].concat(), ["XX", "X"].concat()];
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let by_mark = marks.iter().filter(|mark| {
        source.match_indices(mark.as_str()).any(|(at, mark)| {
            let (before, after) = (&source[..at], &source[at + mark.len()..]);
            !is_word(before.chars().next_back()) && !is_word(after.chars().next())
        })
    });
    let broken = by_mark.map(|mark| format!("{file} has a {mark}"));
    if !file.ends_with(".rs") {
        return broken.collect();
    }
    let code = tokens(source);
    let macros = [["to", "do"].concat(), ["unimpl", "emented"].concat()];
    let by_macro = macros.iter().filter(|name| calls_macro(&code, name));
    broken.chain(by_macro.map(|name| format!("{file} calls {name}!"))).collect()
}

/// A path of somebody's machine means nothing to anybody else. `checkout`: where this tree stands.
pub(crate) fn no_machine_path(file: &str, text: &str, checkout: &str) -> Vec<String> {
    let homes = ["/home/", "/root/", "/Users/"];
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let own = format!("{checkout}/");
    // A checkout directly below the file system's root is called like any word after a slash.
    let own = (checkout.matches('/').count() > 1).then_some(own.as_str());
    homes
        .into_iter()
        .chain(own)
        .filter(|folder| {
            text.match_indices(folder).any(|(at, folder)| {
                !text[..at].ends_with(is_name) && text[at + folder.len()..].starts_with(is_name)
            })
        })
        .map(|folder| format!("{file} names a path below {folder}"))
        .collect()
}

/// Whether a manifest has `name` among the dependencies of its program or library.
pub(crate) fn names_dependency(manifest: &str, name: &str) -> bool {
    let section = manifest.split_once("[dependencies]\n").map_or("", |(_, rest)| rest);
    let mut lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '='])))
}

/// The workspace's dependencies of tests alone, which a manifest names.
pub(crate) fn of_tests_alone(manifest: &str) -> Vec<&str> {
    let section = manifest.split_once("\n[dev-dependencies]\n").map_or("", |(_, rest)| rest);
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(".workspace").map(|(name, _)| name)).collect()
}
