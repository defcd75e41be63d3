//! Changes the settings that a run needs, shows the difference first, and puts everything back.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use c1m_host::{
    guard::{Change as Wanted, Guard, Outcome, STATE_FOLDER},
    sysctl::{Name, Tree},
};
use c1m_limits::{preflight::Examination, raise::raised};
use c1m_preflight::Ask;
use c1m_program::{
    EnvironmentRefused, UsageRefused,
    lines::{Lines, Printer},
    streams::{self, say},
};
use c1m_record::{Applied, Change, Record, Restored};
use c1m_sys::{
    epoll::{self, Epoll, Events, Waker},
    signal::Shutdown,
    stream::Stream,
};
use c1m_text::pages;

use super::exit_code;
use crate::cli::doctor::Doctor as Flags;

/// How long a run that was just killed may take to put its settings back.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit code: a setting is not as it was before.
const NOT_BACK: u8 = 1;

/// Puts back what was left: by runs that were killed, and by `--keep`.
pub(super) fn restore(flags: &Flags, printer: &mut Printer<Stream>) -> anyhow::Result<u8> {
    let (mut guard, mut outcomes) = take(flags)?;
    outcomes.extend(guard.restore_kept().map_err(refused)?);
    let restored = restored(&outcomes);
    let code = if restored.back { 0 } else { NOT_BACK };
    let page = pages::restored(&restored);
    printer.print(Record::Restored(restored), &page)?;
    Ok(code)
}

fn restored(outcomes: &[Outcome]) -> Restored {
    Restored {
        back: outcomes.iter().all(Outcome::is_back),
        settings: outcomes.iter().map(ToString::to_string).collect(),
    }
}

fn take(flags: &Flags) -> Result<(Guard, Vec<Outcome>), EnvironmentRefused> {
    let folder = flags.state_dir.as_deref().unwrap_or(Path::new(STATE_FOLDER));
    Guard::take(Tree::at(Tree::KERNEL), folder, PATIENCE).map_err(refused)
}

fn refused(error: c1m_host::guard::GuardError) -> EnvironmentRefused {
    EnvironmentRefused(error.to_string())
}

/// Changes what has to be changed, and waits for a signal, or leaves it.
///
/// Until settings are changed a signal ends it as any program. From then on the first one puts them back, and the second one can end only what
/// comes after that.
pub(super) fn apply(flags: &Flags, ask: &Ask, before: &Examination) -> anyhow::Result<u8> {
    let (mut guard, stale) = take(flags)?;
    for outcome in &stale {
        say(&format!("an earlier run was killed: {outcome}"));
    }
    // What it put back may have been what was looked at.
    let looked = (!stale.is_empty()).then(|| c1m_preflight::look(ask).examination);
    let changes = changes(looked.as_ref().unwrap_or(before))?;
    for change in &changes {
        say(&format!("{} = {}, now {}", change.name, change.to, change.from));
    }
    if !changes.is_empty() {
        consent(flags)?;
    }
    let shutdown = Shutdown::begin()?;
    let lines = Lines::new(Arc::new(streams::stdout(flags.json, || Ok(()))?), flags.json);
    let held =
        set(&mut guard, &changes).and_then(|()| hold(flags, ask, changes, (&lines, &shutdown)));
    if flags.keep && held.is_ok() {
        guard.keep().map_err(refused)?;
        return held;
    }
    let restored = restored(&guard.restore());
    // Everything is back.
    shutdown.end_at_once()?;
    if held.is_err() || lines.writer().is_closed() {
        // Standard output may be what has failed.
        restored.settings.iter().for_each(|setting| say(setting));
    }
    let code = match held? {
        code if restored.back => code,
        _ => NOT_BACK,
    };
    lines.print(SystemTime::now(), &Record::Restored(restored))?;
    lines.finish()?;
    Ok(code)
}

fn set(guard: &mut Guard, changes: &[Change]) -> anyhow::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let wanted: Vec<Wanted> = changes
        .iter()
        .map(|change| Ok(Wanted { name: Name::new(&change.name)?, value: change.to.clone() }))
        .collect::<Result<_, c1m_host::sysctl::SysctlError>>()?;
    Ok(guard.set(&wanted).map_err(refused)?)
}

/// Says what was changed, and waits for a signal unless it is to stay. Returns the exit code.
fn hold(
    flags: &Flags,
    ask: &Ask,
    changes: Vec<Change>,
    (lines, shutdown): (&Lines, &Shutdown),
) -> anyhow::Result<u8> {
    let after = c1m_preflight::look(ask).examination;
    let left = after.hit().map(|limit| limit.limit).collect();
    let applied = Applied { changes, keep: flags.keep, left };
    lines.print(SystemTime::now(), &Record::Applied(applied))?;
    if flags.keep {
        // What nobody was told does not stay.
        lines.finish()?;
        if lines.writer().is_closed() {
            let text = "standard output was closed before anybody read what --keep would leave, so everything is put back: keep standard output open";
            return Err(EnvironmentRefused(text.into()).into());
        }
    } else {
        wait(shutdown, lines)?;
    }
    Ok(exit_code(&after))
}

/// Values that permit more than those that the kernel has. What is enough is left alone.
fn changes(examination: &Examination) -> Result<Vec<Change>, EnvironmentRefused> {
    let tree = Tree::at(Tree::KERNEL);
    let mut changes: Vec<Change> = Vec::new();
    for setting in examination.hit().flat_map(|limit| &limit.settings) {
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
    let _ = write!(io::stderr(), "change them? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(EnvironmentRefused("nothing was changed".into()).into()),
    }
}

/// Until a signal, or until the reader of what is said has closed it.
fn wait(shutdown: &Shutdown, lines: &Lines) -> anyhow::Result<()> {
    let (epoll, failed) = (Epoll::new()?, Arc::new(Waker::new()?));
    let mut events = Events::with_capacity(2);
    epoll.add(shutdown.as_raw_fd(), epoll::IN, 0)?;
    epoll.add(failed.as_raw_fd(), epoll::IN | epoll::EDGE, 1)?;
    // A descriptor of its own stays open: with the last one closed the kernel takes the event back.
    let waker = failed.clone();
    lines.writer().on_failure(move || waker.wake());
    while shutdown.take()?.is_none() && !lines.writer().is_closed() {
        epoll.wait(&mut events, None)?;
        lines.writer().check()?;
    }
    Ok(())
}
