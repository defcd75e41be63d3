//! What the programs contain that others wrote, and under which licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::programs::{NAMES, TARGET};
use crate::{place, process};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None`: of the program itself, and not of its build or its tests.
    kind: Option<String>,
}

/// Writes the table.
pub(super) fn write(file: &Path) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.current_dir(place::root());
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]);
    let text = process::ask(&mut cargo).context("cargo cannot tell what the programs are of")?;
    let table = table(&serde_json::from_str(&text)?)?;
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, table).with_context(|| format!("cannot write {}", file.display()))
}

fn table(metadata: &Metadata) -> Result<String> {
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let ours =
        |package: &&Package| package.source.is_none() && NAMES.contains(&package.name.as_str());
    let mut open: Vec<&str> =
        metadata.packages.iter().filter(ours).map(|it| it.id.as_str()).collect();
    anyhow::ensure!(open.len() == NAMES.len(), "cargo does not know all of {NAMES:?}");
    let mut seen: BTreeSet<&str> = open.iter().copied().collect();
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let is_linked = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            if is_linked && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    let mut text = String::from(
        "# Third-party licences\n\nThe programs are linked with these crates, as Cargo.lock has them, with the standard library of Rust (MIT OR \
         Apache-2.0) and, where they are static, with the GNU C library (LGPL-2.1-or-later).\n\n| crate | version | licence | source |\n|---|---|---|---|\n",
    );
    let mut linked: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some() && seen.contains(package.id.as_str()))
        .collect();
    linked.sort_by_key(|package| (&package.name, &package.version));
    for Package { name, version, license, repository, .. } in linked {
        let license = license
            .as_deref()
            .with_context(|| format!("{name} {version} does not say its licence"))?;
        let repository = repository.as_deref().unwrap_or("–");
        writeln!(text, "| {name} | {version} | {license} | {repository} |")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_linked_is_told_and_nothing_else() {
        let package = |name: &str, source: Option<&str>, license: Option<&str>| json!({ "id": name, "name": name, "version": "1.0.0", "license": license, "source": source, "repository": null });
        let needs = |name: &str, kind: Option<&str>| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let registry = Some("registry");
        let metadata = |license| {
            let value = json!({
                "packages": [
                    package("c1m-server", None, None), package("c1m-client", None, None), package("linked", registry, license),
                    package("deep", registry, Some("MIT")), package("of-tests", registry, Some("MIT")), package("of-builds", registry, None)
                ],
                "resolve": { "nodes": [
                    { "id": "c1m-server", "deps": [needs("linked", None), needs("of-tests", Some("dev"))] },
                    { "id": "c1m-client", "deps": [needs("c1m-server", None), needs("of-builds", Some("build"))] },
                    { "id": "linked", "deps": [needs("deep", None)] }, { "id": "deep", "deps": [] }
                ] }
            });
            serde_json::from_value::<Metadata>(value).unwrap()
        };
        let text = table(&metadata(Some("MIT OR Apache-2.0"))).unwrap();
        assert!(text.contains("| linked | 1.0.0 | MIT OR Apache-2.0 | – |"), "{text}");
        assert!(
            text.contains("| deep |") && !text.contains("of-") && !text.contains("| c1m"),
            "{text}"
        );
        let error = table(&metadata(None)).unwrap_err().to_string();
        assert!(error.contains("linked 1.0.0"), "{error}");
    }
}
