//! A planned run, the host that it is planned for, and what it needs of one limit.

use c1m_record::{Effect, Ehash, LimitName, MemoryNeed, PlannedLimit, Role, Setting, Unknown};

use crate::{
    footprint::{Sizes, charged_pages},
    reading::Readings,
};

/// How long an accept loop may pause, and a handshake may take, for a queue to have to hold what comes meanwhile: a process that has to wait
/// for its turn on a busy host, and a way around the world.
pub const PAUSE_MS: u64 = 100;

/// A planned run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// At least 1
    pub connections: u64,
    pub queued_bytes: u64,
    pub role: Role,
    pub ipv6: bool,
    /// Source addresses of the client.
    pub sources: u64,
    /// Destination addresses times ports.
    pub destinations: u64,
    /// New connections per second.
    pub rate: Option<u64>,
    /// Connections end by FIN, so that each may be an orphan, and then TIME_WAIT.
    pub ends_by_fin: bool,
}

/// How many connections the descriptor tables of the programs hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// By RLIMIT_NOFILE alone, and by fs.nr_open alone: of the program that holds less.
    pub by_nofile: Option<u64>,
    pub by_nr_open: Option<u64>,
    /// Descriptors that one table has to have.
    pub needed: u64,
    /// Most tables of a program.
    pub most: u64,
}

/// The host that it is planned for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// `nofile` is the hard limit: the programs raise the soft one. `backlog` is that of one listener.
    pub readings: Readings,
    pub tables: Tables,
    /// Listeners that new connections are spread over at a time.
    pub listeners: u64,
    pub sizes: Sizes,
    /// New connections of this network namespace are tracked; `None`: that could not be found out.
    pub tracked: Option<bool>,
    pub ehash_buckets: Option<u64>,
    /// The memory cgroup is charged for socket memory.
    pub cgroup_counts_sockets: bool,
    /// `fs.file-max` does not stop a process with CAP_SYS_ADMIN.
    pub is_exempt_from_file_max: bool,
}

/// Files and watches that the programs have beside their connections.
pub(crate) const OWN_FILES: u64 = 64;

/// What a limit's need follows from.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    pub(crate) run: &'a Run,
    pub(crate) host: &'a Host,
    pub(crate) now: &'a Readings,
    pub(crate) memory: &'a MemoryNeed,
}

impl Planned<'_> {
    pub(crate) fn connections(&self) -> u64 {
        self.run.connections
    }

    /// Pages that are charged for what a connection has queued, and their bytes. `None`: the size of a page is not known.
    pub(crate) fn queued(&self) -> Option<(u64, u64)> {
        if self.run.queued_bytes == 0 {
            return Some((0, 0));
        }
        let page = self.now.page()?;
        let pages = charged_pages(self.run.queued_bytes, page);
        Some((pages, pages.saturating_mul(page)))
    }

    /// Of what each end here takes one.
    pub(crate) fn ends(&self) -> u64 {
        self.run.role.ends()
    }

    /// What comes to one listener in a pause.
    pub(crate) fn burst(&self) -> Option<u64> {
        let per_listener = |rate: u64| {
            rate.saturating_mul(PAUSE_MS).div_ceil(1000).div_ceil(self.host.listeners.max(1))
        };
        self.run.rate.map(per_listener).map(|burst| burst.min(self.connections()))
    }

    /// The first connection that finds every listener's queue full, when nobody takes any out.
    pub(crate) fn filled(&self, queue: u64, burst: Option<u64>) -> Option<u64> {
        burst.filter(|burst| *burst > queue)?;
        Some(queue.saturating_add(1).saturating_mul(self.host.listeners.max(1)).saturating_add(1))
    }
}

/// What a run needs of one limit, beside what the host has.
#[derive(Debug, Clone, Default)]
pub struct Need {
    pub(crate) now: Option<u64>,
    pub(crate) used: Option<u64>,
    pub(crate) needed: Option<u64>,
    pub(crate) stops_at: Option<u64>,
    pub(crate) effect: Option<Effect>,
    /// Being met before the last connection counts against the run.
    pub(crate) counts: bool,
    pub(crate) remedy: String,
    pub(crate) risk: String,
    pub(crate) settings: Vec<Setting>,
    pub(crate) note: Option<String>,
    /// Why something that decides is not known.
    pub(crate) unknown: Option<String>,
}

pub(crate) fn setting(name: &str, value: impl ToString) -> Vec<Setting> {
    vec![Setting { name: name.into(), value: value.to_string() }]
}

/// The number of the first connection for which nothing is left of `now`, when `used` is used already and each connection takes `each`.
/// `None`: connections take nothing.
pub(crate) fn first_without(now: u64, used: u64, each: u64) -> Option<u64> {
    Some(now.saturating_sub(used).checked_div(each)?.saturating_add(1))
}

/// Why what is queued is not known.
pub(crate) const NO_PAGE: &str =
    "the kernel's page size is not known, nor what is charged for queued bytes";

pub(crate) fn unseen(name: &str) -> String {
    format!(
        "{name} can't be read from here: it is a setting of the host, which other network namespaces than its first one do not show"
    )
}

/// What a run needs of every limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    pub fits: Option<bool>,
    pub first: Option<LimitName>,
    /// Of every limit, the one that is met first in front.
    pub rows: Vec<PlannedLimit>,
    pub unknown: Vec<Unknown>,
    pub memory: MemoryNeed,
    pub ehash: Option<Ehash>,
}

impl Examination {
    /// Those that are met before the last connection, the first in front.
    pub fn hit(&self) -> impl Iterator<Item = &PlannedLimit> {
        self.rows.iter().filter(|row| row.hit)
    }

    /// In one line: which limits are met before the last connection. `None`: none that is known.
    #[must_use]
    pub fn warning(&self, connections: u64) -> Option<String> {
        let limits: Vec<String> = self
            .hit()
            .map(|row| {
                let at = row.stops_at.map_or(String::new(), |at| format!(" at connection {at}"));
                format!("{}{at}", row.limit.name())
            })
            .collect();
        (!limits.is_empty()).then(|| {
            format!(
                "{connections} connections meet {}: `c1m-server doctor --connections {connections}` says what to do",
                limits.join(", then ")
            )
        })
    }
}
