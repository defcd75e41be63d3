//! What a run of so many connections needs of each limit, and at which connection each stops it: before the run, from one sample of the host.

pub mod need;

use c1m_record::{Effect, Ehash, PlannedLimit, Unknown};

pub use self::need::{Examination, Host, Run, Tables};
use self::need::{Need, Planned};
use crate::{
    footprint::need,
    limits::{About, shown},
};

/// Examines every limit.
#[must_use]
pub fn examine(run: &Run, host: &Host) -> Examination {
    let memory = need(&host.sizes, run.role, run.ipv6, run.connections, run.queued_bytes);
    let planned = Planned { run, host, now: &host.readings, memory: &memory };
    let mut rows = Vec::new();
    let mut unknown = Vec::new();
    for limit in shown() {
        let (about, need) = (limit.about(), limit.preflight(&planned));
        let decides = need.counts && need.needed != Some(0);
        if let Some(why) = &need.unknown {
            unknown.push(Unknown { limit: about.name, why: why.clone(), decides });
        }
        rows.push(row(about, need, run.connections));
    }
    // Stable: what is met at the same connection, or at none, stays in the order in which limits are shown.
    rows.sort_by_key(|row| (!row.hit, row.stops_at.unwrap_or(u64::MAX)));
    let first = rows.iter().find(|row| row.hit).map(|row| row.limit);
    let fits = match first {
        Some(_) => Some(false),
        None if unknown.iter().any(|it| it.decides) => None,
        None => Some(true),
    };
    Examination { fits, first, rows, unknown, memory, ehash: ehash(run, host) }
}

fn row(about: &About, need: Need, connections: u64) -> PlannedLimit {
    let hit = need.counts && need.stops_at.is_some_and(|at| at <= connections);
    PlannedLimit {
        limit: about.name,
        scope: about.scope,
        now: need.now,
        used: need.used,
        needed: need.needed,
        unit: about.unit.into(),
        stops_at: need.stops_at,
        effect: need.effect.unwrap_or(Effect::Stops),
        hit,
        fix: hit.then_some(need.remedy),
        risk: need.risk,
        settings: if hit { need.settings } else { Vec::new() },
        note: need.note,
    }
}

/// To the hundredth: an average for people.
fn ehash(run: &Run, host: &Host) -> Option<Ehash> {
    let buckets = host.ehash_buckets.filter(|buckets| *buckets > 0)?;
    let others = host.readings.sockstat.map_or(0, |sockets| sockets.alloc);
    let sockets = run.connections.saturating_mul(run.role.ends()).saturating_add(others);
    let hundredths = u128::from(sockets) * 100 / u128::from(buckets);
    let chain = f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0;
    Some(Ehash { buckets, chain })
}

#[cfg(test)]
mod tests {
    use c1m_record::{FileNr, LimitName, Role, Sockstat};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        footprint::{Sizes, charged_each, charged_pages, sum},
        reading::Readings,
    };

    /// A host with room for everything, and nothing in use.
    fn roomy() -> Host {
        let many = 1 << 40;
        Host {
            readings: Readings {
                sockstat: Some(Sockstat::default()),
                tcp_mem: Some([many, many, many]),
                page_bytes: Some(4096),
                cpus: Some(2),
                tcp_rmem: Some([4096, 131_072, 1 << 25]),
                tcp_wmem: Some([4096, 16_384, 1 << 22]),
                max_orphans: Some(many),
                nofile: Some(1 << 20),
                nr_open: Some(1 << 30),
                file_nr: Some(FileNr { allocated: 0, max: many }),
                backlog: Some(4096),
                max_syn_backlog: Some(4096),
                syncookies: Some(1),
                ports: Some(28_232),
                conntrack: Some(0),
                conntrack_max: Some(many),
                max_user_watches: Some(many),
                max_tw_buckets: Some(many),
                memory_total_bytes: Some(1 << 50),
                memory_available_bytes: Some(1 << 50),
                cgroup_used_bytes: Some(0),
                cgroup_max_bytes: Some(1 << 50),
                ..Readings::default()
            },
            tables: Tables {
                by_nofile: Some(many),
                by_nr_open: Some(many),
                needed: 100,
                most: 4096,
            },
            listeners: 2,
            sizes: Sizes::default(),
            tracked: Some(true),
            ehash_buckets: Some(1 << 18),
            cgroup_counts_sockets: true,
            is_exempt_from_file_max: false,
        }
    }

    fn run(connections: u64) -> Run {
        Run {
            connections,
            queued_bytes: 0,
            role: Role::Both,
            ipv6: false,
            sources: 1 << 20,
            destinations: 1,
            rate: None,
            ends_by_fin: false,
        }
    }

    /// Lowers one limit so that it is met at connection `at`, and makes the run meet it.
    type Lower = fn(&mut Host, &mut Run, u64);

    /// All that can stop a run. `at` is a multiple of 2,000, from 2,000 on.
    const LOWERED: [(LimitName, Lower); 13] = [
        (LimitName::TcpMemHigh, |host, run, at| {
            run.queued_bytes = 3_000;
            host.readings.tcp_mem = Some([0, 0, at - 1 + 7]);
            host.readings.sockstat = Some(Sockstat { tcp_mem_pages: 7, ..Sockstat::default() });
        }),
        (LimitName::OrphanMemory, |host, run, at| {
            run.ends_by_fin = true;
            run.queued_bytes = 5_000;
            // tcp_mem high itself is met at the same connection, and is listed before it.
            host.readings.tcp_mem = Some([0, 0, 2 * (at - 1)]);
        }),
        (LimitName::MemoryCgroup, |host, run, at| {
            let each = charged_each(&host.sizes, run.role, false, 0, true);
            host.readings.cgroup_used_bytes = Some(5);
            host.readings.cgroup_max_bytes = Some(sum(each, at - 1) + 5);
        }),
        (LimitName::Orphans, |host, run, at| {
            run.ends_by_fin = true;
            host.readings.max_orphans = Some(at - 1);
        }),
        (LimitName::Nofile, |host, _, at| host.tables.by_nofile = Some(at - 1)),
        (LimitName::NrOpen, |host, _, at| host.tables.by_nr_open = Some(at - 1)),
        (LimitName::FileMax, |host, _, at| {
            host.readings.file_nr = Some(FileNr { allocated: 9, max: 2 * (at - 1) + 64 + 9 });
        }),
        (LimitName::AcceptQueue, |host, run, at| {
            run.rate = Some(u64::MAX);
            host.readings.backlog = Some((at - 1) / host.listeners - 1);
        }),
        (LimitName::SynQueue, |host, run, at| {
            (run.rate, run.role) = (Some(u64::MAX), Role::Server);
            host.readings.syncookies = Some(0);
            host.readings.backlog = Some(1 << 40);
            host.readings.max_syn_backlog = Some(((at - 1) / host.listeners - 1) / 3 * 4 + 2);
        }),
        (LimitName::Ports, |host, run, at| {
            run.sources = 2;
            host.readings.ports = Some((at - 1) / 2);
        }),
        (LimitName::Conntrack, |host, _, at| host.readings.conntrack_max = Some(at - 1)),
        (LimitName::EpollWatches, |host, _, at| {
            host.readings.max_user_watches = Some(2 * (at - 1) + 64);
        }),
        (LimitName::Memory, |host, run, at| {
            let need = need(&host.sizes, run.role, false, at - 1, 0);
            host.readings.memory_available_bytes = Some(need.bytes);
        }),
    ];

    /// The two limits of a memory cgroup for which nobody is killed, each beside a memory.max that has more room.
    #[test]
    fn memory_high_and_the_limit_for_sockets_are_limits_of_a_cgroup() {
        let cgroup = |high, sockets, queued_bytes| {
            let mut host = roomy();
            host.readings.cgroup_max_bytes = Some(1 << 40);
            (host.readings.cgroup_high, host.readings.cgroup_sockets) = (high, sockets);
            let asked = Run { queued_bytes, ..run(100_000) };
            of(&examine(&asked, &host), LimitName::MemoryCgroup).clone()
        };
        let charged = |queued| {
            charged_each(
                &roomy().sizes,
                Role::Both,
                false,
                4096 * charged_pages(queued, 4096),
                true,
            )
        };
        let high = cgroup(Some((7, sum(charged(0), 999) + 7)), None, 0);
        assert_eq!((high.used, high.stops_at, high.hit), (Some(7), Some(1_000), true));
        let fix = high.fix.unwrap();
        assert!(fix.contains("memory.high=") && fix.contains("MemoryHigh="), "{fix}");
        assert!(high.note.unwrap().contains("slowed down"));
        // The nearer one counts.
        let hard = cgroup(Some((0, 1 << 41)), None, 0);
        assert_eq!((hard.now, hard.hit), (Some(1 << 40), false));
        // Idle connections have nothing queued, whatever sockets may hold.
        let sockets = Some((4096, 100 * 4096));
        assert_eq!(cgroup(None, sockets, 0).now, Some(1 << 40));
        let each = charged_pages(2_000, 4096) * 4096;
        let queued = cgroup(None, sockets, 2_000);
        assert_eq!((queued.now, queued.used), (Some(100 * 4096), Some(4096)));
        assert_eq!(queued.stops_at, Some(99 * 4096 / each + 1));
        assert!(queued.hit && queued.fix.unwrap().contains("memory.kmem.tcp.limit_in_bytes="));
        // Beside a limit that is met before.
        let both = cgroup(Some((0, sum(charged(2_000), 9))), sockets, 2_000);
        assert_eq!(both.stops_at, Some(10));
        assert!(both.fix.unwrap().contains("memory.high="));
    }

    /// The same queues on the same host, with pages of two sizes, and of one that is not known.
    #[test]
    fn a_page_has_the_kernel_s_size() {
        let examined = |page_bytes, queued_bytes| {
            let mut host = roomy();
            host.readings.page_bytes = page_bytes;
            host.readings.tcp_mem = Some([1_000; 3]);
            host.readings.cgroup_sockets = Some((0, 65_536 * 10_000));
            examine(&Run { queued_bytes, ..run(100_000) }, &host)
        };
        for page in [4_096, 65_536] {
            let examination = examined(Some(page), 12_000);
            let pages = charged_pages(12_000, page);
            let high = of(&examination, LimitName::TcpMemHigh);
            assert_eq!(high.stops_at, Some(1_000 / pages + 1));
            let each = format!("{pages} pages ({} bytes) for each connection", pages * page);
            assert_eq!(high.note.as_deref(), Some(each.as_str()));
            let sockets = of(&examination, LimitName::MemoryCgroup);
            assert_eq!(sockets.stops_at, Some(65_536 * 10_000 / (pages * page) + 1));
            assert_eq!(of(&examination, LimitName::ReceiveBuffer).needed, Some(pages * page));
            assert_eq!(examination.fits, Some(false));
        }
        let unknown = examined(None, 12_000);
        assert_eq!(unknown.fits, None);
        let high = of(&unknown, LimitName::TcpMemHigh);
        assert_eq!((high.needed, high.stops_at, &high.note), (None, None, &None));
        for limit in [LimitName::TcpMemHigh, LimitName::MemoryCgroup] {
            let is_it =
                |it: &c1m_record::Unknown| it.limit == limit && it.why.contains("page size");
            assert!(unknown.unknown.iter().any(is_it), "{limit:?}: {:?}", unknown.unknown);
        }
        // Connections that queue nothing need no page.
        assert_eq!(examined(None, 0).fits, Some(true));
    }

    fn of(examination: &Examination, limit: LimitName) -> &PlannedLimit {
        examination.rows.iter().find(|row| row.limit == limit).unwrap()
    }

    #[test]
    fn a_roomy_host_fits_and_every_limit_has_its_row() {
        let examination = examine(&run(1_000_000), &roomy());
        assert_eq!((examination.fits, examination.first), (Some(true), None), "{examination:?}");
        assert_eq!(examination.rows.len(), LimitName::ALL.len());
        assert!(examination.rows.iter().all(|row| row.fix.is_none() && row.settings.is_empty()));
        assert!(examination.rows.iter().all(|row| !row.risk.trim().is_empty()), "{examination:?}");
        assert_eq!(examination.unknown, []);
        assert_eq!(examination.warning(7), None);
        assert!((examination.ehash.unwrap().chain - 2_000_000.0 / 262_144.0).abs() < 0.01);
    }

    #[test]
    fn what_is_not_read_is_unknown_and_decides_only_where_it_is_needed() {
        // As in another network namespace than the first.
        let mut host = roomy();
        (host.readings.tcp_mem, host.readings.max_orphans) = (None, None);
        let idle = examine(&run(1_000), &host);
        let named = |examination: &Examination| {
            examination.unknown.iter().map(|it| (it.limit, it.decides)).collect::<Vec<_>>()
        };
        assert_eq!(idle.fits, Some(true), "idle connections use none of it");
        assert!(named(&idle).contains(&(LimitName::TcpMemHigh, false)), "{idle:?}");
        let queued = examine(&Run { queued_bytes: 1, ..run(1_000) }, &host);
        assert_eq!((queued.fits, queued.first), (None, None));
        assert!(named(&queued).contains(&(LimitName::TcpMemHigh, true)));
        let closed = examine(&Run { ends_by_fin: true, ..run(1_000) }, &host);
        assert_eq!(closed.fits, None);
        assert!(named(&closed).contains(&(LimitName::Orphans, true)));
        // A limit that is known to be met is met, whatever is not known.
        host.tables.by_nofile = Some(10);
        assert_eq!(examine(&Run { queued_bytes: 1, ..run(1_000) }, &host).fits, Some(false));
        // Nothing at all.
        let blind = Host {
            readings: Readings::default(),
            tables: Tables { by_nofile: None, by_nr_open: None, needed: 1, most: 1 },
            tracked: None,
            ehash_buckets: None,
            ..roomy()
        };
        let examination = examine(&run(1), &blind);
        assert_eq!((examination.fits, examination.ehash), (None, None));
        assert!(
            examination
                .rows
                .iter()
                .all(|row| row.now.is_none() && row.stops_at.is_none() && !row.hit)
        );
    }

    #[test]
    fn the_limit_that_is_met_first_is_first_and_all_are_in_the_warning() {
        let mut host = roomy();
        host.readings.max_user_watches = Some(1_000);
        host.readings.conntrack_max = Some(300);
        let examination = examine(&run(20_000), &host);
        let hit: Vec<_> = examination.hit().map(|row| (row.limit, row.stops_at)).collect();
        assert_eq!(
            hit,
            [
                (LimitName::Conntrack, Some(301)),
                (LimitName::EpollWatches, Some((1_000 - 64) / 2 + 1))
            ]
        );
        let warning = examination.warning(20_000).unwrap();
        assert!(warning.contains("conntrack at connection 301, then epoll_watches"), "{warning}");
        assert!(!warning.contains('\n'));
    }

    #[test]
    fn whether_anything_is_tracked_makes_the_difference() {
        let mut host = roomy();
        host.readings.conntrack_max = Some(10);
        let fits = |host: &Host| examine(&run(1_000), host).fits;
        assert_eq!(fits(&host), Some(false));
        host.tracked = Some(false);
        assert_eq!(fits(&host), Some(true));
        host.tracked = None;
        assert_eq!(fits(&host), None);
        (host.readings.conntrack, host.readings.conntrack_max) = (None, None);
        assert_eq!(fits(&host), Some(true), "there is no table at all");
    }

    #[test]
    fn tcp_mem_is_raised_above_what_is_needed_and_never_beyond_half_of_memory() {
        let mut host = roomy();
        host.readings.tcp_mem = Some([100, 200, 300]);
        host.readings.memory_total_bytes = Some(4096 * 1_000_000);
        let run = Run { queued_bytes: 3_000, ..run(20_000) };
        let row = of(&examine(&run, &host), LimitName::TcpMemHigh).clone();
        assert_eq!((row.stops_at, row.unit.as_str()), (Some(301), "pages"));
        let [low, pressure, high]: [u64; 3] = row.settings[0]
            .value
            .split(' ')
            .map(|it| it.parse().unwrap())
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        assert!(
            low < pressure && pressure < high && pressure > 20_000 && high < 500_000,
            "{row:?}"
        );
        let many = Run { connections: 600_000, ..run };
        let row = of(&examine(&many, &host), LimitName::TcpMemHigh).clone();
        assert!(row.hit && row.settings.is_empty(), "{row:?}");
    }

    #[test]
    fn a_server_alone_needs_no_ports_and_a_client_alone_no_backlog() {
        let mut host = roomy();
        (host.readings.ports, host.readings.backlog) = (Some(1), Some(1));
        let of_role = |role| Run { role, sources: 1, rate: Some(1_000_000), ..run(10_000) };
        let server = examine(&of_role(Role::Server), &host);
        assert_eq!(server.first, Some(LimitName::AcceptQueue));
        let client = examine(&of_role(Role::Client), &host);
        assert_eq!(client.first, Some(LimitName::Ports));
        assert!(!of(&client, LimitName::AcceptQueue).hit);
        // Both ends take two files, one end one.
        let files = |role| of(&examine(&of_role(role), &roomy()), LimitName::FileMax).needed;
        assert_eq!((files(Role::Both), files(Role::Client)), (Some(20_064), Some(10_064)));
    }

    proptest! {
        /// Each limit, lowered, is met first, at the connection where it was put.
        #[test]
        fn a_limit_that_is_lowered_is_met_first(index in 0..LOWERED.len(), thousands in 1u64..50, more in 1u64..1_000_000) {
            let (limit, lower) = LOWERED[index];
            let at = thousands * 2_000 + 1;
            let (mut host, mut run) = (roomy(), run(at - 1));
            lower(&mut host, &mut run, at);
            let before = examine(&run, &host);
            prop_assert_eq!(before.fits, Some(true), "{:?}: {:?}", limit, before.hit().collect::<Vec<_>>());
            run.connections += more;
            let after = examine(&run, &host);
            prop_assert_eq!(after.fits, Some(false));
            let row = of(&after, limit);
            prop_assert!(row.hit && row.fix.is_some());
            // An eighth of a port or a request is none.
            prop_assert!(row.stops_at.unwrap().abs_diff(at) <= 4, "{:?} at {:?}, not {}", limit, row.stops_at, at);
            if limit != LimitName::OrphanMemory {
                prop_assert_eq!(after.first, Some(limit), "{:?}", after.hit().collect::<Vec<_>>());
            }
        }

        /// With the settings that the doctor names, the limit is not met.
        #[test]
        fn the_remedy_moves_the_limit(index in 0..LOWERED.len(), connections in 10_000u64..2_000_000) {
            let (limit, lower) = LOWERED[index];
            let (mut host, mut run) = (roomy(), run(connections));
            lower(&mut host, &mut run, 4_001);
            let row = of(&examine(&run, &host), limit).clone();
            prop_assert!(row.hit);
            for setting in &row.settings {
                let numbers: Vec<u64> = setting.value.split(' ').map(|it| it.parse().unwrap()).collect();
                let now = &mut host.readings;
                match (setting.name.as_str(), numbers.as_slice()) {
                    ("net.ipv4.tcp_mem", [a, b, c]) => now.tcp_mem = Some([*a, *b, *c]),
                    ("net.ipv4.tcp_max_orphans", [it]) => now.max_orphans = Some(*it),
                    ("fs.nr_open", [it]) => host.tables.by_nr_open = Some(*it * 4096),
                    ("fs.file-max", [it]) => now.file_nr = Some(FileNr { max: *it, ..now.file_nr.unwrap() }),
                    ("net.core.somaxconn", [it]) => now.backlog = Some(*it),
                    ("net.ipv4.tcp_syncookies", [it]) => now.syncookies = Some(*it),
                    ("net.ipv4.ip_local_port_range", [a, b]) => now.ports = Some(b + 1 - a),
                    ("net.netfilter.nf_conntrack_max", [it]) => now.conntrack_max = Some(*it),
                    ("fs.epoll.max_user_watches", [it]) => now.max_user_watches = Some(*it),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let after = examine(&run, &host);
            prop_assert!(!of(&after, limit).hit || row.settings.is_empty(), "{:?}", of(&after, limit));
        }

        /// Whatever the host says, and whatever is asked, there is an answer, and it agrees with itself.
        #[test]
        fn anything_is_answered(
            connections in 1u64..=u64::MAX, queued_bytes: u64, sources: u64, destinations: u64, rate: Option<u64>, role in 0usize..3,
            numbers in prop::collection::vec(any::<Option<u64>>(), 24), ends_by_fin: bool,
        ) {
            let role = [Role::Server, Role::Client, Role::Both][role];
            let run = Run { connections, queued_bytes, role, ipv6: false, sources, destinations, rate, ends_by_fin };
            let [a, b, c] = [numbers[0], numbers[1], numbers[2]].map(Option::unwrap_or_default);
            let host = Host {
                readings: Readings {
                    sockstat: numbers[3].map(|it| Sockstat { orphan: it, tw: it, alloc: it, tcp_mem_pages: it, ..Sockstat::default() }),
                    tcp_mem: numbers[4].map(|_| [a, b, c]),
                    cpus: numbers[5].map(|it| it % 10_000),
                    tcp_rmem: numbers[6].map(|_| [a, b, c]),
                    max_orphans: numbers[7],
                    nofile: numbers[8],
                    nr_open: numbers[9],
                    file_nr: numbers[10].map(|it| FileNr { allocated: a, max: it }),
                    backlog: numbers[11],
                    max_syn_backlog: numbers[12],
                    syncookies: numbers[13].map(|it| it % 3),
                    ports: numbers[14].map(|it| it % 65_537),
                    conntrack: numbers[15],
                    conntrack_max: numbers[16],
                    max_user_watches: numbers[17],
                    max_tw_buckets: numbers[18],
                    memory_total_bytes: numbers[19],
                    memory_available_bytes: numbers[20],
                    cgroup_used_bytes: numbers[21],
                    cgroup_max_bytes: numbers[22],
                    ..Readings::default()
                },
                tables: Tables { by_nofile: numbers[8], by_nr_open: numbers[9], needed: a, most: b },
                listeners: c,
                sizes: Sizes::default(),
                tracked: numbers[23].map(|it| it % 2 == 0),
                ehash_buckets: numbers[5],
                cgroup_counts_sockets: true,
                is_exempt_from_file_max: true,
            };
            let examination = examine(&run, &host);
            prop_assert_eq!(examination.fits == Some(false), examination.hit().next().is_some());
            prop_assert_eq!(examination.first, examination.hit().next().map(|row| row.limit));
            for row in &examination.rows {
                if row.now.is_none() && row.limit != LimitName::Memory {
                    prop_assert!(!row.hit, "{:?}", row);
                }
                prop_assert_eq!(row.hit, row.fix.is_some());
                prop_assert!(row.stops_at != Some(0));
            }
            let stops: Vec<u64> = examination.hit().filter_map(|row| row.stops_at).collect();
            prop_assert!(stops.is_sorted());
        }
    }
}
