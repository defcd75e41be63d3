//! fs.epoll.max_user_watches: what the processes of one user watch by epoll.

use c1m_record::{Cause, Confidence, LimitName, Scope};

use super::{About, Limit, UsageMetric};
use crate::{
    case::Case,
    client::outcome::Outcome,
    configured::setting::{Known, Numbers, Rule},
    evidence::{Call, errno},
    finding::Finding,
    preflight::need::{Need, OWN_FILES, Planned, first_without, setting},
    raise::{at_least, mib, with_slack},
    reading::{Readings, Usage},
};

/// An epoll item and its entry in the wait queue on 64 bits (fs/eventpoll.c, EP_ITEM_COST).
const WATCH_BYTES: u64 = 160;

pub(super) struct EpollWatches;

impl Limit for EpollWatches {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::EpollWatches,
            scope: Scope::User,
            unit: "watches",
            setting: "fs.epoll.max_user_watches",
            source: "connections, each of which is watched once; fs.epoll.max_user_watches",
            symptom: "epoll_ctl: ENOSPC",
            distinguished_by: "ENOSPC of epoll_ctl, which has no other cause",
            kernel: "fs/eventpoll.c, ep_insert (5.4 to 6.18)",
            label: "epoll watches",
            summary: ["epoll_ctl: ENOSPC", "fs.epoll.max_user_watches"],
            metric: Some(UsageMetric {
                name: "c1m_epoll_watches",
                help: "epoll watches of the server (fs.epoll.max_user_watches)",
                // Several processes share the limit; what is read is one process's.
                scope: Scope::Process,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.epoll_watches, now.max_user_watches)
    }

    fn per_connection(&self) -> Option<u64> {
        Some(1)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let now = planned.now.max_user_watches;
        let needed = planned.connections().saturating_mul(planned.ends()).saturating_add(OWN_FILES);
        let wanted = at_least(with_slack(needed), now);
        Need {
            now,
            needed: Some(needed),
            stops_at: now.and_then(|now| first_without(now, OWN_FILES, planned.ends())),
            counts: true,
            remedy: format!("fs.epoll.max_user_watches={wanted} (watches of one user)"),
            risk: format!(
                "{WATCH_BYTES} bytes a watch of memory that can't be swapped: {} MiB",
                mib(wanted.saturating_mul(WATCH_BYTES))
            ),
            settings: setting("fs.epoll.max_user_watches", wanted),
            note: Some(
                "of one user; what others of its processes watch is not shown by the kernel".into(),
            ),
            unknown: now.is_none().then(|| "fs.epoll.max_user_watches can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[Known::new(
                "fs.epoll.max_user_watches",
                Numbers::Long(1),
                Rule::Larger(
                    Some(LimitName::EpollWatches),
                    "a user's programs may watch fewer descriptors by epoll",
                ),
            )]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let own = case.observed.own("epoll ENOSPC");
        let failed = case.observed.failed(Call::EpollAdd, errno::ENOSPC);
        if own.max(failed) == 0 {
            return None;
        }
        Some(
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
        )
    }

    fn judge_client(&self, outcome: &Outcome) -> Option<Cause> {
        let names = ["epoll ENOSPC"];
        let count = outcome.sum(&names);
        if count == 0 {
            return None;
        }
        let wanted = outcome.connections.saturating_mul(2).saturating_add(10_000);
        Some(Cause {
            limit: LimitName::EpollWatches,
            scope: self.about().scope,
            confidence: Confidence::Certain,
            text: format!(
                "{count} connections could not be watched: this user's epoll watches are used up"
            ),
            evidence: outcome.evidence(&names),
            to_confirm: None,
            remedy: Some(format!(
                "fs.epoll.max_user_watches={wanted} at least (watches of one user, 160 bytes each; a server of the same user counts too)"
            )),
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let peak = case.peak(LimitName::EpollWatches);
        let wanted =
            peak.map_or(1 << 20, |peak| with_slack(peak.used.max(peak.ceiling)).saturating_mul(2));
        let wanted = at_least(wanted, case.now.max_user_watches);
        format!(
            "fs.epoll.max_user_watches={wanted} (watches of one user, {WATCH_BYTES} bytes each of memory that can't be swapped: {} MiB)",
            mib(wanted.saturating_mul(WATCH_BYTES))
        )
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName};

    use crate::{
        evidence::{Call, Evidence, errno},
        forecast::History,
        verdict::judge,
    };

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
}
