//! Programs that tests call, those of packages (xtask/tests/package) and others.

use anyhow::Result;

use crate::{debian, place};

/// What installs a package, and what its scripts call.
const SYSTEM: [&str; 7] = ["dpkg", "tar", "libc-bin", "dash", "coreutils", "diffutils", "sed"];

/// What else tests call, with its package: on most machines, but not on each.
const PROGRAMS: [(&str, &str); 7] = [
    ("bpftool", "bpftool"),
    ("man", "man-db"),
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("ss", "iproute2"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
];

/// Provides them in the folder of packages below the target folder, where the tests look. What cannot be had is told; its tests are then ignored.
pub(crate) fn provide() {
    let missing = PROGRAMS.iter().filter(|(name, _)| place::in_path(name).is_empty());
    let missing: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    if !missing.is_empty() && debian::can_install() {
        debian::update();
        if let Err(error) = debian::install(&missing) {
            eprintln!("warning: some tests will be ignored: {error:#}");
        }
    }
    let tools: [Result<_>; 3] = [
        debian::program("mandoc", &["mandoc"]),
        debian::program("zsh", &["zsh"]),
        debian::system("small-system", &SYSTEM),
    ];
    for error in tools.into_iter().filter_map(Result::err) {
        eprintln!("warning: some tests of packages will be ignored: {error:#}");
    }
}
