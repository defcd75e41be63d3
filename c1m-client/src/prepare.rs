//! Everything that can be refused, refused before the first connection.

use std::{
    sync::atomic::{AtomicBool, AtomicU64},
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, anyhow};
use c1m_host::ports::Ports;
use c1m_preflight::{Ask, foresee};
use c1m_program::{streams::say, writer::WriteError};
use c1m_record::Role;
use c1m_sys::epoll::Waker;

use crate::{
    cli::Load,
    pin::{Pages, PinError, PinPlan},
    ramp::{Crew, Pace},
    record::{Asked, End, Pin, PinStep, Plan as PlanRecord, Shard as ShardRecord},
    shard::Shard,
    start::Start,
    tuple::Plan,
    worker::{Closing, Counters, Shared},
    workload::{CHECK_PATH, FIRST_PATH, Requests, Workload},
};

/// What went wrong, by what the exit code says of it.
#[derive(Debug)]
pub enum Failure {
    /// The flags, or a plan that can't be.
    Usage(anyhow::Error),
    /// The kernel, or the server, refused what the run needs.
    Environment(anyhow::Error),
    /// A fault of this program.
    Internal(anyhow::Error),
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::Environment(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Environment(error.into())
    }
}

/// Plans the run that the flags ask for, and measures what it needs to know.
pub fn prepare(cli: &Load) -> Result<Shared, Failure> {
    let ports = Ports::read().context("can't read net.ipv4.ip_local_port_range");
    let ports = ports.map_err(Failure::Environment)?;
    let Load { connect, source, per_source, shard, .. } = cli;
    let plan = Plan::new(*connect, source, ports, *per_source, cli.connections, *shard)
        .map_err(|error| Failure::Usage(error.into()))?;
    let own = shard.count(cli.connections);
    let crew =
        Crew::of_this_process(cli.workers, own)?.map_err(|error| Failure::Usage(error.into()))?;
    let pin = match cli.pin {
        Some(bytes) => Some(measure(cli, &plan, bytes)?),
        None => None,
    };
    let ask = ask(cli, &plan, pin.as_ref().map(|pin| pin.pages));
    if let Some(limits) = foresee(&ask) {
        if cli.strict {
            return Err(Failure::Environment(anyhow!(limits)));
        }
        // What comes of it is in the records.
        warn(&limits);
    }
    let workload = Workload::new(&requests(cli)?, cli.unread, pin, &cli.connect.first);
    Ok(Shared {
        plan,
        crew,
        workload,
        pace: Pace::new(cli.rate, shard.of()),
        timeout: cli.timeout,
        give_up: cli.give_up(),
        stalled: AtomicBool::new(false),
        heartbeat: cli.heartbeat,
        in_flight: cli.in_flight as usize,
        end_by_reset: cli.end == End::Reset,
        spare: AtomicU64::new(own),
        counters: (0..crew.workers).map(|_| Counters::new(cli.timeout)).collect(),
        to_main: Waker::new()?,
        to_workers: Waker::new()?,
        start: start(cli)?,
        closing: Closing::default(),
    })
}

/// What the connections ask for, by the flags.
fn requests(cli: &Load) -> Result<Requests, Failure> {
    let own = cli.request.as_deref();
    if own.is_some() && cli.idle && cli.sample.is_none() && cli.heartbeat.is_none() {
        return Err(Failure::Usage(anyhow!(
            "--idle asks for nothing: take --request away, or let --sample or --heartbeat ask for it"
        )));
    }
    Ok(Requests {
        first: (!cli.idle).then_some(own.unwrap_or(FIRST_PATH).into()),
        check: own.unwrap_or(CHECK_PATH).into(),
    })
}

/// What to say when the ramp was slower than `--rate` has planned it, of this part.
pub fn slower_than_planned(
    cli: &Load,
    in_flight: u64,
    reached_per_s: Option<f64>,
) -> Option<String> {
    /// A short ramp ends late by one answer.
    const ENOUGH: f64 = 0.95;
    let (planned, reached) = (cli.rate?, reached_per_s?);
    let (planned, of_part) = match cli.shard.of() {
        1 => (planned as f64, ""),
        parts => (planned as f64 / parts as f64, " of this part"),
    };
    (reached < planned * ENOUGH).then(|| {
        format!(
            "the planned rate{of_part} of {planned:.0} connections per second was not reached: {reached:.0} were. The server answered too slowly for \
             in_flight={in_flight} (--in-flight, of one worker), or this host is too slow; latencies count from the planned times"
        )
    })
}

/// For people.
pub fn warn(text: &str) {
    say(&format!("c1m-client: warning: {text}"));
}

/// When the first connection is due: by the wall clock as it goes now, since nothing else is known
/// of the time until then.
fn start(cli: &Load) -> Result<Instant, Failure> {
    let now = Instant::now();
    let Some(at) = cli.start_at else { return Ok(now) };
    match at.from(SystemTime::now()) {
        Start::In(wait) => Ok(now + wait),
        Start::TooFar => Err(Failure::Usage(anyhow!(
            "--start-at {at} is more than a week away: give seconds since 1970, not milliseconds, or RFC 3339"
        ))),
        Start::Late(late) => {
            let late = format!("--start-at {at} was {:.3} s ago", late.as_secs_f64());
            if cli.strict {
                return Err(Failure::Environment(anyhow!(
                    "{late}: give a time that leaves every part long enough to be started"
                )));
            }
            warn(&format!("{late}: beginning now, later than the other parts"));
            Ok(now)
        }
    }
}

/// What the run needs of this host. A server on a loopback address is here too.
fn ask(cli: &Load, plan: &Plan, pages: Option<Pages>) -> Ask {
    let ip = cli.connect.ip();
    let queued_bytes = match (pages, cli.unread) {
        (Some(pages), _) => pages.payload(),
        // One skb at least, whatever is in it.
        (None, true) => 1,
        (None, false) => 0,
    };
    Ask {
        queued_bytes,
        role: if ip.is_loopback() { Role::Both } else { Role::Client },
        ipv6: ip.is_ipv6(),
        sources: Some(plan.sources()),
        destinations: plan.target().count(),
        rate: cli.rate.map(|rate| rate.div_ceil(cli.shard.of())),
        per_source: cli.per_source,
        ends_by_fin: cli.end == End::Fin,
        ..Ask::idle(cli.shard.count(cli.connections))
    }
}

fn measure(cli: &Load, plan: &Plan, bytes: u64) -> Result<PinPlan, Failure> {
    let tuple = plan
        .tuple(0)
        .context("a plan without a tuple was not refused")
        .map_err(Failure::Internal)?;
    let indices = cli.shard.share(cli.connections);
    PinPlan::measure(bytes, &indices, &tuple, plan.target(), cli.timeout).map_err(|error| {
        match error {
            PinError::TooMuch(_) | PinError::Nothing => Failure::Usage(error.into()),
            _ => Failure::Environment(error.into()),
        }
    })
}

/// What [`prepare`] came to.
#[must_use]
pub fn plan_record(cli: &Load, shared: &Shared, metrics: Option<String>) -> PlanRecord {
    let Shared { plan, crew, .. } = shared;
    let pin = shared.workload.pin().map(|pin| Pin {
        bytes_per_connection: pin.bytes_per_connection,
        overhead_bytes: pin.overhead_bytes,
        plan: pin
            .steps
            .iter()
            .map(|step| PinStep {
                pages: step.pages,
                response_bytes: step.response_bytes,
                connections: step.connections,
            })
            .collect(),
        planned_pages: pin.planned_pages,
    });
    PlanRecord {
        target: plan.target().to_string(),
        connections: crew.connections(),
        capacity: plan.capacity(),
        sources: plan.sources(),
        destinations: plan.target().count(),
        ports_per_source: plan.ports_per_source(),
        workers: crew.workers,
        in_flight: (shared.in_flight * crew.at_a_time) as u64,
        pin,
        metrics,
        shard: (cli.shard != Shard::WHOLE).then(|| ShardRecord {
            index: cli.shard.index(),
            of: cli.shard.of(),
            connections: cli.connections,
            first_connection: cli.shard.share(cli.connections).start,
            sources: plan.sources_of_all(),
        }),
        asked: asked(cli),
    }
}

fn asked(cli: &Load) -> Asked {
    let path = |default: &str| cli.request.clone().unwrap_or_else(|| default.into());
    Asked {
        source: cli.source.iter().map(ToString::to_string).collect(),
        per_source: cli.per_source,
        request: (!cli.idle && cli.pin.is_none()).then(|| path(FIRST_PATH)),
        check: (cli.sample.is_some() || cli.heartbeat.is_some()).then(|| path(CHECK_PATH)),
        unread: cli.unread || cli.pin.is_some(),
        pin_bytes: cli.pin,
        rate_per_s: cli.rate,
        sample: cli.sample,
        heartbeat_s: cli.heartbeat.map(|every| every.as_secs_f64()),
        hold_s: cli.hold.map(|time| time.as_secs_f64()),
        timeout_s: cli.timeout.as_secs_f64(),
        give_up_s: cli.give_up().as_secs_f64(),
        end: cli.end,
        start_at: cli.start_at.map(|at| at.to_string()),
    }
}
