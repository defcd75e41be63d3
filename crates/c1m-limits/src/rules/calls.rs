//! Limits that a failed call names: ports, epoll watches; and the one that a counter names, TIME_WAIT.

use crate::{
    case::Case,
    evidence::{Call, errno},
    verdict::Finding,
};
use c1m_record::{Confidence, LimitName, Tier};

/// The calls that make a connection. Others that fail with EMFILE have limits of their own (inotify_init: max_user_instances), or
/// are programs that try how far they come.
const OPENING: [Call; 2] = [Call::Accept, Call::Socket];

/// Failed calls by which a connection could not be had, as the probe counts them, and as calls of c1m itself returned.
pub(crate) fn emfile(case: &Case<'_>) -> u64 {
    let own = case.seen.own("accept EMFILE") + case.seen.own("socket EMFILE");
    case.failed(&OPENING, errno::EMFILE).max(own)
}

pub(crate) fn enfile(case: &Case<'_>) -> u64 {
    let own = case.seen.own("accept ENFILE") + case.seen.own("socket ENFILE");
    case.failed(&OPENING, errno::ENFILE).max(own)
}

pub(crate) fn ports(case: &Case<'_>) -> Vec<Finding> {
    let failed = case.failed(&[Call::Connect], errno::EADDRNOTAVAIL);
    // Without hooks on functions the number is that of the failed calls again.
    let searched = case.seen.ports_exhausted.filter(|_| case.tier == Tier::Functions);
    let (confidence, count) = match searched {
        Some(0) => return Vec::new(),
        Some(count) => (Confidence::Certain, count),
        None => match by_errno(case) {
            Some(confidence) if failed > 0 => (confidence, failed),
            _ => return Vec::new(),
        },
    };
    let found = Finding::new(
        LimitName::Ports,
        confidence,
        format!("{count} connects found no free local port for their source and destination"),
    )
    .saw("connect EADDRNOTAVAIL", "calls of any process", failed)
    .saw("inet_hash_connect", "searches that found no port", case.seen.ports_exhausted.unwrap_or(0))
    .saw(
        "net.ipv4.ip_local_port_range",
        "ports for one source, destination address and port",
        case.now.ports.unwrap_or(0),
    );
    vec![match confidence {
        Confidence::Certain => found,
        _ => found.settled_by(
            "fexit of inet_hash_connect; connect also answers EADDRNOTAVAIL when there is no source address for an IPv6 destination",
        ),
    }]
}

/// The errno alone also stands for a destination that no local address reaches, such as IPv6 where it is off (net/ipv6/addrconf.c,
/// ipv6_dev_get_saddr, 6.18). Ports can't be used up with fewer sockets than ports.
fn by_errno(case: &Case<'_>) -> Option<Confidence> {
    match (case.now.ports, case.now.ipv6_addresses) {
        (Some(ports), _) if case.history.sockets_max() < ports => None,
        (None, _) | (_, Some(0)) => Some(Confidence::Possible),
        _ => Some(Confidence::Likely),
    }
}

pub(crate) fn epoll(case: &Case<'_>) -> Vec<Finding> {
    let own = case.seen.own("epoll ENOSPC");
    let failed = case.seen.failed(Call::EpollAdd, errno::ENOSPC);
    if own.max(failed) == 0 {
        return Vec::new();
    }
    vec![
        Finding::new(
            LimitName::EpollWatches,
            Confidence::Certain,
            format!(
                "{} connections could not be watched: a user's epoll watches are used up",
                own.max(failed)
            ),
        )
        .saw("epoll_ctl ENOSPC", "calls of any process", failed)
        .saw("epoll ENOSPC", "own calls", own)
        .beside(
            "fs.epoll.max_user_watches",
            "watches of this process",
            case.peak(LimitName::EpollWatches),
        ),
    ]
}

pub(crate) fn time_wait(case: &Case<'_>) -> Vec<Finding> {
    let count = case.seen.counter("TCPTimeWaitOverflow");
    if count == 0 {
        return Vec::new();
    }
    // The same counter moves when memory for the bucket could not be had (net/ipv4/inet_timewait_sock.c, inet_twsk_alloc, 6.18).
    let peak = case.peak(LimitName::TimeWait);
    let full = peak.is_some_and(|peak| peak.is_at(90));
    let found = Finding::new(
        LimitName::TimeWait,
        if full { Confidence::Certain } else { Confidence::Likely },
        format!("{count} connections ended without TIME_WAIT, for which there was no room; nothing was refused"),
    )
    .harmless()
    .saw("TcpExt TCPTimeWaitOverflow", "connections in this network namespace", count)
    .beside("/proc/net/sockstat tw", "sockets in TIME_WAIT", peak);
    vec![match full {
        true => found,
        false => found.settled_by(
            "tw of /proc/net/sockstat at that instant: near net.ipv4.tcp_max_tw_buckets or not",
        ),
    }]
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat, Tier};

    use crate::{
        evidence::{Call, Evidence, errno},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    /// A range of ten ports.
    fn history(sockets: u64, ipv6_addresses: u64) -> History {
        let mut history = History::default();
        history.add(&Readings {
            ports: Some(10),
            ipv6_addresses: Some(ipv6_addresses),
            sockstat: Some(Sockstat { alloc: sockets, tw: 1, ..Sockstat::default() }),
            max_tw_buckets: Some(1),
            ..Readings::default()
        });
        history
    }

    fn not_available(call: Call, ports_exhausted: Option<u64>) -> Evidence {
        Evidence {
            call_errors: [((call, errno::EADDRNOTAVAIL), 5)].into(),
            ports_exhausted,
            ..Evidence::default()
        }
    }

    #[test]
    fn ports_run_out_only_when_there_are_as_many_sockets() {
        let seen = not_available(Call::Connect, None);
        let first = |history: &History| {
            judge(&seen, history).causes.first().map(|c| (c.limit, c.confidence))
        };
        assert_eq!(first(&history(8, 2)), None);
        assert_eq!(first(&history(9, 2)), Some((LimitName::Ports, Confidence::Likely)));
        assert_eq!(first(&history(9, 0)), Some((LimitName::Ports, Confidence::Possible)));
    }

    #[test]
    fn the_hook_on_the_search_knows_better() {
        let functions = |found| Evidence {
            tier: Some(Tier::Functions),
            ..not_available(Call::Connect, Some(found))
        };
        assert!(judge(&functions(0), &history(100, 2)).quiet);
        let verdict = judge(&functions(5), &history(1, 0));
        assert_eq!(verdict.causes[0].confidence, Confidence::Certain);
        assert_eq!(verdict.causes[0].settle, None);
        // With tracepoints alone the same number is that of the failed calls.
        let calls =
            Evidence { tier: Some(Tier::Tracepoints), ..not_available(Call::Connect, Some(5)) };
        assert!(judge(&calls, &history(1, 2)).quiet);
        assert_eq!(judge(&calls, &history(9, 2)).causes[0].confidence, Confidence::Likely);
    }

    #[test]
    fn a_bind_that_fails_is_not_about_the_range() {
        assert!(judge(&not_available(Call::Bind, None), &history(100, 2)).quiet);
    }

    #[test]
    fn enospc_is_about_watches_only_when_epoll_says_it() {
        let seen = |call| Evidence {
            call_errors: [((call, errno::ENOSPC), 2)].into(),
            ..Evidence::default()
        };
        let verdict = judge(&seen(Call::EpollAdd), &History::default());
        assert_eq!(
            (verdict.causes[0].limit, verdict.causes[0].confidence),
            (LimitName::EpollWatches, Confidence::Certain)
        );
        assert!(judge(&seen(Call::Other), &History::default()).quiet);
        let own =
            Evidence { own_errors: [("epoll ENOSPC".into(), 1)].into(), ..Evidence::default() };
        assert_eq!(judge(&own, &History::default()).causes[0].limit, LimitName::EpollWatches);
    }

    #[test]
    fn time_wait_comes_last_and_refuses_nothing() {
        let counter = |name: &str| (name.to_owned(), 3);
        let seen = Evidence {
            tcp_ext: [counter("TCPTimeWaitOverflow"), counter("ListenOverflows")].into(),
            ..Evidence::default()
        };
        let verdict = judge(&seen, &history(0, 0));
        let last = &verdict.causes[1];
        assert_eq!((last.limit, last.confidence), (LimitName::TimeWait, Confidence::Certain));
        assert!(last.text.contains("nothing was refused"));
    }
}
