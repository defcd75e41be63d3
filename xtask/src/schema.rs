//! JSON schemas of everything that the programs print with `--json`, from the record types themselves.

use std::{fs, path::Path};

use anyhow::Context as _;
use c1m_client::record::ClientRecord;
use c1m_server::output::record::{Line, Record};
use schemars::{Schema, generate::SchemaSettings};

use crate::{place, reproduce::ReproduceRecord};

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
fn schemas() -> [(&'static str, Schema); 3] {
    // As serialised: an `Option` is printed as `null`, so the member is always there.
    let generator = || SchemaSettings::draft2020_12().for_serialize().into_generator();
    [
        ("c1m-server.json", generator().into_root_schema_for::<Line<Record>>()),
        ("c1m-client.json", generator().into_root_schema_for::<Line<ClientRecord>>()),
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
    use super::*;

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
