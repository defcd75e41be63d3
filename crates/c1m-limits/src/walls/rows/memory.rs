//! What is counted in bytes or pages, and what is left when connections end.

use c1m_record::{Effect, Setting};

use super::{Case, first_without, setting, unseen};
use crate::{
    advice::{ORPHAN_BYTES, mib, with_slack},
    footprint::{charged_each, charged_pages, each, held_by, sum},
    raise::at_least,
    walls::{Row, Run},
};

/// Pages that each CPU may keep apart from the kernel's counter (include/net/sock.h, `sk_memory_allocated_add`, 6.18).
const CPU_PAGES: u64 = 256;

impl Case<'_> {
    pub(super) fn tcp_mem(&self, level: usize, effect: Effect, counts: bool) -> Row {
        let page = self.now.page();
        let each = charged_pages(self.run.queued_bytes, page);
        let used = self.now.sockstat.map(|sockets| sockets.tcp_mem_pages);
        let all = self.connections().saturating_mul(each);
        let needed = match each {
            0 => Some(0),
            _ => used.map(|used| all.saturating_add(used)),
        };
        let now = self.now.tcp_mem.map(|limits| limits[level]);
        let stops_at = now.zip(used).and_then(|(now, used)| first_without(now, used, each));
        let (fix, settings) = self.more_tcp_mem(needed.unwrap_or(all));
        Row {
            now,
            used,
            needed,
            stops_at,
            effect: Some(effect),
            counts,
            fix,
            settings,
            danger: "it is the whole host's, also for containers; too much of it ends in the OOM killer. Pages, not bytes and not kB".into(),
            note: Some(match each {
                0 => "idle connections use none of it".into(),
                _ => format!("{each} pages ({} bytes) for each connection", each.saturating_mul(page)),
            }),
            unknown: (now.is_none() || used.is_none()).then(|| unseen("net.ipv4.tcp_mem")),
        }
    }

    /// So that all of it stays below the second value too, where nobody is held to a fair share; at most half of memory.
    fn more_tcp_mem(&self, needed: u64) -> (String, Vec<Setting>) {
        let residue = 2 * CPU_PAGES * self.now.cpus.unwrap_or(1);
        let high = needed.saturating_add(residue).saturating_mul(3) / 2;
        let high = high.max(self.now.tcp_mem.map_or(0, |limits| limits[2]));
        let page = self.now.page();
        let most = self.now.memory_total_bytes.map(|total| total / page / 2);
        if most.is_none_or(|most| high > most) {
            let text = "fewer connections, or fewer queued bytes: let applications read; half of this host's memory would not do for tcp_mem";
            return (text.into(), Vec::new());
        }
        let level = |wanted, index: usize| at_least(wanted, self.now.tcp_mem.map(|it| it[index]));
        let value = format!("{} {} {high}", level(high / 2, 0), level(high / 3 * 2, 1));
        let text = format!(
            "net.ipv4.tcp_mem=\"{value}\" (pages; {} MiB at most), or let applications read",
            mib(high.saturating_mul(page))
        );
        (text, setting("net.ipv4.tcp_mem", value))
    }

    /// Only orphans with more than 4,608 bytes to send are given up for memory (net/ipv4/tcp.c, `tcp_check_oom`, 6.18).
    pub(super) fn orphan_memory(&self) -> Row {
        const SENDS_MORE_THAN: u64 = 4_608;
        let concerns = self.run.queued_bytes > SENDS_MORE_THAN;
        let row = self.tcp_mem(2, Effect::Resets, self.run.ends_by_fin);
        Row {
            needed: if concerns { row.needed } else { Some(0) },
            stops_at: row.stops_at.filter(|_| concerns),
            note: Some(format!(
                "when connections with more than {SENDS_MORE_THAN} unsent bytes are closed above high"
            )),
            ..row
        }
    }

    /// The tightest of memory.max and memory.high, and the limit that version 1 has for what is queued in sockets.
    pub(super) fn memory_cgroup(&self) -> Row {
        let hard = self.now.cgroup_used_bytes.zip(self.now.cgroup_max_bytes);
        let room = |(used, ceiling): (u64, u64)| ceiling.saturating_sub(used);
        let high =
            self.now.cgroup_high.filter(|high| hard.is_none_or(|hard| room(*high) < room(hard)));
        let Run { role, ipv6, queued_bytes, .. } = *self.run;
        let each = charged_each(
            &self.host.sizes,
            role,
            ipv6,
            queued_bytes,
            self.now.page(),
            self.host.cgroup_counts_sockets,
        );
        let tightest = high.or(hard);
        let used = tightest.map(|(used, _)| used).or(self.now.cgroup_used_bytes);
        let needed = sum(each, self.connections()).saturating_add(used.unwrap_or(0));
        let now = tightest.map(|(_, ceiling)| ceiling);
        let wanted = at_least(with_slack(needed), now);
        let stops_at = tightest.map(|tightest| held_by(each, room(tightest)).saturating_add(1));
        let row = Row {
            now,
            used,
            needed: Some(needed),
            stops_at,
            counts: true,
            fix: format!(
                "{}={wanted} (bytes; {} MiB) of the cgroup, {}= of a systemd unit; or fewer connections",
                if high.is_some() { "memory.high" } else { "memory.max" },
                mib(wanted),
                if high.is_some() { "MemoryHigh" } else { "MemoryMax" },
            ),
            danger: "what it is kept from taking is the rest of the host's".into(),
            note: Some(match tightest {
                Some(_) => format!(
                    "{each} bytes are charged for each connection, when the programs are in the doctor's cgroup{}",
                    if high.is_some() {
                        "; above memory.high they are slowed down, and nothing is refused"
                    } else {
                        ""
                    }
                ),
                None => "no level above this process has a limit".into(),
            }),
            ..Row::default()
        };
        self.cgroup_sockets(row)
    }

    /// The limit for sockets instead, where it is met before `row`.
    fn cgroup_sockets(&self, row: Row) -> Row {
        let Some((used, ceiling)) = self.now.cgroup_sockets else { return row };
        let page = self.now.page();
        // Of both ends that may be here, one has it in its queue: as tcp_mem counts it.
        let each = charged_pages(self.run.queued_bytes, page).saturating_mul(page);
        if each == 0 {
            return row;
        }
        let stops_at = (ceiling.saturating_sub(used) / each).saturating_add(1);
        if row.stops_at.is_some_and(|other| other <= stops_at) {
            return row;
        }
        let needed = each.saturating_mul(self.connections()).saturating_add(used);
        let wanted = at_least(with_slack(needed), Some(ceiling));
        Row {
            now: Some(ceiling),
            used: Some(used),
            needed: Some(needed),
            stops_at: Some(stops_at),
            fix: format!(
                "memory.kmem.tcp.limit_in_bytes={wanted} (bytes; {} MiB) of the cgroup; or fewer queued bytes",
                mib(wanted)
            ),
            note: Some(format!(
                "{each} bytes are queued in sockets for each connection, which version 1 counts by itself"
            )),
            ..row
        }
    }

    pub(super) fn buffer(&self, limits: Option<[u64; 3]>, name: &str) -> Row {
        let queued =
            charged_pages(self.run.queued_bytes, self.now.page()).saturating_mul(self.now.page());
        Row {
            now: limits.map(|limits| limits[2]),
            needed: Some(queued),
            effect: Some(Effect::Bounds),
            danger: format!(
                "each connection may hold as much as the third value of {name}, and tcp_mem counts it"
            ),
            note: Some("of one socket; idle connections take nothing of it".into()),
            unknown: limits.is_none().then(|| format!("{name} can't be read from here")),
            ..Row::default()
        }
    }

    /// Where both ends are here, either may be the orphan, and one of them is.
    pub(super) fn orphans(&self) -> Row {
        let used = self.now.sockstat.map(|sockets| sockets.orphan);
        let now = self.now.max_orphans;
        let needed = self.connections().saturating_add(used.unwrap_or(0));
        let wanted = at_least(needed.saturating_mul(4), now);
        Row {
            now,
            used,
            needed: Some(needed),
            stops_at: now.zip(used).and_then(|(now, used)| first_without(now, used, 1)),
            effect: Some(Effect::Resets),
            counts: self.run.ends_by_fin,
            fix: format!("net.ipv4.tcp_max_orphans={wanted}; or close by reset, or fewer at once"),
            danger: format!(
                "an orphan holds up to {} KiB: {} MiB for all. One that has not sent for long counts twice or four times, so a quarter of \
                 the value can be the wall",
                ORPHAN_BYTES / 1024,
                mib(wanted.saturating_mul(ORPHAN_BYTES))
            ),
            // The kernel has an int.
            settings: match i32::try_from(wanted) {
                Ok(wanted) => setting("net.ipv4.tcp_max_orphans", wanted),
                Err(_) => Vec::new(),
            },
            note: Some("when all connections are cut at once; by reset there are none".into()),
            unknown: (now.is_none() || used.is_none()).then(|| unseen("net.ipv4.tcp_max_orphans")),
        }
    }

    pub(super) fn time_wait(&self) -> Row {
        let used = self.now.sockstat.map(|sockets| sockets.tw);
        let now = self.now.max_tw_buckets;
        Row {
            now,
            used,
            needed: Some(self.connections().saturating_add(used.unwrap_or(0))),
            stops_at: now.zip(used).and_then(|(now, used)| first_without(now, used, 1)),
            effect: Some(Effect::Forgets),
            danger: "lowered, late segments of an old connection can reach a new one; raised, each takes 256 bytes".into(),
            note: Some("when all connections are closed within 60 s by the end that is here; nothing is refused, so leave it".into()),
            unknown: now.is_none().then(|| "net.ipv4.tcp_max_tw_buckets can't be read".into()),
            ..Row::default()
        }
    }

    pub(super) fn host_memory(&self) -> Row {
        let available = self.now.memory_available_bytes;
        let total = self.now.memory_total_bytes;
        let used = total.zip(available).map(|(total, available)| total.saturating_sub(available));
        Row {
            now: total,
            used,
            needed: Some(self.memory.bytes.saturating_add(used.unwrap_or(0))),
            stops_at: available.map(|available| held_by(each(self.memory), available).saturating_add(1)),
            counts: true,
            fix: match available {
                Some(available) => format!(
                    "{} connections fit into the {} MiB that are available; or fewer queued bytes, or more memory",
                    held_by(each(self.memory), available),
                    mib(available)
                ),
                None => "fewer connections, or more memory".into(),
            },
            danger: "beyond it the OOM killer ends a process, and not always the one that takes the memory".into(),
            unknown: available.is_none().then(|| "/proc/meminfo can't be read".into()),
            ..Row::default()
        }
    }
}
