//! `dist`: what is handed to others: static programs, manual pages, completions, an archive and a Debian package.

mod completions;
mod deb;
mod licences;
mod man;
mod programs;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{build_ebpf::hex, exit, place, process};
pub(crate) use deb::{Args as DebArgs, COMMAND as DEB_COMMAND, run as deb};
pub(crate) use tools::provide as provide_tools;

/// What makes archives the same on every machine: see reproducible-builds.org.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build what is handed to others, below target/dist: static programs with their debug symbols apart, manual pages, completions, an archive
/// with its SHA-256, and a Debian package
///
/// Equal sources give equal files: every time in them is SOURCE_DATE_EPOCH, else that of the commit, and no path of this machine is in them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build no programs: take those of this folder as they are, and put everything below target/dist-tried
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,

    /// Make nothing: unpack what the tests of all this look with, below target/packages
    #[arg(long, conflicts_with = "programs")]
    tools: bool,
}

/// Runs the command. Prints what was made.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.tools {
        provide_tools();
        return Ok(());
    }
    // The Debian package is made by a library that looks for its files in a folder of this name in the target folder.
    let name = if args.programs.is_some() { "dist-tried" } else { "dist" };
    let folder = place::target().join(name);
    // What an earlier version had, and this one has not, must not be in it.
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    match &args.programs {
        None => programs::build(&folder)?,
        Some(from) => programs::take(from, &folder)?,
    }
    let share = folder.join("share");
    let epoch = epoch()?;
    man::write(&share.join("man/man1"), &date(&epoch)?)?;
    completions::write(&share)?;
    licences::write(&share.join("doc/THIRD-PARTY-LICENCES.md"))?;
    if args.programs.is_none() {
        process::say(archive(&folder, &epoch)?.display())?;
    }
    compress(&share.join("man/man1"))?;
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(own);
    command.args([DEB_COMMAND, name]).env(EPOCH, &epoch).current_dir(place::root());
    if args.programs.is_some() {
        command.arg("--fast");
    }
    process::run_as_is("make the Debian package", &mut command)
}

/// The files that are handed on as they stand in the repository, and where in the archive.
const AS_THEY_STAND: [(&str, &str); 5] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("dist/systemd/c1m-watch.service", "share/systemd/c1m-watch.service"),
];
/// The folders, to which pages link or which they name.
const FOLDERS: [&str; 3] = ["docs", "dist/kubernetes", "dist/prometheus"];

/// An archive of everything but the debug symbols, with its hash in a file beside it.
fn archive(folder: &Path, epoch: &str) -> Result<PathBuf> {
    let name = format!("c1m-{}-{}", env!("CARGO_PKG_VERSION"), programs::TARGET);
    let whole = folder.join(&name);
    fs::create_dir_all(whole.join("bin"))?;
    for program in programs::NAMES {
        fs::copy(folder.join(program), whole.join("bin").join(program))?;
    }
    copy_folder(&folder.join("share"), &whole.join("share"))?;
    for (from, to) in AS_THEY_STAND {
        let to = whole.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&whole))?;
        fs::copy(place::root().join(from), &to)
            .with_context(|| format!("cannot copy {from} to {}", to.display()))?;
    }
    for from in FOLDERS {
        copy_folder(&place::root().join(from), &whole.join(from))?;
    }
    let file = folder.join(format!("{name}.tar.xz"));
    let mut tar = process::foreign("tar");
    tar.current_dir(folder)
        .args(["--create", "--xz", "--sort=name", "--format=posix"])
        .args(["--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"])
        .args(["--pax-option=delete=atime,delete=ctime", &format!("--mtime=@{epoch}")])
        .arg("--file")
        .arg(&file)
        .arg(&name)
        // Of several threads' work the archive would depend on how many there were.
        .env("XZ_OPT", "-6 --threads=1");
    process::run("make the archive", &mut tar)?;
    fs::remove_dir_all(&whole)?;
    let hash = hex(&Sha256::digest(fs::read(&file)?));
    fs::write(folder.join(format!("{name}.tar.xz.sha256")), format!("{hash}  {name}.tar.xz\n"))?;
    Ok(file)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// As Debian wants pages.
fn compress(folder: &Path) -> Result<()> {
    let mut gzip = process::foreign("gzip");
    gzip.args(["--best", "--no-name"]);
    for page in fs::read_dir(folder)? {
        gzip.arg(page?.path());
    }
    process::run("compress the pages", &mut gzip)
}

/// The day, in UTC.
fn date(epoch: &str) -> Result<String> {
    let seconds = epoch.parse().with_context(|| format!("{EPOCH} is no number: {epoch}"))?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    Ok(text.split('T').next().unwrap_or(&text).to_owned())
}

/// Seconds since 1970: as the environment says, else when the commit was made.
fn epoch() -> Result<String> {
    let given = std::env::var(EPOCH).ok();
    let of_commit = || {
        let mut git = Command::new("git");
        process::ask(git.current_dir(place::root()).args(["log", "-1", "--format=%ct"]))
    };
    given.or_else(of_commit).ok_or_else(|| {
        exit::refused(format!("this is no git repository: set {EPOCH} to the time of the sources"))
    })
}
