//! `cargo xtask metrics`: docs/metrics.md, made of the tables that are exported.

use c1m_client::metrics::METRICS;
use c1m_program::metrics::{OWN, rows};
use c1m_server::output::metrics::tables;

use crate::{hooks::write_or_compare, place};

/// Write docs/metrics.md from the tables of metrics
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when docs/metrics.md is not that of the tables
    #[arg(long)]
    check: bool,
}

const FILE: &str = "docs/metrics.md";

const HEAD: &str = "\
# Metrics for Prometheus

Which metrics do the programs serve, and what does each of them mean? `--metrics-addr` serves them
over HTTP:

```
c1m-server watch --metrics-addr 127.0.0.1:9464
c1m-server --trace --metrics-addr 127.0.0.1:9464
c1m-client --connect 127.0.0.1:8000 --connections 1m --metrics-addr 127.0.0.1:9465
curl http://127.0.0.1:9464/metrics
```

`dist/prometheus/` has alert rules (`c1m.rules.yml`, with tests for `promtool test rules` in
`c1m.rules.test.yml`) and a dashboard for Grafana (`c1m.dashboard.json`). The limits are explained
in [limits.md](limits.md), the events in [events.md](events.md), the probes in
[hooks.md](hooks.md).

This page is made by `cargo xtask metrics` from the tables that are exported
(`c1m-server/src/output/metrics/`, `crates/c1m-program/src/metrics/own.rs`,
`c1m-client/src/metrics.rs`); a test fails when it is older.

## Serving

`GET /metrics` answers in the text format, version 0.0.4, and `HEAD /metrics` with its head. Every
other path is 404, every other method 405 or 501. Requests are read as strictly as those of the
server. An address that can't be bound ends the program before anything else is started, with exit
code 3. There is neither encryption nor a password: bind an address that only the scraper reaches.

- A scrape is answered in a thread of its own, and no tracing waits for it. Values are those of the
  last sample, which is taken once per `--interval` whatever is scraped
  (`c1m_look_timestamp_seconds`); those of the client are read from its counters. A scrape reads
  nothing from the kernel but the client's own cost, and walks no list of sockets: its cost does not
  grow with connections.
- At most 16 connections are open at a time. Each has 5 s to send its request, 5 s to take the
  answer and 5 s to close. When 16 are open and another one comes, the oldest one that has its
  answer is closed, else the oldest one whose request is not whole. `c1m_scrape_errors_total`
  counts those that got no page.

## Values

- A value that is not known is absent, never 0. Inside another network namespace tcp_mem is absent
  unless a probe reads it; without `--trace` everything is absent that a probe counts. `absent()`
  distinguishes the two, and `c1m_hook_info` says which probes there are.
- Each metric equals the field of the JSON record that is its source, in base units: pages as bytes,
  milliseconds as seconds. Counters count from the start of the program. A metric without a unit is
  a number of things, which its name says.
- `scope` is where a number counts: `host`, `netns`, `cgroup`, `process`, `listener`, and so on, as
  in `limits`. tcp_mem, orphans and open files are the host's, whichever container is watched. A
  usage can be one process's where the limit is the host's or the user's; beside the label `limit`,
  the scope is the limit's. There is no label for a socket, a remote address or a process number.
- Only `watch` knows who holds the memory: the ten processes that held the most at its last walk
  over all sockets (`c1m_holders_timestamp_seconds`). After a walk it waits 100 times as long as the
  walk took. Processes of one name in one cgroup are one series.

## Histograms

The times of the client's ramp are histograms, which grow while it goes on.

- The bounds of their buckets are 1, 2 and 5 of each power of ten from 10 µs to 100 s, as far as
  they are below `--timeout`, and `--timeout` itself (with `--timeout 3s` the last ones are
  `le=\"2\"`, `le=\"3\"` and `le=\"+Inf\"`).
- Each time is compared with the bounds as it was measured, in microseconds: nothing is rounded,
  where the percentiles of the records have three digits.
- What was not answered within `--timeout` is in `_count` and `le=\"+Inf\"` alone, so that
  `histogram_quantile` of a share that was not reached is the timeout: it took at least that. Its
  time is not known, and not in `_sum`. The mean of the answered ones is

  ```text
  c1m_client_connect_seconds_sum / (c1m_client_connect_seconds_count - ignoring(stage) \
c1m_client_unanswered_total{stage=\"connect\"})
  ```

- With `--rate`, times count from the planned start. An answer in time to a request that was sent
  late can be in `le=\"+Inf\"` as well, with its time in `_sum`.

";
const COLUMNS: &str =
    "| metric | type | unit | labels | meaning | source |\n|---|---|---|---|---|---|\n";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    write_or_compare(&place::root().join(FILE), &text(), args.check, "cargo xtask metrics")
}

fn text() -> String {
    let server: String = tables().into_iter().map(rows).collect();
    format!(
        "{HEAD}## c1m-server, serving and `watch`\n\n{COLUMNS}{server}\n## c1m-client\n\n{COLUMNS}{}\n## Each program itself\n\n{COLUMNS}{}",
        rows(METRICS),
        rows(OWN)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_that_of_the_tables() {
        run(&Args { check: true }).unwrap();
    }

    #[test]
    fn each_metric_has_a_type_a_unit_a_meaning_and_a_source() {
        let text = text();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
        assert!(rows.len() > 60, "{rows:?}");
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let ["", name, kind, unit, _, meaning, source, ""] = cells[..] else { panic!("{row}") };
            let name = name.trim_matches('`');
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{row}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{row}");
            let ends_with = name.trim_end_matches("_total").rsplit('_').next().unwrap();
            let units = ["bytes", "seconds", "ratio"];
            assert_eq!(
                units.iter().find(|it| **it == ends_with),
                units.iter().find(|it| **it == unit)
            );
            assert!(!meaning.is_empty() && !meaning.ends_with('.') && !source.is_empty(), "{row}");
        }
    }

    #[test]
    fn names_are_prefixed_and_stand_once() {
        let text = text();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert!(names.len() > 60, "{names:?}");
        for name in &names {
            assert!(name.starts_with("c1m_"), "{name}");
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }
}
