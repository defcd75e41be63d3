//! A kernel setting that c1m assesses, how the kernel reads it, and what its assessment depends on.

use std::collections::BTreeMap;

use c1m_record::{Assessment, Effect, LimitName, PlannedLimit};

use super::kernel::Kind;
use crate::preflight::need::{Examination, Host, Run};

/// The range that connections take their local ports from.
pub(crate) const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
/// The first port, and the last one.
pub type Range = (i128, i128);

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// With dots.
    pub name: &'static str,
    pub(crate) numbers: Numbers,
    pub rule: Rule,
}

/// What the kernel accepts.
#[derive(Debug, Clone, Copy)]
pub enum Numbers {
    /// So many C `int`s, not below the number.
    Int(usize, i32),
    /// One within both, inclusive.
    Within(i32, i32),
    /// So many C `long`s, not negative.
    Long(usize),
    /// One number of seconds, which the kernel keeps in its own ticks (`proc_dointvec_jiffies`).
    Seconds,
    PortRange,
    Ports,
}

/// The fewest ticks a second that a kernel is built with (kernel/Kconfig.hz). More seconds than an `int` holds of those are refused by every
/// kernel (kernel/sysctl.c, do_proc_dointvec_jiffies_conv, 6.18); of one with more ticks, fewer are: which it has is not known.
const LEAST_HZ: i128 = 100;

/// Assesses a setting by its name and its numbers, of which there are as many as it has.
pub type AssessNumbers = fn(&Context<'_>, &str, &[i128]) -> Answer;
/// Assesses ports, first and last, beside the range of local ports that the lines set.
pub type AssessPorts = fn(&Context<'_>, &[(u16, u16)], Option<Range>) -> Answer;

/// How it is assessed.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// The more, the more is permitted: of a limit, if there is one. The text says what less of it does.
    Larger(Option<LimitName>, &'static str),
    /// The same of a setting whose default for this host is known.
    LargerThan(fn(&Host) -> Option<u64>, LimitName, &'static str),
    Numbers(AssessNumbers),
    Ports(AssessPorts),
    /// The first value harms, for the reason that the first text has; any other value has the second text.
    Switch {
        harmful: i128,
        harms: &'static str,
        else_: &'static str,
    },
    /// Whatever it is set to, it decides nothing about connections.
    Inert(&'static str),
    /// No kernel since 5.10 has it.
    Removed(&'static str),
}

impl Known {
    pub(crate) const fn new(name: &'static str, numbers: Numbers, rule: Rule) -> Self {
        Self { name, numbers, rule }
    }

    /// How the kernel reads it, where ports from `first_unprivileged` on are for everybody and `last_port` ends the range of local ports.
    #[must_use]
    pub fn kind(&self, first_unprivileged: u64, last_port: Option<i128>) -> Kind {
        let int_max = i128::from(i32::MAX);
        match self.numbers {
            Numbers::Int(count, least) => {
                Kind::Numbers { count, range: least.into()..=int_max, signed: true }
            }
            Numbers::Seconds => {
                let most = int_max / LEAST_HZ;
                Kind::Numbers { count: 1, range: -most..=most, signed: true }
            }
            Numbers::Within(least, most) => {
                Kind::Numbers { count: 1, range: least.into()..=most.into(), signed: false }
            }
            // Of tcp_mem and udp_mem the kernel takes any unsigned long; beyond LONG_MAX there is no memory either.
            Numbers::Long(count) => {
                Kind::Numbers { count, range: 0..=i64::MAX.into(), signed: false }
            }
            Numbers::PortRange => Kind::PortRange { first_unprivileged, last: last_port },
            Numbers::Ports => Kind::Ports,
        }
    }

    /// How many numbers it has.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.numbers {
            Numbers::Int(count, _) | Numbers::Long(count) => count,
            Numbers::Within(..) | Numbers::Seconds | Numbers::Ports => 1,
            Numbers::PortRange => 2,
        }
    }
}

/// What an assessment depends on.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub run: &'a Run,
    pub host: &'a Host,
    pub examination: &'a Examination,
    /// This process belongs to a unit of systemd.
    pub unit: Option<&'a str>,
    /// The host's own settings by their names with dots. `None`: this kernel has no such setting, or does not show it here. A name that is not
    /// in it was not looked for.
    pub present: &'a BTreeMap<String, Option<String>>,
}

/// An assessment, and its reason.
pub struct Answer {
    pub(crate) assessment: Assessment,
    pub(crate) text: String,
    /// The numbers that the kernel takes.
    pub(crate) taken: Option<String>,
    /// It is printed although nobody named the file.
    pub(crate) unasked: bool,
}

impl Answer {
    pub(crate) fn new(assessment: Assessment, text: impl Into<String>) -> Self {
        let unasked = assessment == Assessment::Harms;
        Self { assessment, text: text.into(), taken: None, unasked }
    }

    /// Follows the reason why the line is not read.
    pub(crate) fn if_read(&self) -> String {
        format!(". If it were read: it {}: {}", self.assessment.says(), self.text)
    }

    pub(crate) fn harms(text: impl Into<String>) -> Self {
        Self::new(Assessment::Harms, text)
    }

    pub(crate) fn nothing(text: impl Into<String>) -> Self {
        Self::new(Assessment::Nothing, text)
    }

    /// Of fewer numbers than the setting has, where the host's own are not known.
    pub(crate) fn depends_on_present() -> Self {
        Self::nothing(
            "what it comes to depends on the values that the host has already, which can't be read here",
        )
    }

    /// What is wrong, or `otherwise`.
    pub(crate) fn of_complaints(complaints: Vec<String>, otherwise: impl FnOnce() -> Self) -> Self {
        if complaints.is_empty() { otherwise() } else { Self::harms(complaints.join("; ")) }
    }
}

impl Context<'_> {
    pub(crate) fn row(&self, limit: LimitName) -> Option<&PlannedLimit> {
        self.examination.rows.iter().find(|row| row.limit == limit)
    }

    /// A setting of which more permits more.
    pub(crate) fn larger(
        &self,
        known: &Known,
        limit: Option<LimitName>,
        default: Option<u64>,
        less: &str,
        value: i128,
    ) -> Answer {
        if let Some(default) = default.map(i128::from)
            && value < default
        {
            return Answer::harms(format!(
                "below the kernel's own default of {default} for this host: lowered it saves nothing, and {less}"
            ));
        }
        let present = self.present_numbers(known.name).first().copied();
        self.compared(limit, less, value, present)
    }

    /// Beside what the host has, and beside what the run needs.
    pub(crate) fn compared(
        &self,
        limit: Option<LimitName>,
        less: &str,
        value: i128,
        present: Option<i128>,
    ) -> Answer {
        let row = limit.and_then(|limit| self.row(limit));
        let needed = row.and_then(needed);
        let unit = row.map_or("", |row| row.unit.as_str());
        let short = needed.filter(|needed| value < *needed);
        let short_text = short.map_or(String::new(), |it| format!(", and this run needs {it}"));
        // Of the limits of queues, where no rate was given.
        let is_unknown = row.is_some_and(|row| row.needed.is_none());
        match (present, needed) {
            (Some(present), _) if value < present => Answer::harms(format!(
                "lower than the {present} that this host has already{short_text}: {less}"
            )),
            (_, Some(needed)) if value < needed => {
                Answer::nothing(format!("not enough: this run needs {needed} {unit}"))
            }
            (Some(present), Some(needed)) if present < needed => Answer::new(
                Assessment::Helps,
                format!("this run needs {needed} {unit}, and the host has {present}"),
            ),
            (Some(present), _) if value == present => {
                Answer::nothing("the host has this value already")
            }
            (Some(present), Some(needed)) => Answer::nothing(format!(
                "the {present} {unit} of this host are enough for the {needed} that this run needs"
            )),
            (Some(present), None) if is_unknown => Answer::nothing(format!(
                "more than the {present} of this host; --rate tells what this run needs"
            )),
            (Some(present), None) => Answer::nothing(format!(
                "more than the {present} of this host, and this run does not depend on it"
            )),
            (None, Some(needed)) => Answer::nothing(format!(
                "enough for the {needed} {unit} that this run needs; the host's own value can't be read here"
            )),
            (None, None) => Answer::nothing(
                "this run does not depend on it; the host's own value can't be read here",
            ),
        }
    }

    /// The host's own value as numbers; empty when it is not known.
    pub(crate) fn present_numbers(&self, name: &str) -> Vec<i128> {
        let text = self.present.get(name).cloned().flatten().unwrap_or_default();
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
    }
}

/// What the run needs of a limit that stops it or keeps it waiting. Of one that only resets or forgets, nothing, unless it counts for this run.
fn needed(row: &PlannedLimit) -> Option<i128> {
    let counts = row.hit || matches!(row.effect, Effect::Stops | Effect::Stalls);
    row.needed.filter(|needed| counts && *needed > 0).map(i128::from)
}

/// In the largest unit of which it is a multiple, or else in the largest one of which there are ten.
pub(crate) fn size(bytes: u128) -> String {
    let units = [(1u128 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let exact = |(unit, _): &(u128, &str)| {
        bytes >= *unit && bytes.is_multiple_of(*unit) && bytes / unit < 10_000
    };
    let rounded = |(unit, _): &(u128, &str)| bytes >= unit * 10;
    let unit = units.into_iter().find(exact).or_else(|| units.into_iter().find(rounded));
    unit.map_or(format!("{bytes} bytes"), |(unit, name)| {
        format!("{} {name}", (bytes + unit / 2) / unit)
    })
}

pub(crate) fn spaced(values: &[i128]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_can_be_read() {
        for (bytes, text) in [
            (7, "7 bytes"),
            (16 << 20, "16 MiB"),
            (1 << 30, "1 GiB"),
            (12 << 30, "12 GiB"),
            (64 << 30, "64 GiB"),
            (1_572_864 * 4096, "6 GiB"),
            (927_000_000, "884 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
