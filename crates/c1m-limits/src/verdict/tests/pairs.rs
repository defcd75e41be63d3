//! Each pair of limits that looks alike, as the tiers see it: what the kernel moves for the one, and for the other.

use crate::{
    evidence::{Call, Evidence, Growth, OomVictim, errno},
    forecast::History,
    reading::Readings,
    verdict::{followed_by, judge},
};
use c1m_record::{Confidence, LimitName, Sockstat, Tier};

fn counters(pairs: &[(&str, u64)]) -> Evidence {
    let tcp_ext = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Evidence { tier: Some(Tier::Tracepoints), tcp_ext, ..Evidence::default() }
}

fn history() -> History {
    let mut history = History::default();
    history.add(&Readings {
        syncookies: Some(1),
        ports: Some(10),
        sockstat: Some(Sockstat { alloc: 20, ..Sockstat::default() }),
        ..Readings::default()
    });
    history
}

#[track_caller]
fn expect(seen: &Evidence, names: &[LimitName]) {
    let verdict = judge(seen, &history());
    let found: Vec<_> = verdict.causes.iter().map(|cause| cause.limit).collect();
    assert_eq!(found, names, "{seen:?}");
    assert_eq!(verdict.quiet, names.is_empty());
    for cause in &verdict.causes {
        assert!(!cause.text.is_empty() && !cause.evidence.is_empty(), "{cause:?}");
        assert_eq!(
            cause.confidence == Confidence::Certain,
            cause.to_confirm.is_none(),
            "{cause:?}"
        );
    }
}

#[test]
fn tcp_mem_memory_cgroup_and_receive_buffer() {
    // All three drop the segment, and move the same counter.
    let drops = counters(&[("TCPRcvQDrop", 38), ("PruneCalled", 38)]);
    let tcp_mem = Evidence { refused_high_receive: 76, dropped_tcp_mem: Some(38), ..drops.clone() };
    expect(&tcp_mem, &[LimitName::TcpMemHigh]);
    let cgroup = Evidence { refused_memcg_receive: 76, ..drops.clone() };
    expect(&cgroup, &[LimitName::MemoryCgroup]);
    expect(&drops, &[LimitName::ReceiveBuffer]);
    let buffer = Evidence { dropped_receive_buffer: Some(38), dropped_tcp_mem: Some(0), ..drops };
    expect(&buffer, &[LimitName::ReceiveBuffer]);
}

#[test]
fn pressure_and_high() {
    let entered = Evidence {
        crossed_pressure: Some(1),
        past_pressure: Some(true),
        ..counters(&[("TCPMemoryPressures", 1)])
    };
    expect(&entered, &[LimitName::TcpMemPressure]);
    let fair = Evidence { refused_fair_share_receive: 4, ..entered.clone() };
    expect(&fair, &[LimitName::TcpMemPressure]);
    let high = Evidence { crossed_high: Some(1), ..entered };
    expect(&high, &[LimitName::TcpMemHigh]);
    let high = Evidence { refused_high_send: 1, crossed_high: Some(1), ..fair };
    expect(&high, &[LimitName::TcpMemHigh, LimitName::TcpMemPressure]);
}

#[test]
fn orphan_count_and_orphan_memory() {
    let reset = |many, memory| Evidence {
        orphans_too_many: Some(many),
        orphans_out_of_memory: Some(memory),
        ..counters(&[("TCPAbortOnMemory", many + memory)])
    };
    expect(&reset(9, 0), &[LimitName::Orphans]);
    expect(&reset(0, 9), &[LimitName::OrphanMemory]);
    // Above high alone is what resets them, and nothing else was refused.
    let above = Evidence { crossed_high: Some(1), ..reset(0, 9) };
    expect(&above, &[LimitName::OrphanMemory, LimitName::TcpMemHigh]);
    let stray = Evidence { refused_high_receive: 2, ..above.clone() };
    expect(&stray, &[LimitName::OrphanMemory, LimitName::TcpMemHigh]);
    // Senders waited before anything was closed.
    let senders = Evidence { refused_high_send: 400, ..above };
    expect(&senders, &[LimitName::TcpMemHigh, LimitName::OrphanMemory]);
}

#[test]
fn accept_queue_syn_queue_and_conntrack() {
    expect(&counters(&[("ListenOverflows", 3), ("ListenDrops", 3)]), &[LimitName::AcceptQueue]);
    expect(&counters(&[("TCPReqQFullDrop", 3), ("ListenDrops", 3)]), &[LimitName::SynQueue]);
    let host = Growth { conntrack_drop: Some(3), ..Growth::default() };
    expect(&Evidence { host, ..counters(&[]) }, &[LimitName::Conntrack]);
    // Hooks on the functions count the same.
    let hooked =
        Evidence { tier: Some(Tier::Functions), accept_queue_ack: Some(2), ..Evidence::default() };
    expect(&hooked, &[LimitName::AcceptQueue]);
    let hooked =
        Evidence { tier: Some(Tier::Functions), syn_queue_full: Some(2), ..Evidence::default() };
    expect(&hooked, &[LimitName::SynQueue]);
}

fn failed(call: Call, errno: i32) -> Evidence {
    Evidence { call_errors: [((call, errno), 3)].into(), ..counters(&[]) }
}

#[test]
fn nofile_and_file_max_and_the_queue_that_fills_behind_them() {
    expect(&failed(Call::Accept, errno::EMFILE), &[LimitName::Nofile]);
    expect(&failed(Call::Accept, errno::ENFILE), &[LimitName::FileMax]);
    for (errno, limit) in [(errno::EMFILE, LimitName::Nofile), (errno::ENFILE, LimitName::FileMax)]
    {
        let behind = counters(&[("ListenOverflows", 900), ("ListenDrops", 900)]).tcp_ext;
        let seen = Evidence { tcp_ext: behind, ..failed(Call::Accept, errno) };
        expect(&seen, &[limit, LimitName::AcceptQueue]);
    }
}

#[test]
fn ports_and_nofile_of_a_client() {
    expect(&failed(Call::Connect, errno::EADDRNOTAVAIL), &[LimitName::Ports]);
    expect(&failed(Call::Socket, errno::EMFILE), &[LimitName::Nofile]);
}

#[test]
fn an_oom_kill_of_a_cgroup_of_the_host_and_a_crash() {
    let killed = |in_cgroup| Evidence {
        oom_kills: vec![OomVictim { pid: 1, comm: "a".into(), in_cgroup: Some(in_cgroup) }],
        ..counters(&[("TCPAbortOnClose", 40)])
    };
    expect(&killed(true), &[LimitName::MemoryCgroup]);
    expect(&killed(false), &[LimitName::Memory]);
    expect(&counters(&[("TCPAbortOnClose", 40)]), &[]);
}

#[test]
fn what_is_possible_comes_behind_what_is_sure() {
    let seen = Evidence {
        tier: Some(Tier::Counters),
        ..counters(&[("TCPMemoryPressures", 1), ("TCPTimeWaitOverflow", 1), ("ListenOverflows", 1)])
    };
    expect(&seen, &[LimitName::AcceptQueue, LimitName::TimeWait, LimitName::TcpMemPressure]);
}

#[test]
fn what_comes_while_closing_is_no_root() {
    let before = judge(&Evidence { refused_high_send: 1, ..counters(&[]) }, &history());
    let after =
        Evidence { orphans_out_of_memory: Some(500), refused_high_send: 1, ..counters(&[]) };
    let verdict = followed_by(before, judge(&after, &history()));
    let names: Vec<_> = verdict.causes.iter().map(|cause| cause.limit).collect();
    assert_eq!(names, [LimitName::TcpMemHigh, LimitName::OrphanMemory]);
    let quiet = judge(&Evidence::default(), &history());
    assert!(followed_by(quiet.clone(), quiet.clone()).quiet);
    assert!(!followed_by(quiet, verdict).quiet);
}
