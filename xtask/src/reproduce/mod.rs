//! The main job in one command: plays the seed article's run at the scale that fits, in three acts, and says what really happened.
//!
//! - [`scale`]: the article's figures, and how they shrink with the connections.
//! - [`preflight`]: what would stop the run, before anything starts.
//! - [`helper`], [`privileged`], [`protocol`]: the half that runs as root, and how both halves speak.
//! - [`stage`], [`seen`]: the one place where everything arrives, and what it adds up to.
//! - [`act`], [`measure`], [`expect`]: one act, what is read during it, and what had to come out.
//! - [`outcome`], [`report`], [`progress`]: what was found, and how it is told.

mod act;
mod build;
mod expect;
mod helper;
mod measure;
mod outcome;
mod preflight;
pub(crate) mod privileged;
mod progress;
mod protocol;
mod report;
mod scale;
mod seen;
mod signals;
mod stage;

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use c1m_server::{
    host::{
        guard::{self, Change, Fate, Outcome},
        sysctl::{Name, Tree},
    },
    output::record::Line,
    units::{parse_count, parse_duration},
};

use act::Play;
use build::Programs;
use measure::Host;
pub(crate) use outcome::ReproduceRecord;
use outcome::{Act, ActName, Reproduction};
use preflight::Facts;
use progress::grouped;
use protocol::{Reply, Request};
use stage::Stage;

/// Hold 1,024,000 connections, and report exactly when tcp_mem high is hit
///
/// Plays three acts: the article's default tcp_mem, its cure, and idle connections. Needs root for tcp_mem and eBPF, and
/// asks sudo for it. Every kernel setting that it changes is put back, whatever happens.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit: 0 done, 1 done but a target was missed, 2 usage, 3 the environment refused, 4 internal, 130 interrupted."
)]
pub(crate) struct Args {
    /// How many; auto: the largest power-of-two fraction of 1,024,000 that the memory holds
    #[arg(long, value_name = "N|auto", default_value = "auto")]
    connections: Connections,

    /// Do not ask before kernel settings are changed
    #[arg(long)]
    yes: bool,

    /// JSON lines on standard output; the last one has kind "reproduction"
    #[arg(long)]
    json: bool,

    /// Also write the table and the JSON line to this Markdown file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Only put back what a run that was killed has left behind
    #[arg(long, conflicts_with_all = ["connections", "report"])]
    restore: bool,

    /// Run this server instead of building one
    #[arg(long, hide = true, requires = "client_program")]
    server_program: Option<PathBuf>,

    /// Run this client instead of building one
    #[arg(long, hide = true, requires = "server_program")]
    client_program: Option<PathBuf>,

    /// End it when nothing has moved for so long
    #[arg(long, hide = true, value_name = "D", default_value = "60s", value_parser = parse_duration)]
    stall: Duration,

    #[command(flatten)]
    places: Places,
}

/// Where the kernel's files are, and where the old values of its settings are kept. Only tests have reasons to change them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Places {
    #[arg(long, hide = true, default_value = guard::STATE_FOLDER)]
    pub(crate) state_dir: PathBuf,
    #[arg(long, hide = true, default_value = KERNEL_FILES)]
    pub(crate) proc_dir: PathBuf,
}

/// Where the running kernel shows itself.
const KERNEL_FILES: &str = "/proc";

impl Places {
    /// The kernel's settings.
    pub(crate) fn tree(&self) -> Tree {
        Tree::at(self.proc_dir.join("sys"))
    }

    /// Is it the running kernel, or a folder that stands for it?
    pub(crate) fn is_kernel(&self) -> bool {
        self.proc_dir.as_os_str() == KERNEL_FILES
    }
}

/// A number of connections, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connections {
    Auto,
    Count(u64),
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match parse_count(text).map_err(|error| error.to_string())? {
            count if count >= scale::CONNECTIONS_MIN => Ok(Self::Count(count)),
            _ => Err(format!("use auto, or at least {}", scale::CONNECTIONS_MIN)),
        }
    }
}

/// Why a run did not come to its end. Each message is whole.
#[derive(Debug)]
pub(crate) enum End {
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
pub(crate) fn main(args: &Args) -> ExitCode {
    let mut stage = match Stage::new(args.places.clone(), args.stall) {
        Ok(stage) => stage,
        Err(end) => return fail(&end),
    };
    match perform(args, &mut stage) {
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

fn fail(end: &End) -> ExitCode {
    let (text, code) = end.told();
    let _ = writeln!(io::stderr(), "error: {text}");
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

fn perform(args: &Args, stage: &mut Stage) -> Result<ExitCode, End> {
    let start = Instant::now();
    let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.yes && !args.restore && !is_terminal {
        return Err(End::Usage(
            "this changes kernel settings, and there is no terminal to ask on: add --yes".into(),
        ));
    }
    let (nofile_hard, stale) = stage.open_helper()?;
    for outcome in &stale {
        stage.progress.say(&format!("an earlier run was killed: {outcome}"));
    }
    if args.restore {
        return Ok(restored_only(stage, &stale));
    }
    if let Some(failed) = stale.iter().find(|outcome| matches!(outcome.fate, Fate::Failed { .. })) {
        return Err(End::Refused(failed.to_string()));
    }
    let tree = args.places.tree();
    let host = Host::at(&args.places.proc_dir);
    let facts = Facts::read(&tree, &host, nofile_hard)?;
    let connections = connections(args, &facts, stage)?;
    let changes = check(&facts, connections, stage)?;
    let before = present(&tree, &changes)?;
    announce(stage, &before, &changes, connections);
    if !args.yes {
        consent(stage)?;
    }
    let programs = programs(args, stage)?;
    if !changes.is_empty() {
        stage.request(&Request::Set { changes })?;
    }
    let acts = acts(
        args,
        stage,
        &Play {
            programs: &programs,
            facts: &facts,
            connections,
            quiet: host.sockstat()?,
            host: &host,
        },
    )?;
    let restored = restore(stage, &tree, &before)?;
    let run = Reproduction::new(
        identity(&tree, &host)?,
        connections,
        acts,
        restored,
        outcome::rounded(start.elapsed().as_secs_f64()),
    );
    publish(args, stage, run)
}

fn restored_only(stage: &mut Stage, stale: &[Outcome]) -> ExitCode {
    if stale.is_empty() {
        stage.progress.say("nothing to put back");
    }
    ExitCode::from(u8::from(!stale.iter().all(Outcome::is_back)))
}

/// How many connections it will be, told when it was chosen here.
fn connections(args: &Args, facts: &Facts, stage: &mut Stage) -> Result<u64, End> {
    match args.connections {
        Connections::Count(count) => Ok(count),
        Connections::Auto => {
            let count = scale::auto(facts.available_bytes).ok_or_else(|| {
                End::Refused(format!(
                    "{} of memory are available, too few for {} connections",
                    progress::bytes(expect::as_f64(facts.available_bytes)),
                    scale::CONNECTIONS_MIN
                ))
            })?;
            stage.progress.say(&format!(
                "auto: {} connections, 1/{} of the article's, fit into {} of available memory",
                grouped(count),
                scale::ARTICLE_CONNECTIONS / count,
                progress::bytes(expect::as_f64(facts.available_bytes))
            ));
            Ok(count)
        }
    }
}

/// Refuses what can't be; the answer is what has to be changed beside `tcp_mem`.
fn check(facts: &Facts, connections: u64, stage: &mut Stage) -> Result<Vec<Change>, End> {
    let problems = facts.problems(connections);
    if !problems.is_empty() {
        return Err(End::Refused(problems.join("\nerror: ")));
    }
    for note in facts.notes(connections) {
        stage.progress.say(&note);
    }
    preflight::check_loopback()?;
    facts.changes(connections)
}

/// The settings that will change, as they are now.
fn present(tree: &Tree, changes: &[Change]) -> Result<Vec<(Name, String)>, End> {
    let mut names = vec![preflight::name("net.ipv4.tcp_mem")?];
    names.extend(changes.iter().map(|change| change.name.clone()));
    names
        .into_iter()
        .map(|name| match tree.read(&name) {
            Ok(value) => Ok((name, value)),
            Err(error) => Err(End::Refused(error.to_string())),
        })
        .collect()
}

fn announce(stage: &mut Stage, before: &[(Name, String)], changes: &[Change], connections: u64) {
    stage.progress.say("kernel settings that are changed for the run, and put back after it:");
    for (name, old) in before {
        let new =
            changes.iter().find(|change| change.name == *name).map(|change| change.value.clone());
        let new = new.unwrap_or_else(|| {
            let value =
                |act: ActName| act.tcp_mem(connections).map(|pages| pages.to_string()).join(" ");
            format!(
                "{} (act 1), then {} (acts 2 and 3)",
                value(ActName::Default),
                value(ActName::Cure)
            )
        });
        stage.progress.say(&format!("  {name}: {old} → {new}"));
    }
    if connections != scale::ARTICLE_CONNECTIONS {
        stage.progress.say(&format!(
            "  (the article's pages × {} / {}, rounded down)",
            grouped(connections),
            grouped(scale::ARTICLE_CONNECTIONS)
        ));
    }
}

fn consent(stage: &mut Stage) -> Result<(), End> {
    let answer = stage.ask("Change them? [y/N]")?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(End::Refused("not allowed to change kernel settings: nothing was started".into())),
    }
}

fn programs(args: &Args, stage: &mut Stage) -> Result<Programs, End> {
    if let (Some(server), Some(client)) = (&args.server_program, &args.client_program) {
        return Ok(Programs { server: server.clone(), client: client.clone() });
    }
    stage.progress.say("building c1m-server and c1m-client");
    build::start(stage.sender())?;
    stage.built()
}

fn acts(args: &Args, stage: &mut Stage, play: &Play<'_>) -> Result<Vec<Act>, End> {
    let mut acts = Vec::new();
    for name in ActName::ALL {
        let act = act::play(stage, play, name)?;
        stage.progress.say(&format!(
            "{}: {} held, {} of {} answered, ramp {:.1} s",
            name.title(),
            grouped(act.held),
            grouped(act.answered),
            grouped(act.sampled),
            act.ramp_s
        ));
        if args.json {
            print(&json(ReproduceRecord::Act(Box::new(act.clone())))?)?;
        }
        acts.push(act);
    }
    Ok(acts)
}

/// Puts everything back, and looks for itself whether it is.
fn restore(stage: &mut Stage, tree: &Tree, before: &[(Name, String)]) -> Result<bool, End> {
    let Reply::Restored { outcomes } = stage.request(&Request::Restore)? else {
        return Err(End::Failed("the privileged half did not say what it put back".into()));
    };
    for outcome in &outcomes {
        stage.progress.say(&outcome.to_string());
    }
    Ok(before.iter().all(|(name, old)| tree.read(name).is_ok_and(|now| now == *old)))
}

/// Release of the kernel, CPUs, bytes of memory.
fn identity(tree: &Tree, host: &Host) -> Result<(String, u64, u64), End> {
    let release = tree
        .read(&preflight::name("kernel.osrelease")?)
        .map_err(|error| End::Refused(error.to_string()))?;
    Ok((release, host.cpus()?, host.memory()?.total_bytes))
}

/// Prints the table or the last JSON line, and writes the report.
fn publish(args: &Args, stage: &mut Stage, run: Reproduction) -> Result<ExitCode, End> {
    let table = report::table(&run);
    let code = ExitCode::from(u8::from(!run.missed.is_empty()));
    let missed = run.missed.clone();
    let line = json(ReproduceRecord::Reproduction(run.clone()))?;
    if let Some(path) = &args.report {
        fs::write(path, report::markdown(&run, &line))
            .map_err(|error| End::Failed(format!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        for missed in &missed {
            stage.progress.say(&format!("missed: {missed}"));
        }
        print(&line)?;
    } else {
        print(table.trim_end())?;
    }
    Ok(code)
}

fn json(record: ReproduceRecord) -> Result<String, End> {
    serde_json::to_string(&Line::at(SystemTime::now(), record))
        .map_err(|error| End::Failed(format!("cannot write JSON: {error}")))
}

/// One line, or several, on standard output. A reader that has gone away is no error.
fn print(text: &str) -> Result<(), End> {
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(End::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
