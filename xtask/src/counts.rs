//! What came of the tests in one place: how many passed, and which were ignored for which reason.

use std::{env, fmt};

use anyhow::Result;
use c1m_probe::probes::PROBES;

use crate::exit;

/// How a reason begins that is the running kernel's, or the host's that set it up: nothing that could be installed. Besides these it is a signal's name with why the
/// kernel does not give it.
const OF_THE_KERNEL: [&str; 13] = [
    "c1m-server: no hook could be attached",
    "c1m-server: the kernel",
    "c1m-server: tracing needs",
    "cannot write memory.",
    "no IPv6 on loopback",
    "no cgroups below",
    "no memory cgroup",
    "no network namespace",
    "no nftables with connection tracking",
    "tcp_child_ehash_entries",
    "the kernel",
    "the memory cgroup",
    "this kernel",
];
/// What a failed step or program prints before its reason.
const MARKS: [&str; 3] = ["error: ", "no tracing here: ", "see above: "];

/// What a test prints before it makes an attempt again, with the reason behind it.
const RETRIED: &str = "test retried: ";

/// A test that was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    name: String,
    /// Empty where none was told.
    reason: String,
}

/// The outcome of the test programs that ran in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// Attempts that other programs of the host may have disturbed, and that were made again.
    pub(crate) retried: u64,
    /// Those of which the lines tell.
    named: Vec<Ignored>,
}

impl Counts {
    /// Adds what a line of a test program says: one test that was ignored, or the summary.
    pub(crate) fn add(&mut self, line: &str) {
        self.named.extend(Ignored::of(line));
        self.retried += u64::from(line.contains(RETRIED));
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

    /// Says which tests were ignored that need not have been. Where `CI` is set that is an error.
    pub(crate) fn check_reasons(&self, place: &str) -> Result<()> {
        self.check_in(place, is_ci())
    }

    fn check_in(&self, place: &str, is_ci: bool) -> Result<()> {
        let wrong = self.without_need();
        for line in &wrong {
            eprintln!("ignored in {place}, and not for its kernel: {line}");
        }
        if !is_ci || wrong.is_empty() {
            return Ok(());
        }
        Err(exit::failed(format!(
            "{} tests were ignored in {place} for want of something that is not its kernel, and CI is set: {}",
            wrong.len(),
            wrong.join("; ")
        )))
    }

    /// Tests that were ignored for anything but the kernel, each with its reason.
    fn without_need(&self) -> Vec<String> {
        let named = self.named.iter().filter(|it| !it.is_for_the_kernel() && !it.is_no_test());
        let mut wrong: Vec<String> =
            named.map(|it| format!("{} ({})", it.name, it.reason)).collect();
        let told = u64::try_from(self.named.len()).unwrap_or(u64::MAX);
        if told < self.ignored {
            wrong.push(format!("{} more, which gave no reason", self.ignored - told));
        }
        wrong
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = self.named.iter().filter(|it| it.is_no_test()).count();
        let kernel = self.named.iter().filter(|it| it.is_for_the_kernel()).count();
        write!(f, "{} passed, {} ignored", self.passed, self.ignored)?;
        match (kernel, tools) {
            (0, 0) => {}
            (kernel, 0) => write!(f, " ({kernel} for the kernel)")?,
            (kernel, tools) => write!(f, " ({kernel} for the kernel, {tools} that write files)")?,
        }
        if self.retried > 0 {
            write!(f, ", {} retries", self.retried)?;
        }
        if self.failed > 0 { write!(f, ", {} FAILED", self.failed) } else { Ok(()) }
    }
}

impl Ignored {
    /// Of a line such as `test NAME ... ignored, REASON`, or `test NAME ... ignored (REASON)` of libtest-mimic, where a reason of several lines goes on.
    fn of(line: &str) -> Option<Self> {
        let (name, outcome) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
        let reason = outcome.trim().strip_prefix("ignored")?;
        let reason = match reason.strip_prefix(" (") {
            Some(reason) => reason.strip_suffix(')').unwrap_or(reason),
            None => reason.strip_prefix(", ").unwrap_or_default(),
        };
        Some(Self { name: name.trim().to_owned(), reason: reason.trim().to_owned() })
    }

    fn is_for_the_kernel(&self) -> bool {
        let reason = self.reason.as_str();
        let reason = MARKS.iter().fold(reason, |it, mark| it.strip_prefix(mark).unwrap_or(it));
        let signal = reason.split_once(": ").map(|(signal, _)| signal);
        OF_THE_KERNEL.iter().any(|begin| reason.starts_with(begin))
            || PROBES.iter().any(|it| Some(it.id) == signal)
    }

    /// Is it no test, but writes what a test compares with?
    fn is_no_test(&self) -> bool {
        self.reason.starts_with("writes ")
    }
}

/// Does continuous integration run this? It sets the variable everywhere.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.add(line));
        counts
    }

    #[test]
    fn summaries_of_all_test_programs_add_up() {
        let counts = counts(&[
            "running 9 tests",
            "test a ... ok",
            "test b   ... ignored (this kernel has no tables of that kind)",
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.05s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (9, 2, 1));
        assert_eq!(counts.to_string(), "9 passed, 1 ignored (1 for the kernel), 2 FAILED");
        assert!(counts.check_in("here", true).is_ok());
    }

    #[test]
    fn each_retry_is_counted() {
        let counts = counts(&[
            "test a ... test retried: not what the kernel counts",
            "test retried: not what the kernel counts",
            "ok",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!(counts.to_string(), "1 passed, 0 ignored, 2 retries");
    }

    #[test]
    fn what_was_ignored_for_anything_but_the_kernel_fails_in_ci() {
        let summary = "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        for reason in [
            "a small system of Debian's packages is not there",
            "no kernel 6.12: run `cargo xtask test`",
            "no qemu-system-x86_64",
            "no /usr/bin/prometheus, and no other one named by C1M_PROMETHEUS",
            "needs root",
            "error: there is no Chromium: install the package chromium-headless-shell",
        ] {
            let line = format!("test the_package_installs ... ignored ({reason})");
            let counts = counts(&[&line, summary]);
            assert!(counts.check_in("here", false).is_ok(), "{reason}");
            let error = counts.check_in("here", true).unwrap_err();
            assert_eq!(exit::code_of(&error), 1);
            assert!(error.to_string().contains(reason), "{error}");
        }
        // Nothing is known of this one.
        assert!(counts(&["test a ... ignored", summary]).check_in("here", true).is_err());
        assert!(counts(&[summary]).check_in("here", true).is_err());
    }

    #[test]
    fn what_the_kernel_refuses_is_no_failure() {
        for reason in [
            "receive_refused: the kernel refuses trampolines",
            "no IPv6 on loopback: Cannot assign requested address (os error 99)",
            "error: no network namespace of its own: Operation not permitted (os error 1)",
            "no tracing here: c1m-server: no hook could be attached: x",
            "the kernel refuses the probes: see above",
        ] {
            let reason = reason.replace("receive_refused", PROBES[0].id);
            let counts = counts(&[&format!("test a ... ignored ({reason})")]);
            assert!(counts.check_in("here", true).is_ok(), "{reason}");
        }
        let tool = counts(&["test page ... ignored, writes the page"]);
        assert!(tool.check_in("here", true).is_ok());
    }
}
