//! Installing packages, where that can be done without asking: on Debian, as root; and using programs of packages that are not installed.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
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

/// Brings the lists of packages up to date, once in this process: what they said before is of the day on which the machine was made.
///
/// A source that cannot be reached is no reason to give up: the packages may be in another one, and installing says so when they are not.
pub(crate) fn update() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if let Err(error) = process::run("update the package lists", apt_get().arg("update")) {
            eprintln!("warning: {error:#}");
        }
    });
}

/// Whether every one of `packages` can be installed from the lists at hand.
pub(crate) fn offers(packages: &[String]) -> bool {
    packages.iter().all(|package| {
        process::ask(apt_cache().args(["show", "--no-all-versions", package]))
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
    update();
    let text =
        process::ask(apt_cache().args(["depends", "--recurse", "--important"]).args(packages));
    let text = text.unwrap_or_default();
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
    // Of a download that was cut off: it may have packages of other versions.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    download(packages, folder)?;
    for file in fs::read_dir(folder)?.filter_map(Result::ok) {
        if file.path().extension().is_some_and(|it| it == "deb") {
            let mut unpack = process::foreign("dpkg-deb");
            unpack.arg("--extract").arg(file.path()).arg(folder);
            process::run("unpack the package", &mut unpack)?;
        }
    }
    Ok(fs::rename(folder, whole)?)
}

/// Downloads the files of `packages` into `folder`, each in a version that a source has.
///
/// `apt-get download NAME` would ask for the candidate, which is the installed version where no source has a newer one; and the source that it came
/// from may be none of this machine's any more.
pub(crate) fn download(packages: &[&str], folder: &Path) -> Result<()> {
    if can_install() {
        update();
    }
    let policy = process::ask(apt_cache().arg("policy").args(packages)).unwrap_or_default();
    let wanted = from_sources(&policy, packages).map_err(|missing| {
        exit::refused(format!(
            "no source of this machine has {}: is there a network, and are the package lists up to date (apt-get update)?",
            missing.join(", ")
        ))
    })?;
    let mut download = process::foreign("apt-get");
    // Without it root downloads as another user, who may not write here.
    download.current_dir(folder).args(["--quiet", "-o", "APT::Sandbox::User=root", "download"]);
    process::run("download the packages", download.args(wanted))
}

/// What `apt-cache policy` is the answer about.
#[derive(Debug, Default)]
struct Policy<'a> {
    candidate: Option<&'a str>,
    /// The versions that a source has, the newest first.
    in_sources: Vec<&'a str>,
}

impl Policy<'_> {
    /// The candidate where a source has it, else the newest that one has.
    fn version(&self) -> Option<&str> {
        let candidate = self.candidate.filter(|it| self.in_sources.contains(it));
        candidate.or(self.in_sources.first().copied())
    }
}

/// Each of `packages` with its version, as apt-get takes them; or those that no source has.
fn from_sources(policy: &str, packages: &[&str]) -> Result<Vec<String>, Vec<String>> {
    let policies = policies(policy);
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for name in packages {
        let of_it = policies.iter().find(|(package, _)| package == name);
        match of_it.and_then(|(_, policy)| policy.version()) {
            Some(version) => wanted.push(format!("{name}={version}")),
            None => missing.push((*name).to_owned()),
        }
    }
    if missing.is_empty() { Ok(wanted) } else { Err(missing) }
}

/// The output of `apt-cache policy`: a package at the margin, its versions five columns in, and further in where each of them is.
fn policies(text: &str) -> Vec<(&str, Policy<'_>)> {
    const RECORD: &str = "/var/lib/dpkg/status";
    let mut policies: Vec<(&str, Policy<'_>)> = Vec::new();
    let mut version = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "***").collect();
        if !line.starts_with(' ') {
            policies.push((line.trim_end_matches(':'), Policy::default()));
            continue;
        }
        let Some((_, policy)) = policies.last_mut() else { continue };
        match words.as_slice() {
            ["Candidate:", candidate] => policy.candidate = Some(candidate),
            ["Installed:", _] | ["Version", "table:"] => {}
            // Its priority, and a number of a phased update.
            [it, _] | [it, _, "(phased", ..] if !line.starts_with("        ") => {
                version = Some(*it)
            }
            [_, place, ..] if *place != RECORD => policy.in_sources.extend(version.take()),
            _ => {}
        }
    }
    policies
}

/// In the language that is read here.
fn apt_cache() -> Command {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
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

    /// As `apt-cache policy` said it: with the lists of the day on which the machine was made, after an update, and without a network.
    const STALE: &str = "\
libpcre2-8-0:
  Installed: 10.42-1+deb12u1
  Candidate: 10.42-1+deb12u1
  Version table:
 *** 10.42-1+deb12u1 100
        100 /var/lib/dpkg/status
     10.42-1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
mandoc:
  Installed: (none)
  Candidate: 1.14.6-1+b1
  Version table:
     1.14.6-1+b1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
";
    const UPDATED: &str = "\
libpcre2-8-0:
  Installed: 10.42-1+deb12u1
  Candidate: 10.42-1+deb12u2
  Version table:
     10.42-1+deb12u2 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
 *** 10.42-1+deb12u1 100
        100 /var/lib/dpkg/status
     10.42-1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
dash:
  Installed: 0.5.12-2
  Candidate: 0.5.12-2
  Version table:
 *** 0.5.12-2 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
";
    const NO_LISTS: &str = "\
dash:
  Installed: 0.5.12-2
  Candidate: 0.5.12-2
  Version table:
 *** 0.5.12-2 100
        100 /var/lib/dpkg/status
";

    #[test]
    fn a_package_is_asked_for_in_a_version_that_a_source_has() {
        let wanted = from_sources(STALE, &["libpcre2-8-0", "mandoc"]);
        assert_eq!(wanted.unwrap(), ["libpcre2-8-0=10.42-1", "mandoc=1.14.6-1+b1"]);
        let wanted = from_sources(UPDATED, &["libpcre2-8-0", "dash"]);
        assert_eq!(wanted.unwrap(), ["libpcre2-8-0=10.42-1+deb12u2", "dash=0.5.12-2"]);
    }

    #[test]
    fn packages_that_no_source_has_are_named() {
        let missing = from_sources(NO_LISTS, &["dash", "mandoc"]).unwrap_err();
        assert_eq!(missing, ["dash", "mandoc"]);
        assert!(from_sources("", &["dash"]).is_err());
    }

    #[test]
    fn debian_and_its_children_are_told_from_others() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nNAME=\"not debian\"\n"));
    }
}
