use c1m_record::Line;
use proptest::prelude::*;

use super::*;
use crate::record::{Asked, Shard as ShardRecord};

fn plan(connections: u64) -> Plan {
    Plan {
        target: "127.0.0.1:80".into(),
        connections,
        capacity: connections,
        sources: 1,
        destinations: 1,
        ports_per_source: 64_000,
        workers: 2,
        in_flight: 128,
        pin: None,
        metrics: None,
        shard: None,
        asked: Asked {
            source: vec![],
            per_source: 64_000,
            request: Some("/".into()),
            check: None,
            unread: false,
            pin_bytes: None,
            rate_per_s: None,
            sample: None,
            heartbeat_s: None,
            hold_s: Some(0.0),
            timeout_s: 10.0,
            give_up_s: 30.0,
            end: crate::record::End::Reset,
            start_at: None,
        },
    }
}

/// The result of a whole run in which nothing happened.
pub(crate) fn summary(connections: u64) -> Summary {
    Summary {
        plan: plan(connections),
        started_at: "2026-01-31T12:00:00.000000Z".into(),
        merged: None,
        connected: 0,
        held_at_end: 0,
        lost: 0,
        ended_by: EndedBy::Hold,
        answered: 0,
        failed: 0,
        errors: BTreeMap::new(),
        sample: None,
        heartbeats: None,
        connect_us: Latency::default(),
        first_byte_us: Latency::default(),
        ramp_s: Some(1.0),
        last_established_s: None,
        rate_per_s: None,
        elapsed_s: 2.0,
        cpu_user_s: 0.5,
        cpu_system_s: 0.25,
        histograms: AllTimes::default().record(),
        requirements: vec![],
        lines_dropped: 0,
    }
}

/// That of one part of a run of so many connections.
fn part(index: u64, of: u64, connections: u64) -> Summary {
    let share = Shard::new(index, of).unwrap().share(connections);
    let mut result = summary(share.end - share.start);
    result.plan.shard = Some(ShardRecord {
        index,
        of,
        connections,
        first_connection: share.start,
        sources: Some(of),
    });
    result
}

/// As [`part`], of which each connection was established, answered and held.
fn busy(index: u64, of: u64, connections: u64) -> Summary {
    let mut result = part(index, of, connections);
    let mut all = AllTimes::default();
    for us in 1..=result.plan.connections {
        all.connect.record(us);
        all.first_byte.record(us * 7);
    }
    result.connected = result.plan.connections;
    (result.answered, result.held_at_end) = (result.connected, result.connected);
    (result.connect_us, result.first_byte_us) = (all.connect.latency(), all.first_byte.latency());
    result.histograms = all.record();
    result.last_established_s = Some(0.5);
    result.rate_per_s = reached_per_s(result.connected, Some(0.5));
    result
}

fn lines(results: &[Summary]) -> String {
    let line = |result: &Summary| {
        let record = ClientRecord::Summary(Box::new(result.clone()));
        serde_json::to_string(&Line::at(SystemTime::UNIX_EPOCH, record)).unwrap() + "\n"
    };
    results.iter().map(line).collect()
}

fn merged(text: &[u8]) -> Result<Summary, String> {
    let found = read("file", text).map_err(|error| error.to_string())?;
    merge(found).map(|(result, _)| result).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, said: &str) {
    let error = merged(text.as_bytes()).unwrap_err();
    assert!(error.contains(said), "{error}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let parts = [part(0, 3, 100), part(1, 3, 100), part(2, 3, 100)];
    assert_eq!(merged(lines(&parts).as_bytes()).unwrap().plan.connections, 100);
    refused(&lines(&parts[..2]), "1 of 3 parts are missing: 2/3");
    refused(&lines(&parts[2..]), "2 of 3 parts are missing: 0/3, 1/3");
    refused(
        &lines(&[parts[0].clone(), parts[1].clone(), parts[1].clone()]),
        "part 1/3 is there twice: file:2 and file:3",
    );
    let with = |change: fn(&mut Summary)| {
        let mut parts = parts.clone();
        change(&mut parts[1]);
        lines(&parts)
    };
    for (text, said) in [
        (
            with(|it| it.plan.target = "127.0.0.1:81".into()),
            "file:2 is of another run than file:1: target",
        ),
        (with(|it| it.plan.asked.per_source = 5), "per_source is 5 in it, and 64000"),
        (with(|it| it.plan.asked.start_at = Some("x".into())), "start_at is \"x\" in it, and null"),
        (with(|it| *it = part(1, 4, 100)), "number of parts is 4"),
        (with(|it| *it = part(1, 3, 101)), "connections of all parts is 101"),
        (with(|it| *it = summary(100)), "number of parts is 1"),
        (
            with(|it| it.plan.shard.as_mut().unwrap().sources = None),
            "source addresses of all parts is null",
        ),
        (
            with(|it| it.plan.connections += 1),
            "contradicts itself: part 1/3 of 100 connections has other ones",
        ),
        (with(|it| it.plan.shard.as_mut().unwrap().index = 3), "there is no part 3 of 3"),
        (with(|it| it.connect_us.p50 = Some(7)), "histogram connect is not of its latencies"),
        (with(|it| it.histograms.first_byte = "AAAA".into()), "histogram first_byte: "),
        (
            with(|it| it.histograms.sample = Some(Times::default().encode())),
            "histogram sample without",
        ),
        (with(|it| it.started_at = "noon".into()), "started_at: "),
        (
            with(|it| it.merged = Some(Merged { shards: 3, started_apart_s: 0.0 })),
            "file:2 is merged already",
        ),
    ] {
        refused(&text, said);
    }
}

#[test]
fn each_host_has_a_number_of_its_own_for_the_interface_to_the_target() {
    let to = |targets: [&str; 2]| {
        let mut parts = [part(0, 2, 100), part(1, 2, 100)];
        parts.iter_mut().zip(targets).for_each(|(part, target)| part.plan.target = target.into());
        lines(&parts)
    };
    let merged = merged(to(["[fe80::1%2]:80-89", "[fe80::1%13]:80-89"]).as_bytes()).unwrap();
    assert_eq!(merged.plan.target, "[fe80::1%2]:80-89");
    for other in ["[fe80::2%2]:80", "[fe80::1%2]:81", "[fe80::1%2]:80-81"] {
        refused(&to(["[fe80::1%2]:80", other]), "target is");
    }
}

#[test]
fn what_is_no_result_is_told_with_its_line() {
    let whole = lines(&[part(0, 2, 10), part(1, 2, 10)]);
    refused("", "file has no result");
    refused("\n \n", "file has no result");
    refused(&whole[..whole.len() - 2], "file:2 ends in the middle of a record");
    refused(&format!("{whole}c1m-client: warning: x\n"), "file:3 is no record of c1m-client");
    refused(&format!("5\n{whole}"), "file:1 is no record");
    refused(
        &whole.replacen("\"v\":2", "\"v\":3", 1),
        "file:1 has schema version 3, and this c1m-client reads versions up to 2",
    );
    refused(&whole.replacen("\"connected\"", "\"conected\"", 1), "missing field `connected`");
    let progress = r#"{"v":1,"ts":"x","kind":"progress","established":1,"answered":1,"failed":0,"rate_per_s":1.0}"#;
    refused(progress, "file has no result");
    assert!(merged(format!("{progress}\n\n{whole}").as_bytes()).is_ok());
    assert!(merged(whole.trim_end().as_bytes()).is_ok(), "the last line end may be missing");
}

#[test]
fn spans_go_from_the_first_start_to_the_last_end() {
    let mut parts = [part(0, 2, 10), part(1, 2, 10)];
    parts[1].started_at = "2026-01-31T12:00:00.500000Z".into();
    (parts[0].ramp_s, parts[0].elapsed_s) = (Some(1.25), 9.0);
    let result = merged(lines(&parts).as_bytes()).unwrap();
    assert_eq!(result.merged, Some(Merged { shards: 2, started_apart_s: 0.5 }));
    assert_eq!((result.ramp_s, result.elapsed_s, result.cpu_user_s), (Some(1.5), 9.0, 1.0));
    assert_eq!(result.started_at, parts[0].started_at);
    // A part that did not get to its end makes that of all unknown.
    parts[0].ramp_s = None;
    assert_eq!(merged(lines(&parts).as_bytes()).unwrap().ramp_s, None);
}

#[test]
fn a_sample_that_one_part_lacks_is_unknown_and_heartbeats_add_up() {
    let mut parts = [busy(0, 2, 10), busy(1, 2, 10)];
    let mut times = Times::default();
    times.record(7);
    times.miss(1);
    for part in &mut parts {
        let latency_us = times.latency();
        part.sample =
            Some(Sample { asked: 2, answered: 1, wrong: 1, missed: 0, took_s: 0.5, latency_us });
        part.histograms.sample = Some(times.encode());
    }
    let latency_us = times.latency();
    let beats = Heartbeats { due: 2, answered: 1, late: 1, wrong: 0, missed: 1, latency_us };
    parts[0].heartbeats = Some(beats);
    parts[0].histograms.heartbeat = Some(times.encode());
    let result = merged(lines(&parts).as_bytes()).unwrap();
    let sample = result.sample.unwrap();
    assert_eq!((sample.asked, sample.answered, sample.wrong, sample.missed), (4, 2, 2, 0));
    assert_eq!((sample.latency_us.count, sample.latency_us.unanswered), (2, 2));
    assert_eq!((sample.latency_us.p50, sample.latency_us.p90), (Some(7), None));
    let beats = result.heartbeats.unwrap();
    assert_eq!((beats.due, beats.missed, beats.latency_us.count), (2, 1, 1));
    (parts[1].sample, parts[1].histograms.sample) = (None, None);
    let result = merged(lines(&parts).as_bytes()).unwrap();
    assert_eq!((result.sample, result.histograms.sample), (None, None));
}

#[test]
fn answers_that_contradict_each_other_are_refused() {
    let mut times = Times::default();
    times.record(7);
    times.miss(2);
    let latency_us = times.latency();
    let mut whole = busy(0, 1, 10);
    whole.sample =
        Some(Sample { asked: 3, answered: 1, wrong: 1, missed: 1, took_s: 0.5, latency_us });
    whole.heartbeats =
        Some(Heartbeats { due: 3, answered: 1, late: 1, wrong: 2, missed: 0, latency_us });
    whole.histograms.sample = Some(times.encode());
    whole.histograms.heartbeat = Some(times.encode());
    assert!(merged(lines(&[whole.clone()]).as_bytes()).is_ok());
    type Change = fn(&mut Summary);
    let changes: [(Change, &str); 8] = [
        (|it| it.sample.as_mut().unwrap().asked = 4, "are not asked=4"),
        (|it| it.sample.as_mut().unwrap().missed = u64::MAX, "are not asked=3"),
        (|it| it.heartbeats.as_mut().unwrap().due = 2, "are not due=2"),
        (
            |it| it.heartbeats.as_mut().unwrap().late = 2,
            "heartbeats.late is 2, and heartbeats.answered 1",
        ),
        (
            |it| {
                let beats = it.heartbeats.as_mut().unwrap();
                (beats.due, beats.answered) = (6, 4);
            },
            "are not those of its latencies (count=1, unanswered=2)",
        ),
        (
            |it| it.connect_us.unanswered = it.failed + 1,
            "histogram connect is not of its latencies",
        ),
        (
            |it| {
                let mut times = Times::decode(&it.histograms.first_byte, 0).unwrap();
                times.miss(it.connected + 1);
                it.first_byte_us = times.latency();
            },
            "and connected is",
        ),
        // One that would not have been answered makes other percentiles.
        (
            |it| it.sample.as_mut().unwrap().latency_us.unanswered = 0,
            "histogram sample is not of its latencies",
        ),
    ];
    for (change, said) in changes {
        let mut changed = whole.clone();
        change(&mut changed);
        refused(&lines(&[changed]), said);
    }
}

#[test]
fn pinned_pages_add_up() {
    let pin = |pages, connections| Pin {
        bytes_per_connection: 5000,
        overhead_bytes: 832,
        plan: vec![PinStep { pages, response_bytes: pages * 3000, connections }],
        planned_pages: pages * connections,
    };
    let mut parts = [part(0, 2, 10), part(1, 2, 10)];
    (parts[0].plan.pin, parts[1].plan.pin) = (Some(pin(2, 5)), Some(pin(1, 5)));
    let merged_pin = merged(lines(&parts).as_bytes()).unwrap().plan.pin.unwrap();
    assert_eq!((merged_pin.planned_pages, merged_pin.plan.len()), (15, 2));
    parts[1].plan.pin = Some(pin(2, 5));
    let merged_pin = merged(lines(&parts).as_bytes()).unwrap().plan.pin.unwrap();
    assert_eq!(merged_pin.plan, pin(2, 10).plan);
}

/// What the error says, and what was changed.
type Change = (&'static str, fn(&mut Summary));

#[test]
fn what_a_part_cannot_have_come_to_is_refused_with_its_name() {
    let cases: [Change; 37] = [
        ("connected is 101332, and plan.connections 33", |it| it.connected = 101_332),
        ("connect_us.count is 33, and connected 32", |it| {
            (it.connected, it.held_at_end, it.answered, it.rate_per_s) = (32, 32, 32, Some(62.0));
            it.first_byte_us = Latency::default();
            it.histograms.first_byte = Times::default().encode();
        }),
        ("failed is 18446744073709551615, and plan.connections 33", |it| it.failed = u64::MAX),
        ("the sum of connected and failed is 34, and plan.connections 33", |it| it.failed = 1),
        ("held_at_end is 34, and connected 33", |it| it.held_at_end = 34),
        ("lost is 34, and connected 33", |it| it.lost = 34),
        ("the sum of held_at_end and lost is 34, and connected 33", |it| it.lost = 1),
        ("answered is 34, and connected 33", |it| it.answered = 34),
        ("first_byte_us.count is 33, and answered 32", |it| it.answered = 32),
        ("plan.connections is 33, and plan.capacity 32", |it| it.plan.capacity = 32),
        ("plan.capacity is 18446744073709551615, and the sum", |it| it.plan.capacity = u64::MAX),
        ("plan.in_flight is 18446744073709551615, and the sum", |it| it.plan.in_flight = u64::MAX),
        ("plan.workers is 18446744073709551615, and the sum", |it| it.plan.workers = usize::MAX),
        ("errors.x is 18446744073709551615, and the sum", |it| {
            it.errors = [("x".into(), u64::MAX)].into()
        }),
        ("errors is 18446744073709551615, and the sum", |it| {
            it.errors = [("w".into(), u64::MAX - 5), ("z".into(), u64::MAX - 5)].into();
        }),
        ("sample.asked is 34, and connected 33", |it| {
            it.sample = Some(Sample { asked: 34, ..Sample::default() });
            it.histograms.sample = Some(Times::default().encode());
        }),
        ("sample.answered is 4, and sample.asked 3", |it| {
            it.sample = Some(Sample { asked: 3, answered: 4, ..Sample::default() });
            it.histograms.sample = Some(Times::default().encode());
        }),
        ("heartbeats.answered is 4, and heartbeats.due 3", |it| {
            it.heartbeats = Some(Heartbeats { due: 3, answered: 4, ..Heartbeats::default() });
            it.histograms.heartbeat = Some(Times::default().encode());
        }),
        ("elapsed_s is -1", |it| it.elapsed_s = -1.0),
        ("elapsed_s is 1000000000000", |it| it.elapsed_s = 1e12),
        ("ramp_s is 3, and elapsed_s 2", |it| it.ramp_s = Some(3.0)),
        ("ramp_s is 0.4, and elapsed_s", |it| (it.ramp_s, it.elapsed_s) = (Some(0.4), 0.3)),
        ("last_established_s is 0.5, and ramp_s 0", |it| it.ramp_s = Some(0.0)),
        ("last_established_s is 0.5, and ramp_s 0.000", |it| it.ramp_s = Some(1e-320)),
        // The rate of which has no number.
        ("last_established_s is 0.000", |it| it.last_established_s = Some(1e-320)),
        ("last_established_s is 0.000", |it| {
            (it.last_established_s, it.rate_per_s) = (Some(1e-300), Some(32e300));
        }),
        ("sample.took_s is 3, and elapsed_s 2", |it| {
            it.sample = Some(Sample { took_s: 3.0, ..Sample::default() });
            it.histograms.sample = Some(Times::default().encode());
        }),
        ("plan.asked.timeout_s is -1", |it| it.plan.asked.timeout_s = -1.0),
        ("plan.asked.hold_s is -1", |it| it.plan.asked.hold_s = Some(-1.0)),
        ("the sum of errors of openings is 18446744073709551615, and failed 0", |it| {
            it.errors = [("connect timeout".into(), u64::MAX)].into();
        }),
        ("the sum of errors of 4-tuples is 34, and plan.capacity 33", |it| {
            it.errors = [("bind EADDRINUSE".into(), 34)].into();
        }),
        ("errors.first byte timeout is 1, and first_byte_us.unanswered 0", |it| {
            it.errors = [("first byte timeout".into(), 1)].into();
        }),
        ("the sum of errors of the sample is 34, and connected 33", |it| {
            it.errors = [("sample timeout".into(), 33), ("sample cut off".into(), 1)].into();
        }),
        (
            "the sum of errors of heartbeats is 34, and the sum of heartbeats.due and connected 33",
            |it| {
                it.errors = [("heartbeat timeout".into(), 34)].into();
            },
        ),
        ("cpu_user_s is -0.5", |it| it.cpu_user_s = -0.5),
        ("rate_per_s is 100000", |it| it.rate_per_s = Some(100_000.0)),
        ("plan.pin.plan is not of plan.connections=33", |it| {
            let plan = vec![PinStep { pages: 1, response_bytes: 1, connections: 32 }];
            it.plan.pin =
                Some(Pin { bytes_per_connection: 1, overhead_bytes: 1, plan, planned_pages: 32 });
        }),
    ];
    for (said, change) in cases {
        let mut parts = [busy(0, 3, 100), busy(1, 3, 100), busy(2, 3, 100)];
        // So that a sum is too large only with the changed one.
        parts[0].errors = [("x".into(), 9), ("y".into(), 9)].into();
        change(&mut parts[1]);
        let error = merged(lines(&parts).as_bytes()).map(|it| it.errors).unwrap_err();
        let is_named = error.contains("file:2") || error.contains("file:3");
        assert!(is_named && error.contains(", part ") && error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_line_without_an_end_is_not_read_to_its_end() {
    struct Counted(u64);
    impl io::Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'[');
            let taken = buffer.len().min(usize::try_from((64 << 20) - self.0).unwrap());
            self.0 += taken as u64;
            Ok(taken)
        }
    }
    let mut input = Counted(0);
    let error = read("file", BufReader::new(&mut input)).unwrap_err().to_string();
    assert!(error.contains("file:1 is longer than 4194304 bytes"), "{error}");
    assert!(input.0 < 5 << 20, "{} bytes were read", input.0);
}

#[test]
fn blank_lines_are_counted_and_not_taken_apart() {
    use std::time::Instant;
    let whole = lines(&[part(0, 2, 10), part(1, 2, 10)]);
    let error = read("file", format!("\n \r\n\t\n{whole}\n\n 5").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("file:8 is no record"), "{error}");
    assert!(merged(format!("\r\n\n{whole}\n\n ").as_bytes()).is_ok());
    // Faster than what only finds the end of each: both at the speed of this machine, as it is now.
    let blank = vec![b'\n'; 4 << 20];
    let fastest = |run: &dyn Fn()| {
        let time = || {
            let start = Instant::now();
            run();
            start.elapsed()
        };
        (0..5).map(|_| time()).min().unwrap()
    };
    let own = fastest(&|| assert!(read("file", &blank[..]).is_err()));
    let line_by_line = fastest(&|| {
        let (mut input, mut line) = (&blank[..], Vec::new());
        while io::BufRead::read_until(&mut input, b'\n', &mut line).unwrap() > 0 {
            line.clear();
        }
    });
    assert!(own < line_by_line, "{own:?} and {line_by_line:?}");
}

#[test]
fn a_histogram_that_claims_gigabytes_is_refused() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let mut bytes = Vec::new();
    for word in [0x1c84_9313_u32, 0xf000_0000, 0, 3, 0, 1, 1, 0xad27_4800, 0x3ff0_0000, 0] {
        bytes.extend(word.to_be_bytes());
    }
    let mut parts = [busy(0, 2, 10), busy(1, 2, 10)];
    parts[1].histograms.connect = BASE64_STANDARD.encode(bytes);
    refused(&lines(&parts), "histogram connect: it says that it has 4026531840 bytes of counters");
}

/// Where the numbers of a value are.
fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.into()),
        Value::Array(all) => {
            for (index, it) in all.iter().enumerate() {
                numbers(it, &format!("{path}/{index}"), found);
            }
        }
        Value::Object(all) => {
            for (name, it) in all {
                numbers(it, &format!("{path}/{}", name.replace('/', "~1")), found);
            }
        }
        _ => {}
    }
}

proptest! {
    // A histogram is 24,000 counters.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = merged(&bytes);
    }

    #[test]
    fn a_number_that_is_changed_is_refused_or_adds_up(
        which in any::<prop::sample::Index>(),
        part in 0usize..3,
        number in prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0u64..200],
    ) {
        let mut parts = [busy(0, 3, 100), busy(1, 3, 100), busy(2, 3, 100)];
        for part in &mut parts {
            part.errors = [("x".into(), 5), ("y".into(), 7)].into();
        }
        let mut changed = json!(parts[part]);
        let mut paths = Vec::new();
        numbers(&changed, "", &mut paths);
        let path: &String = which.get(&paths);
        *changed.pointer_mut(path).unwrap() = json!(number);
        // What is no result at all, such as 2^64 workers of a narrow machine, is refused as a line.
        let Ok(changed) = serde_json::from_value::<Summary>(changed) else { return Ok(()) };
        parts[part] = changed;
        match merged(lines(&parts).as_bytes()) {
            Err(error) => prop_assert!(error.contains("file:") || error.contains("missing"), "{}", error),
            Ok(whole) => {
                let sum = |figure: fn(&Summary) -> u64| parts.iter().map(|it| u128::from(figure(it))).sum::<u128>();
                let figures: [fn(&Summary) -> u64; 9] = [
                    |it| it.connected, |it| it.held_at_end, |it| it.lost, |it| it.answered, |it| it.failed,
                    |it| it.errors["x"], |it| it.plan.connections, |it| it.plan.capacity, |it| it.plan.in_flight,
                ];
                for figure in figures {
                    prop_assert_eq!(u128::from(figure(&whole)), sum(figure));
                }
                prop_assert!(whole.connected + whole.failed <= whole.plan.connections);
                prop_assert!(whole.held_at_end + whole.lost <= whole.connected && whole.answered <= whole.connected);
                prop_assert_eq!(whole.connect_us.count, whole.connected);
                prop_assert!(whole.ramp_s.unwrap() <= whole.elapsed_s);
            }
        }
    }

    #[test]
    fn a_cut_anywhere_is_seen(of in 1u64..4, cut in 1usize..3000) {
        let parts: Vec<Summary> = (0..of).map(|index| part(index, of, 100)).collect();
        let text = lines(&parts);
        // The last line end alone says nothing.
        let cut = (cut % (text.len() - 1)).max(1) + 1;
        prop_assert!(merged(&text.as_bytes()[..text.len() - cut]).is_err());
    }

    #[test]
    fn parts_in_any_order_make_the_whole(
        times in prop::collection::vec((0u64..10_000_000, prop::option::of(0u64..10_000_000)), 1..80),
        of in 1u64..9,
        order in any::<prop::sample::Index>(),
    ) {
        let connections = times.len() as u64;
        let of = of.min(connections);
        let measure = |result: &mut Summary, own: &[(u64, Option<u64>)]| {
            let mut all = AllTimes::default();
            for (connect, first_byte) in own {
                all.connect.record(*connect);
                match first_byte {
                    Some(us) => all.first_byte.record(*us),
                    None => all.first_byte.miss(1),
                }
            }
            result.connected = own.len() as u64;
            result.answered = own.len() as u64 - all.first_byte.unanswered();
            result.errors = [("reset by peer".to_owned(), own.len() as u64)].into();
            (result.connect_us, result.first_byte_us) = (all.connect.latency(), all.first_byte.latency());
            result.histograms = all.record();
        };
        let mut whole = summary(connections);
        measure(&mut whole, &times);
        let mut parts: Vec<Summary> = (0..of).map(|index| {
            let mut result = part(index, of, connections);
            let first = usize::try_from(result.plan.shard.as_ref().unwrap().first_connection).unwrap();
            let count = usize::try_from(result.plan.connections).unwrap();
            measure(&mut result, &times[first..first + count]);
            result
        }).collect();
        let middle = order.index(parts.len());
        parts.rotate_left(middle);
        let result = merged(lines(&parts).as_bytes()).unwrap();
        // What is not of one process: its workers, its time, and how many parts there were.
        let expected = Summary {
            plan: Plan { workers: result.plan.workers, in_flight: result.plan.in_flight, sources: of, ..whole.plan },
            merged: result.merged,
            cpu_user_s: result.cpu_user_s,
            cpu_system_s: result.cpu_system_s,
            ..whole
        };
        prop_assert_eq!(result, expected);
    }
}
