//! Configured settings: what somebody wrote into files, or set in the running kernel, and the assessment of each line. Advice that is copied from
//! page to page is often for another kernel, another unit, or another problem.
//!
//! - [`lines`]: what a line says; [`order`]: which of two lines counts; [`descriptors`]: a line that limits open files.
//! - [`kernel`]: what the kernel makes of a value; [`setting`]: a setting, and what its assessment depends on; [`known`]: all that are
//!   assessed. What a value does to a limit, that limit's own file says.

pub mod descriptors;
pub mod kernel;
pub mod known;
pub mod lines;
pub mod order;
pub mod setting;

use self::{
    kernel::{Kind, Taken, take},
    known::{Known, similar},
    lines::Line,
    order::{Entry, What, entries},
    setting::{Answer, PORT_RANGE, Range, Rule, spaced},
};
use crate::limits::REGISTRY;
use c1m_record::{Assessment, ConfiguredSetting};

pub use self::setting::Context;

/// The place of what the running kernel has.
pub const NOW: &str = "now";
/// The name of RLIMIT_NOFILE, as limits.conf has it.
pub const NOFILE: &str = "nofile";

/// What is to be said of all lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assessed {
    pub settings: Vec<ConfiguredSetting>,
    /// Names of settings in files that were named and of which c1m has no opinion, each once, in the order of the lines.
    pub unassessed: Vec<String>,
    /// A line of a file that was named harms, or sets nothing because it is refused, and no other one counts instead.
    pub has_fault: bool,
}

/// Assesses every line. Of lines that nobody asked for, only those that harm are reported.
#[must_use]
pub fn assess(lines: &[Line], case: &Context<'_>) -> Assessed {
    let entries = entries(lines);
    let range = case.configured_range(&entries);
    let said: Vec<Option<Answer>> = entries.iter().map(|entry| case.say(entry, range)).collect();
    let mut all = Assessed::default();
    for (entry, say) in entries.iter().zip(&said) {
        let name = entry.name();
        let Some(say) = say else {
            if entry.line.asked && !all.unassessed.contains(&name) {
                all.unassessed.push(name);
            }
            continue;
        };
        if !entry.line.asked && (!say.unasked || entry.overridden_by.is_some()) {
            continue;
        }
        let is_fault = matches!(say.assessment, Assessment::Harms | Assessment::Refused);
        all.has_fault |= entry.line.asked && is_fault && entry.overridden_by.is_none();
        let by = entry.overridden_by.map(|by| &entries[by]);
        let by_refused =
            entry.overridden_by.and_then(|by| said[by].as_ref()).map(|it| it.assessment)
                == Some(Assessment::Refused);
        all.settings.push(ConfiguredSetting {
            file: entry.line.file.clone(),
            line: entry.line.number,
            value: entry.value().into(),
            taken: say.taken.clone(),
            present: case.present_of(entry),
            assessment: say.assessment,
            overridden_by: by.map(|by| place(by.line)),
            text: by.map_or_else(|| say.text.clone(), |by| overridden(entry, by, by_refused, say)),
            name,
        });
    }
    all
}

fn place(line: &Line) -> String {
    line.number.map_or_else(|| line.file.clone(), |number| format!("{}:{number}", line.file))
}

/// Why the line does not count, and what it would do by itself.
fn overridden(entry: &Entry<'_>, by: &Entry<'_>, by_refused: bool, say: &Answer) -> String {
    let place = place(by.line);
    let how = match by.value() == entry.value() {
        true => format!("repeated by {place} with the same value"),
        false => format!("overridden by {place}, which sets {}", by.value()),
    };
    let but = match by_refused {
        true if say.assessment == Assessment::Refused => "; the kernel refuses that one as well",
        true => {
            "; the kernel refuses that one, so systemd-sysctl sets neither, and `sysctl -p` leaves this one"
        }
        false => "",
    };
    format!("{how}{but}. By itself it {}: {}", say.assessment.says(), say.text)
}

/// Ports as the kernel shows them, `7,8080,9000-9100`: in order, and neighbours as one range (kernel/sysctl.c, proc_do_large_bitmap, 6.18).
fn ranges(ports: &[(u16, u16)]) -> String {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match all.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    let range = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    all.iter().map(range).collect::<Vec<_>>().join(",")
}

impl Context<'_> {
    /// `None`: c1m has no opinion.
    fn say(&self, entry: &Entry<'_>, range: Option<Range>) -> Option<Answer> {
        let Some(by) = &entry.line.masked_by else { return self.say_read(entry, range) };
        let why = format!("{by} has the same name, and is read instead of this file");
        let say = self.say_read(entry, range);
        Some(Answer::new(
            Assessment::Ignored,
            why + &say.as_ref().map_or(String::new(), Answer::if_read),
        ))
    }

    /// The same, of a file that is read.
    fn say_read(&self, entry: &Entry<'_>, range: Option<Range>) -> Option<Answer> {
        match &entry.what {
            What::Sysctl { name, value } => self.sysctl(name, value, range),
            What::NotRead { name, value, why } => {
                let say = self.sysctl(name, value, range);
                let then = say.as_ref().map_or(String::new(), Answer::if_read);
                Some(Answer::new(Assessment::Ignored, format!("{why}{then}")))
            }
            What::Descriptors(descriptors) => {
                REGISTRY.iter().find_map(|limit| limit.assess_descriptors(descriptors, self))
            }
            What::Unassessed { .. } => None,
            What::Other { .. } => Some(Answer::new(
                Assessment::Ignored,
                "this is no setting: neither `name = value` nor a line of limits.conf. It sets nothing",
            )),
        }
    }

    fn sysctl(&self, name: &str, value: &str, range: Option<Range>) -> Option<Answer> {
        let Some(known) = Known::of(name) else {
            let is_absent = self.present.get(name).is_some_and(Option::is_none);
            let near = similar(name).map_or(String::new(), |near| format!("; {near} is one"));
            return is_absent.then(|| {
                Answer::new(Assessment::Absent, format!("there is no setting of this name{near}"))
            });
        };
        if let Rule::Removed(why) = known.rule {
            return Some(Answer::new(Assessment::Absent, why));
        }
        Some(match take(&self.kind(known), value) {
            Err(refused) => {
                let before: Vec<String> = refused.set.iter().map(ToString::to_string).collect();
                let but = match before.as_slice() {
                    [] => String::new(),
                    set => format!("; but it sets what stands before that: {}", set.join(" ")),
                };
                Answer::new(Assessment::Refused, format!("{} (EINVAL){but}", refused.why))
            }
            Ok(taken) => self.taken(known, &taken, range),
        })
    }

    fn taken(&self, known: &Known, taken: &Taken, range: Option<Range>) -> Answer {
        let (text, say) = match taken {
            Taken::Ports(ports) => match known.rule {
                Rule::Ports(assess) => (ranges(ports), assess(self, ports, range)),
                _ => (ranges(ports), Answer::depends_on_present()),
            },
            Taken::Numbers(numbers) => {
                (spaced(numbers), self.numbers(known, &self.completed(known, numbers)))
            }
        };
        let missing = match taken {
            Taken::Numbers(numbers) if numbers.len() < known.count() => format!(
                "only {} of {} numbers: the others stay as they are. ",
                numbers.len(),
                known.count()
            ),
            _ => String::new(),
        };
        Answer { text: missing + &say.text, taken: Some(text), ..say }
    }

    /// `all`: as many as the setting has, or fewer where the host's own are not known.
    fn numbers(&self, known: &Known, all: &[i128]) -> Answer {
        match (known.rule, all) {
            (Rule::Larger(limit, less), [value]) => self.larger(known, limit, None, less, *value),
            (Rule::LargerThan(default, limit, less), [value]) => {
                self.larger(known, Some(limit), default(self.host), less, *value)
            }
            (Rule::Larger(_, less), values) => self.each_larger(known.name, less, values),
            (Rule::Numbers(assess), values) if values.len() == known.count() => {
                assess(self, known.name, values)
            }
            (Rule::Switch { harmful, harms, .. }, [value]) if *value == harmful => {
                Answer::harms(harms)
            }
            (Rule::Switch { else_: text, .. } | Rule::Inert(text) | Rule::Removed(text), _) => {
                Answer::nothing(text)
            }
            _ => Answer::depends_on_present(),
        }
    }

    fn each_larger(&self, name: &str, less: &str, values: &[i128]) -> Answer {
        let present = self.present_numbers(name);
        if values.iter().zip(&present).any(|(value, present)| value < present) {
            let own = spaced(&present);
            return Answer::harms(format!(
                "lower than the {own} that this host has already: {less}"
            ));
        }
        Answer::nothing("TCP connections need none of it")
    }

    fn kind(&self, known: &Known) -> Kind {
        let readings = &self.host.readings;
        let last_port = readings.port_range.map(|[_, last]| last.into());
        known.kind(readings.first_unprivileged_port.unwrap_or(1024), last_port)
    }

    /// The range of local ports that the lines set.
    fn configured_range(&self, entries: &[Entry<'_>]) -> Option<Range> {
        let known = Known::of(PORT_RANGE)?;
        let counts = entries.iter().rev().find_map(|entry| match &entry.what {
            What::Sysctl { name, value } if name == PORT_RANGE && entry.overridden_by.is_none() => {
                Some(value)
            }
            _ => None,
        });
        match take(&self.kind(known), counts?) {
            Ok(Taken::Numbers(numbers)) => match self.completed(known, &numbers).as_slice() {
                [first, last] => Some((*first, *last)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Numbers that were not written stay as they are.
    fn completed(&self, known: &Known, numbers: &[i128]) -> Vec<i128> {
        let present = self.present_numbers(known.name);
        let rest =
            present.iter().skip(numbers.len()).take(known.count().saturating_sub(numbers.len()));
        numbers.iter().chain(rest).copied().collect()
    }

    fn present_of(&self, entry: &Entry<'_>) -> Option<String> {
        match &entry.what {
            _ if entry.line.file == NOW => None,
            What::Sysctl { name, .. } | What::NotRead { name, .. } => {
                self.present.get(known::canonical(name)).cloned().flatten()
            }
            // The soft limit is not read.
            What::Descriptors(descriptors) if descriptors.is_soft() => None,
            What::Descriptors(_) => self.host.readings.nofile.map(|nofile| nofile.to_string()),
            What::Unassessed { .. } | What::Other { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use c1m_record::{FileNr, Role, Sockstat};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        footprint::Sizes,
        preflight::{Host, Run, Tables, examine},
        reading::Readings,
    };

    const GIB: u64 = 1 << 30;

    /// 24 GiB, Linux 6.18, as it came.
    fn host() -> Host {
        Host {
            readings: Readings {
                sockstat: Some(Sockstat::default()),
                tcp_mem: Some([287_901, 383_868, 575_802]),
                page_bytes: Some(4096),
                cpus: Some(2),
                max_orphans: Some(131_072),
                nofile: Some(20_000),
                nr_open: Some(1_048_576),
                file_nr: Some(FileNr { allocated: 1_000, max: 2_466_177 }),
                backlog: Some(4096),
                somaxconn: Some(4096),
                ports: Some(28_232),
                port_range: Some([32_768, 60_999]),
                first_unprivileged_port: Some(1024),
                max_tw_buckets: Some(131_072),
                max_user_watches: Some(5_491_511),
                memory_total_bytes: Some(24 * GIB),
                memory_available_bytes: Some(20 * GIB),
                ..Readings::default()
            },
            tables: Tables {
                by_nofile: Some(1 << 26),
                by_nr_open: Some(1 << 32),
                needed: 300,
                most: 4096,
            },
            listeners: 2,
            sizes: Sizes::default(),
            tracked: Some(false),
            ehash_buckets: Some(262_144),
            cgroup_counts_sockets: true,
            is_exempt_from_file_max: true,
        }
    }

    fn run(queued_bytes: u64) -> Run {
        Run {
            connections: 1_024_000,
            queued_bytes,
            role: Role::Both,
            ipv6: false,
            sources: 16,
            destinations: 1,
            rate: None,
            ends_by_fin: false,
        }
    }

    fn present() -> BTreeMap<String, Option<String>> {
        [
            ("net.ipv4.tcp_mem", "287901 383868 575802"),
            ("net.ipv4.tcp_rmem", "4096 131072 33554432"),
            ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
            ("net.ipv4.tcp_max_orphans", "131072"),
            ("net.ipv4.tcp_max_tw_buckets", "131072"),
            ("net.ipv4.tcp_max_syn_backlog", "2048"),
            ("net.ipv4.ip_local_port_range", "32768 60999"),
            ("net.ipv4.udp_mem", "575802 767736 1151604"),
            ("net.core.somaxconn", "4096"),
            ("net.core.netdev_max_backlog", "1000"),
            ("net.core.rmem_max", "212992"),
            ("net.netfilter.nf_conntrack_max", "262144"),
            ("net.netfilter.nf_conntrack_buckets", "262144"),
            ("net.netfilter.nf_conntrack_tcp_timeout_established", "432000"),
            ("net.ipv4.neigh.default.gc_thresh3", "1024"),
            ("fs.file-max", "2466177"),
            ("fs.nr_open", "1048576"),
            ("kernel.threads-max", "192000"),
            ("vm.max_map_count", "65530"),
            ("vm.swappiness", "60"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
        .chain(
            ["kernel.exec-shield", "net.ipv4.tcp_max_orphan"].map(|name| (name.to_owned(), None)),
        )
        .collect()
    }

    fn assessed(run: &Run, unit: Option<&str>, lines: &[Line]) -> Assessed {
        let (host, present) = (host(), present());
        let examination = examine(run, &host);
        let case = Context { run, host: &host, examination: &examination, unit, present: &present };
        assess(lines, &case)
    }

    fn asked(text: &str) -> Vec<Line> {
        let mut lines = lines::lines("f", text);
        lines.iter_mut().for_each(|line| line.asked = true);
        lines
    }

    fn of(text: &str) -> Assessed {
        assessed(&run(0), None, &asked(text))
    }

    fn one(line: &str, queued_bytes: u64) -> ConfiguredSetting {
        let all = assessed(&run(queued_bytes), None, &asked(line)).settings;
        let [one] = all.as_slice() else { panic!("{line}: {all:?}") };
        one.clone()
    }

    use Assessment::{Absent, Harms, Helps, Ignored, Nothing, Refused};

    /// A line by itself, its assessment, and a part of the reason.
    const LINES: &[(&str, Assessment, &str)] = &[
        // What the kernel refuses.
        ("net.ipv4.ip_local_port_range = 65535", Refused, "the last port 60999 is below"),
        ("net.ipv4.tcp_fin_timeout = 2147483647", Refused, "not between"),
        ("net.ipv4.ip_local_port_range = 500 65535", Refused, "ip_unprivileged_port_start=1024"),
        ("net.ipv4.ip_local_port_range = 1024-65535", Refused, "not a number"),
        ("net.ipv4.ip_local_port_range = 1024 70000", Refused, "not between 1 and 65535"),
        ("net.ipv4.tcp_max_orphans = 262144;", Refused, "`262144;` is not a number"),
        ("net.ipv4.tcp_max_orphans = 3_000", Refused, "not a number"),
        ("net.ipv4.tcp_mem = \"65536 131072 262144\"", Refused, "not a number"),
        ("net.ipv4.tcp_syncookies = yes", Refused, "not a number"),
        ("net.ipv4.tcp_tw_reuse = 3", Refused, "not between 0 and 2"),
        ("net.core.somaxconn =", Refused, "no number"),
        ("fs.file-max = 18446744073709551615", Refused, "not between"),
        ("net.ipv4.tcp_rmem = 4096 x 4096", Refused, "it sets what stands before that: 4096"),
        // Units, and all three values.
        ("net.ipv4.tcp_mem = 4096 87380 1572864", Harms, "bytes of tcp_rmem"),
        ("net.ipv4.tcp_mem = 4096 87380 6291456", Harms, "bytes of tcp_rmem"),
        ("net.ipv4.tcp_mem = 16777216 16777216 16777216", Harms, "looks like bytes (16 MiB)"),
        ("net.ipv4.tcp_mem = 16777216 16777216 16777216", Harms, "three equal values"),
        ("net.ipv4.tcp_mem = 8388608 12582912 16777216", Harms, "64 GiB, more than the 24576 MiB"),
        ("net.ipv4.tcp_mem = 94500000 915000000 927000000", Harms, "looks like bytes (884 MiB)"),
        ("net.ipv4.tcp_mem = 786432 1048576 26777216", Harms, "more than the 24576 MiB"),
        ("net.ipv4.tcp_mem = 94500000 91500000 92700000", Harms, "have to ascend"),
        ("net.ipv4.tcp_mem = 94500000 91500000 92700000", Harms, "looks like bytes"),
        ("net.ipv4.tcp_mem = 10000000 10000000 10000000", Harms, "three equal values"),
        (
            "net.ipv4.tcp_mem = 3221225472 8589934592 12884901888",
            Harms,
            "looks like bytes (12 GiB)",
        ),
        ("net.ipv4.tcp_mem = 3145728 8388608 13000000", Harms, "looks like kB (12 GiB)"),
        ("net.ipv4.tcp_mem = 1 2 999999999999999", Harms, "no limit at all"),
        (
            "net.ipv4.tcp_mem = 65536 131072 1000000",
            Harms,
            "pressure is 131072 pages (512 MiB), below",
        ),
        ("net.ipv4.tcp_mem = 65536\t131072\t262144", Harms, "high is 262144 pages (1 GiB), below"),
        ("net.ipv4.tcp_mem = 65536 400000 600000", Harms, "until usage is below low"),
        ("net.ipv4.tcp_mem = 300000 600000 600000", Harms, "pressure and high are equal"),
        ("net.ipv4.tcp_mem = 786432 2097152 3145728", Nothing, "idle connections use none"),
        ("net.ipv4.tcp_mem = 500000", Harms, "only 1 of 3 numbers"),
        ("net.ipv4.tcp_rmem = 16777216 16777216 16777216", Harms, "even above tcp_mem: 16 TiB"),
        ("net.ipv4.tcp_rmem = 4096 87380 4096", Harms, "never grows"),
        ("net.ipv4.tcp_rmem = 4096 87380 33554432", Harms, "instead of 131072"),
        (
            "net.ipv4.tcp_rmem = 4096 131072 16777216",
            Harms,
            "third value is lower than the 33554432",
        ),
        ("net.ipv4.tcp_rmem = 4 85 16384", Harms, "looks like kB or pages"),
        ("net.ipv4.tcp_rmem = 4096 131072 33554432", Nothing, "up to 32 MiB"),
        ("net.ipv4.tcp_wmem = 1024 4096 16384", Harms, "instead of 16384"),
        ("net.ipv4.tcp_wmem = 4096 87380 33554432", Nothing, "bounds one socket"),
        ("net.ipv4.udp_mem = 65536 131072 262144", Harms, "lower than the 575802 767736 1151604"),
        // Lower than the host's own, and not than c1m's plan.
        ("net.core.somaxconn = 128", Harms, "lower than the 4096 that this host has"),
        ("net.core.somaxconn = 3000", Harms, "lower than the 4096 that this host has"),
        ("net.core.somaxconn = 8192 # enough", Nothing, "more than the 4096 of this host; --rate"),
        ("net.core.somaxconn = 4096", Nothing, "this value already"),
        ("net.ipv4.tcp_max_syn_backlog = 256", Harms, "lower than the 2048"),
        ("net.ipv4.tcp_max_syn_backlog = 3000", Nothing, "more than the 2048"),
        ("net.ipv4.tcp_max_syn_backlog = 0x4000", Nothing, "more than the 2048"),
        ("net.ipv4.tcp_max_syn_backlog = 0100", Harms, "lower than the 2048"),
        ("net.nf_conntrack_max = 4096", Harms, "lower than the 262144"),
        ("net.netfilter.nf_conntrack_max = 10000000", Nothing, "more than the 262144"),
        ("net.netfilter.nf_conntrack_buckets = 1024", Harms, "longer chain"),
        (
            "net.netfilter.nf_conntrack_tcp_timeout_established = 120",
            Harms,
            "idle for so many seconds",
        ),
        ("net.core.netdev_max_backlog = 10", Harms, "packets are dropped"),
        ("net.core.netdev_max_backlog = 262144", Nothing, "more than the 1000"),
        ("net.core.rmem_max = 4194304", Nothing, "more than the 212992"),
        ("net.ipv4.neigh.default.gc_thresh3 = 128", Harms, "neighbours"),
        ("kernel.threads-max = 1000", Harms, "EAGAIN"),
        ("vm.max_map_count = 1000", Harms, "stack"),
        ("fs.nr_open = 300000", Harms, "lower than the 1048576"),
        ("fs.nr_open = 1073741816", Nothing, "enough"),
        ("fs.file-max = 1048576", Harms, "this run needs"),
        ("fs.file-max = 4194304 # for a million connections", Nothing, "enough"),
        ("net.ipv4.tcp_max_orphans = 8192", Harms, "own default of 131072"),
        ("net.ipv4.tcp_max_orphans = -5", Harms, "own default of 131072"),
        ("net.ipv4.tcp_max_orphans = 400000", Nothing, ""),
        ("net.ipv4.tcp_max_tw_buckets = 5000", Harms, "own default of 131072"),
        ("net.ipv4.ip_local_port_range = 1024 65535", Helps, "this run needs 64000"),
        ("net.ipv4.ip_local_port_range = 40000 50000", Harms, "lower than the 28232"),
        ("net.ipv4.ip_local_reserved_ports = 1024-60999", Harms, "leaves 0"),
        ("net.ipv4.ip_local_reserved_ports = 8080,9000-9100", Nothing, "none of these"),
        // Switches.
        ("net.ipv4.tcp_syncookies = 0", Harms, "flood"),
        ("net.ipv4.tcp_syncookies = 1", Nothing, "refuses nobody"),
        ("net.ipv4.tcp_timestamps = 0", Harms, "tcp_tw_reuse"),
        ("net.ipv4.tcp_window_scaling = 0", Harms, "64 KiB"),
        ("net.ipv4.tcp_abort_on_overflow = 1", Harms, "resets"),
        ("net.ipv4.tcp_tw_reuse = 1", Nothing, "this host opens"),
        ("net.ipv4.tcp_fin_timeout = 10", Nothing, "FIN_WAIT_2"),
        ("net.ipv4.route.max_size = 8048576", Nothing, "3.6"),
        // What this kernel does not have.
        ("net.ipv4.tcp_tw_recycle = 1", Absent, "4.12"),
        ("net.ipv4.netfilter.ip_conntrack_max = 131072", Absent, "net.netfilter.nf_conntrack_max"),
        ("net.ipv4.tcp_max_orphan = 9", Absent, "net.ipv4.tcp_max_orphans is one"),
        ("kernel.exec-shield = 1", Absent, "no setting of this name"),
        ("net.ipv4.tcp_max_tw_buckets = 1440000", Nothing, "does not depend on it"),
        ("no setting at all", Ignored, "neither"),
        ("\u{feff}net.ipv4.tcp_max_orphans = 5\r", Ignored, "byte order mark"),
        // Limits of open files.
        ("* - nofile unlimited", Nothing, "fs.nr_open=1048576"),
        ("* hard nofile infinity", Nothing, "everybody but root"),
        ("* soft nofile 1024", Nothing, "by themselves"),
        ("* hard nofile 2000000", Harms, "log-ins fail"),
        ("* hard nofile 4096", Harms, "lower than the 20000"),
        ("* hard nofile 65536", Nothing, "enough"),
        ("root - nofile 65535", Nothing, "root"),
        ("www-data soft nofile 4096", Nothing, "www-data alone"),
        ("* hard nofile many", Refused, "leaves the line out"),
    ];

    #[test]
    fn every_line_has_its_assessment() {
        for (line, assessment, says) in LINES {
            let told = one(line, 0);
            assert!(told.assessment == *assessment && told.text.contains(says), "{line}: {told:?}");
            assert!(told.text.len() > 10 && told.line == Some(1), "{line}: {told:?}");
        }
    }

    #[test]
    fn the_number_that_the_kernel_takes_stands_beside_the_host_s_own() {
        let told = one("net.ipv4.tcp_max_syn_backlog = 0x4000", 0);
        assert_eq!((told.value.as_str(), told.taken.as_deref()), ("0x4000", Some("16384")));
        assert_eq!(told.present.as_deref(), Some("2048"));
        assert_eq!(one("net.core.somaxconn = 8192 # c", 0).taken.as_deref(), Some("8192"));
        assert_eq!(one("net.core.somaxconn = x", 0).taken, None);
        assert_eq!(one("* hard nofile 4096", 0).present.as_deref(), Some("20000"));
    }

    #[test]
    fn only_what_counts_is_a_fault() {
        let told = of("net.core.somaxconn = 128\nnet/core/somaxconn = 8192\n");
        assert_eq!(told.settings[0].overridden_by.as_deref(), Some("f:2"));
        assert!(told.settings[0].text.contains("By itself it harms"), "{told:?}");
        assert!(!told.has_fault);
        assert!(of("net.core.somaxconn = 8192\n-net.core.somaxconn = 128\n").has_fault);
        assert!(of("net.core.somaxconn = x\n").has_fault);
        assert!(!of("net.ipv4.tcp_max_orphan = 9\nvm.swappiness = 1\n").has_fault);
        let refused =
            of("net.core.somaxconn = 8192\nnet.core.somaxconn = x\n").settings[0].text.clone();
        assert!(refused.contains("sets neither"), "{refused}");
        let both = of("net.core.somaxconn = y\nnet.core.somaxconn = x\n").settings[0].text.clone();
        assert!(both.contains("that one as well"), "{both}");
        let repeated =
            of("net.core.somaxconn = 9999\nnet.core.somaxconn = 9999\n").settings[0].text.clone();
        assert!(repeated.contains("repeated by f:2"), "{repeated}");
        // What nobody asked for is told when it harms, and is no fault of what was named.
        let unasked = lines::lines(
            "g",
            "net.core.somaxconn = 128\nfs.nr_open = 1073741816\nvm.swappiness = 1\n",
        );
        let told = assessed(&run(0), None, &unasked);
        assert_eq!((told.settings.len(), told.has_fault, told.unassessed.len()), (1, false, 0));
    }

    #[test]
    fn reserved_ports_are_taken_from_the_range_that_the_file_sets() {
        let told = of(
            "net.ipv4.ip_local_port_range = 1024 65535\nnet.ipv4.ip_local_reserved_ports = 1024-65000\n",
        );
        let text = &told.settings[1].text;
        assert!(text.contains("leaves 535, where this run needs 64000"), "{text}");
    }

    #[test]
    fn what_has_no_assessment_is_counted_with_its_name() {
        let told = of(
            "vm.swappiness = 1\nnet.core.somaxconn = 9999\nvm.swappiness = 2\nnet.ipv4.conf.*.rp_filter = 1\n* hard nproc 7\n",
        );
        assert_eq!(told.unassessed, ["vm.swappiness", "net.ipv4.conf.*.rp_filter", "nproc"]);
        assert_eq!(told.settings.len(), 1);
    }

    #[test]
    fn patterns_set_what_they_match() {
        let told =
            of("net.ipv4.tcp_[rw]mem = 4096 8192 16384\nnet.ipv4.tcp_wmem = 4096 65536 4194304\n");
        let names: Vec<_> =
            told.settings.iter().map(|it| (it.name.as_str(), it.line, it.assessment)).collect();
        assert_eq!(
            names,
            [("net.ipv4.tcp_rmem", Some(1), Harms), ("net.ipv4.tcp_wmem", Some(2), Nothing)]
        );
    }

    #[test]
    fn a_masked_file_is_not_read() {
        let mut lines = asked("net.core.somaxconn = 128\n");
        lines[0].masked_by = Some("/etc/sysctl.d/a.conf".into());
        let told = assessed(&run(0), None, &lines);
        assert_eq!((told.settings[0].assessment, told.has_fault), (Ignored, false));
        assert!(
            told.settings[0].text.contains("/etc/sysctl.d/a.conf has the same name"),
            "{told:?}"
        );
    }

    #[test]
    fn units_have_their_own_limits() {
        for (line, assessment, says) in [
            ("LimitNOFILE=65536", Nothing, "enough"),
            ("LimitNOFILE=1024:4096", Harms, "lower than the 20000"),
            ("LimitNOFILE=infinity", Nothing, "systemd takes"),
            ("LimitNOFILE=2000000", Nothing, "above fs.nr_open"),
            ("LimitNOFILE=many", Refused, "leaves the line out"),
            ("LimitNOFILE=", Nothing, "takes back"),
            ("DefaultLimitNOFILE=4096", Harms, "of each unit without"),
        ] {
            let told = of(&format!("[Service]\n{line}\n")).settings.remove(0);
            assert!(told.assessment == assessment && told.text.contains(says), "{line}: {told:?}");
        }
    }

    #[test]
    fn a_limit_that_systemd_leaves_out_takes_no_others_place() {
        let told = of("[Service]\nLimitNOFILE=524288\nLimitNOFILE=1M\n").settings;
        assert_eq!(told[0].overridden_by, None);
        assert!(!told[0].text.contains("sysctl"), "{told:?}");
        assert_eq!((told[0].assessment, told[1].assessment), (Nothing, Refused));
    }

    #[test]
    fn what_the_kernel_takes_is_shown_as_numbers() {
        let taken = |line: &str| of(line).settings.remove(0).taken;
        for (text, ports) in [
            ("010", "8"),
            ("0x400", "1024"),
            ("0x50-96,7", "7,80-96"),
            ("5,1-3,4", "1-5"),
            ("", ""),
        ] {
            let line = format!("net.ipv4.ip_local_reserved_ports = {text}\n");
            assert_eq!(taken(&line).as_deref(), Some(ports), "{text}");
        }
    }

    #[test]
    fn a_unit_does_not_read_limits_conf() {
        let found = lines::lines(
            "/etc/security/limits.conf",
            "* - nofile 1048576 # a comment\n# * hard nofile 7\n",
        );
        let told = assessed(&run(0), Some("nginx.service"), &found).settings;
        assert!(
            told[0].text.contains("nginx.service") && told[0].text.contains("LimitNOFILE="),
            "{told:?}"
        );
        assert_eq!(
            assessed(&run(0), None, &found).settings,
            [],
            "unasked, only what harms is told"
        );
    }

    #[test]
    fn well_known_settings_for_a_million_connections_are_assessed_by_the_run() {
        let text = "\
net.ipv4.ip_local_port_range = 1024 65535
fs.file-max = 1048576
net.ipv4.tcp_mem = 786432 2097152 3145728
net.ipv4.tcp_rmem = 4096 4096 16777216
net.ipv4.tcp_wmem = 4096 4096 16777216
* hard nofile 1048576
";
        let told = |queued| {
            let all = assessed(&run(queued), None, &asked(text)).settings;
            all.into_iter().map(|it| it.assessment).collect::<Vec<_>>()
        };
        // Today's kernel has more files; these tables were one for all.
        assert_eq!(told(0), [Helps, Harms, Nothing, Harms, Harms, Nothing]);
        // With bytes that wait, it is tcp_mem that helps.
        assert_eq!(told(6_000)[2], Helps);
    }

    #[test]
    fn what_the_kernel_came_with_is_no_bad_advice() {
        let now = ["tcp_mem", "tcp_rmem", "tcp_wmem", "tcp_max_orphans", "tcp_max_tw_buckets"];
        let line = |name: &str| {
            let name = format!("net.ipv4.{name}");
            let value = present()[&name].clone().unwrap();
            Line::new(NOW, None, lines::Statement::Sysctl { name, value })
        };
        let found: Vec<Line> = now.into_iter().map(line).collect();
        assert_eq!(assessed(&run(0), None, &found).settings, []);
    }

    proptest! {
        /// Whatever stands in a file: each line that is no comment gets a word, or is counted.
        #[test]
        fn any_file_is_assessed(text in "(\\PC|\n|=|net.ipv4.tcp_mem=|net.ipv4.tcp_rmem =|net.ipv4.ip_local_reserved_ports=|fs.file-max =|net.\\*.|\\* hard nofile |LimitNOFILE=|[0-9]{1,22}|-|0x| ){0,60}", queued in 0u64..100_000) {
            let lines = asked(&text);
            let told = assessed(&run(queued), None, &lines);
            for line in &lines {
                let is_told = told.settings.iter().any(|it| it.line == line.number);
                let entries = entries(std::slice::from_ref(line));
                let is_counted = entries.iter().any(|entry| told.unassessed.contains(&entry.name()));
                // A pattern whose names all have lines of their own sets nothing.
                let is_pattern = matches!(&line.statement, lines::Statement::Sysctl { name, .. } if lines::is_pattern(name));
                prop_assert!(is_told || is_counted || is_pattern, "{:?}: {:?}", line, told);
            }
        }

        /// What ascends between the kernel's default and memory is no mistake.
        #[test]
        fn sensible_values_are_no_mistake(high in 600_000u64..6_000_000) {
            let told = one(&format!("net.ipv4.tcp_mem = {} {} {high}", high / 2, high / 3 * 2), 0);
            prop_assert_eq!(told.assessment, Nothing, "{}", told.text);
        }
    }
}
