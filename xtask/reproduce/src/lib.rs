//! The main job in one command: plays the seed article's run at the scale that fits, in three acts, and says what really happened.
//!
//! - [`cli`], [`run`]: the flags, and one run from the first look to the last line.
//! - [`scale`]: the article's figures, and how they shrink with the connections.
//! - [`preflight`]: what would stop the run, before anything starts.
//! - [`helper`], [`privileged`], [`protocol`]: the half that runs as root, and how both halves speak; [`signals`] is for both.
//! - [`programs`]: server and client; [`patience`]: how long anything may take.
//! - [`stage`], [`seen`]: the one place where everything arrives, and what it adds up to.
//! - [`act`], [`host`], [`measure`], [`expect`]: one act, what is read during it, and what had to come out.
//! - [`outcome`], [`report`], [`progress`], [`log`]: what was found, and how it is told.

mod act;
mod cli;
mod expect;
mod helper;
mod host;
mod log;
mod measure;
pub mod outcome;
mod patience;
mod preflight;
pub mod privileged;
mod programs;
mod progress;
mod protocol;
mod report;
mod run;
mod scale;
mod seen;
pub mod signals;
mod stage;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use c1m_host::{guard, sysctl::Tree};
use c1m_text::escape::paragraph;

pub use cli::{Args, Connections};
pub use log::Log;
pub use outcome::ReproduceRecord;
pub use preflight::page_bytes;
pub use run::tell;
pub use scale::need_bytes;
use stage::Stage;

/// Where the kernel's files are, and where the old values of its settings are kept. Only tests have reasons to change them.
#[derive(Debug, Clone, clap::Args)]
pub struct Places {
    #[arg(long, hide = true, default_value = guard::STATE_FOLDER)]
    pub(crate) state_dir: PathBuf,
    #[arg(long, hide = true, default_value = KERNEL_FILES)]
    pub(crate) proc_dir: PathBuf,
    /// Run this server, not the one beside this program: only where the kernel's files are no kernel's
    #[arg(long, hide = true)]
    pub(crate) server_program: Option<PathBuf>,
}

/// Where the running kernel shows itself.
const KERNEL_FILES: &str = "/proc";

impl Places {
    /// The kernel's settings.
    pub(crate) fn tree(&self) -> Tree {
        Tree::at(self.proc_dir.join("sys"))
    }

    /// The server that is started as root: on the running kernel always the one beside this program.
    pub(crate) fn server(&self) -> anyhow::Result<PathBuf> {
        match &self.server_program {
            None => programs::own(programs::SERVER),
            Some(program) if !self.is_kernel() => Ok(program.clone()),
            Some(program) => anyhow::bail!(
                "{} is not started as root: only {} beside this program is",
                program.display(),
                programs::SERVER
            ),
        }
    }

    /// Is it the running kernel, or a folder that stands for it?
    pub(crate) fn is_kernel(&self) -> bool {
        self.proc_dir.as_os_str() == KERNEL_FILES
    }
}

/// Why a run did not come to its end. Each message is whole.
#[derive(Debug)]
pub enum End {
    Usage(String),
    /// The environment refused: privilege, kernel, memory, limits.
    Refused(String),
    Failed(String),
    /// The privileged half is gone, and with it whoever puts the settings back.
    HelperGone,
    Interrupted,
}

impl End {
    fn told(&self) -> (String, u8) {
        match self {
            Self::Usage(text) => (text.clone(), 2),
            Self::Refused(text) => (text.clone(), 3),
            Self::Failed(text) => (text.clone(), 4),
            Self::HelperGone => {
                ("the privileged half of this program ended before its time".into(), 4)
            }
            Self::Interrupted => ("interrupted".into(), 130),
        }
    }
}

/// Runs it, and answers with the exit code.
pub fn main(args: &Args) -> ExitCode {
    let stage = Log::open(args).and_then(|log| Stage::new(args.places.clone(), args.stall, log));
    let mut stage = match stage {
        Ok(stage) => stage,
        Err(end) => return fail(&end),
    };
    let ended = run::perform(args, &mut stage);
    // Also of a run that failed: the page shows how far it came.
    let written = stage.log.finish();
    stage.tell_changes();
    match ended.and_then(|code| written.map(|()| code)) {
        Ok(code) => {
            stage.end();
            code
        }
        Err(end) => {
            clean_up(&mut stage, &end);
            fail(&end)
        }
    }
}

/// Tells why it did not come to its end, and answers with the exit code.
pub fn fail(end: &End) -> ExitCode {
    let (text, code) = end.told();
    let _ = writeln!(io::stderr(), "error: {}", paragraph(&text));
    ExitCode::from(code)
}

/// Ends everything, and tells which settings went back, or did not.
fn clean_up(stage: &mut Stage, end: &End) {
    let mut told = stage.end();
    if matches!(end, End::HelperGone) {
        // A new one finds the state file of the old one.
        told = stage.open_helper().ok().map(|(_, stale)| stale);
        stage.end();
        if told.is_none() {
            stage
                .progress
                .say("kernel settings may still be changed: run `cargo xtask reproduce --restore`");
        }
    }
    for outcome in told.iter().flatten() {
        stage.progress.say(&outcome.to_string());
    }
}
