//! The kernel tests of c1m-server in guests, and what each kernel must offer to them.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use super::{
    Stream, basics,
    initramfs::Brought,
    kernel::{self, Kernel, Version, Wanted},
    machine::{self, Guest},
    programs::Built,
};
use crate::{exit, place, process};

/// What only kernels from a version on have; the names are those of c1m-server's tests/kernel/offer.rs. A distribution's kernel may
/// have more than its version says: then the test says so, and its series gets a line of its own here.
const OFFERS: [(&str, Version); 5] = [
    ("ipv6", Version(5, 10)),
    ("tracing", Version(5, 10)),
    // Trampolines are there for each kernel that is booted by itself.
    ("functions", Version(5, 10)),
    // Debian builds each kernel with them.
    ("kprobes", Version(5, 10)),
    ("drop_reasons", Version(5, 17)),
];
/// Tracing begins with it.
const OLDEST: Version = Version(5, 10);
/// What has to be tested wherever it can be had.
const WANTED: [Version; 2] = [Version(6, 1), Version(6, 12)];
const MEMORY_BYTES: u64 = 1 << 30;
/// What a host loads by itself when somebody asks sock_diag.
const MODULES: [&str; 1] = ["tcp_diag"];
/// They take three to four minutes, beside each other on two cores.
const TIMEOUT: Duration = Duration::from_secs(600);
const TEST: &str = "/bin/kernel";
/// What a kernel's version changes nothing about: tested on the running kernel alone, since a server starts slowly under emulation.
const HERE_ALONE: [&str; 12] = [
    "a_hook_can_be_left_out",
    "a_wrong_object_is_told_before_the_port",
    "a_watched_command_has_an_exit_code",
    "a_watched_command_gets_signals",
    "a_watch_finds_the_ports_of_a_process",
    "two_servers_count_each_its_own",
    "connections_are_counted_again",
    "examples_come_again_and_for_each_place",
    // There is neither nginx nor util-linux in a guest.
    "nginx_with_slow_readers_is_named",
    "unknown_inside_a_privileged_container_is_not_zero",
    "a_rootless_container_is_told_what_it_lacks",
    "a_namespace_that_is_closed_is_told",
];
/// A second run by another way, for the same reason in one guest: that of the newest kernel.
const ONCE: &str = "_by_kprobes";

/// What came of the tests in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// Adds what a line of a test program's summary says.
    pub(crate) fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} ignored", self.passed, self.ignored)?;
        if self.failed > 0 { write!(f, ", {} FAILED", self.failed) } else { Ok(()) }
    }
}

/// The kernels to test: every series that is here already, and, when they may be downloaded, that the distribution offers.
pub(crate) fn kernels(install: bool) -> Result<Vec<Kernel>> {
    let series = kernel::series(OLDEST, install);
    for missing in WANTED.iter().filter(|version| !series.contains(version)) {
        eprintln!("guests: kernel {missing} is not offered here: not tested");
    }
    if series.is_empty() {
        return Err(exit::refused(
            "no kernel for guests: this needs the package lists of Debian (apt-get update)",
        ));
    }
    series.into_iter().map(|version| kernel::find(&Wanted::Series(version))).collect()
}

/// Runs the tests in all guests at once, and prints what each says. The summaries, in words.
pub(crate) fn run(kernels: &[Kernel], built: &Built) -> Result<Vec<String>> {
    let files = files(built)?;
    let newest = kernels.iter().max_by_key(|kernel| kernel.version());
    let ended: Vec<Result<Ended>> = thread::scope(|scope| {
        let threads: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                let is_newest = newest.is_some_and(|newest| kernel.release == newest.release);
                let files = files.clone();
                scope.spawn(move || one(kernel.clone(), files, is_newest))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(exit::failed("a guest's thread"))))
            .collect()
    });
    let mut summaries = Vec::new();
    let mut failure = None;
    for (kernel, ended) in kernels.iter().zip(ended) {
        let summary = match ended.and_then(|ended| ended.told(&kernel.release)) {
            Ok(summary) => summary,
            Err(error) => {
                failure.get_or_insert(error);
                continue;
            }
        };
        summaries.push(summary);
    }
    failure.map_or(Ok(summaries), Err)
}

/// The server and the tests, and what those read by the path that they were built at.
fn files(built: &Built) -> Result<Vec<Brought>> {
    let mut files = basics(built)?;
    let test = built.get("test:kernel").context("cargo did not build the kernel tests")?;
    files.push(Brought::new(test, TEST));
    for path in ["docs/schema", "c1m-ebpf/prebuilt", "c1m-server/Cargo.toml"] {
        files.push(Brought::as_here(place::root().join(path)));
    }
    Ok(files)
}

struct Ended {
    code: i32,
    seconds: f64,
    lines: Vec<String>,
}

fn one(kernel: Kernel, files: Vec<Brought>, is_newest: bool) -> Result<Ended> {
    let version = kernel.version().context("a kernel whose version nobody knows")?;
    let guest = Guest {
        memory_bytes: MEMORY_BYTES,
        timeout: TIMEOUT,
        modules: MODULES.map(String::from).into(),
        files,
        env: vec![
            ("C1M_SERVER".into(), "/bin/c1m-server".into()),
            ("C1M_KERNEL_OFFERS".into(), offers(version)),
        ],
        ..Guest::new(kernel, command(is_newest))
    };
    let mut lines = Vec::new();
    let ended = machine::run(&guest, |stream, line| {
        let line = String::from_utf8_lossy(line).into_owned();
        match stream {
            Stream::Stdout => lines.push(line),
            // What a test says when it fails: now, in case that the guest hangs.
            Stream::Stderr => eprintln!("guest {}: {line}", guest.kernel.release),
        }
    })?;
    Ok(Ended { code: ended.code, seconds: ended.seconds, lines })
}

fn command(is_newest: bool) -> Vec<String> {
    let skipped = HERE_ALONE.into_iter().chain((!is_newest).then_some(ONCE));
    let skips = skipped.flat_map(|name| ["--skip", name]);
    [TEST].into_iter().chain(skips).map(String::from).collect()
}

fn offers(version: Version) -> String {
    let offers = OFFERS.iter().filter(|(_, since)| version >= *since);
    offers.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

impl Ended {
    /// Prints the lines. An error unless each test passed, or was ignored as it must be.
    fn told(self, release: &str) -> Result<String> {
        let mut counts = Counts::default();
        process::say(format_args!("\n     Running tests/kernel in a guest of {release}"))?;
        for line in &self.lines {
            counts.add(line);
            process::say(line)?;
        }
        if self.code != 0 || counts.passed == 0 {
            return Err(exit::failed(format!(
                "the kernel tests in a guest of {release} ended with {}: {counts}",
                self.code
            )));
        }
        Ok(format!("guest {release}: {counts}, {:.0} s", self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_must_offer_what_its_version_has() {
        assert_eq!(offers(Version(6, 12)), "ipv6,tracing,functions,kprobes,drop_reasons");
        assert_eq!(offers(Version(6, 1)), "ipv6,tracing,functions,kprobes,drop_reasons");
        assert_eq!(offers(Version(5, 10)), "ipv6,tracing,functions,kprobes");
    }

    #[test]
    fn summaries_of_all_test_programs_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 9 tests",
            "test a ... ok",
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.05s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 9, failed: 2, ignored: 1 });
        assert_eq!(counts.to_string(), "9 passed, 1 ignored, 2 FAILED");
    }
}
