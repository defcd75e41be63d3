//! One run from the first look at the host to the last line.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::{Instant, SystemTime},
};

use c1m_host::{
    guard::{Change, Outcome, RestoreResult},
    sysctl::{Name, Tree},
};
use c1m_record::Line;

use super::{
    End,
    act::{self, Play},
    cli::{Args, Connections},
    host::Host,
    log::{Log, print},
    measure::Snapshot,
    outcome::{self, Act, ActName, ReproduceRecord, Reproduction},
    preflight::{self, Facts},
    programs,
    progress::grouped,
    protocol::{Reply, Request},
    report, scale,
    stage::Stage,
};

/// Plays the whole run. On an error whatever was started still runs, and settings may be changed: see [`Stage::end`].
pub(super) fn perform(args: &Args, stage: &mut Stage) -> Result<ExitCode, End> {
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
    if let Some(failed) =
        stale.iter().find(|outcome| matches!(outcome.result, RestoreResult::Failed { .. }))
    {
        return Err(End::Refused(failed.to_string()));
    }
    let tree = args.places.tree();
    let host = Host::at(&args.places.proc_dir);
    let facts = Facts::read(&tree, &host, nofile_hard)?;
    let connections = connections(args, &facts, stage)?;
    let changes = check(&facts, connections, stage)?;
    let before = present(&tree, &changes)?;
    announce(stage, &before, &changes, connections, facts.page_bytes);
    if !args.yes {
        consent(stage)?;
    }
    let client = client(args)?;
    if !changes.is_empty() {
        stage.request(&Request::Set { changes })?;
    }
    let quiet = Snapshot::take(stage, &host)?;
    let acts = acts(
        args,
        stage,
        &Play { client: &client, facts: &facts, connections, quiet, host: &host },
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
            let count = facts.fitting().ok_or_else(|| {
                End::Refused(format!(
                    "{} are available, too few for {} connections",
                    facts.available(),
                    scale::CONNECTIONS_MIN
                ))
            })?;
            stage.progress.say(&format!(
                "auto: {} connections, 1/{} of the article's, fit into what is available: {}",
                grouped(count),
                scale::ARTICLE_CONNECTIONS / count,
                facts.available()
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

fn announce(
    stage: &mut Stage,
    before: &[(Name, String)],
    changes: &[Change],
    connections: u64,
    page_bytes: u64,
) {
    stage.progress.say("kernel settings that are changed for the run, and put back after it:");
    for (name, old) in before {
        let new =
            changes.iter().find(|change| change.name == *name).map(|change| change.value.clone());
        let new = new.unwrap_or_else(|| {
            let value = |act: ActName| {
                act.tcp_mem(connections, page_bytes).map(|pages| pages.to_string()).join(" ")
            };
            format!(
                "{} (act 1), then {} (acts 2 and 3)",
                value(ActName::Default),
                value(ActName::Cure)
            )
        });
        stage.progress.say(&format!("  {name}: {old} → {new}"));
    }
    let of_article = (scale::ARTICLE_CONNECTIONS, scale::ARTICLE_PAGE_BYTES);
    if (connections, page_bytes) != of_article {
        stage.progress.say(&format!(
            "  (the article's bytes × {} / {}, in pages of {} bytes, rounded down)",
            grouped(connections),
            grouped(scale::ARTICLE_CONNECTIONS),
            grouped(page_bytes)
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

/// The client, which runs as the user: the one beside this program, unless a test brings its own.
fn client(args: &Args) -> Result<PathBuf, End> {
    let own = || programs::own(programs::CLIENT);
    let client = args.client_program.clone().map_or_else(own, Ok);
    client.map_err(|error| End::Refused(format!("{error:#}")))
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
        let line = json(ReproduceRecord::Act(Box::new(act.clone())))?;
        stage.log.take(&line)?;
        if args.json {
            print(&line)?;
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
    let code = ExitCode::from(u8::from(!run.missed.is_empty()));
    let line = json(ReproduceRecord::Reproduction(run.clone()))?;
    if args.json {
        for uncounted in &run.uncounted {
            stage.progress.say(&format!("not counted: {uncounted}"));
        }
        for missed in &run.missed {
            stage.progress.say(&format!("missed: {missed}"));
        }
    }
    stage.log.take(&line)?;
    tell(args, &mut stage.log, &run, &line)?;
    Ok(code)
}

/// Writes a report in Markdown, and prints the table, or `line`, which is the same as JSON.
pub fn tell(args: &Args, log: &mut Log, run: &Reproduction, line: &str) -> Result<(), End> {
    let written = log.write_markdown(|| report::markdown(run, line));
    // A file that can't be written costs nobody the table.
    let printed = if args.json { print(line) } else { print(report::table(run).trim_end()) };
    written.and(printed)
}

fn json(record: ReproduceRecord) -> Result<String, End> {
    serde_json::to_string(&Line::at(SystemTime::now(), record))
        .map_err(|error| End::Failed(format!("cannot write JSON: {error}")))
}
