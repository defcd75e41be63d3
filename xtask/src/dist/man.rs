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
pub(super) fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for command in commands() {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        for subcommand in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            page(subcommand, folder)?;
        }
        page(&command, folder)?;
    }
    Ok(())
}

fn page(command: &Command, folder: &Path) -> Result<()> {
    let title = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone())
        .title(title.to_uppercase())
        .source(concat!("c1m ", env!("CARGO_PKG_VERSION")))
        .manual("c1m");
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
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
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
