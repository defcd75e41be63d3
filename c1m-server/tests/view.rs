//! The live view as text: pictures of a state at several sizes, held against those in fixtures/view.
//!
//! `cargo test -p c1m-server --test view -- --ignored` draws them anew.

use std::{fs, path::PathBuf};

use c1m_record::*;
use c1m_server::output::view::{Holder, Holders, Key, View, draw};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

/// Columns and lines.
const SIZES: [(u16, u16); 7] = [(120, 40), (80, 24), (60, 12), (40, 10), (40, 8), (30, 4), (20, 2)];

fn buffer(view: &View, (columns, lines): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(view, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn picture(view: &View, size: (u16, u16)) -> String {
    let buffer = buffer(view, size);
    let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..size.1).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

fn reading(
    limit: LimitName,
    scope: Scope,
    used: Option<u64>,
    ceiling: Option<u64>,
) -> LimitReading {
    LimitReading {
        limit,
        scope,
        unit: match limit {
            LimitName::TcpMemHigh | LimitName::TcpMemPressure => "pages".into(),
            LimitName::MemoryCgroup => "bytes".into(),
            LimitName::Nofile => "descriptors".into(),
            other => other.name().into(),
        },
        used,
        ceiling,
        headroom: ceiling.zip(used).map(|(ceiling, used)| ceiling.saturating_sub(used)),
        source: "somewhere".into(),
        at_connection: None,
        in_s: None,
    }
}

fn usage(pages: u64) -> Usage {
    Usage {
        watched: Watched {
            connections: Some(1234),
            opened: Some(1300),
            closed: Some(66),
            opened_per_s: Some(120.4),
            closed_per_s: Some(3.0),
        },
        host: HostUsage {
            tcp_mem_pages: Some(pages),
            tcp_mem: Some([1000, 1500, 2000]),
            pressure: UnderPressure {
                now: Some(pages > 1500),
                lasting_ms: (pages > 1500).then_some(2345.0),
                total_ms: Some(2345.0),
            },
            orphans: Some(0),
            sockets: Some(2500),
        },
        netns: NetnsUsage { inode: Some(7), inuse: Some(2500), time_wait: Some(3) },
        next: Some(NextLimit {
            limit: LimitName::TcpMemHigh,
            scope: Scope::Host,
            headroom: Some(200),
            unit: "pages".into(),
            at_connection: Some(1400),
            in_s: Some(12.0),
        }),
        own_cpu_percent: Some(0.31),
        dropped: 0,
    }
}

/// A server near its limit.
fn busy() -> View {
    let mut view = View::default();
    view.take("", &Record::Hooks(Hooks { kernel: "6.18.0".into(), hooks: Vec::new() }));
    view.take(
        "",
        &Record::Watching(Watching {
            ports: vec![80, 443],
            netns: None,
            pid: Some(4711),
            comm: Some("nginx".into()),
            cgroup: None,
            command: None,
            interval_s: 1.0,
            page_bytes: Some(4096),
            connections: Some(10),
            metrics: None,
        }),
    );
    for pages in (0..60).map(|step| step * 30).chain([1800]) {
        view.take("", &Record::Usage(usage(pages)));
    }
    let mut high = reading(LimitName::TcpMemHigh, Scope::Host, Some(1800), Some(2000));
    (high.at_connection, high.in_s) = (Some(1400), Some(12.0));
    let mut pressure = reading(LimitName::TcpMemPressure, Scope::Host, Some(1800), Some(1500));
    (pressure.at_connection, pressure.in_s) = (Some(1100), Some(0.0));
    view.take_limits(Limits {
        limits: vec![
            reading(LimitName::Orphans, Scope::Host, Some(0), Some(4096)),
            high,
            pressure,
            reading(LimitName::MemoryCgroup, Scope::Cgroup, None, None),
            reading(LimitName::Nofile, Scope::Process, Some(600), Some(1024)),
        ],
        next: Some(LimitName::TcpMemHigh),
    });
    for number in 1..=30 {
        let text = format!("number {number}");
        view.take("12:00:00.000", &Record::Warning(Warning { name: "event".into(), text }));
    }
    view.take(
        "12:00:01.000",
        &Record::Verdict(Verdict {
            quiet: false,
            tier: Tier::Tracepoints,
            causes: vec![Cause {
                limit: LimitName::TcpMemPressure,
                scope: Scope::Host,
                confidence: Confidence::Certain,
                text: "memory pressure began".into(),
                evidence: Vec::new(),
                to_confirm: None,
                remedy: None,
            }],
        }),
    );
    view
}

fn file((columns, lines): (u16, u16)) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/view")
        .join(format!("{columns}x{lines}.txt"))
}

#[test]
fn the_picture_is_as_it_was() {
    let view = busy();
    for size in SIZES {
        let path = file(size);
        let expected =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let drawn = picture(&view, size);
        assert_eq!(drawn, expected, "{}:\n{drawn}", path.display());
    }
}

#[test]
#[ignore = "writes what the_picture_is_as_it_was compares with"]
fn draw_the_pictures() {
    fs::create_dir_all(file(SIZES[0]).parent().unwrap()).unwrap();
    for size in SIZES {
        fs::write(file(size), picture(&busy(), size)).unwrap();
    }
}

#[test]
fn any_size_is_drawn() {
    let mut with_holders = busy();
    with_holders.holders = Some(Holders::default());
    for view in [View::default(), busy(), with_holders] {
        for columns in [0, 1, 2, 3, 9, 71, 72, 200] {
            for lines in 0..30 {
                buffer(&view, (columns, lines));
            }
        }
    }
}

#[test]
fn the_verdict_is_the_last_thing_to_go() {
    assert!(picture(&busy(), (60, 1)).starts_with("verdict: tcp_mem_pressure (certain, host)"));
    assert!(picture(&View::default(), (60, 1)).starts_with("verdict: no limit was hit"));
}

#[test]
fn what_is_not_known_is_said() {
    let mut view = busy();
    let mut unknown = usage(0);
    unknown.host = HostUsage::default();
    unknown.watched = Watched::default();
    view.take("", &Record::Usage(unknown));
    let drawn = picture(&view, (120, 40));
    for text in ["limits unknown from here", "pressure unknown from here", "now unknown"] {
        assert!(drawn.contains(text), "{text}:\n{drawn}");
    }
    // The memory cgroup has neither usage nor ceiling.
    let line = drawn.lines().find(|line| line.contains("memory_cgroup")).unwrap();
    assert!(line.contains("unknown from here") && line.contains('?') && !line.contains('0'));
}

/// The limits in the order in which they stand in the picture.
fn names(view: &View) -> Vec<&'static str> {
    let drawn = picture(view, (120, 40));
    let name = |line: &str| {
        let first = line.trim_start_matches('│').split_whitespace().next()?;
        LimitName::ALL.into_iter().map(LimitName::name).find(|name| *name == first)
    };
    drawn.lines().filter_map(name).collect()
}

#[test]
fn a_small_terminal_has_connections_and_memory_too() {
    let mut view = busy();
    let mut many = usage(1800);
    many.watched.connections = Some(1_024_000);
    view.take("", &Record::Usage(many));
    let drawn = picture(&view, (40, 10));
    assert!(drawn.contains("1,024,000 connections  7.0 MiB tcp_mem"), "{drawn}");
    // Neither the charts nor the names of what was not sampled yet.
    assert!(picture(&View::default(), (40, 10)).contains("no sample yet"));
}

#[test]
fn limits_are_sorted_and_filtered_by_keys() {
    let mut view = busy();
    assert_eq!(names(&view)[..2], ["tcp_mem_pressure", "tcp_mem_high"], "the fullest first");
    assert_eq!(names(&view).last(), Some(&"memory_cgroup"), "unknown comes last");
    view.key(Key::Char('s'));
    assert_eq!(names(&view)[..2], ["tcp_mem_pressure", "tcp_mem_high"], "what comes first");
    view.key(Key::Char('s'));
    assert_eq!(names(&view)[..2], ["memory_cgroup", "nofile"], "by name");
    for key in "/CGROUP".chars() {
        view.key(Key::Char(key));
    }
    assert_eq!(names(&view), ["memory_cgroup"]);
    let drawn = picture(&view, (80, 24));
    assert!(drawn.contains("/CGROUP_") && !drawn.contains("number 30"), "{drawn}");
}

#[test]
fn events_scroll_from_the_newest() {
    let mut view = busy();
    assert!(picture(&view, (120, 40)).contains("number 30"));
    for _ in 0..31 {
        view.key(Key::Up);
    }
    let drawn = picture(&view, (120, 40));
    assert!(drawn.contains("newer below") && !drawn.contains("number 30"), "{drawn}");
}

#[test]
fn holders_are_shown_when_somebody_has_looked() {
    let mut view = busy();
    assert!(!picture(&view, (120, 50)).contains("│holder"));
    view.holders = Some(Holders {
        title: "top holders".into(),
        rows: vec![Holder {
            name: "java (99)".into(),
            sockets: 12,
            receive_bytes: 345_678,
            send_bytes: 0,
        }],
    });
    let drawn = picture(&view, (120, 50));
    assert!(drawn.contains("top holders") && drawn.contains("337.58 KiB"), "{drawn}");
}
