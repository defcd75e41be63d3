//! Installing packages, where that can be done without asking: on Debian, as root.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use anyhow::Result;

use crate::process;

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

fn apt_get() -> Command {
    let mut command = process::foreign("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_told_from_others() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nNAME=\"not debian\"\n"));
    }
}
