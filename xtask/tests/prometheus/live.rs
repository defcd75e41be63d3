//! A watch whose metrics a real Prometheus scrapes, while usage of tcp_mem goes past its limits: the alerts that fire, and no others.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use c1m_record::{Direction, Ended, Level, Record};
use c1m_testkit::{
    Child, PATIENCE, Program, Settings, Skip, host,
    net::{connect, pair},
    only, schema,
    scrape::{Samples, get, scrape},
    trip::reset_all,
    undisturbed,
};
use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    files::RULES,
    program::{is_clean, prometheus, start},
};

/// Of the watch, of scrapes and of rules.
const INTERVAL: &str = "200ms";
const LOOK: Duration = Duration::from_millis(800);
/// What a connection leaves unread: some ten pages.
static UNREAD: [u8; 32 << 10] = [b'x'; 32 << 10];
/// More than it takes.
const CONNECTIONS_MAX: usize = 4000;

/// Why a run says nothing.
enum Stop {
    /// The host does not let it be.
    Skip(String),
    /// Somebody else was busy.
    Disturbed(String),
}

impl From<Skip> for Stop {
    fn from(Skip(reason): Skip) -> Self {
        Self::Skip(reason)
    }
}

pub(crate) fn scaled_run() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    // Probes and tcp_mem are the host's: what another program does beside a run is in it as well.
    let outcome = undisturbed(|| match run(&prometheus) {
        Ok(()) => Ok(Ok(())),
        Err(Stop::Disturbed(what)) => Ok(Err(what)),
        Err(Stop::Skip(reason)) => Err(reason),
    });
    Ok(match outcome {
        Ok(()) => Completion::Completed,
        Err(reason) => Completion::ignored_with(reason),
    })
}

fn run(prometheus: &Path) -> Result<(), Stop> {
    let mut settings = Settings::take()?;
    let cpus = c1m_host::cpus::online().unwrap();
    let flags = ["watch", "--metrics-addr", "127.0.0.1:0", "--interval", INTERVAL];
    let mut watch = start::<Record>("c1m-server", &flags, &schema::SERVER);
    let Some(watching) = watch.find(only!(Record::Watching)) else {
        return Err(Stop::Skip(watch.end().stderr));
    };
    let url = watching.metrics.expect("the watch says where its metrics are");
    let server = Prometheus::start(prometheus, &url);
    let (low, pressure, high) = (2048 * cpus.max(2), 3072 * cpus.max(2), 4096 * cpus.max(2));
    settings.set(&[("net.ipv4.tcp_mem", format!("{low} {pressure} {high}"))])?;
    // A first scrape, and one of the new limits.
    thread::sleep(LOOK);
    server.until("c1m_crossings_total{level=\"high\",direction=\"up\"} == 0")?;
    server.until("c1m_limit_used_ratio{limit=\"tcp_mem_high\"} < 0.5")?;

    let mut held = Held::new();
    held.pin(pressure * 9 / 10);
    server.until("ALERTS{alertname=\"C1mTcpMemPressureAhead\",alertstate=\"firing\"}")?;
    held.pin(high + 1);
    server.until("ALERTS{alertname=\"C1mTcpMemHigh\",alertstate=\"firing\"}")?;
    // What is here is no longer ahead.
    server.until("absent(ALERTS{alertname=\"C1mTcpMemPressureAhead\"})")?;
    server.until("c1m_pressure_lasting_seconds > 0.1")?;
    held.end();
    server.until("c1m_under_pressure == 0")?;
    // All records are in the last page.
    thread::sleep(LOOK);
    let firing =
        server.ask("count by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[5m]))");
    is_clean(prometheus, &url);
    let last = scrape(&url);
    assert_eq!(watch.finish().code, Some(0));
    settings.put_back();
    figures_agree(&watch, &last)?;
    let names = |value: &Value| Some(value["metric"]["alertname"].as_str()?.to_owned());
    let firing: BTreeSet<String> = firing.iter().filter_map(names).collect();
    let expected = ["C1mTcpMemPressureAhead", "C1mTcpMemHigh"].map(str::to_owned);
    if firing == expected.into() {
        Ok(())
    } else {
        Err(Stop::Disturbed(format!("{firing:?} fired")))
    }
}

/// The last page before the end has the figures of the last records.
#[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
fn figures_agree(watch: &Program<Record>, last: &Samples) -> Result<(), Stop> {
    let ended = watch.last(only!(Record::Ended)).expect("a watch ends with a record");
    let Ended { refused, watched, dropped, .. } = &ended;
    for level in Level::ALL {
        for (direction, name) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            let is_it = |record: &&Record| matches!(record, Record::Crossing(it) if it.level == level && it.direction == direction);
            let counted = watch.records().filter(is_it).count();
            let name = format!(
                "c1m_crossings_total{{limit=\"tcp_mem\",level=\"{}\",direction=\"{name}\"}}",
                level.name()
            );
            assert_eq!(last[&name], counted as f64, "{name}");
        }
    }
    let refusals = |limit: &str, what: &str| {
        last[&format!("c1m_refusals_total{{limit=\"{limit}\",what=\"{what}\"}}")]
    };
    let same = [
        (refusals("tcp_mem_high", "send"), refused.high_send),
        (refusals("tcp_mem_high", "receive"), refused.high_receive),
        (refusals("tcp_mem_pressure", "receive"), refused.fair_share_receive),
        (last["c1m_events_lost_total"], *dropped),
    ];
    for (exported, counted) in same {
        assert_eq!(exported, counted as f64, "{refused:?}");
    }
    // Others open connections too, and Prometheus itself goes on asking.
    let opened = last["c1m_connections_opened_total"];
    assert!(watched.opened.is_some_and(|all| opened > 0.0 && opened <= all as f64), "{watched:?}");
    let high = refused.high_send + refused.high_receive;
    if high == 0 { Err(Stop::Disturbed("nothing was refused above high".into())) } else { Ok(()) }
}

fn pages() -> u64 {
    host::sockets().unwrap().tcp_mem_pages
}

/// Connections with something unread, whose both ends are ours.
struct Held {
    listener: TcpListener,
    streams: Vec<TcpStream>,
}

impl Held {
    fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), streams: Vec::new() }
    }

    /// Opens more, until usage is so many pages.
    fn pin(&mut self, wanted: u64) {
        while pages() < wanted {
            assert!(self.streams.len() < CONNECTIONS_MAX, "{} of {wanted} pages", pages());
            let (client, mut server) = pair(&self.listener).unwrap();
            // Above high the kernel may take less than all of it.
            server.set_nonblocking(true).unwrap();
            let _ = server.write(&UNREAD);
            self.streams.extend([client, server]);
        }
    }

    /// By reset: neither an orphan nor a TIME_WAIT is left.
    fn end(self) {
        reset_all(self.streams).unwrap();
    }
}

/// A running Prometheus, with the rules of the tree. Killed when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    fn start(program: &Path, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        // What has to last a minute in earnest has to last a second here.
        assert!(RULES.contains("for: 1m"));
        fs::write(folder.path().join("rules.yml"), RULES.replace("for: 1m", "for: 1s")).unwrap();
        let config = format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL}, evaluation_interval: {INTERVAL}}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: c1m\n    static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        // Free at this instant, and few ask for one.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { child: child.into(), address, folder };
        let end = Instant::now() + PATIENCE;
        while connect(address).is_err()
            || !get(&format!("http://{address}/-/ready")).contains(" 200 OK\r\n")
        {
            let has_ended = server.child.ended().unwrap().is_some();
            assert!(
                !has_ended && Instant::now() < end,
                "Prometheus does not start: {}",
                server.said()
            );
            thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// The series that a query has now.
    fn ask(&self, query: &str) -> Vec<Value> {
        let coded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(&format!("http://{}/api/v1/query?query={coded}", self.address));
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Until a query has a series.
    fn until(&self, query: &str) -> Result<(), Stop> {
        const ALERT_PATIENCE: Duration = Duration::from_secs(15);
        let end = Instant::now() + ALERT_PATIENCE;
        while self.ask(query).is_empty() {
            if Instant::now() > end {
                let alerts = self.ask("ALERTS");
                return Err(Stop::Disturbed(format!(
                    "not in time: {query}; {alerts:?}; {}",
                    self.said()
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
