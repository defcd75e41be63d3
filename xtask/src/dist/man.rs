//! Manual pages, from the definitions of the command line.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use c1m_client::cli::Cli as Client;
use c1m_server::cli::Cli as Server;
use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// Both programs, as they parse their command lines.
pub(super) fn commands() -> [Command; 2] {
    [Server::command().name("c1m-server"), Client::command().name("c1m-client")]
}

/// One page a command, and one a subcommand.
pub(super) fn write(folder: &Path, date: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for command in commands() {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            page(subcommand, folder, date)?;
        }
        page(&command, folder, date)?;
    }
    Ok(())
}

fn page(command: &Command, folder: &Path, date: &str) -> Result<()> {
    let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone())
        .title(title.to_uppercase())
        .source(concat!("c1m ", env!("CARGO_PKG_VERSION")))
        .date(date)
        .manual("c1m manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|it| !it.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    sections(&more).to_writer(&mut text)?;
    let file = folder.join(format!("{title}.1"));
    fs::write(&file, tidy(&String::from_utf8(text)?))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Each section comes with the same preamble, and lists of values with breaks that do nothing, which linters tell.
fn tidy(page: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in page.lines() {
        let is_preamble = line.starts_with(".ie ") || line.starts_with(".el ");
        let after_empty = lines.last().is_some_and(|last| last.is_empty());
        if (is_preamble && lines.contains(&line)) || (line == ".br" && after_empty) {
            continue;
        }
        // An empty line is a break by itself.
        if line.is_empty() && lines.last() == Some(&".br") {
            lines.pop();
        }
        lines.push(line.trim_end());
    }
    lines.join("\n") + "\n"
}

/// The sections that the definitions say in words: see c1m-server/src/cli/manual.rs.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_list = true;
    for line in text.lines() {
        let words = line.trim_start();
        match line.len() - words.len() {
            0 => {
                let heading = words.trim_end_matches(':').to_uppercase();
                roff.control("SH", [heading.as_str()]);
                is_list = heading != "SEE ALSO";
            }
            2 if is_list => {
                roff.control("TP", []);
                roff.text([bold(words)]);
            }
            _ => {
                roff.text([roman(words)]);
            }
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-")
    }

    #[test]
    fn every_command_has_a_page_with_every_flag_and_section() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "2026-01-02").unwrap();
        let mut pages = 0;
        for mut command in commands() {
            command.build();
            let name = command.get_name().to_owned();
            let subcommands = command.get_subcommands().filter(|it| it.get_name() != "help");
            let all = subcommands.map(|it| (format!("{name}-{}.1", it.get_name()), it));
            for (file, command) in all.chain([(format!("{name}.1"), &command)]) {
                let page = page_of(folder.path(), &file);
                for flag in command.get_arguments().filter(|it| !it.is_hide_set()) {
                    let Some(flag) = flag.get_long() else { continue };
                    assert!(page.contains(&format!("\\fB--{flag}\\fR")), "--{flag} of {file}");
                }
                for section in
                    ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
                {
                    assert!(
                        page.contains(&format!(".SH {section}"))
                            || page.contains(&format!(".SH \"{section}\"")),
                        "{section} of {file}"
                    );
                }
                pages += 1;
            }
        }
        assert_eq!(pages, fs::read_dir(folder.path()).unwrap().count());
    }

    #[test]
    fn a_section_has_terms_and_what_they_mean() {
        let roff = sections("Files:\n  /a\n      one\n      line\nSee also:\n  b(1)").render();
        let text = roff.split_once(".SH").unwrap().1;
        assert_eq!(text, " FILES\n.TP\n\\fB/a\\fR\none\nline\n.SH \"SEE ALSO\"\nb(1)\n");
    }
}
