//! Installing packages, where that can be done without asking: on Debian, as root; and using programs of packages that are not installed.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{exit, place, process};

/// Whether packages can be installed here: a Debian (or one of its children) with apt-get, and this process is root.
pub(crate) fn can_install() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian(&release) && is_root() && !crate::place::in_path("apt-get").is_empty()
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // The owner of a process's folder is its effective user.
    fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

fn is_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|names| names.trim_matches('"').split(' '))
        .any(|name| name == "debian")
}

/// Brings the lists of packages up to date. A source that cannot be reached is no reason to give up: the packages may
/// be in another one, and installing says so when they are not.
pub(crate) fn update() {
    if let Err(error) = process::run("update the package lists", apt_get().arg("update")) {
        eprintln!("warning: {error:#}");
    }
}

/// Whether every one of `packages` can be installed from the lists at hand.
pub(crate) fn offers(packages: &[String]) -> bool {
    packages.iter().all(|package| {
        process::ask(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
            .is_some_and(|text| text.starts_with("Package:"))
    })
}

/// Installs `packages`, without what they merely recommend.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    process::run(
        "install packages",
        apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages),
    )
}

/// The program `name`: an installed one, or that of Debian's `packages` (its own, and those of libraries that are not on every
/// Debian), unpacked into the target folder and not installed. See [`command`].
///
/// An error is one of the environment, with its reason.
pub(crate) fn program(name: &str, packages: &[&str]) -> Result<PathBuf> {
    if let Some(program) = found(name) {
        return Ok(program);
    }
    if !can_install() {
        return Err(exit::refused(format!("{name} is not there, and no Debian to take it from")));
    }
    unpack(packages, &unpacked(name))
        .map_err(|error| exit::refused(format!("{name} cannot be had: {error:#}")))?;
    found(name).ok_or_else(|| exit::refused(format!("{name} is not in {packages:?}")))
}

/// The program, where it is there already: installed, or unpacked.
pub(crate) fn found(name: &str) -> Option<PathBuf> {
    let roots = [PathBuf::from("/"), unpacked(name)];
    let folders = ["usr/sbin", "usr/bin", "bin"];
    let files = roots.iter().flat_map(|root| folders.map(|folder| root.join(folder).join(name)));
    files.into_iter().find(|file| file.is_file())
}

fn unpacked(name: &str) -> PathBuf {
    place::target().join("packages").join(name)
}

/// `packages` and all that they depend on, unpacked into one folder, which has the packages themselves in it too: a system that is just large
/// enough to run them.
///
/// An error is one of the environment, with its reason.
pub(crate) fn system(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let whole = unpacked(name);
    if whole.is_dir() {
        return Ok(whole);
    }
    if !can_install() {
        return Err(exit::refused("no Debian to take packages from"));
    }
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--recurse", "--important"]).args(packages);
    let text = process::ask(&mut command).unwrap_or_default();
    let with_theirs: Vec<&str> = named(&text).collect();
    unpack(&with_theirs, &whole)
        .map_err(|error| exit::refused(format!("{packages:?} cannot be had: {error:#}")))?;
    Ok(whole)
}

/// What `apt-cache depends --recurse` lists: each package at the margin, and virtual ones in angle brackets.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with([' ', '|', '<']) && !line.is_empty())
}

/// A command that runs what [`program`] found: an unpacked one has its libraries beside it.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(root) = program.ancestors().nth(3).filter(|root| root.parent().is_some()) {
        let libraries = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", root.join(libraries));
    }
    command
}

/// The folder is there as a whole or not at all.
fn unpack(packages: &[&str], whole: &Path) -> Result<()> {
    let folder = &whole.with_extension("new");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut download = process::foreign("apt-get");
    download.current_dir(folder).args(["--quiet", "download"]).args(packages);
    process::run("download the packages", &mut download)?;
    for file in fs::read_dir(folder)?.filter_map(Result::ok) {
        if file.path().extension().is_some_and(|it| it == "deb") {
            let mut unpack = process::foreign("dpkg-deb");
            unpack.arg("--extract").arg(file.path()).arg(folder);
            process::run("unpack the package", &mut unpack)?;
        }
    }
    Ok(fs::rename(folder, whole)?)
}

fn apt_get() -> Command {
    let mut command = process::foreign("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_what_they_depend_on() {
        let text = "dpkg\n  PreDepends: libc6\n |Depends: awk\n<awk>\n    mawk\nlibc6\n";
        assert_eq!(named(text).collect::<Vec<_>>(), ["dpkg", "libc6"]);
    }

    #[test]
    fn debian_and_its_children_are_told_from_others() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nNAME=\"not debian\"\n"));
    }
}
