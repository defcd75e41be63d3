//! Serves until told to stop: signals, the interval and the notices of the workers, on the main thread.

mod reporter;

use std::{future::pending, io, net::SocketAddr, os::fd::AsFd as _};

use anyhow::Context as _;
use c1m_host::{files, namespaces};
use c1m_preflight::{
    Ask,
    plan::{self, Plan, Wish, Workers},
};
use c1m_probe::Options;
use c1m_program::{EnvironmentRefused, exporter::Bound, lines::printer};
use c1m_record::{Record, Role};
use c1m_report::file::Page;
use c1m_sys::{
    process::{drop_capabilities, raise_nofile},
    readable::Readable,
    signal::Shutdown,
};
use c1m_text::pages;
use clap::ColorChoice;
use tokio::time::Instant;

use super::metrics::{self, Metrics};
use crate::{
    cli::Serve,
    diagnose::{Diagnosis, subject::Subject, tracing::Tracing},
    run::reporter::Reporter,
    serve::{Config, Ending, Running, ServeError, Server, with_port},
    ticks::{at, tick, ticks},
};

/// Runs the server until a signal ([`Shutdown`]) or the end of `--duration`.
///
/// # Errors
/// Whatever keeps it from starting or from going on, see [`crate::exit::exit_code`].
pub fn run(cli: &Serve) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if cli.dry_run {
        return runtime.block_on(async { dry_run(cli) });
    }
    let bound = metrics::bind(cli.metrics_addr)?;
    let plan = lay_out(cli)?;
    let foreseen = foresee(cli);
    match foreseen {
        Some(limits) if cli.strict => Err(EnvironmentRefused(limits).into()),
        _ => runtime.block_on(serve(cli, plan, foreseen, bound)),
    }
}

/// Attaches, and says by what: no port is bound, and with the end of the process nothing is attached any more.
fn dry_run(cli: &Serve) -> anyhow::Result<()> {
    let (_tracing, hooks) = Tracing::start(&trace_options(cli, cli.listen))?;
    let page = pages::hooks(&hooks);
    Ok(printer(cli.json, ColorChoice::Auto)?.print(Record::Hooks(hooks), &page)?)
}

fn lay_out(cli: &Serve) -> anyhow::Result<Plan> {
    let nofile = raise_nofile().map_err(|error| {
        EnvironmentRefused(format!("cannot raise the limit of open files: {error}"))
    })?;
    let wish = Wish {
        workers: workers(cli),
        max_connections: cli.max_connections,
        backlog: cli.backlog,
        somaxconn: files::somaxconn(),
        nofile,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
    };
    Ok(plan::plan(&wish).map_err(ServeError::from)?)
}

/// What stops it before --max-connections. Who listens on loopback has the clients on the same host.
fn foresee(cli: &Serve) -> Option<String> {
    let ip = cli.listen.ip();
    c1m_preflight::foresee(&Ask {
        role: if ip.is_loopback() { Role::Both } else { Role::Server },
        ipv6: ip.is_ipv6(),
        workers: workers(cli),
        backlog: cli.backlog,
        ..Ask::idle(cli.max_connections?)
    })
}

fn workers(cli: &Serve) -> Option<usize> {
    match cli.workers {
        Workers::Auto => None,
        Workers::Count(count) => Some(count),
    }
}

/// What needs a privilege comes first, and nothing is bound before it is known to work: tracing is attached, the port is
/// bound, capabilities are dropped, the workers start.
async fn serve(
    cli: &Serve,
    plan: Plan,
    foreseen: Option<String>,
    bound: Option<Bound>,
) -> anyhow::Result<()> {
    // A pipe may be waited for without end, so it is opened while a signal still ends this.
    let page = cli.report.as_deref().map(Page::open).transpose()?;
    // Before there are threads, so that none of them gets a signal.
    let shutdown = Shutdown::begin().context("cannot listen for signals")?;
    let url = bound.as_ref().map(Bound::url);
    let mut reporter = Reporter::new(cli, page, bound.map(Metrics::start).transpose()?)?;
    let served = serve_and_report(cli, plan, &shutdown, &mut reporter, (foreseen, url)).await;
    shutdown.end_at_once()?;
    // Also of a run that failed: the page shows how far it came.
    let written = reporter.write_page();
    let finished = reporter.finish();
    served?;
    written?;
    Ok(finished?)
}

async fn serve_and_report(
    cli: &Serve,
    plan: Plan,
    shutdown: &Shutdown,
    reporter: &mut Reporter,
    (foreseen, metrics): (Option<String>, Option<String>),
) -> anyhow::Result<()> {
    let mut diagnosis = Diagnosis::begin(Subject::Server(plan), 0, None);
    diagnosis.sample_always(cli.metrics_addr.is_some());
    // The programs need the port before it is bound.
    let listen = if cli.trace { with_port(cli.listen)? } else { cli.listen };
    let mut tracing = if cli.trace {
        let (tracing, hooks) = Tracing::start(&trace_options(cli, listen))?;
        reporter.hooks(hooks)?;
        Some(tracing)
    } else {
        None
    };
    let server = Server::bind(Config {
        listen,
        plan,
        max_connections: cli.max_connections,
        keepalive: cli.keepalive,
        header_timeout: cli.header_timeout,
    })?;
    diagnosis.listens(server.inodes().context("cannot look at the listeners")?);
    if tracing.is_some() {
        drop_capabilities().context("cannot give up the capabilities that tracing needed")?;
    }
    let running = server.start()?;

    // Whoever reads where the metrics are finds them there.
    reporter.sample(&running.snapshot(), diagnosis.limits(), tracing.as_ref());
    let begun = reporter
        .listening(cli, &plan, running.address(), metrics)
        .and_then(|()| foreseen.map_or(Ok(()), |limits| reporter.warn("doctor", &limits)))
        .and_then(|()| reporter.limits(diagnosis.limits()));
    reporter.sample(&running.snapshot(), diagnosis.limits(), tracing.as_ref());
    let served = match begun {
        Ok(()) => hold(cli, &running, shutdown, reporter, &mut diagnosis, &mut tracing).await,
        Err(error) => Err(error.into()),
    };

    shutdown.end_at_once()?;
    running.stop_accepting();
    // What was true before the server closed anything itself.
    let events = tracing.as_mut().map(Tracing::poll);
    let snapshot = running.snapshot();
    let summary = reporter.summary(&snapshot);
    diagnosis.closing(&snapshot, tracing.as_ref());
    let closed = running.stop(Ending::for_many(summary.held, files::tcp_max_orphans()));
    served?;
    closed?;
    if let Some(events) = events {
        reporter.events(events?)?;
    }
    // Closing moves memory too, and the last crossings are part of the story.
    if let Some(tracing) = &mut tracing {
        reporter.events(tracing.poll()?)?;
    }
    reporter.conclude();
    reporter.limits(diagnosis.limits())?;
    reporter.verdict(diagnosis.end(&summary.errors, tracing.as_ref()))?;
    reporter.print_summary(summary, tracing.as_ref())?;
    Ok(())
}

fn trace_options(cli: &Serve, listen: SocketAddr) -> Options {
    Options {
        ports: vec![listen.port()],
        netns: namespaces::own_inode(),
        present: Err("not asked for".into()),
        object: cli.ebpf_object.clone(),
        without: cli.without_hook.clone(),
        ring_bytes: None,
        verbosity: cli.verbose,
    }
}

/// Until a signal, the end of `--duration`, a failure, or until the reader of standard output has closed it.
async fn hold(
    cli: &Serve,
    running: &Running,
    shutdown: &Shutdown,
    reporter: &mut Reporter,
    diagnosis: &mut Diagnosis,
    tracing: &mut Option<Tracing>,
) -> anyhow::Result<()> {
    let notices = Readable::new(running.notice_fd()).context("cannot watch the workers")?;
    let signalled = Readable::new(shutdown.as_fd()).context("cannot wait for signals")?;
    let end = cli.duration.and_then(|duration| Instant::now().checked_add(duration));
    // Without lines to print, metrics and usage to look at nothing wakes an idle server.
    let mut ticks = (!cli.quiet || tracing.is_some() || cli.metrics_addr.is_some())
        .then(|| ticks(cli.interval))
        .flatten();
    loop {
        tokio::select! {
            ready = signalled.wait() => {
                ready?;
                if shutdown.take()?.is_some() {
                    return Ok(());
                }
            }
            failed = reporter.failed() => return Ok(failed?),
            () = at(end) => return Ok(()),
            () = tick(&mut ticks) => {
                if let Some(tracing) = tracing {
                    reporter.events(tracing.poll()?)?;
                }
                let now = running.snapshot();
                reporter.online(&now, tracing.as_ref())?;
                if let Some(verdict) = diagnosis.tick(&now, tracing.as_ref(), cli.interval) {
                    reporter.verdict(verdict)?;
                }
                reporter.sample(&now, diagnosis.limits(), tracing.as_ref());
            }
            ready = reported(tracing) => {
                ready?;
                if let Some(tracing) = tracing {
                    reporter.events(tracing.take()?)?;
                }
            }
            ready = notices.wait() => {
                ready?;
                reporter.notices(running.notices())?;
                let now = running.snapshot();
                if let Some(verdict) = diagnosis.tick(&now, tracing.as_ref(), cli.interval) {
                    reporter.verdict(verdict)?;
                }
                if running.is_broken() {
                    return Ok(());
                }
            }
        }
    }
}

async fn reported(tracing: &Option<Tracing>) -> io::Result<()> {
    match tracing {
        Some(tracing) => tracing.readable().await,
        None => pending().await,
    }
}
