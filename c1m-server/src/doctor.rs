//! Says before a run what will stop it, and moves what can be moved when told to.

mod apply;
mod beside;
mod emit;
mod files;

use std::io;

use anyhow::Context as _;
use c1m_host::{cgroup, namespaces};
use c1m_limits::{
    configured::{Assessed, Context, assess},
    preflight::Examination,
};
use c1m_preflight::{Ask, Looked, plan::Workers};
use c1m_probe::Options;
use c1m_program::{
    UsageRefused,
    lines::{Printer, printer},
};
use c1m_record::{Doctor, Record, Role};
use c1m_sys::{process::page_bytes, stream::Stream};
use c1m_text::pages;

use crate::{
    cli::doctor::{Doctor as Flags, End, Role as RoleFlag},
    diagnose::tracing::Tracing,
};

/// All connections fit; a limit is met before; it is not known from here.
const FITS: u8 = 0;
const WALL: u8 = 1;
const UNKNOWN: u8 = 3;

/// Looks, prints, and does what it was told to. The exit code says whether the connections fit.
///
/// # Errors
/// See [`crate::exit::exit_code`].
pub fn run(flags: &Flags) -> anyhow::Result<u8> {
    let mut printer = printer(flags.json, flags.color.choice)?;
    if flags.restore {
        return apply::restore(flags, &mut printer);
    }
    if flags.hooks {
        return hooks(&mut printer);
    }
    let ask = ask(flags)?;
    let looked = c1m_preflight::look(&ask);
    let (record, has_fault) = record(flags, &ask, &looked)?;
    let page = pages::doctor(&record);
    printer.print(Record::Doctor(record), &page)?;
    if let Some(folder) = &flags.emit {
        emit::write(folder, flags.force, &looked, &mut io::stderr())?;
    }
    let code = match flags.apply {
        true => apply::apply(flags, &ask, &looked.examination)?,
        false => exit_code(&looked.examination),
    };
    Ok(if has_fault { WALL } else { code })
}

fn exit_code(examination: &Examination) -> u8 {
    match examination.fits {
        Some(true) => FITS,
        Some(false) => WALL,
        None => UNKNOWN,
    }
}

/// What tracing would attach to, and by what: the dry run of the server.
fn hooks(printer: &mut Printer<Stream>) -> anyhow::Result<u8> {
    let options = Options {
        ports: Vec::new(),
        netns: namespaces::own_inode(),
        present: Err("not asked for".into()),
        object: None,
        without: Vec::new(),
        ring_bytes: None,
        verbosity: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (_tracing, hooks) = runtime.block_on(async { Tracing::start(&options) })?;
    let page = pages::hooks(&hooks);
    printer.print(Record::Hooks(hooks), &page)?;
    Ok(FITS)
}

fn ask(flags: &Flags) -> Result<Ask, UsageRefused> {
    let connections =
        flags.connections.ok_or_else(|| UsageRefused("say how many --connections".into()))?;
    Ok(Ask {
        connections,
        queued_bytes: flags.queued_bytes,
        role: match flags.role {
            RoleFlag::Server => Role::Server,
            RoleFlag::Client => Role::Client,
            RoleFlag::Both => Role::Both,
        },
        ipv6: flags.sources.and_then(|sources| sources.ipv6).unwrap_or(false),
        sources: flags.sources.map(|sources| sources.count),
        destinations: flags.destinations,
        rate: flags.rate,
        workers: match flags.workers {
            Workers::Auto => None,
            Workers::Count(count) => Some(count),
        },
        backlog: flags.backlog,
        ends_by_fin: flags.end == End::Fin,
        ..Ask::idle(connections)
    })
}

/// What is printed, and whether a line of a file that was named harms.
fn record(flags: &Flags, ask: &Ask, looked: &Looked) -> anyhow::Result<(Doctor, bool)> {
    let lines = files::lines(&flags.judge)?;
    let present = files::present(&lines);
    let unit = cgroup::unit();
    let context = Context {
        run: &looked.run,
        host: &looked.host,
        examination: &looked.examination,
        unit: unit.as_deref(),
        present: &present,
    };
    let Assessed { settings: configured, unassessed, has_fault } = assess(&lines, &context);
    let Examination { fits, first, rows: limits, unknown, memory, ehash } =
        looked.examination.clone();
    let record = Doctor {
        connections: ask.connections,
        role: ask.role,
        queued_bytes: ask.queued_bytes,
        sources: ask.role.has_client().then_some(looked.run.sources),
        rate: ask.rate,
        fits,
        first,
        limits,
        unknown,
        memory,
        page_bytes: page_bytes().ok(),
        ehash,
        configured,
        unassessed,
    };
    Ok((record, has_fault))
}
