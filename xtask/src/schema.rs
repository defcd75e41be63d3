//! JSON schemas of everything that the programs print with `--json`, from the record types themselves.

use std::{fs, path::Path};

use anyhow::Context as _;
use c1m_client::record::ClientRecord;
use c1m_record::{Line, Record};
use schemars::{Schema, generate::SchemaSettings};
use xtask_reproduce::ReproduceRecord;

use crate::{bench::BenchRecord, faults::FaultsRecord, place};

/// Write docs/schema/*.json from the record types
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when a schema in docs/schema is not that of the types
    #[arg(long)]
    check: bool,
}

/// Where the schemas stand, below the root.
const FOLDER: &str = "docs/schema";

/// File name and schema of each program's lines.
fn schemas() -> [(&'static str, Schema); 5] {
    // As serialised: an `Option` is printed as `null`, so the member is always there.
    let generator = || SchemaSettings::draft2020_12().for_serialize().into_generator();
    [
        ("c1m-server.json", generator().into_root_schema_for::<Line<Record>>()),
        ("c1m-client.json", generator().into_root_schema_for::<Line<ClientRecord>>()),
        ("bench.json", generator().into_root_schema_for::<Line<BenchRecord>>()),
        ("faults.json", generator().into_root_schema_for::<Line<FaultsRecord>>()),
        ("reproduce.json", generator().into_root_schema_for::<Line<ReproduceRecord>>()),
    ]
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = place::root().join(FOLDER);
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        write_or_compare(&folder.join(name), &text, args.check)?;
    }
    Ok(())
}

fn write_or_compare(path: &Path, text: &str, check: bool) -> anyhow::Result<()> {
    if !check {
        return fs::create_dir_all(path.parent().unwrap_or(path))
            .and_then(|()| fs::write(path, text))
            .with_context(|| format!("cannot write {}", path.display()));
    }
    let present = fs::read_to_string(path).unwrap_or_default();
    anyhow::ensure!(
        present == text,
        "{} is not the schema of the record types: run `cargo xtask schema`",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// One line of each program, with records inside of records.
    fn lines() -> [Value; 5] {
        [
            json!({
                "v": 2, "ts": "2026-01-02T03:04:05.000006Z", "kind": "crossing", "limit": "tcp_mem", "level": "high",
                "direction": "up", "limit_moved": false, "pages": 101, "limit_pages": 100, "tcp_mem": [50, 75, 100],
                "connections": 42, "local": "127.0.0.1:8000", "remote": null, "pid": null, "comm": null, "cgroup": 1,
                "netns": 2, "hook": "tp_btf/sock_exceed_buf_limit", "resolution": "exact", "pressure_age_ms": 1.5,
                "suppressed": 0
            }),
            json!({
                "v": 2, "ts": "2026-01-02T03:04:05.000006Z", "kind": "plan", "target": "127.0.0.1:8000",
                "connections": 2, "capacity": 64000, "sources": 1, "destinations": 1, "ports_per_source": 64000,
                "workers": 1, "in_flight": 2, "pin": {
                    "bytes_per_connection": 7711, "overhead_bytes": 832, "planned_pages": 4,
                    "plan": [{ "pages": 2, "response_bytes": 7000, "connections": 2 }]
                },
                "metrics": null,
                "shard": { "index": 0, "of": 2, "connections": 4, "first_connection": 0, "sources": null },
                "asked": {
                    "source": ["127.0.0.1"], "per_source": 64000, "request": null, "check": "/bytes/64", "unread": true, "pin_bytes": 7711, "rate_per_s": null,
                    "sample": null, "heartbeat_s": null, "hold_s": 0.5, "timeout_s": 10.0, "give_up_s": 30.0, "end": "reset",
                    "start_at": "2026-01-02T03:04:05.000006Z"
                }
            }),
            json!({
                "v": 2, "ts": "2026-01-02T03:04:05.000006Z", "kind": "bench", "machine": "m", "kernel": "6.18.0", "load_average": 0.5,
                "connections": 1_000, "quick": false, "elapsed_s": 9.0, "figures": [{
                    "name": "ramp", "unit": "s", "about": "a", "median": 2.0, "min": 1.0, "max": 3.0, "runs": 3,
                    "values": [1.0, 2.0, 3.0], "against": "floor", "against_median": null, "against_values": [],
                    "ratio": null, "ratio_min": null, "ratio_max": null, "ratio_of": null, "to_reach": "≤ 1.10 ×",
                    "met": true, "notes": ["n"], "violations": [], "reason": null
                }]
            }),
            json!({
                "v": 2, "ts": "2026-01-02T03:04:05.000006Z", "kind": "faults", "kernels": ["6.18.0"], "faults": [{
                    "name": "ports", "kernel": "6.18.0", "tier": "tracepoints", "runs": 2, "right": 1, "wrong": 1,
                    "counters_equal": null, "dropped": 0, "skipped_because": "no reason"
                }]
            }),
            json!({
                "v": 2, "ts": "2026-01-02T03:04:05.000006Z", "kind": "reproduction", "kernel": "6.18.0", "cpus": 2,
                "memory_bytes": 1, "connections": 16000, "acts": [], "ramp_s": 0.5,
                "server_user_bytes_per_connection": null, "kernel_bytes_per_connection": 8000.5, "dropped": 0,
                "restored": true, "elapsed_s": 9.0, "missed": ["x"], "uncounted": ["y"]
            }),
        ]
    }

    /// Every way to spoil `value` in one place: a member gone, or of another type.
    fn spoiled(value: &Value) -> Vec<Value> {
        match value {
            Value::Object(members) => {
                let mut all = Vec::new();
                for (name, member) in members {
                    let mut without = members.clone();
                    without.remove(name);
                    all.push(without.into());
                    for wrong in spoiled(member).into_iter().chain([json!([[]])]) {
                        let mut with = members.clone();
                        with.insert(name.clone(), wrong);
                        all.push(with.into());
                    }
                }
                all
            }
            Value::Array(items) => (0..items.len())
                .flat_map(|at| {
                    spoiled(&items[at]).into_iter().chain([json!(true)]).map(move |wrong| {
                        let mut items = items.clone();
                        items[at] = wrong;
                        items.into()
                    })
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_line_that_is_not_whole_is_refused() {
        for ((name, schema), line) in schemas().iter().zip(lines()) {
            let schema = jsonschema::draft202012::new(schema.as_value()).unwrap();
            let errors: Vec<_> = schema.iter_errors(&line).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
            let mut wrong = spoiled(&line);
            assert!(wrong.len() > 2 * line.as_object().unwrap().len(), "{name}");
            let mut unheard_of = line.clone();
            unheard_of["kind"] = json!("unheard_of");
            // Another kind's record under this name.
            let mut other = line.clone();
            other["kind"] = json!("summary");
            wrong.extend([unheard_of, other, json!({}), json!([line]), json!(null)]);
            for wrong in wrong {
                assert!(!schema.is_valid(&wrong), "{name} allows {wrong}");
            }
        }
    }

    #[test]
    fn the_committed_schemas_are_those_of_the_types() {
        run(&Args { check: true }).unwrap();
    }

    #[test]
    fn a_stale_schema_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert!(write_or_compare(&path, "new", true).is_err());
        write_or_compare(&path, "new", false).unwrap();
        write_or_compare(&path, "new", true).unwrap();
        assert!(write_or_compare(&path, "newer", true).is_err());
    }
}
