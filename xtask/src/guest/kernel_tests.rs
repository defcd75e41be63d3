//! The kernel tests of c1m-server in guests, and what each kernel must offer to them.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use super::{
    Stream, basics,
    initramfs::Brought,
    kernel::{self, Kernel, Version, Wanted},
    machine::{self, Guest, Limit},
    programs::Built,
};
use crate::{counts::Counts, exit, place, process};

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
/// From the end of one test to that of the next, of which each takes seconds on two cores.
const SILENCE: Duration = Duration::from_secs(300);
const TEST: &str = "/bin/kernel";
/// What a kernel's version changes nothing about: tested on the running kernel alone, since a server starts slowly under emulation.
const HERE_ALONE: [&str; 18] = [
    "a_hook_can_be_left_out",
    "a_wrong_object_is_told_before_the_port",
    "a_watched_command_has_an_exit_code",
    "a_watched_command_gets_signals",
    "a_watch_finds_the_ports_of_a_process",
    "two_servers_count_each_its_own",
    "connections_are_counted_again",
    "examples_come_again_and_for_each_place",
    "a_network_namespace_that_a_mount_keeps_is_found",
    "each_signal_ends_a_watch_in_order",
    "a_watch_whose_lines_nobody_reads_ends",
    "a_watch_whose_json_nobody_reads_ends",
    // A guest has one CPU.
    "threads_are_for_allowed_cpus_and_pages_for_all",
    // There is neither a shell's sleep nor nginx nor util-linux in a guest.
    "processes_beyond_the_bound_are_said",
    "nginx_with_slow_readers_is_named",
    "unknown_inside_a_privileged_container_is_not_zero",
    "a_rootless_container_is_told_what_it_lacks",
    "a_namespace_that_is_closed_is_told",
];
/// A second run by another way, and cgroups of version 2, for the same reason in one guest: that of the newest kernel.
const ONCE: [&str; 2] = ["_by_kprobes", "from_a_cgroup_namespace_no_cgroup_is_taken_for_anothers"];

/// The kernels to test: every series that is here already, and, when they may be downloaded, that the distribution offers. With `all_wanted` one
/// that has to be tested and can't be had is an error, else it is told.
pub(crate) fn kernels(install: bool, all_wanted: bool) -> Result<Vec<Kernel>> {
    let series = kernel::series(OLDEST, install);
    let missing = missing(&series);
    for version in &missing {
        eprintln!("guests: kernel {version} is not offered here: not tested");
    }
    if all_wanted && !missing.is_empty() {
        return Err(exit::refused(format!(
            "no kernel {} for guests: this needs package lists of Debian that have it (apt-get update)",
            missing.join(" and ")
        )));
    }
    if series.is_empty() {
        return Err(exit::refused(
            "no kernel for guests: this needs the package lists of Debian (apt-get update)",
        ));
    }
    series.into_iter().map(|version| kernel::find(&Wanted::Series(version))).collect()
}

/// Those of the series that have to be tested which are not among `series`.
fn missing(series: &[Version]) -> Vec<String> {
    WANTED.iter().filter(|it| !series.contains(it)).map(ToString::to_string).collect()
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
        limit: Limit::Silence(SILENCE),
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
    let once = ONCE.into_iter().filter(|_| !is_newest);
    let skipped = HERE_ALONE.into_iter().chain(once);
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
        counts.check_reasons(release)?;
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
    fn a_kernel_that_has_to_be_tested_is_missed() {
        assert_eq!(missing(&[Version(6, 1), Version(6, 12)]), [""; 0]);
        assert_eq!(missing(&[Version(6, 1), Version(6, 9)]), ["6.12"]);
        assert_eq!(missing(&[]), ["6.1", "6.12"]);
    }
}
