//! Changes the settings that a run needs, shows the difference first, and puts everything back.

use std::{
    io::{self, IsTerminal as _, Stdout, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    exit_code,
    look::{self, Ask},
};
use crate::{
    cli::doctor::Doctor as Flags,
    command::{EnvironmentRefused, UsageRefused},
    host::{
        guard::{Change as Wanted, Guard, Outcome, STATE_FOLDER},
        sysctl::{Name, Tree},
    },
    limits::{raise::raised, walls::Examination},
    output::{
        escape,
        lines::Printer,
        record::{Applied, Change, Record, Restored},
    },
    sys::{
        epoll::{self, Epoll, Events},
        signal::Termination,
    },
};

/// How long a run that was just killed may take to put its settings back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts back what was left: by runs that were killed, and by `--keep`.
pub(super) fn restore(flags: &Flags, printer: &mut Printer<Stdout>) -> anyhow::Result<u8> {
    let (mut guard, mut outcomes) = take(flags)?;
    outcomes.extend(guard.restore_kept().map_err(refused)?);
    restored(&outcomes, printer)
}

fn restored(outcomes: &[Outcome], printer: &mut Printer<Stdout>) -> anyhow::Result<u8> {
    let back = outcomes.iter().all(Outcome::is_back);
    let settings = outcomes.iter().map(ToString::to_string).collect();
    printer.print(SystemTime::now(), Record::Restored(Restored { back, settings }))?;
    Ok(u8::from(!back))
}

fn take(flags: &Flags) -> Result<(Guard, Vec<Outcome>), EnvironmentRefused> {
    let folder = flags.state_dir.as_deref().unwrap_or(Path::new(STATE_FOLDER));
    Guard::take(Tree::at(Tree::KERNEL), folder, PATIENCE).map_err(refused)
}

fn refused(error: crate::host::guard::GuardError) -> EnvironmentRefused {
    EnvironmentRefused(error.to_string())
}

/// Changes what has to be changed, and waits for a signal, or leaves it.
pub(super) fn apply(
    flags: &Flags,
    ask: &Ask,
    before: &Examination,
    printer: &mut Printer<Stdout>,
) -> anyhow::Result<u8> {
    // First of all: from here on a signal ends it in order.
    let termination = Termination::new()?;
    let (mut guard, stale) = take(flags)?;
    for outcome in &stale {
        say(&format!("an earlier run was killed: {outcome}"));
    }
    // What it put back may have been what was looked at.
    let looked = (!stale.is_empty()).then(|| look::look(ask).examination);
    let changes = changes(looked.as_ref().unwrap_or(before))?;
    for change in &changes {
        say(&format!("{} = {}, now {}", change.name, change.to, change.from));
    }
    if !changes.is_empty() {
        consent(flags)?;
        let wanted: Vec<Wanted> = changes
            .iter()
            .map(|change| Ok(Wanted { name: Name::new(&change.name)?, value: change.to.clone() }))
            .collect::<Result<_, crate::host::sysctl::SysctlError>>()?;
        guard.set(&wanted).map_err(refused)?;
    }
    let after = look::look(ask).examination;
    let left = after.hit().map(|wall| wall.limit).collect();
    printer
        .print(SystemTime::now(), Record::Applied(Applied { changes, keep: flags.keep, left }))?;
    if flags.keep {
        guard.keep().map_err(refused)?;
        return Ok(exit_code(&after));
    }
    wait(&termination)?;
    match restored(&guard.restore(), printer)? {
        0 => Ok(exit_code(&after)),
        code => Ok(code),
    }
}

/// Values that permit more than those that the kernel has. What is enough is left alone.
fn changes(examination: &Examination) -> Result<Vec<Change>, EnvironmentRefused> {
    let tree = Tree::at(Tree::KERNEL);
    let mut changes: Vec<Change> = Vec::new();
    for setting in examination.hit().flat_map(|wall| &wall.settings) {
        let from = Name::new(&setting.name)
            .and_then(|name| tree.read(&name))
            .map_err(|error| EnvironmentRefused(error.to_string()))?;
        match changes.iter_mut().find(|change| change.name == setting.name) {
            // Two limits may be moved by one setting.
            Some(change) => change.to = raised(&setting.name, &change.to, &setting.value),
            None => {
                let to = raised(&setting.name, &from, &setting.value);
                changes.push(Change { name: setting.name.clone(), from, to });
            }
        }
    }
    changes.retain(|change| change.from != change.to);
    Ok(changes)
}

fn consent(flags: &Flags) -> anyhow::Result<()> {
    if flags.yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageRefused(
            "this changes kernel settings, and there is no terminal to ask on: add --yes".into(),
        )
        .into());
    }
    // SIGINT is taken as a signal from here on, so it is no answer: an empty line is.
    let _ = write!(io::stderr(), "change them? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(EnvironmentRefused("nothing was changed".into()).into()),
    }
}

fn wait(termination: &Termination) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let mut events = Events::with_capacity(1);
    epoll.add(termination.as_raw_fd(), epoll::IN, 0)?;
    while termination.take()?.is_none() {
        epoll.wait(&mut events, None)?;
    }
    Ok(())
}

fn say(text: &str) {
    // Standard error may be gone together with the terminal.
    let _ = writeln!(io::stderr(), "{}", escape::line(text));
}
