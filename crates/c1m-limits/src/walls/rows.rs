//! One function a limit.

mod memory;

use c1m_record::{Effect, LimitName, MemoryNeed, Setting};

use super::{Host, PAUSE_MS, Row, Run};
use crate::{
    advice::{WATCH_BYTES, mib, with_slack},
    raise::{at_least, widest_ports},
    reading::Readings,
};

/// Files and watches that the programs have beside their connections.
const OWN_FILES: u64 = 64;

pub(super) struct Case<'a> {
    pub(super) run: &'a Run,
    pub(super) host: &'a Host,
    pub(super) now: &'a Readings,
    pub(super) memory: &'a MemoryNeed,
}

fn setting(name: &str, value: impl ToString) -> Vec<Setting> {
    vec![Setting { name: name.into(), value: value.to_string() }]
}

/// The number of the first connection for which nothing is left, each taking `each` of what `now` has beyond `used`. `None`: it takes nothing.
fn first_without(now: u64, used: u64, each: u64) -> Option<u64> {
    Some(now.saturating_sub(used).checked_div(each)?.saturating_add(1))
}

fn unseen(name: &str) -> String {
    format!(
        "{name} can't be read from here: it is a setting of the host, which other network namespaces than its first one do not show"
    )
}

impl Case<'_> {
    pub(super) fn row(&self, limit: LimitName) -> Row {
        match limit {
            LimitName::TcpMemPressure => self.tcp_mem(1, Effect::Slows, false),
            LimitName::TcpMemHigh => self.tcp_mem(2, Effect::Stalls, true),
            LimitName::OrphanMemory => self.orphan_memory(),
            LimitName::MemoryCgroup => self.memory_cgroup(),
            LimitName::ReceiveBuffer => self.buffer(self.now.tcp_rmem, "net.ipv4.tcp_rmem"),
            LimitName::SendBuffer => self.buffer(self.now.tcp_wmem, "net.ipv4.tcp_wmem"),
            LimitName::Orphans => self.orphans(),
            LimitName::Nofile => self.nofile(),
            LimitName::NrOpen => self.nr_open(),
            LimitName::FileMax => self.file_max(),
            LimitName::AcceptQueue => self.accept_queue(),
            LimitName::SynQueue => self.syn_queue(),
            LimitName::Ports => self.ports(),
            LimitName::Conntrack => self.conntrack(),
            LimitName::EpollWatches => self.epoll_watches(),
            LimitName::TimeWait => self.time_wait(),
            LimitName::Memory => self.host_memory(),
        }
    }

    fn connections(&self) -> u64 {
        self.run.connections
    }

    /// Of what each end here takes one.
    fn ends(&self) -> u64 {
        self.run.role.ends()
    }

    fn nofile(&self) -> Row {
        let tables = &self.host.tables;
        let wanted = at_least(with_slack(tables.needed), self.now.nofile);
        let above = self.now.nr_open.filter(|most| *most < wanted);
        Row {
            now: self.now.nofile,
            needed: Some(tables.needed),
            stops_at: tables.by_nofile.map(|held| held.saturating_add(1)),
            counts: true,
            fix: format!(
                "more --workers, each of which has a table of its own; or a hard limit of {wanted} descriptors (LimitNOFILE={wanted} of a \
                 systemd unit, which does not read limits.conf; ulimit -Hn in a shell){}",
                above.map_or(String::new(), |most| format!("; fs.nr_open={most} has to be raised first"))
            ),
            danger: "above fs.nr_open it can't be raised; without CAP_SYS_RESOURCE the hard limit stands".into(),
            note: Some(format!("of one descriptor table, of which a program has up to {}", tables.most)),
            unknown: self.now.nofile.is_none().then(|| "RLIMIT_NOFILE can't be read".into()),
            ..Row::default()
        }
    }

    fn nr_open(&self) -> Row {
        let tables = &self.host.tables;
        let wanted = at_least(with_slack(tables.needed), self.now.nofile);
        let wanted = at_least(wanted, self.now.nr_open);
        Row {
            now: self.now.nr_open,
            needed: Some(tables.needed),
            stops_at: tables.by_nr_open.map(|held| held.saturating_add(1)),
            counts: true,
            fix: format!("fs.nr_open={wanted} (descriptors of one table)"),
            danger: "it lets any process that may raise its limit take so many descriptors, and 8 bytes of memory for each".into(),
            settings: setting("fs.nr_open", wanted),
            note: Some("of one descriptor table; RLIMIT_NOFILE can't be raised above it".into()),
            unknown: self.now.nr_open.is_none().then(|| "fs.nr_open can't be read".into()),
            ..Row::default()
        }
    }

    fn file_max(&self) -> Row {
        let files = self.now.file_nr;
        let used = files.map(|files| files.allocated);
        let needed = self
            .connections()
            .saturating_mul(self.ends())
            .saturating_add(OWN_FILES)
            .saturating_add(used.unwrap_or(0));
        let wanted = at_least(needed.saturating_add(10_000), files.map(|files| files.max));
        Row {
            now: files.map(|files| files.max),
            used,
            needed: Some(needed),
            stops_at: files.and_then(|files| {
                first_without(files.max, files.allocated.saturating_add(OWN_FILES), self.ends())
            }),
            counts: true,
            fix: format!("fs.file-max={wanted} (files of the whole host)"),
            danger: "too low hits every service of the host at once; each file takes a kibibyte or more".into(),
            settings: setting("fs.file-max", wanted),
            note: self.host.is_exempt_from_file_max.then(|| {
                "a process with CAP_SYS_ADMIN is not refused, but uses up what the others need; with --trace the server gives it up".into()
            }),
            unknown: files.is_none().then(|| "/proc/sys/fs/file-nr can't be read".into()),
            ..Row::default()
        }
    }

    /// What comes to one listener in a pause.
    fn burst(&self) -> Option<u64> {
        let per_listener = |rate: u64| {
            rate.saturating_mul(PAUSE_MS).div_ceil(1000).div_ceil(self.host.listeners.max(1))
        };
        self.run.rate.map(per_listener).map(|burst| burst.min(self.connections()))
    }

    /// The first connection that finds every listener's queue full, when nobody takes any out.
    fn filled(&self, queue: u64, burst: Option<u64>) -> Option<u64> {
        burst.filter(|burst| *burst > queue)?;
        Some(queue.saturating_add(1).saturating_mul(self.host.listeners.max(1)).saturating_add(1))
    }

    fn accept_queue(&self) -> Row {
        let has_server = self.run.role.has_server();
        let burst = if has_server { self.burst() } else { Some(0) };
        let wanted = with_slack(burst.unwrap_or(0));
        let enough = self.now.somaxconn.filter(|most| *most >= wanted);
        Row {
            now: self.now.backlog,
            needed: burst,
            stops_at: self.now.backlog.and_then(|backlog| self.filled(backlog, burst)),
            effect: Some(Effect::Stalls),
            counts: has_server,
            fix: match enough {
                Some(most) => format!(
                    "--backlog {wanted}: net.core.somaxconn={most} is enough, and the smaller of the two counts; or a lower --rate"
                ),
                None => format!(
                    "net.core.somaxconn={wanted} and --backlog {wanted}: the smaller of the two counts, so raising one alone does nothing; or a lower --rate"
                ),
            },
            danger:
                "a long queue hides an accept loop that is too slow, and its connections wait in it"
                    .into(),
            settings: match enough {
                Some(_) => Vec::new(),
                None => setting("net.core.somaxconn", wanted),
            },
            note: Some(match (has_server, self.run.rate) {
                (false, _) => "the server's, which is not here".into(),
                (true, None) => format!(
                    "of one listener; give --rate, and it is held against {PAUSE_MS} ms without accept"
                ),
                (true, Some(_)) => {
                    format!(
                        "of each of {} listeners, in {PAUSE_MS} ms without accept",
                        self.host.listeners
                    )
                }
            }),
            unknown: (has_server && self.now.backlog.is_none())
                .then(|| "net.core.somaxconn can't be read".into()),
            ..Row::default()
        }
    }

    /// Requests wait as long as the way to the client and back takes. On the same host that is no time.
    fn syn_queue(&self) -> Row {
        let has_server = self.run.role.has_server();
        let is_remote = has_server && !self.run.role.has_client();
        let burst = if is_remote { self.burst() } else { Some(0) };
        let cookies = self.now.syncookies;
        let cookies_on = at_least(1, cookies);
        // Without cookies the last quarter is for peers that are known (net/ipv4/tcp_input.c, tcp_conn_request, 6.18).
        let known = self.now.max_syn_backlog.map(|most| most - most / 4);
        let now = match (self.now.backlog, known, cookies) {
            (Some(backlog), Some(most), Some(0)) => Some(backlog.min(most)),
            (backlog, _, _) => backlog,
        };
        let wanted = at_least(with_slack(burst.unwrap_or(0)) / 3 * 4, self.now.max_syn_backlog);
        Row {
            now,
            needed: burst,
            stops_at: now.and_then(|now| self.filled(now, burst)).filter(|_| cookies == Some(0)),
            effect: Some(Effect::Stalls),
            counts: is_remote && cookies == Some(0),
            fix: format!(
                "net.ipv4.tcp_syncookies={cookies_on}, which refuses nobody; or net.ipv4.tcp_max_syn_backlog={wanted} with net.core.somaxconn and --backlog of as much or more"
            ),
            danger: "cookies leave TCP options out; a long queue takes 320 bytes for each request"
                .into(),
            settings: setting("net.ipv4.tcp_syncookies", cookies_on),
            note: Some(match (is_remote, cookies) {
                (false, _) => {
                    "on one host no handshake waits, and without a server there is none".into()
                }
                (true, Some(0)) => {
                    format!("of one listener, for handshakes of {PAUSE_MS} ms; tcp_syncookies=0")
                }
                (true, _) => "with tcp_syncookies a full queue refuses nobody".into(),
            }),
            unknown: (is_remote && cookies.is_none())
                .then(|| "net.ipv4.tcp_syncookies can't be read".into()),
            ..Row::default()
        }
    }

    fn ports(&self) -> Row {
        let has_client = self.run.role.has_client();
        let pairs = self.run.sources.saturating_mul(self.run.destinations).max(1);
        let needed = if has_client { self.connections().div_ceil(pairs) } else { 0 };
        let sources = |ports: u64| {
            self.connections().div_ceil(ports.max(1).saturating_mul(self.run.destinations.max(1)))
        };
        let now = self.now.ports;
        let widest @ [first, last] = widest_ports(self.now);
        let width = last + 1 - first;
        // A range that is as wide as it can be is no remedy.
        let range = (needed <= width && self.now.port_range != Some(widest))
            .then(|| format!("{first} {last}"));
        Row {
            now,
            needed: Some(needed),
            stops_at: now
                .filter(|_| has_client)
                .map(|ports| ports.saturating_mul(pairs).saturating_add(1)),
            counts: has_client,
            fix: match (&range, now) {
                (Some(range), _) => format!(
                    "net.ipv4.ip_local_port_range=\"{range}\" ({width} ports for each source, destination address and port); or {} source \
                     addresses (--source)",
                    sources(now.unwrap_or(width))
                ),
                (None, _) => format!(
                    "{} source addresses (--source) with net.ipv4.ip_local_port_range=\"{first} {last}\"; or more destination ports",
                    sources(width)
                ),
            },
            danger:
                "low ports may be those of services: name them in net.ipv4.ip_local_reserved_ports"
                    .into(),
            settings: range
                .map(|range| setting("net.ipv4.ip_local_port_range", range))
                .unwrap_or_default(),
            note: Some(match has_client {
                true => format!(
                    "of each pair of {} source addresses and {} destinations",
                    self.run.sources, self.run.destinations
                ),
                false => "a server has one port for all of them".into(),
            }),
            unknown: (has_client && now.is_none())
                .then(|| "net.ipv4.ip_local_port_range can't be read".into()),
            ..Row::default()
        }
    }

    /// Both ends on one host are one entry: the loopback interface does not change addresses.
    fn conntrack(&self) -> Row {
        let (used, now) = (self.now.conntrack, self.now.conntrack_max);
        let is_there = used.is_some() || now.is_some();
        let tracked = if is_there { self.host.tracked } else { Some(false) };
        let needed = match tracked {
            Some(false) => Some(0),
            _ => Some(self.connections().saturating_add(used.unwrap_or(0))),
        };
        let wanted = at_least(with_slack(needed.unwrap_or(0)), now);
        // Then it does not matter.
        let fits =
            now.is_some_and(|now| self.connections() <= now.saturating_sub(used.unwrap_or(0)));
        Row {
            now,
            used,
            needed,
            stops_at: now
                .zip(used)
                .filter(|_| tracked == Some(true))
                .and_then(|(now, used)| first_without(now, used, 1)),
            counts: tracked != Some(false),
            fix: format!(
                "net.netfilter.nf_conntrack_max={wanted} with nf_conntrack_buckets={}; or no tracking of these ports (NOTRACK)",
                at_least(wanted / 4, self.now.conntrack_buckets)
            ),
            danger: format!("about 320 bytes an entry, {} MiB for all; with too few buckets each look-up is slow", mib(wanted.saturating_mul(320))),
            settings: setting("net.netfilter.nf_conntrack_max", wanted),
            note: Some(match tracked {
                Some(true) => "a connection of our own was tracked".into(),
                Some(false) if is_there => "a connection of our own was not tracked: no rule of this network namespace asks for it".into(),
                Some(false) => "this kernel tracks nothing".into(),
                None if fits => "there is room for all of them, tracked or not".into(),
                None => "whether connections are tracked here could not be found out".into(),
            }),
            unknown: match (tracked, now.is_some()) {
                (None, _) if fits => None,
                (None, _) => Some("whether connections are tracked here could not be found out".into()),
                (Some(true), false) => Some(unseen("net.netfilter.nf_conntrack_max")),
                _ => None,
            },
            ..Row::default()
        }
    }

    fn epoll_watches(&self) -> Row {
        let now = self.now.max_user_watches;
        let needed = self.connections().saturating_mul(self.ends()).saturating_add(OWN_FILES);
        let wanted = at_least(with_slack(needed), now);
        Row {
            now,
            needed: Some(needed),
            stops_at: now.and_then(|now| first_without(now, OWN_FILES, self.ends())),
            counts: true,
            fix: format!("fs.epoll.max_user_watches={wanted} (watches of one user)"),
            danger: format!(
                "{WATCH_BYTES} bytes a watch of memory that can't be swapped: {} MiB",
                mib(wanted.saturating_mul(WATCH_BYTES))
            ),
            settings: setting("fs.epoll.max_user_watches", wanted),
            note: Some(
                "of one user; what others of its processes watch is not shown by the kernel".into(),
            ),
            unknown: now.is_none().then(|| "fs.epoll.max_user_watches can't be read".into()),
            ..Row::default()
        }
    }
}
