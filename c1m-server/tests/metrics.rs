//! Metrics are the figures of records: those of runs that were recorded, compared with their lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use c1m_program::{
    exporter::Scrapes,
    metrics::{Base, Histogram, Kind, Metric, OWN, Own, Page, Value as SampleValue, one},
};
use c1m_record::{
    HostUsage, Level, Limits, Line, NetnsUsage, Record, Refused, UnderPressure, Usage, Watched,
};
use c1m_server::output::metrics::{CALL_ERRORS, Seen, tables};
use c1m_testkit::scrape::page::{self, Samples};
use serde_json::Value;

const WATCH: &str = include_str!("fixtures/report/watch.jsonl");
const REPRODUCE: &str = include_str!("fixtures/report/reproduce.jsonl");
const PAGE_BYTES: u64 = 4096;

fn samples(seen: &Seen) -> Samples {
    let made = tables().into_iter().fold(Page::default(), |page, table| page.with(table, seen));
    page::parse(&made.text())
}

/// The samples of a run at its end, and its last record of each kind.
fn run(lines: &str) -> (Samples, BTreeMap<String, Value>) {
    let (mut seen, mut last) = (Seen::new(Some(PAGE_BYTES)), BTreeMap::new());
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        // Some lines are of other programs.
        if let Ok(record) = serde_json::from_str::<Line<Record>>(line) {
            seen.take(humantime::parse_rfc3339(&record.ts).unwrap(), &record.record);
        }
        last.insert(value["kind"].as_str().unwrap().to_owned(), value);
    }
    (samples(&seen), last)
}

/// What a sample is of: a kind of record, a pointer into its last one, and how many of the metric's units one of the record's is.
type Source<'a> = (&'a str, &'a str, f64);

#[track_caller]
fn check(samples: &Samples, last: &BTreeMap<String, Value>, expected: &[(&str, Source<'_>)]) {
    for (sample, (kind, pointer, factor)) in expected {
        let told = last[*kind].pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {kind}"));
        let exported = samples.get(*sample).copied();
        let wanted = told.as_f64().map(|told| told * factor);
        assert_eq!(exported, wanted, "{sample} is {kind} {pointer}, {told}");
    }
}

#[test]
fn a_histogram_adds_its_buckets_up() {
    let table = [Metric {
        name: "c1m_test",
        kind: Kind::Histogram,
        unit: Base::Seconds,
        labels: &[],
        help: "How long",
        source: "",
        read: |buckets: &Vec<(f64, u64)>| {
            one(Some(Histogram { buckets: buckets.clone(), count: 6, sum: 7.5 }))
        },
    }];
    let text = Page::default().with(&table, &vec![(0.00001, 2), (0.5, 0), (10.0, 3)]).text();
    let expected = "# HELP c1m_test_seconds How long.\n# TYPE c1m_test_seconds histogram\n\
                    c1m_test_seconds_bucket{le=\"1e-05\"} 2\nc1m_test_seconds_bucket{le=\"0.5\"} 2\n\
                    c1m_test_seconds_bucket{le=\"10\"} 5\nc1m_test_seconds_bucket{le=\"+Inf\"} 6\n\
                    c1m_test_seconds_sum 7.5\nc1m_test_seconds_count 6\n";
    assert_eq!(text, expected);
    page::parse(&text);
}

#[test]
fn figures_of_a_watch_are_those_of_its_records() {
    let (samples, last) = run(WATCH);
    let page = PAGE_BYTES as f64;
    check(
        &samples,
        &last,
        &[
            ("c1m_tcp_mem_bytes{scope=\"host\"}", ("usage", "/host/tcp_mem_pages", page)),
            (
                "c1m_tcp_mem_limit_bytes{scope=\"host\",level=\"low\"}",
                ("usage", "/host/tcp_mem/0", page),
            ),
            (
                "c1m_tcp_mem_limit_bytes{scope=\"host\",level=\"pressure\"}",
                ("usage", "/host/tcp_mem/1", page),
            ),
            (
                "c1m_tcp_mem_limit_bytes{scope=\"host\",level=\"high\"}",
                ("usage", "/host/tcp_mem/2", page),
            ),
            ("c1m_sockets", ("usage", "/host/sockets", 1.0)),
            ("c1m_netns_sockets_in_use{netns=\"4026531833\"}", ("usage", "/netns/inuse", 1.0)),
            ("c1m_connections", ("usage", "/watched/connections", 1.0)),
            ("c1m_connections_opened_total", ("usage", "/watched/opened", 1.0)),
            ("c1m_connections_closed_total", ("usage", "/watched/closed", 1.0)),
            ("c1m_pressure_seconds_total", ("usage", "/host/pressure/total_ms", 1.0 / 1000.0)),
            ("c1m_pressure_lasting_seconds", ("usage", "/host/pressure/lasting_ms", 1.0 / 1000.0)),
            ("c1m_events_lost_total", ("usage", "/dropped", 1.0)),
            (
                "c1m_refusals_total{limit=\"tcp_mem_high\",what=\"send\"}",
                ("refused", "/high_send", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"tcp_mem_high\",what=\"receive\"}",
                ("refused", "/high_receive", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"tcp_mem_pressure\",what=\"send\"}",
                ("refused", "/fair_share_send", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"tcp_mem_pressure\",what=\"receive\"}",
                ("refused", "/fair_share_receive", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"memory_cgroup\",what=\"send\"}",
                ("refused", "/memcg_send", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"memory_cgroup\",what=\"receive\"}",
                ("refused", "/memcg_receive", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"orphans\",what=\"orphan\"}",
                ("refused", "/orphans_aborted_too_many", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"orphan_memory\",what=\"orphan\"}",
                ("refused", "/orphans_aborted_out_of_memory", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"accept_queue\",what=\"syn\"}",
                ("refused", "/accept_queue_syn", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"accept_queue\",what=\"ack\"}",
                ("refused", "/accept_queue_ack", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"syn_queue\",what=\"syn\"}",
                ("refused", "/syn_queue_full", 1.0),
            ),
            (
                "c1m_refusals_total{limit=\"ports\",what=\"port\"}",
                ("refused", "/ports_exhausted", 1.0),
            ),
            ("c1m_dropped_segments_total{cause=\"tcp_mem\"}", ("refused", "/dropped_tcp_mem", 1.0)),
            (
                "c1m_dropped_segments_total{cause=\"receive_buffer\"}",
                ("refused", "/dropped_receive_buffer", 1.0),
            ),
            ("c1m_dropped_skbs_total", ("refused", "/dropped_skb", 1.0)),
            (
                "c1m_charged_above_high_total{how=\"allowed\"}",
                ("refused", "/allowed_above_high", 1.0),
            ),
            (
                "c1m_charged_above_high_total{how=\"forced\"}",
                ("refused", "/forced_above_high", 1.0),
            ),
            (
                "c1m_pressure_entries_total{cause=\"tcp_mem\"}",
                ("refused", "/pressure_entries", 1.0),
            ),
            (
                "c1m_pressure_entries_total{cause=\"allocator\"}",
                ("refused", "/pressure_entries_allocator", 1.0),
            ),
            ("c1m_pressure_exits_total", ("refused", "/pressure_exits", 1.0)),
            ("c1m_out_of_order_queues_pruned_total", ("refused", "/ofo_pruned", 1.0)),
            ("c1m_skbs_collapsed_total", ("refused", "/collapsed", 1.0)),
            ("c1m_orphans_given_up_in_timers_total", ("refused", "/orphans_in_timers", 1.0)),
            ("c1m_orphans_max", ("refused", "/orphans_max", 1.0)),
            (
                "c1m_tcp_ext_total{counter=\"TCPRcvQDrop\",netns=\"4026531833\"}",
                ("refused", "/kernel/TCPRcvQDrop", 1.0),
            ),
            (
                "c1m_holder_bytes{holder=\"process\",comm=\"c1m-client\",cgroup=\"/load.slice\"}",
                ("holders", "/rows/0/pages", page),
            ),
            (
                "c1m_holder_sockets{holder=\"accept_queue\",comm=\"\",cgroup=\"\"}",
                ("holders", "/rows/1/sockets", 1.0),
            ),
            (
                "c1m_holder_receive_queue_bytes{holder=\"process\",comm=\"c1m-client\",cgroup=\"/load.slice\"}",
                ("holders", "/rows/0/receive_bytes", 1.0),
            ),
            ("c1m_holders_found_bytes", ("holders", "/found_pages", page)),
            ("c1m_holders_accounted_bytes", ("holders", "/accounted_pages", page)),
            ("c1m_holders_omitted_bytes", ("holders", "/pages_omitted", page)),
            (
                "c1m_tcp_ext_memory_pressures_chrono_seconds_total{netns=\"4026531833\"}",
                ("refused", "/kernel/TCPMemoryPressuresChrono", 1.0 / 1000.0),
            ),
        ],
    );
    check_crossings(&samples, WATCH);
    check_limits(&samples, &last["limits"]);
    assert_eq!(samples["c1m_under_pressure{scope=\"host\"}"], 0.0);
    for cause in last["verdict"]["causes"].as_array().unwrap() {
        let text = |name: &str| cause[name].as_str().unwrap();
        let labels = format!(
            "limit=\"{}\",scope=\"{}\",confidence=\"{}\"",
            text("limit"),
            text("scope"),
            text("confidence")
        );
        assert_eq!(samples.get(&format!("c1m_verdict_info{{{labels}}}")), Some(&1.0), "{labels}");
    }
}

#[test]
fn figures_of_a_server_are_those_of_its_records() {
    let (samples, last) = run(REPRODUCE);
    check(
        &samples,
        &last,
        &[
            ("c1m_server_connections", ("summary", "/held", 1.0)),
            ("c1m_server_connections_peak", ("summary", "/peak", 1.0)),
            ("c1m_server_connections_accepted_total", ("summary", "/accepted", 1.0)),
            ("c1m_server_connections_closed_total", ("summary", "/closed", 1.0)),
            (
                "c1m_server_errors_total{operation=\"connection\",error=\"ECONNRESET\"}",
                ("summary", "/errors/connection ECONNRESET", 1.0),
            ),
        ],
    );
    check_limits(&samples, &last["limits"]);
    // Nobody has looked for them.
    assert!(!samples.keys().any(|name| name.starts_with("c1m_holder")), "{samples:#?}");
}

/// Each level and direction has as many as there are records.
fn check_crossings(samples: &Samples, lines: &str) {
    for level in Level::ALL.map(Level::name) {
        for direction in ["up", "down"] {
            let is_it = |line: &&str| {
                let line: Value = serde_json::from_str(line).unwrap();
                line["kind"] == "crossing"
                    && line["level"] == level
                    && line["direction"] == direction
            };
            let name = format!(
                "c1m_crossings_total{{limit=\"tcp_mem\",level=\"{level}\",direction=\"{direction}\"}}"
            );
            assert_eq!(samples[&name], lines.lines().filter(is_it).count() as f64, "{name}");
        }
    }
}

/// Every limit's ratio and forecast, and usage beside ceiling of those that have metrics of their own.
fn check_limits(samples: &Samples, limits: &Value) {
    const OWN: [(&str, &str, &str); 10] = [
        ("memory_cgroup", "memory_cgroup", "_bytes"),
        ("orphans", "orphans", ""),
        ("nofile", "descriptors", ""),
        ("nr_open", "rlimit_nofile", ""),
        ("file_max", "files", ""),
        ("accept_queue", "accept_queue_connections", ""),
        ("conntrack", "conntrack_entries", ""),
        ("epoll_watches", "epoll_watches", ""),
        ("time_wait", "time_wait_sockets", ""),
        ("memory", "memory", "_bytes"),
    ];
    for reading in limits["limits"].as_array().unwrap() {
        let (limit, scope) =
            (reading["limit"].as_str().unwrap(), reading["scope"].as_str().unwrap());
        let number = |name: &str| reading[name].as_f64();
        let exported = |name: &str| samples.get(name).copied();
        let labels = format!("{{limit=\"{limit}\",scope=\"{scope}\"}}");
        let ratio = number("used").zip(number("ceiling")).map(|(used, ceiling)| used / ceiling);
        assert_eq!(exported(&format!("c1m_limit_used_ratio{labels}")), ratio, "{limit}");
        let at = exported(&format!("c1m_limit_reached_at_connections{labels}"));
        assert_eq!(at, number("at_connection"), "{limit}");
        let within = exported(&format!("c1m_limit_reached_in_seconds{labels}"));
        assert_eq!(within, number("in_s"), "{limit}");
        if let Some((_, name, unit)) = OWN.iter().find(|(own, ..)| *own == limit) {
            // What one process has, of what all processes of the host or the user share.
            let of_usage =
                if ["nr_open", "epoll_watches"].contains(&limit) { "process" } else { scope };
            let used = exported(&format!("c1m_{name}{unit}{{scope=\"{of_usage}\"}}"));
            assert_eq!(used, number("used"), "{limit}");
            let ceiling = exported(&format!("c1m_{name}_limit{unit}{{scope=\"{scope}\"}}"));
            assert_eq!(ceiling, number("ceiling"), "{limit}");
        }
    }
}

fn unknown_usage() -> Usage {
    Usage {
        watched: Watched::default(),
        host: HostUsage::default(),
        netns: NetnsUsage::default(),
        next: None,
        own_cpu_percent: None,
        dropped: 7,
    }
}

#[test]
fn a_unit_and_a_scope_are_one_per_metric() {
    let (samples, _) = run(WATCH);
    assert!(!samples.keys().any(|name| name.contains("Chrono")), "milliseconds among counts");
    // What may have several scopes has the limit beside it, which decides the scope.
    for metric in tables().into_iter().flatten().filter(|it| !it.labels.contains(&"limit")) {
        let name = metric.exported();
        let scopes: BTreeSet<&str> = samples
            .keys()
            .filter(|sample| sample.split('{').next() == Some(&name))
            .filter_map(|sample| sample.split("scope=\"").nth(1)?.split('"').next())
            .collect();
        assert!(scopes.len() <= 1, "{name}: {scopes:?}");
    }
}

/// Records of the kinds that counters are read off, each figure of them known and 0.
fn zeroed() -> Seen {
    let mut seen = Seen::new(Some(PAGE_BYTES));
    for line in WATCH.lines().chain(REPRODUCE.lines()) {
        let mut value: Value = serde_json::from_str(line).unwrap();
        let kind = value["kind"].as_str().unwrap().to_owned();
        if !["hooks", "usage", "refused", "summary"].contains(&kind.as_str()) {
            continue;
        }
        if kind != "hooks" {
            zero(&mut value);
        }
        if kind == "refused" {
            // What this kernel does not count is null there.
            let fields = value.as_object_mut().unwrap().iter_mut();
            fields.filter(|(_, it)| it.is_null()).for_each(|(_, it)| *it = 0.into());
            value["call_errors"] = Value::Object(serde_json::Map::default());
        }
        if kind == "summary" {
            // The run is older than this field.
            value["requests"] = 0.into();
        }
        if let Ok(record) = serde_json::from_value::<Line<Record>>(value) {
            seen.take(SystemTime::UNIX_EPOCH, &record.record);
        }
    }
    seen
}

fn zero(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "errors" => *value = Value::Object(serde_json::Map::default()),
                    "v" | "inode" => {}
                    _ => zero(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(zero),
        Value::Number(_) => *value = 0.into(),
        _ => {}
    }
}

fn each<const N: usize>(labels: [&[&str]; N]) -> BTreeSet<Vec<String>> {
    labels.iter().map(|set| set.iter().map(|it| (*it).to_owned()).collect()).collect()
}

/// The label sets that a counter has from the start: every one of those that are no open set, such as network namespaces.
fn born(name: &str) -> BTreeSet<Vec<String>> {
    let both = |sets: &[(&str, &[&str])]| -> BTreeSet<Vec<String>> {
        let of = |(one, others): &(&str, &[&str])| -> Vec<Vec<String>> {
            others.iter().map(|other| vec![(*one).to_owned(), (*other).to_owned()]).collect()
        };
        sets.iter().flat_map(of).collect()
    };
    match name {
        "c1m_crossings" => Level::ALL
            .iter()
            .flat_map(|level| {
                ["up", "down"].map(|it| vec!["tcp_mem".into(), level.name().into(), it.into()])
            })
            .collect(),
        "c1m_refusals" => both(&[
            ("tcp_mem_high", &["send", "receive"]),
            ("tcp_mem_pressure", &["send", "receive"]),
            ("memory_cgroup", &["send", "receive"]),
            ("orphans", &["orphan"]),
            ("orphan_memory", &["orphan"]),
            ("accept_queue", &["syn", "ack"]),
            ("syn_queue", &["syn"]),
            ("ports", &["port"]),
        ]),
        "c1m_dropped_segments" => each([&["tcp_mem"], &["receive_buffer"]]),
        "c1m_charged_above_high" => each([&["allowed"], &["forced"]]),
        "c1m_pressure_entries" => each([&["tcp_mem"], &["allocator"]]),
        "c1m_call_errors" => both(&CALL_ERRORS),
        "c1m_server_errors" => both(&[
            ("accept", &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]),
            ("connection", &["ECONNRESET", "EPIPE", "ETIMEDOUT"]),
            ("epoll", &["ENOMEM", "ENOSPC"]),
            ("request", &["400", "404", "405", "408", "411", "431", "501", "505"]),
        ]),
        "c1m_process_cpu" => each([&["user"], &["system"]]),
        _ => each([&[]]),
    }
}

#[track_caller]
fn check_born<S>(metric: &Metric<S>, seen: &S) {
    let samples = (metric.read)(seen);
    let zero = |value: &SampleValue| match value {
        SampleValue::Whole(value) => *value == 0,
        SampleValue::Real(value) => *value == 0.0,
        SampleValue::Histogram(_) => false,
    };
    for sample in &samples {
        assert!(zero(&sample.value), "{}: {sample:?}", metric.name);
    }
    let found: BTreeSet<Vec<String>> = samples.into_iter().map(|it| it.labels).collect();
    match metric.name {
        // Of one network namespace, and the counters that this kernel has.
        "c1m_tcp_ext" | "c1m_tcp_ext_memory_pressures_chrono" => {
            assert!(!found.is_empty(), "{}", metric.name);
        }
        "c1m_scrape_errors" => {
            let operations: BTreeSet<&str> = found.iter().map(|it| it[0].as_str()).collect();
            assert_eq!(operations, ["accept", "connection", "request"].into());
        }
        name => assert_eq!(found, born(name), "{name}"),
    }
}

/// A counter that begins with its first event has no increase for it.
#[test]
fn every_counter_is_there_before_it_counts() {
    let seen = zeroed();
    let counters = || tables().into_iter().flatten().filter(|it| it.kind == Kind::Counter);
    assert!(counters().count() > 20);
    counters().for_each(|metric| check_born(metric, &seen));
    let scrape_errors = Scrapes::default().errors;
    let own = Own { cpu_s: Some((0.0, 0.0)), scrape_errors, ..Own::default() };
    let counters = OWN.iter().filter(|it| it.kind == Kind::Counter);
    counters.for_each(|metric| check_born(metric, &own));
}

#[test]
fn a_counter_is_0_before_it_counts() {
    let (samples, _) = run(REPRODUCE);
    assert_eq!(samples["c1m_server_errors_total{operation=\"accept\",error=\"EMFILE\"}"], 0.0);
    assert_eq!(samples["c1m_server_errors_total{operation=\"request\",error=\"431\"}"], 0.0);
    let (samples, _) = run(WATCH);
    assert_eq!(samples["c1m_call_errors_total{call=\"accept\",errno=\"EMFILE\"}"], 0.0);
    assert_eq!(samples["c1m_call_errors_total{call=\"epoll_ctl\",errno=\"ENOSPC\"}"], 0.0);
    // Without the hook nobody counts them.
    let mut seen = Seen::new(None);
    seen.take(SystemTime::UNIX_EPOCH, &Record::Refused(Refused::default()));
    let counted = |name: &String| name.starts_with("c1m_call_errors");
    assert_eq!(self::samples(&seen).keys().filter(|name| counted(name)).count(), 0);
}

#[test]
fn what_is_not_known_is_absent() {
    assert_eq!(samples(&Seen::new(Some(PAGE_BYTES))), Samples::new());
    let mut seen = Seen::new(None);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
    for line in WATCH.lines() {
        let line: Line<Record> = serde_json::from_str(line).unwrap();
        if let Record::Limits(mut limits) = line.record {
            for reading in &mut limits.limits {
                (reading.used, reading.at_connection, reading.in_s) = (None, None, None);
            }
            seen.take(time, &Record::Limits(limits));
        }
    }
    seen.take(time, &Record::Usage(unknown_usage()));
    seen.take(time, &Record::Refused(Refused::default()));
    // What has no `null` in the records is known: what is lost, and refusals of a hook that is always there. A ceiling may be known alone.
    let known: BTreeSet<String> = samples(&seen)
        .into_keys()
        .map(|name| name.split('{').next().unwrap().to_owned())
        .filter(|name| !name.contains("_limit"))
        .collect();
    let expected = ["c1m_events_lost_total", "c1m_look_timestamp_seconds", "c1m_refusals_total"];
    assert_eq!(known, expected.map(str::to_owned).into());
    assert_eq!(samples(&seen).keys().filter(|name| name.starts_with("c1m_refusals")).count(), 6);
    assert_eq!(samples(&seen)["c1m_look_timestamp_seconds"], 9.0);
    // Without the size of a page no number of pages is a number of bytes.
    assert!(!samples(&seen).keys().any(|name| name.starts_with("c1m_tcp_mem_limit")));
}

#[test]
fn a_limit_of_nothing_has_no_ratio() {
    let mut seen = Seen::new(None);
    let (mut limits, time) = (Limits { limits: Vec::new(), next: None }, SystemTime::UNIX_EPOCH);
    let line = WATCH.lines().find(|line| line.contains("\"kind\":\"limits\"")).unwrap();
    if let Record::Limits(told) = serde_json::from_str::<Line<Record>>(line).unwrap().record {
        limits.limits.extend(told.limits.into_iter().take(1));
    }
    (limits.limits[0].used, limits.limits[0].ceiling) = (Some(0), Some(0));
    seen.take(time, &Record::Limits(limits));
    assert!(!samples(&seen).keys().any(|name| name.starts_with("c1m_limit_used")));
}

#[test]
fn time_under_pressure_never_falls() {
    let mut seen = Seen::new(None);
    for (total_ms, expected) in [(500.0, 0.5), (400.0, 0.5), (600.0, 0.6)] {
        let mut usage = unknown_usage();
        usage.host.pressure =
            UnderPressure { now: Some(true), lasting_ms: None, total_ms: Some(total_ms) };
        seen.take(SystemTime::UNIX_EPOCH, &Record::Usage(usage));
        assert_eq!(samples(&seen)["c1m_pressure_seconds_total"], expected);
        assert_eq!(samples(&seen)["c1m_under_pressure{scope=\"host\"}"], 1.0);
    }
}

#[test]
fn processes_of_one_name_and_cgroup_are_one_series() {
    let line = WATCH.lines().find(|line| line.contains("\"kind\":\"holders\"")).unwrap();
    let Record::Holders(mut holders) = serde_json::from_str::<Line<Record>>(line).unwrap().record
    else {
        panic!("{line}")
    };
    let mut second = holders.rows[0].clone();
    (second.pid, second.memory.pages) = (Some(1), 7);
    let together = (holders.rows[0].memory.pages + 7) * PAGE_BYTES;
    holders.rows.push(second);
    let mut seen = Seen::new(Some(PAGE_BYTES));
    seen.take(SystemTime::UNIX_EPOCH, &Record::Holders(holders));
    let samples = samples(&seen);
    let name = "c1m_holder_bytes{holder=\"process\",comm=\"c1m-client\",cgroup=\"/load.slice\"}";
    assert_eq!(samples[name], together as f64);
    assert!(!samples.keys().any(|name| name.contains("pid")), "{samples:#?}");
}

#[test]
fn labels_are_those_that_are_told() {
    for lines in [WATCH, REPRODUCE] {
        let (samples, _) = run(lines);
        for metric in tables().into_iter().flatten() {
            let name = metric.exported();
            for sample in samples.keys().filter(|it| it.split('{').next() == Some(&name)) {
                let labels: Vec<&str> = sample
                    .split_once('{')
                    .map_or("", |(_, labels)| labels)
                    .split("\",")
                    .filter_map(|label| label.split_once('='))
                    .map(|(label, _)| label)
                    .collect();
                assert_eq!(labels, metric.labels, "{sample}");
            }
        }
    }
}
