//! Every option of every program that takes an integer, compared with the one table of docs/units.md.

use std::{any::TypeId, net::SocketAddr, path::PathBuf, time::Duration};

use c1m_client::{require::Requirement, shard::Shard, start::StartAt, target::Target};
use c1m_host::namespaces::NetnsArgument;
use c1m_preflight::plan::Workers;
use c1m_server::cli::doctor::Sources;
use c1m_text::sources::SourceRange;
use clap::{Arg, Command, CommandFactory as _};
use xtask_reproduce::Connections;

use crate::{Cli, faults, guest::initramfs::Brought, guest::kernel::Wanted};

/// Options whose integer only names something: plain digits.
const NAMES: [&str; 2] = ["port", "pid"];
/// What no integer is: a sign, blanks, unfinished and uneven groups, other notations, other digits.
const WRONG: [&str; 15] = [
    "+5", "-5", " 5", "5 ", "5\n", "", "1_", "_1", "1__024", "1,24", "1024,", "0x5", "5.", "1e3",
    "٥",
];
/// What an option says for which 1024 is too much.
const TOO_MUCH: &str = "use a number from 1 to 64";

/// The ids of types.
macro_rules! types {
    ($($name:ty),*) => { vec![$(TypeId::of::<$name>()),*] };
}

/// Counts and bytes, which may be in groups of three, and numbers that only name something.
fn numbers() -> Vec<TypeId> {
    types![u8, u16, u32, u64, usize, i32, i64, Workers, Sources, Connections]
}

/// The texts in which a value has its integer, in the place of `{}`; none: its type has none. `None`: of a type that nobody has told here.
fn forms(arg: &Arg) -> Option<&'static [&'static str]> {
    let others: [(Vec<TypeId>, &'static [&'static str]); 10] = [
        (types![NetnsArgument], &["{}", "inode:{}"]),
        (types![Requirement], &["connected=={}", "connected>={}%", "connect_p{}<1s"]),
        (types![Shard], &["{}/2000", "0/{}"]),
        (types![Target], &["127.0.0.1:{}", "127.0.0.1:1-{}"]),
        (types![SocketAddr], &["127.0.0.1:{}"]),
        (types![SourceRange], &["10.0.0.0/{}"]),
        (types![StartAt], &["{}"]),
        (types![Duration], &["{}s"]),
        (types![Wanted, faults::cli::Kernel], &["6.{}", "{}.1"]),
        (types![String, PathBuf, (String, String), Brought], &[]),
    ];
    let is = |types: &[TypeId]| types.iter().any(|id| arg.get_value_parser().type_id() == *id);
    let known = [(numbers(), &["{}"][..])].into_iter().chain(others);
    let found = known.into_iter().find(|(types, _)| is(types)).map(|(_, forms)| forms);
    // One of a list of words has no integer.
    found.or_else(|| (!arg.get_possible_values().is_empty()).then_some(&[]))
}

/// What the option's own parser makes of a text; the other options that it needs or excludes are left out.
fn parse(arg: &Arg, text: &str) -> Result<(), String> {
    let mut alone = Arg::new("it").long("it").value_parser(arg.get_value_parser().clone());
    if let Some(delimiter) = arg.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    let line = ["test", &format!("--it={text}")];
    let parsed = Command::new("test").arg(alone).try_get_matches_from(line);
    parsed.map(drop).map_err(|error| error.to_string())
}

fn walk(command: &Command, path: &str, check: &mut impl FnMut(&str, &Arg)) {
    let path = format!("{path} {}", command.get_name());
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        check(&format!("{path} {arg}"), arg);
    }
    command.get_subcommands().for_each(|it| walk(it, &path, check));
}

/// Of all programs; `xtask-reproduce` has two of xtask's commands, with the same definitions.
fn every_option(mut check: impl FnMut(&str, &Arg)) {
    let programs =
        [c1m_server::cli::Cli::command(), c1m_client::cli::Cli::command(), Cli::command()];
    for mut command in programs {
        // Lets clap fill in what is implied, such as the values of an enumeration.
        command.build();
        walk(&command, "", &mut check);
    }
}

#[test]
fn no_option_takes_an_integer_that_is_none() {
    let (mut taken, mut unknown, mut looked_at) = (Vec::new(), Vec::new(), 0);
    every_option(|name, arg| {
        let Some(forms) = forms(arg) else {
            unknown.push(name.to_owned());
            return;
        };
        looked_at += usize::from(!forms.is_empty());
        // Blanks stand between the parts of a requirement as anybody likes, and commas between the values of a list.
        let may_have_blanks = arg.get_value_parser().type_id() == TypeId::of::<Requirement>();
        let is_right = |text: &str| {
            (may_have_blanks && text.trim() != text)
                || arg.get_value_delimiter().is_some_and(|delimiter| text.contains(delimiter))
        };
        for text in WRONG.into_iter().filter(|text| !is_right(text)) {
            let texts = forms.iter().map(|form| form.replace("{}", text));
            let wrong = texts.filter(|text| parse(arg, text).is_ok());
            taken.extend(wrong.map(|text| format!("{name}: `{text}`")));
        }
    });
    assert_eq!(unknown, [""; 0], "say in `forms` where their values have integers");
    assert_eq!(taken, [""; 0], "taken");
    assert!(looked_at > 40, "{looked_at} options have integers");
}

#[test]
fn every_count_may_be_in_groups() {
    let (numbers, mut seen) = (numbers(), Vec::new());
    every_option(|name, arg| {
        if !numbers.iter().any(|id| arg.get_value_parser().type_id() == *id) {
            return;
        }
        let is_name = NAMES.contains(&arg.get_id().as_str());
        for text in ["1024", "1,024", "1_024"] {
            let result = parse(arg, text);
            let is_list = arg.get_value_delimiter().is_some_and(|it| text.contains(it));
            let is_right = match &result {
                Ok(()) => !is_name || text == "1024" || is_list,
                Err(error) if is_name => text != "1024" && error.contains("digits alone"),
                Err(error) => error.contains(TOO_MUCH),
            };
            assert!(is_right, "{name}: `{text}`: {result:?}");
        }
        seen.push(name.to_owned());
    });
    for known in ["--backlog", "--top", "--run", "--repeat", "--cpus", "--runs", "--in-flight"] {
        assert!(seen.iter().any(|name| name.contains(known)), "{known}: {seen:?}");
    }
}
