//! What the tests of packages look with: see xtask/tests/package.

use anyhow::Result;

use crate::debian;

/// What installs a package, and what its scripts call.
const SYSTEM: [&str; 7] = ["dpkg", "tar", "libc-bin", "dash", "coreutils", "diffutils", "sed"];

/// Provides them in the folder of packages below the target folder, where the tests look. What cannot be had is told; its tests are then ignored.
pub(crate) fn provide() {
    let tools: [Result<_>; 3] = [
        debian::program("mandoc", &["mandoc"]),
        debian::program("zsh", &["zsh"]),
        debian::system("small-system", &SYSTEM),
    ];
    for error in tools.into_iter().filter_map(Result::err) {
        eprintln!("warning: some tests of packages will be ignored: {error:#}");
    }
}
