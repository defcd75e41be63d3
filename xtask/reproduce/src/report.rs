//! The run beside the article: as a table, and as a page to keep.

use std::fmt::Write as _;

use c1m_record::Level;

use super::{
    expect,
    outcome::{Act, ActName, Reproduction},
    progress::{bytes, grouped},
    scale::ARTICLE_CONNECTIONS,
};

/// Three columns: what, in the article, in this run.
type Row = (String, String, String);

/// What a cell says when the article is silent, or nothing was measured.
const UNKNOWN: &str = "–";

/// The rows of the table, the heading first. The article's column has its own figures, at 1,024,000 connections, for the server's end alone.
fn rows(run: &Reproduction) -> Vec<Row> {
    let mut rows = vec![heading(run)];
    let mut add =
        |what: &str, article: &str, this: String| rows.push((what.into(), article.into(), this));
    for act in &run.acts {
        match act.name {
            ActName::Default => default_rows(act, &mut add),
            ActName::Cure => cure_rows(act, run.connections, &mut add),
            ActName::Idle => idle_rows(act, run.connections, &mut add),
        }
    }
    let of = run.connections;
    add("dropped events", UNKNOWN, run.dropped.map_or(UNKNOWN.into(), grouped));
    add("settings as before", UNKNOWN, if run.restored { "yes".into() } else { "no".into() });
    add("whole run", UNKNOWN, format!("{:.0} s for {} connections", run.elapsed_s, grouped(of)));
    rows
}

fn heading(run: &Reproduction) -> Row {
    let scale = if run.connections == ARTICLE_CONNECTIONS {
        String::new()
    } else {
        let share = expect::as_f64(run.connections) / expect::as_f64(ARTICLE_CONNECTIONS);
        format!(" (tcp_mem × {})", (share * 1e6).round() / 1e6)
    };
    (
        String::new(),
        "article".into(),
        format!("this run, {} connections{scale}", grouped(run.connections)),
    )
}

fn default_rows(act: &Act, add: &mut impl FnMut(&str, &str, String)) {
    add("1  the default tcp_mem", "932448 1243264 1864896", triple(act.tcp_mem));
    let told = |level| act.crossing(level).map_or(UNKNOWN.into(), |crossing| crossing.told());
    add("   low crossed at", UNKNOWN, told(Level::Low));
    add("   pressure crossed at", UNKNOWN, told(Level::Pressure));
    add("   high crossed at", "about 990,000", told(Level::High));
    let pages = act.pages.map_or(UNKNOWN.into(), grouped);
    add("   pages then, of high", UNKNOWN, format!("{pages} of {}", grouped(act.limit_pages)));
    add("   from there on", "the process was killed", consequences(act));
    add("   counted by the kernel", "\"out of socket memory\"", counters(act));
    add("   connections held", UNKNOWN, grouped(act.held));
    add("   ramp", UNKNOWN, ramp(act));
}

fn cure_rows(act: &Act, connections: u64, add: &mut impl FnMut(&str, &str, String)) {
    add("2  the cure", "786432 2097152 3145728", triple(act.tcp_mem));
    add("   connections held", "1,024,000", held(act, connections));
    add(
        "   still answering",
        UNKNOWN,
        format!("{} of {} asked", grouped(act.answered), grouped(act.sampled)),
    );
    add(
        "   pages, of high",
        UNKNOWN,
        format!("{} of {}", grouped(act.held_pages), grouped(act.limit_pages)),
    );
    add(
        "   memory per connection",
        UNKNOWN,
        format!("{}, both ends", bytes(act.memory_bytes_per_connection)),
    );
    add("   ramp", UNKNOWN, ramp(act));
}

fn idle_rows(act: &Act, connections: u64, add: &mut impl FnMut(&str, &str, String)) {
    add("3  idle connections held", "1,024,000", held(act, connections));
    add("   tcp_mem pages", "2", grouped(act.held_pages));
    let both_ends = |count: f64| format!("{}, both ends", bytes(count));
    add("   memory per connection", "7.53 KiB", both_ends(act.memory_bytes_per_connection));
    add(
        "   of it the server's own",
        "76 B",
        act.server_user_bytes_per_connection.map_or(UNKNOWN.into(), bytes),
    );
    add(
        "   of it slab",
        UNKNOWN,
        act.kernel_bytes_per_connection.map_or(UNKNOWN.into(), both_ends),
    );
    for share in act.slab.iter().flatten() {
        let what = format!("      {}", share.cache);
        let this = format!(
            "{} in {:.2} objects",
            bytes(share.bytes_per_connection),
            share.objects_per_connection
        );
        add(&what, UNKNOWN, this);
    }
    add("   server's CPU", "51 % of one at the end", cpu(act));
    let stat = act.sockstat;
    add(
        "   sockets used, TCP inuse, alloc",
        "1,024,380, 1,024,009, 1,024,014",
        [stat.sockets_used, stat.inuse, stat.alloc].map(grouped).join(", "),
    );
    add("   orphan, tw", "0, 0", [stat.orphan, stat.tw].map(grouped).join(", "));
    add("   files, of file-max", "1,025,216 of 1,048,576", files(act));
    add("   ramp", UNKNOWN, ramp(act));
}

fn triple(pages: [u64; 3]) -> String {
    pages.map(|pages| pages.to_string()).join(" ")
}

fn held(act: &Act, connections: u64) -> String {
    format!("{} of {}", grouped(act.held), grouped(connections))
}

fn ramp(act: &Act) -> String {
    let rate = expect::as_f64(act.held) / act.ramp_s.max(0.001);
    format!("{:.1} s, {rate:.0}/s", act.ramp_s)
}

fn cpu(act: &Act) -> String {
    let seconds = act.server_cpu_user_s + act.server_cpu_system_s;
    format!("{seconds:.1} s ({:.1} s in the kernel) for the whole act", act.server_cpu_system_s)
}

/// The article's 1,048,576 was fs.file-max; a host without a limit has the largest number there is.
fn files(act: &Act) -> String {
    let max = act.file_nr.max;
    let max = if max >= u64::from(u32::MAX) { "no limit".into() } else { grouped(max) };
    format!("{} of {max}", grouped(act.file_nr.allocated))
}

/// What the kernel refused, as the hooks counted it.
fn consequences(act: &Act) -> String {
    let Some(refused) = &act.refused else { return UNKNOWN.into() };
    let dropped = refused.dropped_skb.map_or("unknown".into(), grouped);
    format!(
        "{} sends refused, {} receives refused, {} first skbs forced, {dropped} dropped",
        grouped(refused.high_send),
        grouped(refused.high_receive),
        grouped(refused.forced_first_skb),
    )
}

/// The kernel's own counters that speak of memory and of windows.
fn counters(act: &Act) -> String {
    // The server's own reading, which is of the same time as what its hooks counted.
    let told: Vec<String> = act
        .refused
        .as_ref()
        .map_or(&act.kernel, |refused| &refused.kernel)
        .iter()
        .filter(|(_, count)| **count > 0)
        .filter(|(name, _)| {
            ["Memory", "ZeroWindow", "RcvQDrop", "Prune"].iter().any(|part| name.contains(part))
        })
        .map(|(name, count)| format!("{name} {}", grouped(*count)))
        .collect();
    if told.is_empty() { "nothing".into() } else { told.join(", ") }
}

/// For a terminal.
pub(super) fn table(run: &Reproduction) -> String {
    let rows = rows(run);
    let width = |column: fn(&Row) -> &str| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(|row| &row.0), width(|row| &row.1));
    let mut text = String::new();
    for (what, article, this) in &rows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{what:first$}  {article:second$}  {this}");
    }
    for uncounted in &run.uncounted {
        let _ = writeln!(text, "not counted: {uncounted}");
    }
    for missed in &run.missed {
        let _ = writeln!(text, "MISSED: {missed}");
    }
    text
}

/// The rows as Markdown has them.
fn markdown_table(run: &Reproduction) -> String {
    let cell = |text: &str| text.trim_start().replace('|', "\\|");
    let mut text = String::new();
    for (index, (what, article, this)) in rows(run).iter().enumerate() {
        let _ = writeln!(text, "| {} | {} | {} |", cell(what), cell(article), cell(this));
        if index == 0 {
            text.push_str("|---|---|---|\n");
        }
    }
    text
}

/// A page to keep: the same table, and the JSON line that belongs to it.
pub(super) fn markdown(run: &Reproduction, json: &str) -> String {
    let mut text = format!(
        "# {} connections on Linux {}\n\n{} CPUs, {} of memory.\n\n",
        grouped(run.connections),
        run.kernel,
        run.cpus,
        bytes(expect::as_f64(run.memory_bytes)),
    );
    text.push_str(&markdown_table(run));
    text.push('\n');
    for uncounted in &run.uncounted {
        let _ = writeln!(text, "- Not counted: {uncounted}");
    }
    for missed in &run.missed {
        let _ = writeln!(text, "- Missed: {missed}");
    }
    if run.missed.is_empty() {
        text.push_str("Every target was met.\n");
    }
    let _ = write!(text, "\n```json\n{json}\n```\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ReproduceRecord;

    /// The table of docs/reproduction.md, the lines above it, and the rows in README.md are
    /// of the run whose lines are kept.
    #[test]
    fn the_pages_have_the_run_that_is_kept() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let kept = std::fs::read_to_string(root.join("docs/reproduction/run.jsonl"));
        let last = kept.unwrap().lines().last().unwrap().to_owned();
        let ReproduceRecord::Reproduction(run) = serde_json::from_str(&last).unwrap() else {
            panic!("the last line is of another kind: {last}")
        };
        let page = std::fs::read_to_string(root.join("docs/reproduction.md")).unwrap();
        let table = markdown_table(&run);
        assert!(page.contains(&table), "this is not in docs/reproduction.md:\n{table}");
        let act = &run.acts[0];
        for crossing in &act.crossings {
            let line = format!(
                "act 1: tcp_mem {} crossed at connection {}: {} pages, limit {} ({})\n",
                crossing.level.name(),
                grouped(crossing.connections.unwrap()),
                grouped(crossing.pages.unwrap()),
                grouped(crossing.limit_pages),
                crossing.hook.as_ref().unwrap(),
            );
            assert!(page.contains(&line), "this is not in docs/reproduction.md: {line}");
        }
        let end = format!(
            "act 1: {} held, 1,000 of 1,000 answered, ramp {:.1} s\n",
            grouped(act.held),
            act.ramp_s
        );
        assert!(page.contains(&end), "this is not in docs/reproduction.md: {end}");

        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let (_, section) = readme.split_once("\n## What `reproduce` shows\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with('|')).collect();
        // A heading and the rule below it, then five figures.
        assert_eq!(rows.len(), 2 + 5, "{rows:#?}");
        for row in rows {
            assert!(table.lines().any(|it| it == row), "this is not in the table: {row}");
        }
    }
}
