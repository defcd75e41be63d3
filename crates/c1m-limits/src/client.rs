//! Which limit kept the load client from opening connections: errors by name, and what its host's counters say beside them.

pub mod outcome;

use c1m_record::{Cause, Confidence, Tier, Verdict};

pub use self::outcome::{Counters, Outcome};
use self::outcome::{Unanswered, evidence};
use crate::limits::{About, REGISTRY};

/// Judges a run that is over, roots first. ECONNREFUSED is no limit: nobody listens. Nor is a connection that the peer resets or ends: its
/// process ended, or wanted it so, and what stopped *that* only its own host knows.
#[must_use]
pub fn judge(outcome: &Outcome) -> Verdict {
    let own = REGISTRY.iter().filter_map(|limit| limit.judge_client(outcome));
    let mut causes: Vec<Cause> = own.chain(unanswered(outcome)).collect();
    causes.sort_by_key(|cause| cause.confidence == Confidence::Possible);
    Verdict { quiet: causes.is_empty(), tier: Tier::Counters, causes }
}

/// Errors of handshakes that nobody answered, or answered by a reset; and of answers that came late.
const HANDSHAKE: [&str; 3] = ["connect timeout", "connect ETIMEDOUT", "connect ECONNRESET"];
const LATE: &str = "first byte timeout";

fn unanswered(outcome: &Outcome) -> Vec<Cause> {
    let (count, late) = (outcome.sum(&HANDSHAKE), outcome.sum(&[LATE]));
    if count + late == 0 {
        return Vec::new();
    }
    let mut limits: Vec<_> =
        REGISTRY.iter().filter_map(|limit| Some((limit.about(), limit.unanswered()?))).collect();
    // What can be so on any host comes first.
    limits.sort_by_key(|(_, it)| it.elsewhere.is_none());
    let of = |about: &About, it: &Unanswered, confidence, text, to_confirm: &str| Cause {
        limit: about.name,
        scope: about.scope,
        confidence,
        text,
        evidence: outcome.evidence(&[&HANDSHAKE[..], &[LATE]].concat()),
        to_confirm: Some(to_confirm.into()),
        remedy: Some(it.remedy.into()),
    };
    let here = limits.iter().filter_map(|(about, it)| {
        let value = (it.grown)(outcome);
        let text = format!(
            "{} connections were not answered in time; {} meanwhile",
            count + late,
            it.text
        );
        let mut cause = of(
            about,
            it,
            Confidence::Likely,
            text,
            "the server's own verdict (c1m-server --trace)",
        );
        cause.evidence.push(evidence(it.source, "on this host during the run", value, None));
        (value > 0).then_some(cause)
    });
    let here: Vec<Cause> = here.collect();
    // With the server's counters known and none of them moved, only what they do not show is left.
    if !here.is_empty() || count == 0 || outcome.server_host.is_some() {
        return here;
    }
    let elsewhere = limits.iter().filter_map(|(about, it)| {
        let text = format!("{count} handshakes were not answered: {}", it.elsewhere?);
        Some(of(
            about,
            it,
            Confidence::Possible,
            text,
            "ListenOverflows, TCPReqQFullDrop and /proc/net/stat/nf_conntrack of the server's host",
        ))
    });
    elsewhere.collect()
}

#[cfg(test)]
mod tests {
    use c1m_record::LimitName;

    use super::*;

    fn outcome(errors: &[(&str, u64)]) -> Outcome {
        Outcome {
            errors: errors.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
            connections: 1000,
            capacity: 1000,
            ports_per_source: 500,
            workers: 2,
            nofile: Some(400),
            nr_open: Some(450),
            server_host: None,
            untracked: 0,
        }
    }

    fn limits(outcome: &Outcome) -> Vec<(LimitName, Confidence)> {
        judge(outcome).causes.iter().map(|cause| (cause.limit, cause.confidence)).collect()
    }

    #[test]
    fn ports_and_descriptors_are_told_apart() {
        let ports = outcome(&[
            ("connect EADDRNOTAVAIL", 9),
            ("bind EADDRINUSE", 1),
            ("no spare 4-tuple left", 3),
        ]);
        assert_eq!(limits(&ports), [(LimitName::Ports, Confidence::Certain)]);
        let remedy = judge(&ports).causes[0].remedy.clone().unwrap();
        assert!(
            remedy.starts_with("1 more source addresses") && remedy.contains("64512"),
            "{remedy}"
        );
        let files = outcome(&[("socket EMFILE", 3)]);
        assert_eq!(limits(&files), [(LimitName::Nofile, Confidence::Certain)]);
        let remedy = judge(&files).causes[0].remedy.clone().unwrap();
        assert!(
            remedy.contains("564 descriptors") && remedy.contains("fs.nr_open=450"),
            "{remedy}"
        );
    }

    #[test]
    fn what_is_no_limit_is_quiet() {
        for errors in [
            &[][..],
            &[("connect ECONNREFUSED", 20)],
            &[("bind EADDRINUSE", 3), ("connect EADDRNOTAVAIL", 5)],
            &[("bind EADDRNOTAVAIL", 3)],
            &[("reset by peer", 9), ("closed by peer", 40), ("heartbeat timeout", 3)],
            &[("first byte timeout", 50)],
            &[("status 404", 1), ("sample wrong response", 2)],
        ] {
            let verdict = judge(&outcome(errors));
            assert!(verdict.quiet && verdict.causes.is_empty(), "{errors:?}: {verdict:?}");
        }
    }

    #[test]
    fn an_unanswered_handshake_is_possibly_three_things_on_another_host() {
        let names: Vec<_> = limits(&outcome(&[("connect timeout", 6)]));
        let possible = |limit| (limit, Confidence::Possible);
        let expected = [LimitName::AcceptQueue, LimitName::SynQueue, LimitName::Conntrack];
        assert_eq!(names, expected.map(possible));
    }

    #[test]
    fn on_this_host_the_counters_tell_which() {
        let on_host = |counters, untracked| Outcome {
            server_host: Some(counters),
            untracked,
            ..outcome(&[("connect timeout", 6)])
        };
        let likely = |limit| vec![(limit, Confidence::Likely)];
        let overflows = Counters { listen_overflows: 9, ..Counters::default() };
        assert_eq!(limits(&on_host(overflows, 0)), likely(LimitName::AcceptQueue));
        let drops = Counters { syn_queue_drops: 9, ..Counters::default() };
        assert_eq!(limits(&on_host(drops, 0)), likely(LimitName::SynQueue));
        assert_eq!(limits(&on_host(Counters::default(), 4)), likely(LimitName::Conntrack));
        assert_eq!(limits(&on_host(Counters::default(), 0)), []);
    }

    #[test]
    fn each_errno_of_want_has_its_limit() {
        for (name, limit) in [
            ("socket ENFILE", LimitName::FileMax),
            ("socket ENOBUFS", LimitName::Memory),
            ("connect ENOMEM", LimitName::Memory),
            ("epoll ENOMEM", LimitName::Memory),
            ("epoll ENOSPC", LimitName::EpollWatches),
        ] {
            let verdict = judge(&outcome(&[(name, 2)]));
            let first = &verdict.causes[0];
            assert_eq!((first.limit, first.evidence[0].value), (limit, 2), "{name}");
            assert!(first.remedy.is_some());
        }
    }
}
