//! Parts of one run as processes of their own, merged; requirements; and the time at which a run begins.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use c1m_client::record::{ClientRecord, Plan, Summary};
use c1m_record::SCHEMA_VERSION;
use c1m_testkit::{Child, Outcome, child::outcome, schema};
use tempfile::TempDir;

use super::{
    ANY_PORT,
    common::{Manner, Server, client::Client},
    eventually, own_source,
};

const PARTS: u64 = 3;

fn client(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-client"));
    command.args(flags.split_whitespace()).stdin(Stdio::null());
    command
}

/// The last line of a program that ended with this code.
#[track_caller]
fn result(outcome: &Outcome, code: i32) -> Summary {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    match outcome.records(&schema::CLIENT).pop() {
        Some(ClientRecord::Summary(result)) => *result,
        other => panic!("no result at the end, but {other:?}"),
    }
}

/// A run in parts, each of which has kept its output in a file.
struct InParts {
    folder: TempDir,
    flags: String,
}

impl InParts {
    /// Runs all parts at the same time.
    fn run(flags: &str) -> Self {
        let parts = Self { folder: tempfile::tempdir().unwrap(), flags: flags.into() };
        let soon = SystemTime::now() + Duration::from_millis(1500);
        let at = soon.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let children: Vec<Child> = (0..PARTS)
            .map(|index| {
                let part = format!("{flags} --shard {index}/{PARTS} --start-at {at:.3} --json");
                Child::start(&mut client(&part)).unwrap()
            })
            .collect();
        for (index, mut child) in (0..).zip(children) {
            let output = child.end().unwrap();
            let own = result(&output, 0);
            let shard = own.plan.shard.unwrap();
            assert_eq!((shard.index, shard.of), (index, PARTS));
            let started = humantime_seconds(&own.started_at);
            assert!(started >= at - 0.001, "{started} is before {at}");
            fs::write(parts.file(index), output.stdout()).unwrap();
        }
        parts
    }

    fn file(&self, index: u64) -> PathBuf {
        self.folder.path().join(format!("part-{index}.jsonl"))
    }

    /// Merges all of its files, and these.
    fn merge(&self, flags: &str, more: &[&Path]) -> Outcome {
        let files = (0..PARTS).map(|index| self.file(index));
        outcome(client(&format!("merge {flags}")).args(files).args(more))
    }
}

/// Seconds since 1970.
fn humantime_seconds(text: &str) -> f64 {
    let output = Command::new("date").args(["-u", "+%s.%N", "-d", text]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn six_sources() -> String {
    // Ones that nobody else takes: the next five numbers are this test's too.
    let sources: Vec<String> = (0..6).map(|_| format!("--source {}", own_source())).collect();
    sources.join(" ")
}

#[test]
fn parts_merged_are_the_run_that_has_none() {
    let sources = six_sources();
    // All 4-tuples that there are: so the parts must have each of them once.
    let flags = |server: &Server| {
        format!(
            "--connect {} {sources} --per-source 100 --connections 600 --sample 100 --heartbeat 200ms --hold 500ms --quiet",
            server.address
        )
    };
    let server = Server::start(ANY_PORT, Manner::Good);
    let flags = flags(&server);
    let whole = result(&outcome(&mut client(&format!("{flags} --json"))), 0);
    let peers = || server.peers.lock().unwrap().drain().collect::<HashSet<_>>();
    let of_whole = peers();
    assert_eq!(of_whole.len(), 600);
    eventually("the end of all connections", || server.held.load(Relaxed) == 0);

    let parts = InParts::run(&flags);
    assert_eq!(peers(), of_whole, "other 4-tuples than those of the whole");
    let merged = result(&parts.merge("--json", &[]), 0);
    assert_eq!(merged.merged.unwrap().shards, PARTS);
    assert!(merged.ramp_s.unwrap() <= merged.elapsed_s, "{merged:?}");
    // What is determinate: all but times, threads, and what depends on times.
    let (sample, whole_sample) = (merged.sample.unwrap(), whole.sample.unwrap());
    assert_eq!(
        (sample.asked, sample.answered, sample.latency_us.count),
        (whole_sample.asked, whole_sample.answered, whole_sample.latency_us.count)
    );
    assert_eq!(merged.connect_us.count, whole.connect_us.count);
    assert_eq!(merged.first_byte_us.count, whole.first_byte_us.count);
    let beats = merged.heartbeats.clone().unwrap();
    assert!(beats.due >= 600 && beats.answered == beats.due, "{beats:?}");
    assert_eq!(beats.latency_us.count, beats.answered);
    assert!(merged.plan.asked.start_at.is_some());
    let plan = Plan {
        workers: whole.plan.workers,
        in_flight: whole.plan.in_flight,
        asked: whole.plan.asked.clone(),
        ..merged.plan.clone()
    };
    let determinate = Summary {
        plan,
        connected: merged.connected,
        held_at_end: merged.held_at_end,
        answered: merged.answered,
        failed: merged.failed,
        errors: merged.errors.clone(),
        ..whole.clone()
    };
    assert_eq!(determinate, whole);

    // Its histograms are those of the parts: every one of them counts.
    let again = result(&parts.merge("--json --require connect_max>=1ns", &[]), 0);
    assert_eq!(again.histograms, merged.histograms);
    merging_refuses(&parts);
}

/// What a user can get wrong with these files.
fn merging_refuses(parts: &InParts) {
    let said = |output: &Outcome, code: i32, text: &str| {
        assert!(output.code == Some(code) && output.stderr.contains(text), "{output:?}");
        assert!(output.lines.is_empty(), "{output:?}");
    };
    let merge = |files: &[&Path]| outcome(client("merge").args(files));
    said(&parts.merge("", &[&parts.file(1)]), 2, "part 1/3 is there twice");
    said(&merge(&[&parts.file(0), &parts.file(2)]), 2, "1 of 3 parts are missing: 1/3");
    said(&parts.merge("", &[Path::new("no-such-file")]), 3, "cannot read no-such-file");
    said(&parts.merge("--require conected==5", &[]), 2, "There are: counts connected");
    let other = parts.folder.path().join("other");
    let text = fs::read_to_string(parts.file(1)).unwrap();
    let merge_with = |text: &str| {
        fs::write(&other, text).unwrap();
        merge(&[&parts.file(0), &other, &parts.file(2)])
    };
    said(&merge_with(&text[..text.len() - 20]), 2, "ends in the middle of a record");
    said(&merge_with(&text[..text.trim_end().rfind('\n').unwrap() + 1]), 2, "has no result");
    said(&merge_with(&format!("Killed\n{text}")), 2, "other:1 is no record");
    said(&merge_with(&text.replace("\"per_source\":100", "\"per_source\":99")), 2, "per_source");
    let version = format!("\"v\":{SCHEMA_VERSION}");
    assert!(text.contains(&version));
    said(&merge_with(&text.replace(&version, "\"v\":999")), 2, "schema version 999");
    // Not of these files alone: as lines for people, and judged.
    let output = parts.merge("--require connected==600 --require first_byte_p50<1ns", &[]);
    let text = output.stdout();
    assert_eq!(output.code, Some(1), "{text}");
    for part in [
        "merged    shards=3",
        "connected=600",
        "connected==600: held (600)",
        "first_byte_p50<1ns: NOT HELD (",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(parts.flags.contains("--quiet"));
}

#[test]
fn parts_of_few_addresses_share_their_ports() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let flags = format!(
        "--connect {} --source {} --per-source 90 --connections 90 --idle --hold 0s",
        server.address,
        own_source()
    );
    let merged = result(&InParts::run(&flags).merge("--json --require failed==0", &[]), 0);
    assert_eq!((merged.connected, merged.plan.capacity, merged.plan.sources), (90, 90, 1));
    assert_eq!(server.peers.lock().unwrap().len(), 90);
    assert!(merged.errors.is_empty(), "a port was taken twice: {:?}", merged.errors);
}

#[test]
fn a_requirement_decides_the_exit_code() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let run = |flags: &str| {
        let common = format!("--connect {} --connections 20 --hold 0s --json", server.address);
        outcome(&mut client(&format!("{common} {flags}")))
    };
    let held = result(&run("--require connected==20 --require connect_p99<1s"), 0);
    assert_eq!(held.requirements.len(), 2);
    assert!(held.requirements.iter().all(|it| it.held && it.actual.is_some()), "{held:?}");
    let broken = result(&run("--require connected==20 --require connect_p99<1ns"), 1);
    assert_eq!(broken.requirements.iter().map(|it| it.held).collect::<Vec<_>>(), [true, false]);
    let unknown = result(&run("--require sample_p99<1s"), 1);
    let judged = &unknown.requirements[0];
    assert!(!judged.held && judged.actual.is_none(), "{judged:?}");
    assert!(judged.unknown.as_ref().unwrap().contains("--sample"), "{judged:?}");
    // Before anything starts.
    let before = server.requests.load(Relaxed);
    let output = run("--require conected==20");
    let error = output.stderr;
    assert_eq!(output.code, Some(2));
    assert!(error.contains("`conected` is no metric") && error.contains("held_at_end"), "{error}");
    assert_eq!(server.requests.load(Relaxed), before);
}

#[test]
fn less_than_all_is_enough_where_it_is_said_so() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let source = own_source();
    let ports = c1m_host::ports::Ports::read().unwrap().usable;
    let _taken = std::net::TcpListener::bind((source, ports[3])).unwrap();
    let run = |flags: &str| {
        outcome(&mut client(&format!(
            "--connect {} --source {source} --per-source 20 --connections 20 --hold 0s --json {flags}",
            server.address
        )))
    };
    assert_eq!(result(&run(""), 1).connected, 19);
    assert_eq!(result(&run("--require failed<=5%"), 1).connected, 19);
    assert_eq!(result(&run("--require connected>=95%"), 0).connected, 19);
    assert_eq!(result(&run("--require connected>95%"), 1).connected, 19);
}

#[test]
fn a_run_begins_at_its_time() {
    let server = Server::start(ANY_PORT, Manner::Good);
    let run = |flags: &str| {
        format!("--connect {} --connections 5 --hold 0s --json {flags}", server.address)
    };
    let late = outcome(&mut client(&run("--start-at 2026-01-31T12:00:00+01:00")));
    assert_eq!(result(&late, 0).connected, 5);
    let error = &late.stderr;
    assert!(error.contains("2026-01-31T11:00:00") && error.contains("beginning now"), "{error}");
    for (flags, code, said) in [
        ("--start-at 1769860800 --strict", 3, "s ago"),
        ("--start-at 99999999999", 2, "more than a week"),
        ("--start-at soon", 2, "RFC 3339"),
    ] {
        let output = outcome(&mut client(&run(flags)));
        assert!(output.code == Some(code) && output.stderr.contains(said), "{output:?}");
    }
    // One that is ended while it waits says so, as any other.
    let at = SystemTime::now() + Duration::from_secs(3600);
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut waiting =
        Client::start(&format!("--connect {} --connections 5 --start-at {at}", server.address));
    assert!(waiting.plan().asked.start_at.is_some());
    waiting.signal(&["TERM"]);
    let result = waiting.summary();
    assert_eq!((result.connected, result.failed, result.ramp_s), (0, 0, None));
    assert_eq!(waiting.end().0, Some(1));
}

#[test]
fn parts_that_cannot_be_are_refused_by_each_of_them() {
    for index in 0..2 {
        let flags = format!(
            "--connect 127.0.0.1:9 --source 127.0.0.1-127.0.0.3 --per-source 10 --connections 22 --shard {index}/2"
        );
        let Outcome { code, stderr: error, .. } = outcome(&mut client(&flags));
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("part 0/2 of 3 source addresses"), "{error}");
    }
}
