use std::collections::BTreeMap;

use c1m_record::{Cause, Confidence, Scope, Summary};

use super::*;

fn verdict(limits: &[LimitName]) -> Verdict {
    let cause = |limit: &LimitName| Cause {
        limit: *limit,
        scope: Scope::Host,
        confidence: Confidence::Certain,
        text: "a sentence".into(),
        evidence: Vec::new(),
        to_confirm: None,
        remedy: None,
    };
    Verdict {
        quiet: limits.is_empty(),
        tier: Tier::Functions,
        causes: limits.iter().map(cause).collect(),
    }
}

fn summary(dropped: Option<u64>) -> Summary {
    Summary {
        held: 0,
        peak: 0,
        accepted: 0,
        closed: 0,
        requests: None,
        errors: BTreeMap::new(),
        rss_bytes: None,
        pss_bytes: None,
        user_bytes_per_connection: None,
        cpu_user_s: 0.0,
        cpu_system_s: 0.0,
        elapsed_s: 0.0,
        sockstat: None,
        file_nr: None,
        refused: None,
        dropped,
        dropped_by: BTreeMap::new(),
        suppressed: None,
        not_shown: None,
        lines_dropped: 0,
    }
}

fn told(verdict: Option<Verdict>) -> Told {
    Told { verdict, refused: None, dropped_by: Some(BTreeMap::new()) }
}

fn refused(kernel: &[(&str, u64)]) -> Refused {
    Refused {
        kernel: kernel.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
        ..Refused::default()
    }
}

const PORTS: Expect = Expect::First(LimitName::Ports);

#[test]
fn only_the_first_cause_is_right() {
    let wrong = |expect, limits: &[LimitName]| judge(expect, &told(Some(verdict(limits))), &[]);
    assert!(wrong(PORTS, &[LimitName::Ports, LimitName::Nofile]).is_empty());
    assert!(wrong(Expect::Quiet, &[]).is_empty());
    for (expect, limits) in [
        (PORTS, &[LimitName::Nofile, LimitName::Ports][..]),
        (PORTS, &[]),
        (Expect::Quiet, &[LimitName::Ports]),
    ] {
        assert_eq!(wrong(expect, limits).len(), 1, "{expect:?} {limits:?}");
    }
}

#[test]
fn quiet_and_a_cause_contradict_each_other() {
    let both = Verdict { quiet: true, ..verdict(&[LimitName::Ports]) };
    let neither = Verdict { quiet: false, ..verdict(&[]) };
    for (expect, verdict) in [(PORTS, &both), (Expect::Quiet, &both), (Expect::Quiet, &neither)] {
        assert_eq!(judge(expect, &told(Some(verdict.clone())), &[]).len(), 1, "{verdict:?}");
    }
}

#[test]
fn silence_and_loss_are_wrong() {
    assert_eq!(judge(Expect::Quiet, &told(None), &[]), ["there was no verdict"]);
    let quiet = Some(verdict(&[]));
    let lost = |by: &str| {
        let dropped_by = Some(BTreeMap::from([(by.to_owned(), 1)]));
        let told = Told { dropped_by, ..told(quiet.clone()) };
        judge(Expect::Quiet, &told, &[]).len()
    };
    assert_eq!(lost("ring buffer"), 1);
    assert_eq!(lost("not understood"), 1);
    // The kernel's doing, and told.
    assert_eq!(lost("tp_btf/kfree_skb"), 0);
    assert_eq!(lost("kretprobe/tcp_check_oom"), 0);
    // Without a trace, a summary does not know what was dropped.
    let records = [Record::Verdict(verdict(&[])), Record::Summary(summary(None))];
    let wrong = ["the observer did not say what it dropped"];
    assert_eq!(judge(Expect::Quiet, &Told::from(&records), &[]), wrong);
    assert_eq!(judge(Expect::Quiet, &Told::from(&records[..1]), &[]), wrong);
}

#[test]
fn the_last_verdict_counts() {
    let records = [
        Record::Verdict(verdict(&[LimitName::Nofile])),
        Record::Verdict(verdict(&[LimitName::Ports])),
        Record::Summary(summary(Some(0))),
    ];
    let told = Told::from(&records);
    assert_eq!((told.first(), told.tier()), (Some(LimitName::Ports), Some(Tier::Functions)));
    assert!(judge(PORTS, &told, &[]).is_empty());
    assert_eq!(Told::from(&records[..0]).first(), None);
}

#[test]
fn counters_are_compared_where_both_sides_have_them() {
    let both = Refused {
        dropped_skb: Some(7),
        orphans_aborted_too_many: Some(3),
        orphans_aborted_out_of_memory: Some(1),
        ..refused(&[("TCPRcvQDrop", 5), ("TCPOFODrop", 2), ("TCPAbortOnMemory", 5)])
    };
    let found = counters(&both, &[]);
    let seen: Vec<_> =
        found.iter().map(|it| (it.kernel_name.as_str(), it.kernel, it.ebpf)).collect();
    assert_eq!(seen, [("TCPRcvQDrop + TCPOFODrop", 7, 7), ("TCPAbortOnMemory", 5, 4)]);
    let wrong = judge(Expect::Quiet, &told(Some(verdict(&[]))), &found);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].starts_with("TCPAbortOnMemory is 5"), "{wrong:?}");

    let half = Refused { orphans_aborted_out_of_memory: None, ..both.clone() };
    assert_eq!(counters(&half, &[]).len(), 1);
    let kernel = refused(&[("TCPRcvQDrop", 5)]);
    assert_eq!(counters(&Refused { dropped_skb: Some(5), ..kernel }, &[]), []);
}

#[test]
fn what_the_driver_counted_is_compared_as_well() {
    let own = |ebpf| Counted { name: "connect: EADDRNOTAVAIL", value: 5, ebpf };
    let refused = Refused { high_send: 4, ..Refused::default() };
    let found =
        counters(&refused, &[own("/high_send"), own("/nowhere/at all"), own("/dropped_skb")]);
    let seen: Vec<_> = found.iter().map(|it| (it.kernel, it.ebpf_name.as_str(), it.ebpf)).collect();
    assert_eq!(seen, [(5, "high_send", 4)]);
}

fn run(name: &str, right: Option<bool>, counters: &[(u64, u64)]) -> Run {
    let counter = |(kernel, ebpf): &(u64, u64)| Counter {
        kernel_name: "K".into(),
        kernel: *kernel,
        ebpf_name: "E".into(),
        ebpf: *ebpf,
    };
    Run {
        name: name.into(),
        kernel: "6.18".into(),
        tier: Some(Tier::Tracepoints),
        expected: None,
        first: None,
        right,
        counters: counters.iter().map(counter).collect(),
        wrong: Vec::new(),
        dropped_by: BTreeMap::new(),
        skipped_because: right.is_none().then(|| "no such limit".into()),
        elapsed_s: 1.0,
        refused: None,
        verdict: None,
    }
}

#[test]
fn runs_add_up_by_fault() {
    let runs = [
        run("a", Some(true), &[(1, 1)]),
        run("a", Some(false), &[(1, 2)]),
        run("a", Some(true), &[]),
        run("b", None, &[]),
    ];
    let faults = add_up(&runs);
    assert_eq!(faults.len(), 2);
    let a = &faults[0];
    assert_eq!((a.runs, a.right, a.wrong, a.counters_equal), (3, 2, 1, Some(false)));
    let b = &faults[1];
    assert_eq!((b.runs, b.counters_equal), (0, None));
    assert_eq!(b.skipped_because.as_deref(), Some("no such limit"));
    assert_eq!(exit_code(&faults), 1);
    assert_eq!(exit_code(&add_up(&runs[..1])), 0);
    assert_eq!(exit_code(&add_up(&runs[3..])), 3);
    let elsewhere = Run { kernel: "6.1".into(), ..run("a", Some(true), &[]) };
    assert_eq!(add_up(&[run("a", Some(true), &[]), elsewhere]).len(), 2);
}
