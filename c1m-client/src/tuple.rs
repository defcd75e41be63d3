//! The plan of 4-tuples: sources x ports x destinations, exact and without searching.
//!
//! The client chooses source ports itself. With `connect` choosing, some kernels search the table of ports again for every
//! connection, and become slow when half of it is used.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use c1m_server::{
    sources::{SourceRange, Sources},
    sys::{errno, interface},
};
use thiserror::Error;

use crate::{ports::Ports, target::Target};

/// Why a plan can't be, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("--source and --connect must be of one family: {0} is not of that of {1}")]
    Family(SourceRange, Target),
    #[error(
        "this host has no address of its own with a route to {0}; give one with --source, or add one with `ip address add`"
    )]
    NoSource(Target),
    #[error(
        "{0} can't be a source address for {1} ({2}): add it with `ip address add {0} dev ...`, or leave it out of --source"
    )]
    Unusable(IpAddr, Target, &'static str),
    #[error(
        "net.ipv4.ip_local_port_range {first} {last} without net.ipv4.ip_local_reserved_ports leaves no source port; widen it, such as 1024 65535"
    )]
    NoPorts { first: u16, last: u16 },
    #[error("{0}")]
    TooMany(#[from] TooMany),
}

/// More connections than 4-tuples. The text names each knob with the number that would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct TooMany {
    pub connections: u64,
    pub capacity: u64,
    pub sources: u64,
    pub ports: u64,
    pub target: Target,
    /// Usable source ports, of which `--per-source` leaves `ports`.
    pub usable_ports: u64,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, capacity, sources, ports, target, usable_ports } = self;
        let destinations = target.count();
        write!(
            f,
            "{connections} connections do not fit: {sources} source addresses x {ports} source ports x {destinations} destination ports hold {capacity}. Any one of these would do: {} source addresses (--source)",
            connections.div_ceil(ports * destinations)
        )?;
        let last_port = u64::from(target.first.port()) + connections.div_ceil(sources * ports) - 1;
        if last_port <= u64::from(u16::MAX) {
            write!(
                f,
                "; {} destination ports (--connect {}-{last_port})",
                connections.div_ceil(sources * ports),
                target.first
            )?;
        }
        let needed = connections.div_ceil(sources.saturating_mul(destinations));
        // 1 to 1023 are for the services of root.
        if needed <= u64::from(u16::MAX) - 1023 {
            if needed > *usable_ports {
                write!(f, "; {needed} source ports (net.ipv4.ip_local_port_range)")?;
            }
            if *ports < *usable_ports || needed > *usable_ports {
                write!(f, " with --per-source of at least {needed}")?;
            }
        }
        Ok(())
    }
}

/// Both ends of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Which connection has which 4-tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    target: Target,
    sources: Sources,
    /// One list for every (source, destination).
    ports: Vec<u16>,
}

impl Plan {
    /// Plans at least `connections` tuples, `per_source` at most for one (source, destination). Asks this host for its
    /// addresses when `given` is empty, and whether it has those that it will need.
    pub fn new(
        target: Target,
        given: &[SourceRange],
        mut ports: Ports,
        per_source: u64,
        connections: u64,
    ) -> Result<Self, PlanError> {
        let usable_ports = ports.usable.len() as u64;
        ports.usable.truncate(usize::try_from(per_source).unwrap_or(usize::MAX));
        if ports.usable.is_empty() {
            return Err(PlanError::NoPorts {
                first: *ports.range.start(),
                last: *ports.range.end(),
            });
        }
        let per_address = target.count() * ports.usable.len() as u64;
        let needed = connections.div_ceil(per_address);
        let ranges = match given {
            [] => own_sources(&target, needed),
            _ => given.to_vec(),
        };
        let wrong = ranges.iter().find(|range| range.first.is_ipv4() != target.first.is_ipv4());
        if let Some(wrong) = wrong {
            return Err(PlanError::Family(*wrong, target));
        }
        let sources = Sources::merge(&ranges).ok_or(PlanError::NoSource(target))?;
        let plan = Self { target, sources, ports: ports.usable };
        if plan.capacity() < connections {
            Err(TooMany {
                connections,
                capacity: plan.capacity(),
                sources: plan.sources.count(),
                ports: plan.ports.len() as u64,
                target,
                usable_ports,
            })?;
        }
        for source in (0..needed).filter_map(|position| plan.sources.nth(position)) {
            usable(source, &target.first)
                .map_err(|error| PlanError::Unusable(source, target, errno::of(&error)))?;
        }
        Ok(plan)
    }

    /// How many connections the plan holds; saturates.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.sources.count().saturating_mul(self.target.count() * self.ports_per_source())
    }

    #[must_use]
    pub fn sources(&self) -> u64 {
        self.sources.count()
    }

    #[must_use]
    pub fn ports_per_source(&self) -> u64 {
        self.ports.len() as u64
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The tuple of connection `index`. `None` from [`Self::capacity`] on.
    ///
    /// Destinations change fastest, so that all of them get their share whatever the number of connections; then ports,
    /// then sources, so that no more addresses are used than needed.
    #[must_use]
    pub fn tuple(&self, index: u64) -> Option<Tuple> {
        let destinations = self.target.count();
        let (rest, destination) = (index / destinations, index % destinations);
        let ports = self.ports_per_source();
        let source = self.sources.nth(rest / ports)?;
        let port = self.ports.get(usize::try_from(rest % ports).ok()?)?;
        Some(Tuple { source: (source, *port).into(), destination: self.target.nth(destination) })
    }
}

/// Whether this host has `source` and a route from it to `target`. Sends nothing: connecting a datagram socket only asks
/// the routing table.
fn usable(source: IpAddr, target: &SocketAddr) -> std::io::Result<()> {
    UdpSocket::bind((source, 0))?.connect(target)
}

/// The sources that a target gets when none is given.
fn own_sources(target: &Target, needed: u64) -> Vec<SourceRange> {
    match target.ip() {
        IpAddr::V4(v4) if v4.is_loopback() => {
            // Every address of 127.0.0.0/8 is local. One more than needed, as spare part.
            let first = u32::from(Ipv4Addr::new(127, 0, 1, 0));
            let end = u32::from(Ipv4Addr::new(127, 255, 255, 254));
            let more = u32::try_from(needed).unwrap_or(u32::MAX);
            let last = first.saturating_add(more).min(end);
            vec![SourceRange { first: v4_address(first), last: v4_address(last) }]
        }
        ip @ IpAddr::V6(v6) if v6.is_loopback() => vec![ip.into()],
        _ => interface::addresses()
            .unwrap_or_default()
            .into_iter()
            .filter(|address| !address.is_loopback() && usable(*address, &target.first).is_ok())
            .map(SourceRange::from)
            .collect(),
    }
}

fn v4_address(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(range: &str, reserved: &str) -> Ports {
        Ports::parse(range, reserved).unwrap()
    }

    fn plan(target: &str, sources: &[&str], ports: Ports, per_source: u64) -> Plan {
        let sources: Vec<SourceRange> = sources.iter().map(|text| text.parse().unwrap()).collect();
        Plan::new(target.parse().unwrap(), &sources, ports, per_source, 1).unwrap()
    }

    fn refusal(target: &str, sources: &[&str], per_source: u64, connections: u64) -> String {
        let sources: Vec<SourceRange> = sources.iter().map(|text| text.parse().unwrap()).collect();
        let ports = ports("32768 60999", "");
        Plan::new(target.parse().unwrap(), &sources, ports, per_source, connections)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_loopback_target_gets_the_sources_that_it_needs_and_one_spare() {
        let target = "127.0.0.1:80".parse().unwrap();
        let plan = Plan::new(target, &[], ports("32768 60999", ""), 64_000, 1_024_000).unwrap();
        assert_eq!((plan.sources(), plan.ports_per_source()), (38, 28_232));
        assert_eq!(plan.tuple(0).unwrap().source, "127.0.1.0:32768".parse().unwrap());
        assert_eq!(plan.tuple(1_023_999).unwrap().source.ip().to_string(), "127.0.1.36");
    }

    #[test]
    fn too_many_connections_are_refused_with_what_would_do() {
        assert_eq!(
            refusal("[::1]:8000", &[], 64_000, 100_000),
            "100000 connections do not fit: 1 source addresses x 28232 source ports x 1 destination ports hold 28232. \
             Any one of these would do: 4 source addresses (--source); 4 destination ports (--connect [::1]:8000-8003)"
        );
        assert_eq!(
            refusal("127.0.0.1:8000", &["127.0.1.1-127.0.1.2"], 10_000, 60_000),
            "60000 connections do not fit: 2 source addresses x 10000 source ports x 1 destination ports hold 20000. \
             Any one of these would do: 6 source addresses (--source); 3 destination ports (--connect 127.0.0.1:8000-8002); \
             30000 source ports (net.ipv4.ip_local_port_range) with --per-source of at least 30000"
        );
    }

    #[test]
    fn what_a_refusal_names_does() {
        let given: Vec<SourceRange> = vec!["127.0.1.1-127.0.1.6".parse().unwrap()];
        let range = || ports("32768 60999", "");
        let plan = |target: &str, given, ports, per_source| {
            Plan::new(target.parse().unwrap(), given, ports, per_source, 60_000)
        };
        assert!(plan("127.0.0.1:8000", &given, range(), 10_000).is_ok());
        assert!(plan("127.0.0.1:8000-8002", &given[..], range(), 10_000).is_ok());
        let two: Vec<SourceRange> = vec!["127.0.1.1-127.0.1.2".parse().unwrap()];
        assert!(plan("127.0.0.1:8000", &two, ports("20000 49999", ""), 30_000).is_ok());
        assert!(plan("127.0.0.1:8000", &two, ports("20000 49998", ""), 30_000).is_err());
    }

    #[test]
    fn wrong_sources_are_refused() {
        assert!(refusal("127.0.0.1:80", &["::1"], 9, 1).contains("one family"));
        assert!(
            refusal("127.0.0.1:80", &["198.51.100.77"], 9, 1)
                .contains("ip address add 198.51.100.77")
        );
        let nothing = Ports::parse("1000 1000", "1000").unwrap();
        let error = Plan::new("127.0.0.1:80".parse().unwrap(), &[], nothing, 9, 1).unwrap_err();
        assert!(error.to_string().contains("leaves no source port"));
    }

    /// The connection that has `tuple`, found from the tuple alone: the inverse of [`Plan::tuple`].
    fn index(plan: &Plan, tuple: &Tuple) -> Option<u64> {
        let source =
            (0..plan.sources()).find(|n| plan.sources.nth(*n) == Some(tuple.source.ip()))?;
        let port = plan.ports.binary_search(&tuple.source.port()).ok()? as u64;
        let destination = u64::from(tuple.destination.port() - plan.target.first.port());
        Some((source * plan.ports_per_source() + port) * plan.target.count() + destination)
    }

    #[test]
    fn a_host_has_loopback_and_not_the_documentation_net() {
        let target = "127.0.0.1:9".parse::<SocketAddr>().unwrap();
        assert!(usable("127.0.1.7".parse().unwrap(), &target).is_ok());
        assert!(usable("198.51.100.77".parse().unwrap(), &target).is_err());
    }

    proptest! {
        #[test]
        fn every_connection_has_a_tuple_of_its_own(
            sources in prop::collection::vec((1u8..30, 0u8..9), 1..5),
            (first, more) in (1024u16..60_000, 0u16..60),
            (reserved, reserved_more) in (1024u16..60_060, 0u16..30),
            destinations in 0u16..5,
            per_source in 1u64..80,
        ) {
            let texts: Vec<String> =
                sources.iter().map(|(a, n)| format!("127.0.3.{a}-127.0.3.{}", a + n)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let range = ports(
                &format!("{first} {}", first + more),
                &format!("{reserved}-{}", reserved + reserved_more),
            );
            prop_assume!(!range.usable.is_empty());
            let free = range.usable.len() as u64;
            let plan = plan(&format!("127.0.0.1:7-{}", 7 + destinations), &texts, range, per_source);
            prop_assert_eq!(plan.ports_per_source(), free.min(per_source));
            let mut seen = std::collections::HashSet::new();
            for number in 0..plan.capacity() {
                let tuple = plan.tuple(number).unwrap();
                prop_assert_eq!(index(&plan, &tuple), Some(number));
                prop_assert!(seen.insert(tuple));
                let port = tuple.source.port();
                prop_assert!((first..=first + more).contains(&port));
                prop_assert!(!(reserved..=reserved + reserved_more).contains(&port));
            }
            prop_assert_eq!(plan.tuple(plan.capacity()), None);
        }
    }
}
