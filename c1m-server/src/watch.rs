//! Watches servers that are not ours: the probes of `--trace`, and nothing is served or changed.

mod child;
mod holding;
mod screen;
mod session;
mod sink;
mod target;

use anyhow::Context as _;
use c1m_host::target::Target;
use c1m_program::{UsageRefused, exporter::Bound};

use super::metrics::{self, Metrics};
use crate::{
    cli::watch::Watch,
    diagnose::{Diagnosis, subject::Subject, tracing::Tracing},
};
use child::Running;
use session::Session;
use sink::{Files, Sink};
pub use target::OF_OTHER_NAMESPACES;

/// With `--cmd`: a limit was hit.
const EXIT_LIMIT: u8 = 1;
/// With `--cmd`: no limit was hit, and the command itself failed.
const EXIT_COMMAND: u8 = 5;

/// Watches until it is told to end, and returns the exit code.
///
/// # Errors
/// Whatever keeps it from starting or from going on, see [`crate::exit::exit_code`].
pub fn run(args: &Watch) -> anyhow::Result<u8> {
    args.check().map_err(UsageRefused)?;
    // In the network namespace that it was started in.
    let bound = metrics::bind(args.metrics_addr)?;
    // Before there are threads: it may move into another network namespace.
    let target = Target::find(&target::named(args))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(watch(args, target, bound))
}

async fn watch(args: &Watch, target: Target, bound: Option<Bound>) -> anyhow::Result<u8> {
    // A pipe may be waited for without end, so it is opened while a signal still ends this.
    // Attaching takes seconds: a signal that comes meanwhile waits, and ends the watch in order.
    let files = Files::open(args)?;
    let shutdown = session::signals(args)?;
    // Attached before the command is started, so that nothing of it is missed, and before the
    // terminal is taken.
    let (tracing, hooks) = Tracing::start(&target::options(args, &target))?;
    let watching = session::watching(args, &target, &tracing, bound.as_ref());
    let main_process = args.pid.and_then(|pid| target.main_process(pid));
    let tcp_mem = tracing.sample().map(|sample| sample.tcp_mem);
    let subject = Subject::Target(target);
    let diagnosis = Diagnosis::begin(subject, tracing.connections(), tcp_mem);
    let sink = Sink::new(args, files, bound.map(Metrics::start).transpose()?)?;
    let mut session = Session::begin(args, tracing, diagnosis, sink, shutdown)?;
    session.first(hooks, watching, main_process)?;
    let command = match args.command() {
        Some(command) if !session.is_to_end()? => Some(Running::start(command)?),
        _ => None,
    };
    session.run(command).await
}
