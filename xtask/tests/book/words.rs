//! One word for each thing, and the field's: what stands on the left is not used in the prose
//! of the pages, in `--help` and in the HELP of metrics. Code, names of fields and output are
//! not prose.
//!
//! Words with a second meaning that is right are left out: `way`, `see`, `say`, `stand`,
//! `found`, `held`, `subject`, `window`, `room`, `miss`, and
//! `stage`, which is a label of a metric.

use c1m_client::metrics::METRICS;
use c1m_program::metrics::{Metric, OWN};
use c1m_server::output::metrics::tables;
use clap::{Command, CommandFactory as _, builder::PossibleValue};
use pulldown_cmark::{Event, Tag, TagEnd};

use crate::{
    pages::{self, Page},
    root,
};

/// What is not written, and what is written instead.
const WORDS: &[(&str, &str)] = &[
    ("wall", "limit"),
    ("walls", "limits"),
    ("signals by programs", "probes"),
    ("each signal", "each probe"),
    ("signal is got", "attach method"),
    ("two looks", "two samples"),
    ("hand metrics out", "serve Prometheus metrics"),
    ("as exact as can be", "at full resolution"),
    ("precision", "resolution"),
    ("keeper", "entry arguments"),
    ("a look", "a sample"),
    ("the look", "the sample"),
    ("any look", "any sample"),
    ("each look", "each sample"),
    ("last look", "last sample"),
    ("own look", "preflight"),
    ("looks saw", "samples"),
    ("told", "reported, known, distinguished: what it was"),
    ("of whom", "scope"),
    ("settle", "confirm"),
    ("settles", "confirms"),
    ("settled", "confirmed"),
    ("judgement", "verdict, finding"),
    ("advice", "remedy"),
    ("danger", "risk"),
    ("dangers", "risks"),
    ("foresee", "preflight"),
    ("foresees", "preflight"),
    ("circumstances", "configured settings"),
    ("gathered", "snapshot"),
    ("fate", "outcome"),
    ("play", "run"),
    ("plays", "runs"),
    ("played", "ran"),
    ("rooms", "crates, modules"),
    ("held against", "compared with"),
    ("hold against", "compare with"),
    ("holds against", "compares with"),
    ("events lost", "dropped events"),
    ("lost events", "dropped events"),
    ("events that were lost", "dropped events"),
    ("without a word", "without a log"),
    ("has no heart", "(no metaphors)"),
    ("that is there", "(nothing)"),
    ("that are there", "(nothing)"),
    ("the own", "its own"),
    ("as fast as it goes", "unlimited"),
    ("dearer", "more expensive"),
    ("memory a connection", "memory per connection"),
    ("bytes a connection", "bytes per connection"),
    ("pages a cpu", "pages per CPU"),
    ("microseconds a connection", "microseconds per connection"),
    ("microseconds a socket", "microseconds per socket"),
    ("table a worker", "table per worker"),
    ("table a thread", "table per thread"),
    ("thread a cpu", "thread per CPU"),
    ("connections a second", "connections per second"),
    ("requests a second", "requests per second"),
    ("times a second", "times per second"),
    ("a second alone", "per second"),
];

/// The words of each block of prose, in small letters, with one space between two of them and
/// at both ends.
fn prose(page: &Page) -> Vec<String> {
    let (mut blocks, mut is_code) = (vec![String::new()], false);
    for event in page.events() {
        let block = blocks.last_mut().expect("there is one");
        match event {
            Event::Start(Tag::CodeBlock(_)) => is_code = true,
            Event::End(TagEnd::CodeBlock) => is_code = false,
            Event::Text(text) if !is_code => block.push_str(&text),
            // Words around code don't follow each other.
            Event::Code(_) => block.push_str(" ` "),
            Event::SoftBreak | Event::HardBreak => block.push(' '),
            Event::End(
                TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::Item | TagEnd::TableCell,
            ) => {
                blocks.push(String::new());
            }
            _ => {}
        }
    }
    blocks.iter().map(|block| words(block)).collect()
}

fn words(text: &str) -> String {
    let is_part = |it: char| it.is_alphanumeric() || ['`', '_', '-', '\''].contains(&it);
    let text = text.to_lowercase();
    // A stop keeps what stands before it apart from what follows.
    let text: String =
        text.chars().map(|it| if is_part(it) || it.is_whitespace() { it } else { '.' }).collect();
    let text = text.replace('.', " . ");
    format!(" {} ", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What is not to be written, with what is, and where.
fn wrong(page: &Page) -> Vec<String> {
    prose(page).iter().flat_map(|block| wrong_words(&page.name(), block)).collect()
}

/// The same of one text, as `words` returns it.
fn wrong_words(place: &str, block: &str) -> Vec<String> {
    let is_in = |(wrong, _): &&(&str, &str)| block.contains(&format!(" {wrong} "));
    WORDS
        .iter()
        .filter(is_in)
        .map(|(wrong, right)| format!("{place}: `{wrong}`: write {right}:{block}"))
        .collect()
}

/// What `--help` and the manual pages say of a program, of its commands and of their options:
/// each text with its place.
fn help(command: &Command, place: &str) -> Vec<(String, String)> {
    let place = format!("{place} {}", command.get_name());
    let own = [
        command.get_about(),
        command.get_long_about(),
        command.get_after_help(),
        command.get_after_long_help(),
    ];
    let mut texts: Vec<(String, String)> =
        own.into_iter().flatten().map(|text| (place.clone(), text.to_string())).collect();
    for option in command.get_arguments() {
        let place = format!("{place} {}", option.get_id());
        let values = option.get_possible_values();
        let of_option = [option.get_help(), option.get_long_help()];
        let of_values = values.iter().map(PossibleValue::get_help);
        let all = of_option.into_iter().chain(of_values).flatten();
        texts.extend(all.map(|text| (place.clone(), text.to_string())));
    }
    texts.extend(command.get_subcommands().flat_map(|command| help(command, &place)));
    texts
}

/// The HELP of each metric, with its name.
fn help_of_metrics() -> Vec<(String, String)> {
    fn of<S>(table: &'static [Metric<S>]) -> impl Iterator<Item = (String, String)> {
        table.iter().map(|metric| (metric.exported(), metric.help.to_owned()))
    }
    tables().into_iter().flat_map(of).chain(of(METRICS)).chain(of(OWN)).collect()
}

#[test]
fn pages_have_one_word_for_each_thing() {
    let pages = pages::all(root());
    let found: Vec<String> = pages.iter().flat_map(wrong).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn help_has_one_word_for_each_thing() {
    let mut texts = Vec::new();
    for mut program in [c1m_server::cli::Cli::command(), c1m_client::cli::Cli::command()] {
        program.build();
        texts.extend(help(&program, ""));
    }
    assert!(texts.iter().any(|(place, _)| place.contains(" watch ")), "no commands");
    texts.extend(help_of_metrics());
    let found: Vec<String> =
        texts.iter().flat_map(|(place, text)| wrong_words(place, &words(text))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn wrong_words_are_found_in_prose_alone() {
    let wrong = |text: &str| {
        let page = Page { path: "docs/a.md".into(), text: text.into() };
        wrong(&page).len()
    };
    assert_eq!(wrong("The first\nwall, then a Danger.\n\n| a | what was told |\n|---|---|\n"), 3);
    assert_eq!(wrong("## Events\nlost are walls"), 1);
    assert_eq!(wrong("`walls` has\n\n```\nthe wall\n```\n\n- Firewalls; wallet; the, own"), 0);
}
