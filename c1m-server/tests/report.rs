//! The page of a run, from real JSON lines: complete, bounded, and safe whatever stands in them.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use c1m_record::{Line, Record};
use c1m_report::{PlotName, Report};
use c1m_testkit::figures;
use serde_json::Value;

const WATCH: &str = include_str!("fixtures/report/watch.jsonl");
/// Every line of one at full scale, and the picture of it in the README.
const FULL_SCALE: &str = include_str!("../../docs/reproduction/run.jsonl");
const PICTURE: &str = include_str!("../../docs/reproduction/tcp_mem.svg");
const REPRODUCE: &str = include_str!("fixtures/report/reproduce.jsonl");
/// Markup, quotes, an end of a comment and of a style, what turns the reading direction, and a character that XML may not have.
const HOSTILE: &str = "</td></title></style>--><script>alert(1)</script><img src=x onerror='a'>\" onload=\"b\u{202e}\u{0}&amp;";

fn report(lines: &str) -> Report {
    let mut report = Report::new();
    report.read(lines.as_bytes()).unwrap();
    report
}

fn line(kind: &str, members: &str) -> String {
    format!("{{\"v\":1,\"ts\":\"2026-01-02T03:04:05.000006Z\",\"kind\":\"{kind}\"{members}}}\n")
}

fn kinds(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Neither more nor less markup than ours: no script, nothing that is fetched, and every tag is closed.
#[track_caller]
fn is_sound(page: &str) {
    for evil in [
        "<script",
        "<img",
        "<iframe",
        "<object",
        "javascript:",
        "@import",
        "url(",
        "\u{202e}",
        "\u{0}",
    ] {
        assert!(!page.contains(evil), "{evil}");
    }
    // Links lead into the page, the empty icon is data; the name space of SVG is never asked for.
    for part in page.split("href=\"").skip(1) {
        assert!(part.starts_with('#') || part.starts_with("data:,"), "{}", &part[..30]);
    }
    let elsewhere = page.matches("://").count();
    assert_eq!(elsewhere, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    for tag in [
        "div", "section", "table", "tr", "td", "th", "p", "svg", "g", "details", "figure", "span",
        "ol", "li", "a",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    // Each is said once.
    let ids: Vec<&str> =
        page.split(" id=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{ids:?}");
}

#[test]
fn the_figures_of_a_watch_are_those_of_its_lines() {
    let page = report(WATCH).html();
    is_sound(&page);
    let told = figures::check(&page, WATCH);
    let expected = kinds(&["crossing", "ended", "holders", "limits", "verdict"]);
    assert_eq!(told, expected);
    for part in [
        "Watch of port 8123",
        "<strong>tcp_mem high (certain).</strong>",
        "at connection 19,452",
        "high 36,423 pages",
        "c1m-client (22260)",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

/// Records of a kernel with other pages than the one that makes the page, and of one that nobody knows.
#[test]
fn pages_have_the_size_of_the_kernel_that_ran() {
    let of = |page: &str| WATCH.replace(",\"interval_s\":", &format!("{page},\"interval_s\":"));
    for (bytes, shown, each) in
        [(4_096, "4.00 KiB", "7.52 KiB"), (65_536, "64.00 KiB", "120.27 KiB")]
    {
        let lines = of(&format!(",\"page_bytes\":{bytes}"));
        let page = report(&lines).html();
        is_sound(&page);
        assert!(figures::check(&page, &lines).contains("watching"));
        let told = format!("<strong>{each}</strong> a connection were charged to tcp_mem, at ");
        assert!(page.contains(&told), "{bytes}: {}", charged(&page));
        assert!(
            charged(&page).contains(&format!(">{shown}</span> per page")),
            "{}",
            charged(&page)
        );
    }
    for older in ["", ",\"page_bytes\":null"] {
        let page = report(&of(older)).html();
        let told = charged(&page);
        assert!(told.contains("unknown") && told.contains("page size"), "{told}");
        assert!(!told.contains("KiB"), "{told}");
    }
}

/// The sentence on what tcp_mem was charged.
fn charged(page: &str) -> &str {
    let rest = page.split_once("At the highest reading").expect("the sentence").1;
    rest.split_once("</p>").unwrap().0
}

/// An act has it too, where no line of the server stands beside it.
#[test]
fn an_act_alone_has_its_page_size() {
    let acts: Vec<String> = REPRODUCE
        .lines()
        .filter(|line| line.contains("\"kind\":\"act\""))
        .map(|line| line.replacen("\"tcp_mem\":", "\"page_bytes\":65536,\"tcp_mem\":", 1))
        .collect();
    let lines = acts.join("\n");
    let page = report(&lines).html();
    figures::check(&page, &lines);
    assert!(charged(&page).contains(">64.00 KiB</span> per page"), "{}", charged(&page));
}

#[test]
fn a_reproduction_stands_beside_the_article() {
    let page = report(REPRODUCE).html();
    is_sound(&page);
    let told = figures::check(&page, REPRODUCE);
    for kind in ["act", "crossing", "limits", "reproduction", "summary", "verdict"] {
        assert!(told.contains(kind), "{kind} is not in {told:?}");
    }
    for part in [
        "Act 1: the article",
        "Act 2: the article",
        "Act 3: idle",
        "7.53 KiB",
        "slab TCP",
        "76.0 B",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_reproduction_at_full_scale_has_every_figure() {
    let page = report(FULL_SCALE).html();
    is_sound(&page);
    figures::check(&page, FULL_SCALE);
    // Low is drawn in each act, also where nobody crossed it.
    for part in
        ["Reproduction with 1,024,000 connections", "at connection 990,413", "low 786,432 pages"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("low 786,432 pages</text>").count(), 4);
}

#[test]
fn the_picture_in_the_readme_is_of_the_run_that_stands_beside_it() {
    let made = report(FULL_SCALE).picture(1, PlotName::Connections).unwrap();
    let how = "c1m-server report docs/reproduction/run.jsonl --svg --plot connections -o docs/reproduction/tcp_mem.svg";
    assert!(made == PICTURE, "the picture is not that of these lines: run `{how}`");
    is_sound(PICTURE);
    // On somebody else's page, in light and in dark.
    assert!(PICTURE.contains("prefers-color-scheme: dark"));
    for connection in ["495,092", "660,339", "990,413"] {
        assert!(PICTURE.contains(&format!("at connection {connection}</text>")), "{connection}");
    }
}

#[test]
fn the_acts_alone_make_a_page_too() {
    let of_run = |line: &&str| {
        line.contains("\"kind\":\"act\"") || line.contains("\"kind\":\"reproduction\"")
    };
    let acts: Vec<&str> = REPRODUCE.lines().filter(of_run).collect();
    let whole = acts.join("\n");
    let last = acts.last().unwrap();
    for (lines, kind) in [(whole.as_str(), "act"), (last, "reproduction")] {
        let page = report(lines).html();
        is_sound(&page);
        assert!(figures::check(&page, lines).contains(kind));
        assert_eq!(page.matches("<section class=\"run\"").count(), 3);
        // Records of schema version 1 have another name for it.
        assert!(lines.contains("\"precision\":\"exact\"") && page.contains("<td>exact</td>"));
        assert!(page.contains("There are no readings over time"));
        assert!(page.contains("tcp_mem pages over connections"));
    }
}

#[test]
fn nothing_is_a_page_that_says_so() {
    let page = report("").html();
    is_sound(&page);
    assert!(page.contains("There is no record of a run here"));
    let svg = report("").svg();
    assert!(svg.contains("nothing that can be drawn"), "{svg}");
}

#[test]
fn what_is_missing_is_told_and_not_0() {
    let one = WATCH.lines().find(|line| line.contains("\"kind\":\"crossing\"")).unwrap();
    let page = report(one).html();
    is_sound(&page);
    for part in [
        "Records without their beginning",
        "No verdict.",
        "These records say nothing of limits",
        "there is no <code>holders</code> line",
        "Not known: nothing was traced",
        "Dropped events: unknown",
        "There are no readings over time",
        "1 event<",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let page = report(&line("limits", ",\"limits\":[],\"next\":null")).html();
    assert!(page.contains("None is in sight."));
}

/// Texts of a record that take any text: a comm, a path, a reason.
fn poisoned(line: &str) -> String {
    fn texts(value: &Value, pointer: &str, found: &mut Vec<String>) {
        match value {
            Value::String(_) => found.push(pointer.to_owned()),
            Value::Array(items) => {
                let each = items.iter().enumerate();
                each.for_each(|(at, item)| texts(item, &format!("{pointer}/{at}"), found));
            }
            Value::Object(members) => {
                let each = members.iter();
                each.for_each(|(name, item)| {
                    texts(
                        item,
                        &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
                        found,
                    )
                });
            }
            _ => {}
        }
    }
    let mut record: Value = serde_json::from_str(line).unwrap();
    let mut found = Vec::new();
    texts(&record, "", &mut found);
    for pointer in found.iter().filter(|pointer| !["/ts", "/kind"].contains(&pointer.as_str())) {
        let text = record.pointer_mut(pointer).unwrap();
        let before = std::mem::replace(text, HOSTILE.into());
        let is_any_text = Report::new().take_line(record.to_string().as_bytes()).is_ok();
        if !is_any_text {
            *record.pointer_mut(pointer).unwrap() = before;
        }
    }
    // Names of counters are foreign too.
    for pointer in ["/refused/kernel", "/refused/call_errors", "/dropped_by", "/errors"] {
        if let Some(Value::Object(counts)) = record.pointer_mut(pointer) {
            counts.insert(HOSTILE.into(), 7.into());
        }
    }
    record.to_string()
}

#[test]
fn every_text_may_be_hostile() {
    for lines in [WATCH, REPRODUCE] {
        let mut hostile = String::new();
        for line in lines.lines() {
            let _ = writeln!(hostile, "{}", poisoned(line));
        }
        hostile += &line("warning", &format!(",\"name\":{0},\"text\":{0}", Value::from(HOSTILE)));
        hostile += &line(
            "oom_kill",
            &format!(
                ",\"pid\":1,\"comm\":{0},\"in_cgroup\":null,\"hook\":{0}",
                Value::from(HOSTILE)
            ),
        );
        hostile += &format!(
            "{{\"v\":1,\"ts\":\"2026-01-02T03:04:05Z\",\"kind\":{}}}\n",
            Value::from(HOSTILE)
        );
        let (page, svg) = (report(&hostile).html(), report(&hostile).svg());
        assert!(page.matches("&lt;script&gt;").count() > 20);
        is_sound(&page);
        is_sound(&svg);
        figures::check(&page, &hostile);
    }
}

#[test]
fn a_million_lines_make_a_page_that_opens() {
    let crossing = WATCH.lines().find(|line| line.contains("\"kind\":\"crossing\"")).unwrap();
    let mut crossing: Line<Record> = serde_json::from_str(crossing).unwrap();
    let mut report = Report::new();
    report.read(WATCH.as_bytes()).unwrap();
    let start = humantime::parse_rfc3339(&crossing.ts).unwrap();
    for index in 0..500_000_u64 {
        let time = start + std::time::Duration::from_millis(index);
        let Record::Crossing(crossing) = &mut crossing.record else { unreachable!() };
        crossing.connections = index;
        crossing.pages = 10_000 + index % 30_000;
        report.take(time, &Record::Crossing(crossing.clone()));
        report.take(
            time,
            &Record::Online(c1m_record::Online {
                online: index,
                accepted: index,
                closed: 0,
                accepted_per_s: 1.0,
                pss_bytes: None,
                tcp_mem_pages: Some(index),
                connections: None,
                dropped: None,
            }),
        );
    }
    let page = report.html();
    is_sound(&page);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    for part in [
        "500,022 events, of which 500 are here",
        "499,522 events between these are not on the page",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("are drawn: of each stretch the highest and the lowest"));
}

#[test]
fn more_runs_than_fit_are_counted() {
    let many: String = (0..50).map(|_| line("watching", ",\"ports\":[],\"netns\":null,\"pid\":null,\"comm\":null,\"cgroup\":null,\"command\":null,\"interval_s\":1.0,\"connections\":null")).collect();
    let page = report(&many).html();
    assert_eq!(page.matches("<section class=\"run\"").count(), 12);
    assert!(page.contains("records left out: 38"));
}

fn program(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c1m-server"));
    command.arg("report").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its input closes it early.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_reads_files_and_streams() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("run.jsonl"), folder.path().join("run.html"));
    std::fs::write(&input, WATCH).unwrap();
    let done = program(&[input.to_str().unwrap(), "-o", output.to_str().unwrap()], b"");
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    let page = std::fs::read_to_string(&output).unwrap();
    assert_eq!(page, report(WATCH).html());
    assert_eq!(program(&["-"], WATCH.as_bytes()).stdout, page.as_bytes());
    let svg = program(&["--svg", "-"], WATCH.as_bytes());
    assert!(String::from_utf8(svg.stdout).unwrap().starts_with("<svg class=\"file\" xmlns="));
    let one = program(&["--svg", "--plot", "time", "--run", "2", "-"], REPRODUCE.as_bytes());
    let one = String::from_utf8(one.stdout).unwrap();
    assert_eq!(Some(&one), report(REPRODUCE).picture(2, PlotName::Time).as_ref());
    assert_eq!(one.matches("class=\"heading\"").count(), 1);
    assert!(one.contains("Act 2: the article") && one.contains("over time"), "{one}");
}

#[test]
fn a_refusal_names_the_line_and_what_to_do() {
    let refused = |arguments: &[&str], input: &str, code: i32| {
        let output = program(arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(
        &["-"],
        &format!("{}oops\n{WATCH}", line("warning", ",\"name\":\"a\",\"text\":\"b\"")),
        2,
    );
    assert!(said.starts_with("c1m-server: -, line 2: not a JSON line of c1m"), "{said}");
    let said = refused(&["/nonexistent.jsonl"], "", 3);
    assert!(said.contains("give a file of JSON lines, or - for standard input"), "{said}");
    for input in ["", "\n\n"] {
        let said = refused(&["-", "-o", "/nonexistent/run.html"], input, 2);
        assert!(said.starts_with("c1m-server: - has no records: give"), "{said}");
    }
    for run in ["0", "2"] {
        let said = refused(&["-", "--svg", "--plot", "time", "--run", run], WATCH, 2);
        assert!(said.contains(&format!("there is no run {run} with this plot")), "{said}");
    }
    let said = refused(&["-", "-o", "/nonexistent/run.html"], WATCH, 3);
    assert!(said.contains("choose another --output"), "{said}");
}
