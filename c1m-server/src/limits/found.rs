//! Settings that were found, in the running kernel or in files, and what is to be said of them: advice that is copied from page to page
//! is often for another kernel, another unit, or another problem.

use super::{
    advice::mib,
    footprint::charged_pages,
    walls::{Examination, Host, Run},
};
use crate::output::record::{Judged, Judgement, LimitName};

/// The place of what the running kernel has.
pub const NOW: &str = "now";
/// The name of RLIMIT_NOFILE, as limits.conf has it.
pub const NOFILE: &str = "nofile";

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// [`NOW`], or the file.
    pub place: String,
    pub name: String,
    pub value: String,
    /// Somebody named the file: then what does nothing is told too.
    pub asked: bool,
}

/// What the judgement hangs on.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub run: &'a Run,
    pub host: &'a Host,
    pub examination: &'a Examination,
    /// This process belongs to a unit of systemd.
    pub unit: Option<&'a str>,
}

type Say = Option<(Judgement, String)>;

/// Judges what is known; of what is not, nothing is said. Unasked, only what harms is told.
#[must_use]
pub fn judge(found: &[Found], case: &Circumstances<'_>) -> Vec<Judged> {
    let each = |found: &Found| {
        let (judgement, text) = case.say(found)?;
        if !found.asked && judgement != Judgement::Harms {
            return None;
        }
        Some(Judged {
            place: found.place.clone(),
            setting: found.name.clone(),
            value: found.value.clone(),
            judgement,
            text,
        })
    };
    found.iter().filter_map(each).collect()
}

fn numbers(value: &str) -> Option<Vec<u64>> {
    value.split_whitespace().map(|field| field.parse().ok()).collect()
}

fn harms(text: impl Into<String>) -> Say {
    Some((Judgement::Harms, text.into()))
}

fn nothing(text: impl Into<String>) -> Say {
    Some((Judgement::Nothing, text.into()))
}

impl Circumstances<'_> {
    fn say(&self, found: &Found) -> Say {
        let value = numbers(&found.value);
        let is_now = found.place == NOW;
        match (found.name.as_str(), value.as_deref()) {
            ("net.ipv4.tcp_tw_recycle", Some([0])) => nothing("it is off, as it has to be"),
            ("net.ipv4.tcp_tw_recycle", _) => harms(
                "it drops connections of clients behind one address translation; the kernel has not had it since 4.12: take it out",
            ),
            ("net.ipv4.tcp_tw_reuse", _) => nothing(
                "it concerns connections that this host opens, and ports that it closed before",
            ),
            (NOFILE, value) => self.nofile(value.and_then(|value| value.first().copied())),
            (name, Some([low, pressure, high])) => match name {
                "net.ipv4.tcp_mem" => self.tcp_mem([*low, *pressure, *high], is_now),
                // 87,380 before Linux 4.20.
                "net.ipv4.tcp_rmem" => buffer(name, *pressure, 87_380),
                "net.ipv4.tcp_wmem" => buffer(name, *pressure, 16_384),
                _ => None,
            },
            ("net.ipv4.ip_local_port_range", Some([first, last])) => {
                let ports = last.saturating_add(1).saturating_sub(*first);
                self.scalar(LimitName::Ports, ports, is_now)
            }
            (name, Some([value])) => self.scalar(limit_of(name)?, *value, is_now),
            (name, None) if limit_of(name).is_some() || name == "net.ipv4.tcp_mem" => {
                harms("this is no number: the kernel refuses it")
            }
            _ => None,
        }
    }

    /// A setting of which more is more.
    fn scalar(&self, limit: LimitName, value: u64, is_now: bool) -> Say {
        if let Some(default) = self.default_of(limit)
            && value < default
        {
            return harms(format!(
                "below the kernel's own default of {default} for this host: lowered it saves nothing, and {}",
                if limit == LimitName::Orphans {
                    "resets connections that still had something to deliver"
                } else {
                    "lets late segments of an old connection reach a new one"
                }
            ));
        }
        let wall = self.examination.walls.iter().find(|wall| wall.limit == limit)?;
        let (now, needed) = (wall.now?, wall.needed?);
        if is_now {
            return None;
        }
        let short =
            if value < needed { format!(", and this run needs {needed}") } else { String::new() };
        match value {
            _ if value < now => {
                harms(format!("lower than the {now} that this host has already{short}"))
            }
            _ if value < needed => {
                nothing(format!("not enough: this run needs {needed} {}", wall.unit))
            }
            _ if now < needed => Some((
                Judgement::Helps,
                format!("this run needs {needed} {}, and the host has {now}", wall.unit),
            )),
            _ => nothing(format!(
                "the {now} {} of this host are enough for the {needed} that this run needs",
                wall.unit
            )),
        }
    }

    /// As `tcp_init` makes them: half of the buckets of the hash table of established connections (net/ipv4/tcp.c, 6.18).
    fn default_of(&self, limit: LimitName) -> Option<u64> {
        let is_so = matches!(limit, LimitName::Orphans | LimitName::TimeWait);
        self.host.ehash_buckets.filter(|_| is_so).map(|buckets| buckets / 2)
    }

    fn tcp_mem(&self, [low, pressure, high]: [u64; 3], is_now: bool) -> Say {
        if low > pressure || pressure > high {
            return harms("the three values have to ascend: low, pressure, high");
        }
        if let Some(total) = self.host.readings.memory_total_bytes {
            let pages = total / self.host.readings.page();
            if high > pages {
                return harms(self.beyond_memory(high, pages));
            }
            // 1/16 of the free pages at boot for pressure, one and a half of that for high (net/ipv4/tcp.c, tcp_init_mem, 6.18).
            let default = pages / 32 * 3;
            // What the kernel itself took at boot was not free.
            if high < default / 4 * 3 {
                return harms(format!(
                    "high is {high} pages ({} MiB), below the kernel's own default of about {default} for this host: it makes the limit \
                     lower than it was",
                    mib(high.saturating_mul(self.host.readings.page()))
                ));
            }
        }
        if low == high {
            return harms(
                "three equal values leave no band: memory pressure begins where allocations are refused already",
            );
        }
        let each = charged_pages(self.run.queued_bytes, self.host.readings.page());
        if each == 0 {
            return nothing(
                "idle connections use none of it: tcp_mem counts what waits in queues, and no socket, inode or file",
            );
        }
        self.scalar(LimitName::TcpMemHigh, high, is_now)
    }

    fn beyond_memory(&self, high: u64, pages: u64) -> String {
        let page = self.host.readings.page();
        let beyond = format!("high is more pages ({high}) than this host has ({pages})");
        match () {
            () if high / page > pages => {
                beyond + ": it is no limit at all, and the OOM killer comes first"
            }
            () if high / 1024 * 1024 == high && high / page * 64 > pages => {
                beyond + &format!(": it looks like bytes, and the unit is pages of {page} bytes")
            }
            () if high / (page / 1024).max(1) <= pages => {
                beyond + &format!(": it looks like kB, and the unit is pages of {page} bytes")
            }
            () => beyond + ": it is no limit at all, and the OOM killer comes first",
        }
    }

    fn nofile(&self, value: Option<u64>) -> Say {
        if let Some(unit) = self.unit {
            return harms(format!(
                "{unit} is a unit of systemd, which does not read limits.conf: LimitNOFILE= in the unit is what counts"
            ));
        }
        let value = value?;
        if let Some(most) = self.host.readings.nr_open.filter(|most| value > *most) {
            return harms(format!(
                "above fs.nr_open={most}: the limit can't be raised to it, and log-ins fail"
            ));
        }
        self.scalar(LimitName::Nofile, value, false)
    }
}

fn buffer(name: &str, default: u64, usual: u64) -> Say {
    if default < usual {
        return harms(format!(
            "a second value of {default} bytes instead of the kernel's {usual} or more slows each connection down at its beginning, and \
             saves nothing: {name} bounds what a queue may hold, and idle connections take none of it"
        ));
    }
    nothing(format!(
        "{name} bounds one socket's queue: idle connections take nothing of it, whatever it says"
    ))
}

fn limit_of(name: &str) -> Option<LimitName> {
    Some(match name {
        "fs.file-max" => LimitName::FileMax,
        "fs.nr_open" => LimitName::NrOpen,
        "fs.epoll.max_user_watches" => LimitName::EpollWatches,
        "net.core.somaxconn" => LimitName::AcceptQueue,
        "net.ipv4.tcp_max_syn_backlog" => LimitName::SynQueue,
        "net.ipv4.tcp_max_orphans" => LimitName::Orphans,
        "net.ipv4.tcp_max_tw_buckets" => LimitName::TimeWait,
        "net.netfilter.nf_conntrack_max" => LimitName::Conntrack,
        _ => return None,
    })
}

/// The lines of a file of sysctl.d: `name = value`, comments by `#` or `;`, a leading `-` for what may be missing; slashes or dots in names.
#[must_use]
pub fn sysctl_lines(place: &str, text: &str) -> Vec<Found> {
    let line = |line: &str| {
        let line = line.trim();
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(Found { place: place.into(), name, value, asked: false })
    };
    text.lines().filter_map(line).collect()
}

/// The `nofile` lines of a file as limits.conf(5) has them: domain, type, item, value.
#[must_use]
pub fn limits_lines(place: &str, text: &str) -> Vec<Found> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        let [_domain, kind, NOFILE, value] = words.as_slice() else { return None };
        (*kind == "hard" || *kind == "-").then(|| Found {
            place: place.into(),
            name: NOFILE.into(),
            value: (*value).into(),
            asked: false,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        limits::{
            footprint::Sizes,
            reading::Readings,
            walls::{Tables, examine},
        },
        output::record::{FileNr, Role, Sockstat},
    };

    const GIB: u64 = 1 << 30;

    /// 24 GiB, Linux 6.18, as it came.
    fn host() -> Host {
        Host {
            readings: Readings {
                sockstat: Some(Sockstat::default()),
                tcp_mem: Some([287_901, 383_868, 575_802]),
                cpus: Some(2),
                max_orphans: Some(131_072),
                nofile: Some(20_000),
                nr_open: Some(1_048_576),
                file_nr: Some(FileNr { allocated: 1_000, max: 2_466_177 }),
                backlog: Some(4096),
                ports: Some(28_232),
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

    fn judged(run: &Run, host: &Host, unit: Option<&str>, found: &[Found]) -> Vec<Judged> {
        let examination = examine(run, host);
        judge(found, &Circumstances { run, host, examination: &examination, unit })
    }

    fn one(name: &str, value: &str, queued_bytes: u64) -> (Judgement, String) {
        let found =
            Found { place: "f".into(), name: name.into(), value: value.into(), asked: true };
        let all = judged(&run(queued_bytes), &host(), None, &[found]);
        let [one] = all.as_slice() else { panic!("{all:?}") };
        (one.judgement, one.text.clone())
    }

    #[test]
    fn tcp_mem_that_is_a_mistake_is_told_apart() {
        for (value, says) in [
            ("25600 51200 102400", "below the kernel's own default"),
            ("3 2 1", "ascend"),
            ("700000 700000 700000", "no band"),
            // 12 GiB in bytes and in kB, and far beyond.
            ("3221225472 8589934592 12884901888", "looks like bytes"),
            ("3145728 8388608 12582912", "looks like kB"),
            ("1 2 999999999999999", "no limit at all"),
            ("a b c", "no number"),
        ] {
            let (judgement, text) = one("net.ipv4.tcp_mem", value, 0);
            assert!(judgement == Judgement::Harms && text.contains(says), "{value}: {text}");
        }
    }

    #[test]
    fn the_article_s_own_settings_are_judged_by_the_run() {
        let article = "\
fs.file-max = 1048576
net.ipv4.ip_local_port_range = 1024 65535
net.ipv4.tcp_mem = 786432 2097152 3145728
net.ipv4.tcp_rmem = 4096 4096 16777216
net.ipv4.tcp_wmem = 4096 4096 16777216
";
        let mut found: Vec<Found> = sysctl_lines("article", article)
            .into_iter()
            .chain(limits_lines("article", "* hard nofile 1048576\n* soft nofile 1048576\n"))
            .collect();
        found.iter_mut().for_each(|found| found.asked = true);
        let told = |queued| {
            judged(&run(queued), &host(), None, &found)
                .into_iter()
                .map(|it| (it.setting, it.judgement))
                .collect::<Vec<_>>()
        };
        let of = |told: &[(String, Judgement)], name: &str| {
            told.iter().find(|(it, _)| it == name).map(|(_, judgement)| *judgement)
        };
        let idle = told(0);
        assert_eq!(idle.len(), 6);
        // Today's kernel has more of it; the article's tables were one for all.
        assert_eq!(of(&idle, "fs.file-max"), Some(Judgement::Harms));
        assert_eq!(of(&idle, "net.ipv4.ip_local_port_range"), Some(Judgement::Helps));
        assert_eq!(of(&idle, "net.ipv4.tcp_mem"), Some(Judgement::Nothing));
        assert_eq!(of(&idle, "net.ipv4.tcp_rmem"), Some(Judgement::Harms));
        assert_eq!(of(&idle, "net.ipv4.tcp_wmem"), Some(Judgement::Harms));
        assert_eq!(of(&idle, "nofile"), Some(Judgement::Nothing));
        // With bytes that wait, it is tcp_mem that helps.
        assert_eq!(of(&told(6_000), "net.ipv4.tcp_mem"), Some(Judgement::Helps));
    }

    #[test]
    fn what_is_lowered_harms() {
        for (name, value, says) in [
            ("net.ipv4.tcp_max_orphans", "8192", "own default of 131072"),
            ("net.ipv4.tcp_max_tw_buckets", "5000", "own default of 131072"),
            ("net.core.somaxconn", "128", "lower than the 4096"),
            ("net.ipv4.tcp_tw_recycle", "1", "4.12"),
            ("nofile", "2000000", "above fs.nr_open"),
            ("fs.file-max", "many", "no number"),
        ] {
            let (judgement, text) = match name {
                "net.core.somaxconn" => {
                    let run = Run { rate: Some(1), ..run(0) };
                    let found = Found {
                        place: "f".into(),
                        name: name.into(),
                        value: value.into(),
                        asked: true,
                    };
                    let all = judged(&run, &host(), None, &[found]);
                    (all[0].judgement, all[0].text.clone())
                }
                _ => one(name, value, 0),
            };
            assert!(judgement == Judgement::Harms && text.contains(says), "{name}={value}: {text}");
        }
        assert_eq!(one("net.ipv4.tcp_tw_reuse", "1", 0).0, Judgement::Nothing);
    }

    #[test]
    fn a_unit_does_not_read_limits_conf() {
        let found = limits_lines(
            "/etc/security/limits.conf",
            "* - nofile 1048576 # a comment\n# * hard nofile 7\n* soft nofile 9\n",
        );
        assert_eq!(found.len(), 1);
        let of = |unit| judged(&run(0), &host(), unit, &found);
        let told = of(Some("nginx.service"));
        assert!(
            told[0].text.contains("nginx.service") && told[0].text.contains("LimitNOFILE="),
            "{told:?}"
        );
        assert_eq!(of(None), [], "unasked, only what harms is told");
    }

    #[test]
    fn what_the_kernel_came_with_is_no_bad_advice() {
        let now = [
            ("net.ipv4.tcp_mem", "287901 383868 575802"),
            ("net.ipv4.tcp_rmem", "4096 131072 33554432"),
            ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
            ("net.ipv4.tcp_max_orphans", "131072"),
            ("net.ipv4.tcp_max_tw_buckets", "131072"),
        ];
        let found: Vec<Found> = now
            .into_iter()
            .map(|(name, value)| Found {
                place: NOW.into(),
                name: name.into(),
                value: value.into(),
                asked: false,
            })
            .collect();
        assert_eq!(judged(&run(0), &host(), None, &found), []);
    }

    proptest! {
        #[test]
        fn any_file_is_judged(text in "(\\PC|\n|=|net.ipv4.tcp_mem=|fs.file-max =|\\* hard nofile |[0-9]{1,22}| ){0,60}", queued in 0u64..100_000) {
            let mut found = sysctl_lines("f", &text);
            found.extend(limits_lines("f", &text));
            found.iter_mut().for_each(|found| found.asked = true);
            let told = judged(&run(queued), &host(), None, &found);
            prop_assert!(told.len() <= found.len());
        }

        /// Whatever it is set to, tcp_mem gets one word, and what ascends between default and memory is no mistake.
        #[test]
        fn sensible_values_are_no_mistake(high in 600_000u64..6_000_000) {
            let (judgement, text) = one("net.ipv4.tcp_mem", &format!("{} {} {high}", high / 2, high / 3 * 2), 0);
            prop_assert_eq!(judgement, Judgement::Nothing, "{}", text);
        }
    }
}
