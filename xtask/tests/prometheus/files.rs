//! Rules and dashboard as they are in the tree.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use c1m_client::metrics::METRICS;
use c1m_program::metrics::{Kind, Metric, OWN};
use c1m_server::output::metrics::tables;
use libtest_mimic::{Completion, Failed};
use serde_json::Value;

use crate::program::{prometheus, promtool};

pub(crate) const RULES: &str = include_str!("../../../dist/prometheus/c1m.rules.yml");
const RULE_TESTS: &str = include_str!("../../../dist/prometheus/c1m.rules.test.yml");
const DASHBOARD: &str = include_str!("../../../dist/prometheus/c1m.dashboard.json");

/// What a scrape adds to each sample.
const ADDED: [&str; 2] = ["job", "instance"];

/// Every name of a sample that is exported, with its labels.
fn exported() -> BTreeMap<String, Vec<&'static str>> {
    fn of<S>(table: &'static [Metric<S>]) -> impl Iterator<Item = (String, Vec<&'static str>)> {
        table.iter().flat_map(|metric| {
            let samples = match metric.kind {
                Kind::Counter | Kind::Gauge => &[("", None)][..],
                Kind::Histogram => &[("_bucket", Some("le")), ("_sum", None), ("_count", None)],
            };
            samples.iter().map(|(suffix, label)| {
                let labels = metric.labels.iter().copied().chain(*label).collect();
                (format!("{}{suffix}", metric.exported()), labels)
            })
        })
    }
    tables().into_iter().flat_map(of).chain(of(METRICS)).chain(of(OWN)).collect()
}

/// Every expression of the dashboard, those of its variables as well.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::String(text) if name == "expr" => found.push(text.clone()),
                        member => collect(member, found),
                    }
                }
            }
            Value::Array(members) => members.iter().for_each(|member| collect(member, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    found
}

/// The metrics that a text names, each with the labels that it selects by.
fn named(text: &str) -> Vec<(&str, Vec<&str>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("c1m_") {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let selector = selector.map_or("", |(selector, _)| selector);
        let label = |part: &'_ str| part.find(['=', '!']).map(|end| part[..end].trim().len());
        let labels = selector
            .split(',')
            .filter_map(|part| label(part).map(|length| &part.trim()[..length]))
            .collect();
        found.push((name, labels));
    }
    found
}

pub(crate) fn names() -> Result<(), Failed> {
    let exported = exported();
    let mut texts = dashboard();
    assert!(texts.len() > 30, "{texts:?}");
    // Variables, and what annotations say, name metrics as well.
    texts.extend([RULES, RULE_TESTS, DASHBOARD].map(String::from));
    let mut count = 0;
    for (name, labels) in texts.iter().flat_map(|text| named(text)) {
        let Some(known) = exported.get(name) else {
            return Err(format!("{name} is not exported").into());
        };
        for label in labels {
            assert!(known.contains(&label) || ADDED.contains(&label), "{name} has no {label}");
        }
        count += 1;
    }
    assert!(count > 80, "{count}");
    // The test itself can fail.
    assert_eq!(named("rate(c1m_x{a=\"b\", c!~\"d\"}[5m]) / xc1m_y"), [("c1m_x", vec!["a", "c"])]);
    Ok(())
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist/prometheus").join(name)
}

pub(crate) fn rules_load() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    let rules = file("c1m.rules.yml");
    let said = promtool(
        &prometheus,
        &["check", "rules", "--lint=all", "--lint-fatal", &rules.to_string_lossy()],
        "",
    );
    let alerts = RULES.matches("- alert: ").count();
    assert!(alerts > 0 && said.contains(&format!("SUCCESS: {alerts} rules found")), "{said}");
    Ok(Completion::Completed)
}

pub(crate) fn rules_fire() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    let tests = file("c1m.rules.test.yml");
    let said = promtool(&prometheus, &["test", "rules", &tests.to_string_lossy()], "");
    assert!(said.contains("SUCCESS"), "{said}");
    // Each alert is expected once at least, and once at least not to be.
    let expectations: Vec<(&str, bool)> = RULE_TESTS
        .split("alertname: ")
        .skip(1)
        .map(|text| {
            let mut lines = text.lines();
            let name = lines.next().unwrap_or_default().trim();
            (name, lines.next().is_some_and(|line| line.trim().starts_with("exp_alerts:")))
        })
        .collect();
    for alert in RULES.split("- alert: ").skip(1).map(|text| text.lines().next().unwrap()) {
        for fires in [true, false] {
            assert!(
                expectations.contains(&(alert, fires)),
                "{alert} is not tested to fire: {fires}"
            );
        }
    }
    Ok(Completion::Completed)
}

/// Each expression is one for Prometheus, once Grafana has put in what it puts in.
pub(crate) fn dashboard_asks() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let expressions = dashboard();
    for (index, expression) in expressions.iter().enumerate() {
        let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
        let expression = serde_json::to_string(&expression)?;
        writeln!(rules, "      - record: dashboard:{index}\n        expr: {expression}")?;
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("dashboard.yml");
    fs::write(&path, rules)?;
    let said = promtool(&prometheus, &["check", "rules", &path.to_string_lossy()], "");
    assert!(said.contains(&format!("SUCCESS: {} rules found", expressions.len())), "{said}");
    Ok(Completion::Completed)
}

/// A client with `--timeout 3s`, of whose 10 connections 9 connected in 1 to 2 s, and one not at all: what docs/metrics.md says of its histogram.
const UNANSWERED: &str = r#"
evaluation_interval: 15s
tests:
  - input_series:
      - {series: 'c1m_client_connect_seconds_bucket{le="1"}', values: 0}
      - {series: 'c1m_client_connect_seconds_bucket{le="2"}', values: 9}
      - {series: 'c1m_client_connect_seconds_bucket{le="3"}', values: 9}
      - {series: 'c1m_client_connect_seconds_bucket{le="+Inf"}', values: 10}
      - {series: c1m_client_connect_seconds_sum, values: 13.5}
      - {series: c1m_client_connect_seconds_count, values: 10}
      - {series: 'c1m_client_unanswered_total{stage="connect"}', values: 1}
    promql_expr_test:
      - expr: histogram_quantile(0.9, c1m_client_connect_seconds_bucket)
        exp_samples: [{labels: '{}', value: 2}]
      - expr: histogram_quantile(0.99, c1m_client_connect_seconds_bucket)
        exp_samples: [{labels: '{}', value: 3}]
      - expr: MEAN
        exp_samples: [{labels: '{}', value: 1.5}]
"#;
const MEAN: &str = "c1m_client_connect_seconds_sum / (c1m_client_connect_seconds_count - ignoring(stage) \
                    c1m_client_unanswered_total{stage=\"connect\"})";

pub(crate) fn quantiles() -> Result<Completion, Failed> {
    let prometheus = match prometheus() {
        Ok(prometheus) => prometheus,
        Err(ignored) => return Ok(ignored),
    };
    let docs = include_str!("../../../docs/metrics.md");
    assert!(docs.contains(MEAN), "docs/metrics.md says it in other words");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("unanswered.yml");
    fs::write(&path, UNANSWERED.replace("MEAN", MEAN))?;
    let said = promtool(&prometheus, &["test", "rules", &path.to_string_lossy()], "");
    assert!(said.contains("SUCCESS"), "{said}");
    Ok(Completion::Completed)
}
