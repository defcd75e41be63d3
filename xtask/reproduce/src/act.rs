//! One act: settle, set, start, ramp, measure while it is held, end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use c1m_host::{guard::Change, netstat, slabinfo};
use c1m_record::{Level, Online, Summary};

use super::{
    End, expect,
    host::Host,
    measure::Snapshot,
    outcome::{Act, ActCrossing, ActName, SlabShare, per_connection, rounded},
    patience::Patience,
    preflight::{self, Facts},
    progress::grouped,
    protocol::{Pin, Reply, Request, address},
    scale,
    seen::Seen,
    stage::Stage,
};

const SETTLE_STEP: Duration = Duration::from_millis(500);
/// Slab memory that other programs move in such a step.
const SETTLE_BYTES: u64 = 4 << 20;
/// How long a number of the server's stands that is lower than the client's, from its last line on, until it is what the server holds.
const COUNT_LIMIT: Duration = Duration::from_secs(10);
const COUNT_STEP: Duration = Duration::from_millis(100);
/// Connections that are asked for a response at the end of the ramp.
const SAMPLE: u64 = 1_000;

/// What all acts have in common.
pub(super) struct Play<'a> {
    /// The program, which runs as the user.
    pub(crate) client: &'a Path,
    pub(crate) facts: &'a Facts,
    pub(crate) host: &'a Host,
    pub(crate) connections: u64,
    /// Before the first act. Memory is compared with this one: a later act begins with slabs that an earlier one left empty, and fills
    /// them again.
    pub(crate) quiet: Snapshot,
}

impl ActName {
    pub(super) const ALL: [Self; 3] = [Self::Default, Self::Cure, Self::Idle];

    /// For people: which act, and what it shows.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Default => "act 1",
            Self::Cure => "act 2",
            Self::Idle => "act 3",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Default => "the default tcp_mem, 7.53 KiB pinned a connection",
            Self::Cure => "the cure, 7.53 KiB pinned a connection",
            Self::Idle => "idle connections",
        }
    }

    fn is_pinned(self) -> bool {
        self != Self::Idle
    }

    /// Pages, for so many connections.
    pub(super) fn tcp_mem(self, connections: u64, page_bytes: u64) -> [u64; 3] {
        let article = match self {
            Self::Default => scale::ARTICLE_DEFAULT,
            Self::Cure | Self::Idle => scale::ARTICLE_CURE,
        };
        scale::tcp_mem(article, connections, page_bytes)
    }
}

/// Plays one act from a quiet host to a quiet host.
pub(super) fn play(stage: &mut Stage, play: &Play<'_>, name: ActName) -> Result<Act, End> {
    let tcp_mem = name.tcp_mem(play.connections, play.facts.page_bytes);
    let [low, pressure, high] = tcp_mem.map(grouped);
    stage.seen =
        Seen { title: name.title().into(), connections: play.connections, ..Seen::default() };
    stage.progress.say(&format!(
        "{} of 3: {} (tcp_mem {low} {pressure} {high} pages)",
        name.title(),
        name.subject()
    ));
    settle(stage, play)?;
    let before = Snapshot::take(stage, play.host)?;
    let value = tcp_mem.map(|pages| pages.to_string()).join(" ");
    let changes = vec![Change { name: preflight::name("net.ipv4.tcp_mem")?, value }];
    stage.request(&Request::Set { changes })?;
    start(stage, play, name)?;
    let (held, online) = hold(stage, play.host)?;
    let summary = finish(stage)?;
    Measured { play, name, before, held, online, summary, seen: &stage.seen }.act()
}

/// Waits until the last act's sockets and their memory are gone; when they go no further, the next act starts all the same.
fn settle(stage: &mut Stage, play: &Play<'_>) -> Result<(), End> {
    let few = play.connections / 100;
    let mut patience = Patience::new(stage.stall(), Instant::now());
    let mut slab_before = play.host.memory()?.slab_bytes;
    loop {
        stage.pause(SETTLE_STEP)?;
        let now = play.host.sockstat()?;
        let slab_now = play.host.memory()?.slab_bytes;
        let slab_falls = slab_now + SETTLE_BYTES < slab_before;
        let is_quiet = now.alloc <= play.quiet.sockstat.alloc + few
            && now.tw <= play.quiet.sockstat.tw + few
            && now.orphan <= play.quiet.sockstat.orphan + few
            && now.tcp_mem_pages <= play.quiet.sockstat.tcp_mem_pages.max(play.facts.reserve_pages)
            && !slab_falls;
        if is_quiet {
            return Ok(());
        }
        let left = now.alloc + now.tw + now.orphan + now.tcp_mem_pages;
        patience.left(Some(left), Instant::now());
        if slab_falls {
            patience.step(Instant::now());
        }
        if patience.is_over(Instant::now()) {
            stage.progress.say(&format!(
                "{}: the host is not quiet yet ({} TCP sockets, {} pages of tcp_mem): going on all the same",
                stage.seen.title,
                grouped(now.alloc),
                grouped(now.tcp_mem_pages)
            ));
            return Ok(());
        }
        slab_before = slab_now;
    }
}

fn start(stage: &mut Stage, play: &Play<'_>, name: ActName) -> Result<(), End> {
    let port = preflight::free_port()?;
    let (address, connections) = (address(port).to_string(), play.connections.to_string());
    let request = Request::Start { port, connections: play.connections };
    let Reply::Started { .. } = stage.request(&request)? else {
        return Err(End::Failed("the privileged half did not start the server".into()));
    };
    stage.until("the server started", |seen| seen.listening.is_some())?;
    let sample = play.connections.min(SAMPLE).to_string();
    let mut client = vec!["--json", "--connect", &address, "--connections", &connections];
    if name.is_pinned() {
        client.extend(["--pin", scale::PIN, "--unread"]);
    } else {
        client.push("--idle");
    }
    // It ends when it is told to.
    client.extend(["--sample", &sample]);
    let client: Vec<String> = client.into_iter().map(String::from).collect();
    stage.start_client(play.client.as_os_str(), &client)
}

/// Waits for the end of the ramp and of the sample, and measures.
fn hold(stage: &mut Stage, host: &Host) -> Result<(Snapshot, Online), End> {
    stage.until("connections were opened", |seen| seen.ramped.is_some())?;
    stage.until("a sample of the connections was asked", |seen| seen.sample.is_some())?;
    count(stage)?;
    let online = stage.seen.online.clone();
    let online =
        online.ok_or_else(|| End::Failed("the server does not say how many it holds".into()))?;
    Ok((Snapshot::take(stage, host)?, online))
}

/// Waits until the server has counted what the client holds. It prints a line where its number changes alone, so a number that stands is one that it
/// stays with: then what it holds is what the act says.
fn count(stage: &mut Stage) -> Result<(), End> {
    let online = |stage: &Stage| stage.seen.online.as_ref().map(|online| online.online);
    let established = stage.seen.ramped.map(|(established, _)| established);
    let mut before = online(stage);
    let mut patience = Patience::new(COUNT_LIMIT.min(stage.stall()), Instant::now());
    while before < established && !patience.is_over(Instant::now()) {
        stage.pause(COUNT_STEP)?;
        let now = online(stage);
        if now != before {
            patience.step(Instant::now());
        }
        before = now;
    }
    Ok(())
}

/// Ends the client, then the server, each with its summary.
fn finish(stage: &mut Stage) -> Result<Summary, End> {
    stage.terminate_client()?;
    stage.until("the client closed its connections", |seen| seen.client_ended.is_some())?;
    if !stage.seen.client_summary {
        return Err(End::Failed("the client ended without a summary".into()));
    }
    // While everything is still held the summary would call it closed by the server.
    stage.until("the server saw them closed", |seen| {
        seen.online.as_ref().is_none_or(|online| online.online == 0)
    })?;
    stage.terminate_server()?;
    stage.until("the server ended", |seen| seen.server_ended.is_some())?;
    stage
        .seen
        .server_summary
        .clone()
        .ok_or_else(|| End::Failed("the server ended without a summary".into()))
}

/// Everything that an act's record is made of.
struct Measured<'a> {
    play: &'a Play<'a>,
    name: ActName,
    before: Snapshot,
    held: Snapshot,
    online: Online,
    summary: Summary,
    seen: &'a Seen,
}

impl Measured<'_> {
    fn act(&self) -> Result<Act, End> {
        let Self { play, name, before, held, online, summary, seen } = self;
        let connections = play.connections;
        let tcp_mem = name.tcp_mem(connections, play.facts.page_bytes);
        let pin = self.pin()?;
        let baseline_pages =
            expect::baseline(before.sockstat.tcp_mem_pages, play.facts.reserve_pages);
        let crossings =
            self.crossings(tcp_mem, baseline_pages, pin.map_or(0, |pin| pin.planned_pages));
        let held_pages = held.sockstat.tcp_mem_pages;
        let high = crossings.iter().find(|crossing| crossing.level == Level::High);
        let (at, expected, pages, tolerance) = match (name, high) {
            (ActName::Default, Some(high)) => {
                let tolerance = expect::tolerance(
                    high.expected.unwrap_or(0),
                    play.facts.reserve_pages,
                    pin.map_or(0, |pin| pin.planned_pages),
                    connections,
                );
                (high.connections, high.expected, high.pages, tolerance)
            }
            _ => (Some(online.online), Some(connections), Some(held_pages), 0),
        };
        let slab = self.slab();
        let (sampled, answered) = seen.sample.unwrap_or((0, 0));
        Ok(Act {
            name: *name,
            tcp_mem,
            page_bytes: Some(play.facts.page_bytes),
            connections: at,
            expected,
            error_percent: error_percent(at, expected),
            tolerance,
            pages,
            limit_pages: tcp_mem[2],
            held: online.online,
            answered,
            sampled,
            ramp_s: rounded(seen.ramped.map_or(0.0, |(_, seconds)| seconds)),
            crossings,
            baseline_pages,
            planned_pages: pin.map(|pin| pin.planned_pages),
            overhead_bytes: pin.map(|pin| pin.overhead_bytes),
            held_pages,
            refused: summary.refused.as_deref().cloned().or_else(|| seen.refused.clone()),
            kernel: netstat::growth(&before.tcp_ext, &held.tcp_ext),
            kernel_bytes_per_connection: slab.as_ref().map(|caches| {
                rounded(caches.iter().fold(0.0, |sum, cache| sum + cache.bytes_per_connection))
            }),
            slab,
            memory_bytes_per_connection: self.memory_bytes_per_connection(),
            server_user_bytes_per_connection: online
                .pss_bytes
                .map(|bytes| per_connection(bytes, online.online)),
            server_cpu_user_s: rounded(summary.cpu_user_s),
            server_cpu_system_s: rounded(summary.cpu_system_s),
            sockstat: held.sockstat,
            file_nr: held.file_nr,
            dropped: summary.dropped,
            dropped_by: summary.dropped_by.clone(),
            suppressed: summary.suppressed,
        })
    }

    /// The client's plan, checked: every expectation comes from it.
    fn pin(&self) -> Result<Option<&Pin>, End> {
        let wrong = |why: String| End::Failed(why);
        match (&self.seen.pin, self.name.is_pinned()) {
            (Some(pin), true) => {
                let (connections, _) = pin.totals().map_err(wrong)?;
                if connections == self.play.connections {
                    Ok(Some(pin))
                } else {
                    Err(wrong(format!("the client's plan is for {connections} connections")))
                }
            }
            (None, false) => Ok(None),
            (None, true) => Err(wrong("the client told no plan of what it pins".into())),
            (Some(_), false) => Err(wrong("the client pins although it was not told to".into())),
        }
    }

    fn crossings(&self, tcp_mem: [u64; 3], baseline: u64, planned: u64) -> Vec<ActCrossing> {
        if !self.name.is_pinned() {
            return Vec::new();
        }
        [Level::Low, Level::Pressure, Level::High]
            .into_iter()
            .zip(tcp_mem)
            .map(|(level, limit_pages)| {
                let seen = self.seen.first_up(level);
                let connections = seen.map(|seen| seen.connections);
                let expected =
                    expect::crossing(limit_pages, baseline, planned, self.play.connections);
                ActCrossing {
                    level,
                    connections,
                    expected,
                    error_percent: error_percent(connections, expected),
                    pages: seen.map(|seen| seen.pages),
                    limit_pages,
                    hook: seen.map(|seen| seen.hook.clone()),
                    resolution: seen.map(|seen| seen.resolution),
                }
            })
            .collect()
    }

    fn slab(&self) -> Option<Vec<SlabShare>> {
        let connections = self.play.connections;
        let grown = slabinfo::growth(
            self.play.quiet.slab.as_ref()?,
            self.held.slab.as_ref()?,
            connections / 2,
        );
        let share = |growth: slabinfo::Growth| SlabShare {
            cache: growth.cache,
            objects_per_connection: per_connection(growth.objects, connections),
            bytes_per_connection: per_connection(growth.bytes, connections),
        };
        Some(grown.into_iter().map(share).collect())
    }

    fn memory_bytes_per_connection(&self) -> f64 {
        let before = expect::as_f64(self.play.quiet.memory.used_bytes);
        let held = expect::as_f64(self.held.memory.used_bytes);
        rounded((held - before) / expect::as_f64(self.play.connections))
    }
}

fn error_percent(actual: Option<u64>, expected: Option<u64>) -> Option<f64> {
    Some(rounded(expect::error_percent(actual?, expected?)))
}
