//! Local ports, for one source and destination: net.ipv4.ip_local_port_range.

use c1m_record::{Cause, Confidence, LimitName, Scope, Tier};

use super::{About, Limit};
use crate::{
    case::Case,
    client::outcome::{Outcome, evidence},
    configured::setting::{Answer, Context, Known, Numbers, PORT_RANGE, Range, Rule},
    evidence::{Call, errno},
    finding::Finding,
    preflight::need::{Need, Planned, setting},
    raise::widest_ports,
    reading::{Readings, Usage},
};

/// Ports from 1024 on.
const WIDEST_RANGE: u64 = 65_536 - 1024;
/// Connections to one destination that a range has to have room for, where no run needs them: half of the kernel's own range.
const FEW_PORTS: u64 = 14_116;

pub(super) struct Ports;

impl Limit for Ports {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::Ports,
            scope: Scope::Tuple,
            unit: "ports",
            setting: "net.ipv4.ip_local_port_range; more source or destination addresses",
            source: "net.ipv4.ip_local_port_range less net.ipv4.ip_local_reserved_ports; usage differs for each pair of addresses",
            symptom: "connect: EADDRNOTAVAIL",
            distinguished_by: "the kernel's port search that found none; without that hook EADDRNOTAVAIL of connect while there are at least as many \
                sockets as ports. EADDRNOTAVAIL of bind is an address that is not there, EADDRINUSE a port that somebody has",
            kernel: "net/ipv4/inet_hashtables.c, __inet_hash_connect (5.4 to 6.18)",
            label: "local ports",
            summary: ["connect: EADDRNOTAVAIL", "net.ipv4.ip_local_port_range"],
            metric: None,
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(None, now.ports)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let has_client = planned.run.role.has_client();
        let pairs = planned.run.sources.saturating_mul(planned.run.destinations).max(1);
        let needed = if has_client { planned.connections().div_ceil(pairs) } else { 0 };
        let sources = |ports: u64| {
            planned
                .connections()
                .div_ceil(ports.max(1).saturating_mul(planned.run.destinations.max(1)))
        };
        let now = planned.now.ports;
        let widest @ [first, last] = widest_ports(planned.now);
        let width = last + 1 - first;
        // A range that is as wide as it can be is no remedy.
        let range = (needed <= width && planned.now.port_range != Some(widest))
            .then(|| format!("{first} {last}"));
        Need {
            now,
            needed: Some(needed),
            stops_at: now
                .filter(|_| has_client)
                .map(|ports| ports.saturating_mul(pairs).saturating_add(1)),
            counts: has_client,
            remedy: match (&range, now) {
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
            risk:
                "low ports may be those of services: name them in net.ipv4.ip_local_reserved_ports"
                    .into(),
            settings: range
                .map(|range| setting("net.ipv4.ip_local_port_range", range))
                .unwrap_or_default(),
            note: Some(match has_client {
                true => format!(
                    "of each pair of {} source addresses and {} destinations",
                    planned.run.sources, planned.run.destinations
                ),
                false => "a server has one port for all of them".into(),
            }),
            unknown: (has_client && now.is_none())
                .then(|| "net.ipv4.ip_local_port_range can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                Known::new(
                    "net.ipv4.ip_local_port_range",
                    Numbers::PortRange,
                    Rule::Numbers(assess_range),
                ),
                Known::new(
                    "net.ipv4.ip_local_reserved_ports",
                    Numbers::Ports,
                    Rule::Ports(assess_reserved),
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let failed = case.failed(&[Call::Connect], errno::EADDRNOTAVAIL);
        // Without hooks on functions the number is that of the failed calls again.
        let searched = case.observed.ports_exhausted.filter(|_| case.tier == Tier::Functions);
        let (confidence, count) = match searched {
            Some(0) => return None,
            Some(count) => (Confidence::Certain, count),
            None => match by_errno(case) {
                Some(confidence) if failed > 0 => (confidence, failed),
                _ => return None,
            },
        };
        let found = Finding::new(
            LimitName::Ports,
            confidence,
            format!("{count} connects found no free local port for their source and destination"),
        )
        .saw("connect EADDRNOTAVAIL", "calls of any process", failed)
        .saw(
            "inet_hash_connect",
            "searches that found no port",
            case.observed.ports_exhausted.unwrap_or(0),
        )
        .saw(
            "net.ipv4.ip_local_port_range",
            "ports for one source, destination address and port",
            case.now.ports.unwrap_or(0),
        );
        Some(match confidence {
            Confidence::Certain => found,
            _ => found.confirmed_by("fexit of inet_hash_connect; connect also answers EADDRNOTAVAIL when there is no source address for an IPv6 destination"),
        })
    }

    fn judge_client(&self, outcome: &Outcome) -> Option<Cause> {
        // A tuple that somebody else has is stepped over, and costs a connection only when none is left.
        let count = outcome.sum(&["no spare 4-tuple left"]);
        if count == 0 {
            return None;
        }
        let mut came = outcome.evidence(&[
            "no spare 4-tuple left",
            "bind EADDRINUSE",
            "connect EADDRNOTAVAIL",
        ]);
        came.push(evidence("plan", "4-tuples", outcome.connections, Some(outcome.capacity)));
        let each = outcome.ports_per_source.max(1);
        let range = if each < WIDEST_RANGE {
            format!(
                "; net.ipv4.ip_local_port_range=\"1024 65535\" and --per-source {WIDEST_RANGE} give each source {WIDEST_RANGE} ports instead of {each}"
            )
        } else {
            String::new()
        };
        Some(Cause {
            limit: LimitName::Ports,
            scope: self.about().scope,
            confidence: Confidence::Certain,
            text: format!(
                "{count} connections had no free port: all {} 4-tuples of the plan were used or taken",
                outcome.capacity
            ),
            evidence: came,
            to_confirm: None,
            remedy: Some(format!(
                "{} more source addresses (--source), or as many more destination ports (--connect){range}",
                count.div_ceil(each)
            )),
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let range @ [first, last] = widest_ports(&case.now);
        let widest = last + 1 - first;
        match case.now.ports {
            Some(ports) if ports < widest && case.now.port_range != Some(range) => format!(
                "net.ipv4.ip_local_port_range=\"{first} {last}\" gives {widest} ports for each source, destination address and port instead \
             of {ports}, and may take those of services (net.ipv4.ip_local_reserved_ports); or more source or destination addresses"
            ),
            _ => "more source addresses, or more addresses or ports of the destination: the range is as wide as it can be".into(),
        }
    }
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

/// Of a configured range.
fn assess_range(context: &Context<'_>, _: &str, values: &[i128]) -> Answer {
    let &[first, last] = values else { return Answer::depends_on_present() };
    let less = "fewer connections to one destination have a port";
    let present = present_range(context).map(|(first, last)| last - first + 1);
    context.compared(Some(LimitName::Ports), less, last - first + 1, present)
}

/// What is left of the range that connections take their ports from.
fn assess_reserved(context: &Context<'_>, ports: &[(u16, u16)], range: Option<Range>) -> Answer {
    let Some((first, last)) = range.or_else(|| present_range(context)) else {
        return Answer::nothing(format!(
            "{PORT_RANGE} can't be read, so what it leaves is not known"
        ));
    };
    let is_taken = |port: i128| {
        ports.iter().any(|(first, last)| (i128::from(*first)..=i128::from(*last)).contains(&port))
    };
    let all = u64::try_from(last - first + 1).unwrap_or(0);
    let taken = (first..=last).filter(|port| is_taken(*port)).count() as u64;
    let left = all.saturating_sub(taken);
    let leaves =
        format!("it takes {taken} of the {all} ports from {first} to {last}, and leaves {left}");
    let needed = context.row(LimitName::Ports).and_then(|row| row.needed).unwrap_or(0);
    match () {
        () if taken == 0 => {
            Answer::nothing(format!("none of these is among the ports from {first} to {last}"))
        }
        () if left < needed => {
            Answer::harms(format!("{leaves}, where this run needs {needed} for each destination"))
        }
        () if left < FEW_PORTS => {
            Answer::harms(format!("{leaves}: connections that this host opens run out of ports"))
        }
        () => Answer::nothing(format!("{leaves}, which are enough")),
    }
}

fn present_range(context: &Context<'_>) -> Option<Range> {
    match context.present_numbers(PORT_RANGE).as_slice() {
        [first, last] => Some((*first, *last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, LimitName, Sockstat, Tier};

    use crate::{
        evidence::{Call, Evidence, errno},
        forecast::History,
        limits::tests::remedy,
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
        assert_eq!(verdict.causes[0].to_confirm, None);
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
    fn the_range_is_widened_before_addresses_are_added() {
        let ports = |ports| {
            let now = Readings { ports: Some(ports), ..Readings::default() };
            remedy(LimitName::Ports, &Evidence::default(), now)
        };
        assert!(ports(28_232).contains("64512 ports"));
        assert!(ports(64_512).starts_with("more source addresses"));
    }
}
