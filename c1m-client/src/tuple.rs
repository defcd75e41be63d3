//! The plan of 4-tuples: sources x ports x destinations, exact and without searching, and which
//! part of it a host has.
//!
//! With `--shard` the sources are divided, in ascending order, so that no address is needed on two
//! hosts; where there are fewer of them than parts, which only parts on one host can have in
//! common, pairs of address and port are. A host that takes its own addresses, because none were
//! given, has them for itself.
//!
//! The client chooses source ports itself. With `connect` choosing, some kernels search the table
//! of ports again for every connection, and become slow when half of it is used.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
};

use c1m_host::ports::Ports;
use c1m_sys::{errno, interface};
use c1m_text::{
    address::{beside, needs_scope},
    sources::{SourceRange, Sources},
};
use thiserror::Error;

use crate::{shard::Shard, target::Target};

/// Why a plan can't be, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    #[error("--source and --connect must be of one family: {0} is not of that of {1}")]
    Family(SourceRange, Target),
    #[error(
        "--source {0} is link-local, and --connect {1} is not on that link: use a source with a route to it"
    )]
    LinkLocal(SourceRange, Target),
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
    #[error(
        "{0} connections are less than the {1} parts of --shard: use no more parts than connections"
    )]
    TooManyParts(u64, u64),
    #[error("{0}")]
    TooMany(#[from] TooMany),
}

/// More connections than 4-tuples, in one part of the run at least. The text names each knob with
/// the number that would do for all parts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct TooMany {
    /// Of all parts together.
    pub connections: u64,
    /// The first part that holds less than its share, and what it holds.
    pub shard: Shard,
    pub capacity: u64,
    /// Of all parts together, unless each has `own_sources`.
    pub sources: u64,
    pub own_sources: bool,
    pub ports: u64,
    pub target: Target,
    /// Usable source ports, of which `--per-source` leaves `ports`.
    pub usable_ports: u64,
}

impl TooMany {
    /// What one part holds of pairs of source address and source port, at least, if a source has so
    /// many ports.
    fn pairs(&self, ports: u64) -> u64 {
        match self.parts() {
            parts if parts <= self.sources => (self.sources / parts).saturating_mul(ports),
            parts => self.sources.saturating_mul(ports) / parts,
        }
    }

    /// The number of parts that share the source addresses.
    fn parts(&self) -> u64 {
        if self.own_sources { 1 } else { self.shard.of() }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            shard,
            capacity,
            sources,
            own_sources,
            ports,
            target,
            usable_ports,
        } = self;
        let destinations = target.count();
        let most = connections.div_ceil(shard.of());
        let tuples = format!(
            "{sources} source addresses x {ports} source ports x {destinations} destination ports"
        );
        match (*shard == Shard::WHOLE, own_sources) {
            (true, _) => {
                write!(f, "{connections} connections do not fit: {tuples} hold {capacity}")?;
            }
            (false, true) => write!(
                f,
                "{most} of {connections} connections do not fit into a part whose host has {tuples}, which hold {capacity}"
            )?,
            (false, false) => write!(
                f,
                "{} of {connections} connections do not fit into part {shard} of {tuples}, which holds {capacity}",
                shard.count(*connections)
            )?,
        }
        write!(
            f,
            ". Any one of these would do: {} source addresses (--source)",
            most.div_ceil(ports * destinations) * self.parts()
        )?;
        let targets =
            most.checked_div(self.pairs(*ports)).map(|_| most.div_ceil(self.pairs(*ports)));
        let last_port = targets.map(|count| (count, u64::from(target.first.port()) + count - 1));
        if let Some((count, last_port)) = last_port.filter(|(_, last)| *last <= u64::from(u16::MAX))
        {
            write!(f, "; {count} destination ports (--connect {}-{last_port})", target.first)?;
        }
        let needed = match self.parts() {
            parts if parts <= *sources => {
                most.div_ceil((sources / parts).saturating_mul(destinations))
            }
            parts => most.div_ceil(destinations).saturating_mul(parts).div_ceil(*sources),
        };
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

/// Which connection of this part has which 4-tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    target: Target,
    sources: Sources,
    /// The sources are of this host alone, whatever other parts have.
    own_sources: bool,
    /// One list for every (source, destination).
    ports: Vec<u16>,
    /// Positions among the tuples of all parts.
    part: Range<u128>,
}

impl Plan {
    /// Plans the tuples of this part of `connections` at least, `per_source` at most for one
    /// (source, destination). Asks this host for its addresses when `given` is empty, and whether
    /// it has those that it will need.
    pub fn new(
        target: Target,
        given: &[SourceRange],
        mut ports: Ports,
        per_source: u64,
        connections: u64,
        shard: Shard,
    ) -> Result<Self, PlanError> {
        let usable_ports = ports.usable.len() as u64;
        ports.usable.truncate(usize::try_from(per_source).unwrap_or(usize::MAX));
        if ports.usable.is_empty() {
            return Err(PlanError::NoPorts {
                first: *ports.range.start(),
                last: *ports.range.end(),
            });
        }
        if connections < shard.of() {
            return Err(PlanError::TooManyParts(connections, shard.of()));
        }
        let ranges = match given {
            [] => {
                let per_address = target.count() * ports.usable.len() as u64;
                own_sources(&target, connections.div_ceil(shard.of()).div_ceil(per_address), shard)
            }
            _ => given.to_vec(),
        };
        let wrong = ranges.iter().find(|range| range.first.is_ipv4() != target.first.is_ipv4());
        if let Some(wrong) = wrong {
            return Err(PlanError::Family(*wrong, target));
        }
        let is_local = |range: &&SourceRange| needs_scope(range.first) || needs_scope(range.last);
        if let Some(local) = ranges.iter().find(is_local).filter(|_| !needs_scope(target.ip())) {
            return Err(PlanError::LinkLocal(*local, target));
        }
        let sources = Sources::merge(&ranges).ok_or(PlanError::NoSource(target))?;
        let own_sources = given.is_empty() && !target.ip().is_loopback();
        let mut plan = Self { target, sources, own_sources, ports: ports.usable, part: 0..0 };
        // Of all of them, so that no host begins where another one can't.
        let short = shard
            .all()
            .map(|shard| (shard, saturated(&plan.part_of(shard))))
            .find(|(shard, capacity)| *capacity < shard.count(connections));
        if let Some((shard, capacity)) = short {
            Err(TooMany {
                connections,
                shard,
                capacity,
                sources: plan.sources.count(),
                own_sources,
                ports: plan.ports.len() as u64,
                target,
                usable_ports,
            })?;
        }
        plan.part = plan.part_of(shard);
        let first = plan.part.start / plan.tuples_of_a_source();
        let last = plan.part.start + u128::from(shard.count(connections)) - 1;
        for source in (first..=last / plan.tuples_of_a_source())
            .filter_map(|position| plan.sources.nth(u64::try_from(position).ok()?))
        {
            usable(source, &target.first)
                .map_err(|error| PlanError::Unusable(source, target, errno::of(&error)))?;
        }
        Ok(plan)
    }

    fn part_of(&self, shard: Shard) -> Range<u128> {
        let (sources, each) = (self.sources.count(), self.tuples_of_a_source());
        let (units, size) = if self.own_sources {
            (0..sources.into(), each)
        } else if sources >= shard.of() {
            (shard.share_wide(sources.into()), each)
        } else {
            let pairs = u128::from(sources) * u128::from(self.ports_per_source());
            (shard.share_wide(pairs), self.target.count().into())
        };
        units.start * size..units.end * size
    }

    /// To all destinations.
    fn tuples_of_a_source(&self) -> u128 {
        u128::from(self.target.count() * self.ports_per_source())
    }

    /// How many connections this part of the plan holds; saturates.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        saturated(&self.part)
    }

    /// Source addresses of this part.
    #[must_use]
    pub fn sources(&self) -> u64 {
        let each = self.tuples_of_a_source();
        saturated(&(self.part.start / each..self.part.end.div_ceil(each)))
    }

    /// Source addresses of all parts together. `None`: each host has its own.
    #[must_use]
    pub fn sources_of_all(&self) -> Option<u64> {
        (!self.own_sources).then(|| self.sources.count())
    }

    #[must_use]
    pub fn ports_per_source(&self) -> u64 {
        self.ports.len() as u64
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The tuple of connection `index` of this part. `None` from [`Self::capacity`] on.
    ///
    /// Destinations change fastest, so that all of them get their share whatever the number of
    /// connections; then ports, then sources, so that no more addresses are used than needed.
    #[must_use]
    pub fn tuple(&self, index: u64) -> Option<Tuple> {
        let position = self.part.start + u128::from(index);
        if position >= self.part.end {
            return None;
        }
        let destinations = u128::from(self.target.count());
        let (rest, destination) = (position / destinations, position % destinations);
        let ports = u128::from(self.ports_per_source());
        let source = self.sources.nth(u64::try_from(rest / ports).ok()?)?;
        let port = self.ports.get(usize::try_from(rest % ports).ok()?)?;
        let destination = self.target.nth(u64::try_from(destination).ok()?);
        Some(Tuple { source: beside(&destination, source, *port), destination })
    }
}

fn saturated(range: &Range<u128>) -> u64 {
    u64::try_from(range.end - range.start).unwrap_or(u64::MAX)
}

/// Whether this host has `source` and a route from it to `target`. Sends nothing: connecting a
/// datagram socket only asks the routing table.
fn usable(source: IpAddr, target: &SocketAddr) -> std::io::Result<()> {
    UdpSocket::bind(beside(target, source, 0))?.connect(target)
}

/// The sources that a target gets when none is given. `needed`: by each part.
fn own_sources(target: &Target, needed: u64, shard: Shard) -> Vec<SourceRange> {
    match target.ip() {
        IpAddr::V4(v4) if v4.is_loopback() => {
            // Every address of 127.0.0.0/8 is local. One more than needed, as spare part.
            let first = u32::from(Ipv4Addr::new(127, 0, 1, 0));
            let end = u32::from(Ipv4Addr::new(127, 255, 255, 254));
            let all = (needed + 1).saturating_mul(shard.of());
            let more = u32::try_from(all - 1).unwrap_or(u32::MAX);
            let last = first.saturating_add(more).min(end);
            vec![SourceRange { first: v4_address(first), last: v4_address(last) }]
        }
        ip @ IpAddr::V6(v6) if v6.is_loopback() => vec![ip.into()],
        // A link-local server may have no route back to any other address.
        ip => interface::addresses()
            .unwrap_or_default()
            .into_iter()
            .filter(|address| !address.is_loopback() && (!needs_scope(ip) || needs_scope(*address)))
            .filter(|address| usable(*address, &target.first).is_ok())
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
        Plan::new(target.parse().unwrap(), &sources, ports, per_source, 1, Shard::WHOLE).unwrap()
    }

    fn refusal(target: &str, sources: &[&str], per_source: u64, connections: u64) -> String {
        refusal_of_part(target, sources, per_source, connections, Shard::WHOLE)
    }

    fn refusal_of_part(
        target: &str,
        sources: &[&str],
        per_source: u64,
        connections: u64,
        shard: Shard,
    ) -> String {
        let sources: Vec<SourceRange> = sources.iter().map(|text| text.parse().unwrap()).collect();
        let ports = ports("32768 60999", "");
        Plan::new(target.parse().unwrap(), &sources, ports, per_source, connections, shard)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_loopback_target_gets_the_sources_that_it_needs_and_one_spare() {
        let target = "127.0.0.1:80".parse().unwrap();
        let plan =
            Plan::new(target, &[], ports("32768 60999", ""), 64_000, 1_024_000, Shard::WHOLE)
                .unwrap();
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
    fn a_refusal_names_a_link_local_target_with_its_scope() {
        let target: Target = "[fe80::1%lo]:80".parse().unwrap();
        let error = refusal("[fe80::1%lo]:80", &["fe80::7"], 64_000, 50_000);
        assert!(error.contains(&format!("(--connect {target}-81)")), "{error}");
        let error = refusal("[fe80::1%lo]:80", &["fe80::7"], 64_000, 1);
        let expected = format!("fe80::7 can't be a source address for {target} (EADDRNOTAVAIL)");
        assert!(error.contains(&expected), "{error}");
    }

    #[test]
    fn what_a_refusal_names_does() {
        let given: Vec<SourceRange> = vec!["127.0.1.1-127.0.1.6".parse().unwrap()];
        let range = || ports("32768 60999", "");
        let plan = |target: &str, given, ports, per_source| {
            Plan::new(target.parse().unwrap(), given, ports, per_source, 60_000, Shard::WHOLE)
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
        assert!(refusal("[::1]:80", &["::1", "fe80::7"], 9, 1).contains("fe80::7 is link-local"));
        assert!(
            refusal("127.0.0.1:80", &["198.51.100.77"], 9, 1)
                .contains("ip address add 198.51.100.77")
        );
        let nothing = Ports::parse("1000 1000", "1000").unwrap();
        let error = Plan::new("127.0.0.1:80".parse().unwrap(), &[], nothing, 9, 1, Shard::WHOLE)
            .unwrap_err();
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

    #[test]
    fn a_part_that_does_not_fit_is_refused_on_every_host() {
        // Two parts of three addresses: one of them has one.
        for shard in Shard::new(0, 2).unwrap().all() {
            assert_eq!(
                refusal_of_part("127.0.0.1:8000", &["127.0.1.1-127.0.1.3"], 1000, 2100, shard),
                "1050 of 2100 connections do not fit into part 0/2 of 3 source addresses x 1000 source ports x 1 destination ports, which \
                 holds 1000. Any one of these would do: 4 source addresses (--source); 2 destination ports (--connect 127.0.0.1:8000-8001) \
                 with --per-source of at least 1050"
            );
        }
        let two = Shard::new(1, 2).unwrap();
        assert!(
            refusal_of_part("127.0.0.1:8000", &["127.0.1.1"], 1000, 1, two)
                .contains("no more parts")
        );
    }

    #[test]
    fn parts_of_a_loopback_run_have_a_spare_address_each() {
        let part = |index| {
            let shard = Shard::new(index, 4).unwrap();
            let target = "127.0.0.1:80".parse().unwrap();
            Plan::new(target, &[], ports("32768 60999", ""), 64_000, 1_024_000, shard).unwrap()
        };
        // 256,000 are 10 addresses of 28,232 ports.
        assert_eq!((part(0).sources(), part(3).sources_of_all()), (11, Some(44)));
        assert_eq!(part(3).tuple(0).unwrap().source.to_string(), "127.0.1.33:32768");
    }

    proptest! {
        #[test]
        fn parts_are_the_whole_plan_and_no_tuple_is_in_two(
            sources in prop::collection::vec((1u8..30, 0u8..4), 1..4),
            ports_count in 1u16..20,
            destinations in 0u16..4,
            parts in 1u64..12,
            connections in 1u64..400,
        ) {
            let texts: Vec<String> =
                sources.iter().map(|(a, n)| format!("127.0.3.{a}-127.0.3.{}", a + n)).collect();
            let given: Vec<SourceRange> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let target: Target = format!("127.0.0.1:7-{}", 7 + destinations).parse().unwrap();
            let plan = |shard, connections| {
                let ports = ports(&format!("2000 {}", 1999 + ports_count), "");
                Plan::new(target, &given, ports, 64_000, connections, shard)
            };
            let whole = plan(Shard::WHOLE, 1).unwrap();
            let first = Shard::new(0, parts).unwrap();
            let all: Vec<_> = first.all().map(|shard| plan(shard, connections)).collect();
            if let Some(Err(error)) = all.first() {
                // Then on every host, and what is named would do.
                prop_assert!(all.iter().all(|part| part.as_ref() == Err(error)));
                let PlanError::TooMany(TooMany { shard, capacity, .. }) = error else {
                    prop_assert_eq!(error, &PlanError::TooManyParts(connections, parts));
                    return Ok(());
                };
                prop_assert!(*capacity < shard.count(connections));
                return Ok(());
            }
            let all: Vec<Plan> = all.into_iter().map(Result::unwrap).collect();
            // One after the other they are the whole, so no tuple is in two of them.
            let tuples = all.iter().flat_map(|part| (0..part.capacity()).map(|n| part.tuple(n).unwrap()));
            let expected = (0..whole.capacity()).map(|n| whole.tuple(n).unwrap());
            prop_assert!(tuples.eq(expected));
            for (part, shard) in all.iter().zip(first.all()) {
                prop_assert_eq!(part.tuple(part.capacity()), None);
                prop_assert!(part.capacity() >= shard.count(connections));
            }
            let unit = |part: &Plan| match whole.sources() >= parts {
                true => part.sources(),
                false => part.capacity() / target.count(),
            };
            let (least, most) = (all.iter().map(unit).min(), all.iter().map(unit).max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
        }

        #[test]
        fn what_a_refusal_of_a_part_names_does(
            sources in 1u8..9, per_source in 1u64..40, parts in 1u64..9, connections in 1u64..2000,
        ) {
            let plan = |sources: u64, target: &str, per_source| {
                let given = vec![format!("127.0.3.1-127.0.3.{sources}").parse().unwrap()];
                let range = ports("2000 9000", "");
                let shard = Shard::new(parts - 1, parts).unwrap();
                Plan::new(target.parse().unwrap(), &given, range, per_source, connections, shard)
            };
            let Err(PlanError::TooMany(error)) = plan(sources.into(), "127.0.0.1:7", per_source) else {
                return Ok(());
            };
            let text = error.to_string();
            let number = |before: &str, after: &str| -> Option<u64> {
                let rest = text.split_once("would do: ")?.1.split_once(before)?.1;
                rest.split_once(after).map_or(rest, |(number, _)| number).parse().ok()
            };
            if let Some(count) = number("", " source addresses").filter(|count| *count < 255) {
                prop_assert!(plan(count, "127.0.0.1:7", per_source).is_ok(), "{}", text);
            }
            if let Some(last) = number("127.0.0.1:7-", ")") {
                let target = format!("127.0.0.1:7-{last}");
                prop_assert!(plan(sources.into(), &target, per_source).is_ok(), "{}", text);
            }
            let each = number("--per-source of at least ", " ").unwrap();
            prop_assert!(plan(sources.into(), "127.0.0.1:7", each).is_ok(), "{}", text);
            // The least one, where shares and parts have no remainders to make up for each other.
            if parts == 1 {
                prop_assert!(plan(sources.into(), "127.0.0.1:7", each - 1).is_err(), "{}", text);
            }
        }

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
