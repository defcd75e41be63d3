//! Every figure in one table: what it is, what it is held against, and what is to be reached.

use super::cli::Part;

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reach {
    /// Told for what it is
    Nothing,
    /// The value itself, at most
    AtMost(f64),
    /// value / against, at most: of what costs
    RatioAtMost(f64),
    /// value / against is so close to 1: of what was foretold
    RatioWithin(f64),
    /// value / against, at least: of what one gets
    RatioAtLeast(f64),
    /// against / value, at least: how many times as fast
    TimesAsFast(f64),
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) part: Part,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) about: &'static str,
    pub(crate) against: Option<&'static str>,
    pub(crate) reach: Reach,
}

const fn goal(
    part: Part,
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    against: Option<&'static str>,
    reach: Reach,
) -> Goal {
    Goal { part, name, unit, about, against, reach }
}

const FLOOR: Option<&str> = Some("floor: bare accept4 and connect");

const EXCHANGING: Option<&str> =
    Some("floor with as many bytes sent and received on each connection");

/// In the order in which they are told.
pub(crate) const GOALS: &[Goal] = &[
    goal(
        Part::Ramp,
        "ramp",
        "s",
        "both ends here, tracing on, an HTTP exchange on each connection",
        FLOOR,
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::Ramp,
        "ramp_idle",
        "s",
        "both ends here, no tracing, connections that send nothing",
        FLOOR,
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::Ramp,
        "ramp_exchange",
        "s",
        "`ramp`, compared with a floor that does the same",
        EXCHANGING,
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::Ramp,
        "ramp_exchange_cpu",
        "s",
        "CPU time of both ends in it",
        EXCHANGING,
        Reach::Nothing,
    ),
    goal(
        Part::Ramp,
        "ramp_cpu",
        "s",
        "CPU time of both ends in `ramp`, which what else works on the machine changes less",
        FLOOR,
        Reach::Nothing,
    ),
    goal(
        Part::Ramp,
        "ramp_idle_cpu",
        "s",
        "CPU time of both ends in `ramp_idle`",
        FLOOR,
        Reach::Nothing,
    ),
    goal(
        Part::RampDouble,
        "ramp_double",
        "s",
        "as ramp, with twice as many connections",
        FLOOR,
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::RampDouble,
        "doctor_memory_double",
        "B/connection",
        "as doctor_memory, with twice as many connections",
        Some("growth of used memory, both ends"),
        Reach::RatioWithin(0.05),
    ),
    goal(
        Part::MemoryUser,
        "memory_user",
        "B/connection",
        "PSS of the server, the process itself and tracing included",
        Some("nginx with as many connections as one descriptor table holds, PSS"),
        Reach::AtMost(12.0),
    ),
    goal(
        Part::MemoryKernel,
        "memory_kernel",
        "B/connection",
        "growth of used memory, everything: kernel and user, both ends",
        Some("the slab objects' own sizes, and PSS of both programs"),
        Reach::RatioAtMost(1.02),
    ),
    goal(
        Part::MemoryKernel,
        "doctor_memory",
        "B/connection",
        "what `c1m-server doctor --role both` says before the first connection that all will take",
        Some("growth of used memory, both ends"),
        Reach::RatioWithin(0.05),
    ),
    goal(
        Part::Teardown,
        "teardown",
        "s",
        "from the order to the client until the last socket of both ends is gone",
        FLOOR,
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::Teardown,
        "teardown_at_once",
        "s",
        "`teardown`, compared with ends that close at the same time, as c1m's do",
        Some("floor whose ends close at once"),
        Reach::RatioAtMost(1.10),
    ),
    goal(
        Part::Idle,
        "idle_cpu",
        "% of a core",
        "CPU of the server that holds all connections, without tracing and --quiet",
        None,
        Reach::AtMost(0.0),
    ),
    goal(
        Part::Idle,
        "idle_wakeups",
        "1/s",
        "context switches of its threads",
        None,
        Reach::AtMost(0.0),
    ),
    goal(
        Part::Idle,
        "idle_traced_cpu",
        "% of a core",
        "the same with tracing and an interval of 1 s",
        None,
        Reach::Nothing,
    ),
    goal(
        Part::States,
        "states",
        "s",
        "c1m-server states --json, all sockets of both ends",
        Some("ss -tan"),
        Reach::TimesAsFast(5.0),
    ),
    goal(
        Part::States,
        "states_growth",
        "times",
        "time with all connections by time with half of them, by the growth of the sockets",
        None,
        Reach::AtMost(1.10),
    ),
    goal(
        Part::Holders,
        "holders",
        "s",
        "c1m-server holders --json, all sockets of both ends",
        Some("ss -tmp"),
        Reach::TimesAsFast(5.0),
    ),
    goal(
        Part::Holders,
        "holders_lsof",
        "µs/socket",
        "the same by socket",
        Some("lsof -nP -iTCP of the sockets of one descriptor table"),
        Reach::TimesAsFast(5.0),
    ),
    goal(Part::Holders, "holders_growth", "times", "as states_growth", None, Reach::AtMost(1.10)),
    goal(
        Part::Watch,
        "watch",
        "% of a core",
        "c1m-server watch --json while all connections are idle",
        None,
        Reach::AtMost(2.0),
    ),
    goal(
        Part::Watch,
        "scrape",
        "ms",
        "p99 from connecting to c1m-server watch --metrics-addr until its page is read, beside all connections",
        None,
        Reach::AtMost(5.0),
    ),
    goal(
        Part::TraceCost,
        "trace_ramp",
        "s",
        "ramp of a quarter of the connections with --trace, an HTTP exchange on each",
        Some("the same without --trace"),
        Reach::RatioAtMost(1.02),
    ),
    goal(
        Part::TraceCost,
        "trace_ramp_cpu",
        "s",
        "CPU time of both ends in `trace_ramp`",
        Some("the same without --trace"),
        Reach::Nothing,
    ),
    goal(
        Part::TraceCost,
        "trace_requests",
        "requests/s a core",
        "requests by second of server CPU over 64 connections with --trace",
        Some("the same without --trace"),
        Reach::RatioAtLeast(0.98),
    ),
    goal(
        Part::EventDelay,
        "event_delay",
        "ms",
        "p99 from the kernel's time of a crossing until its line is read, under the ramp",
        None,
        Reach::AtMost(5.0),
    ),
    goal(
        Part::Requests,
        "requests_64",
        "requests/s a core",
        "requests by second of server CPU over 64 connections, half of the connections idle beside them",
        Some("nginx, a body of the same length, fewer idle ones"),
        Reach::RatioAtLeast(1.3),
    ),
    goal(
        Part::Requests,
        "requests_10k",
        "requests/s a core",
        "the same over 10,000 connections",
        Some("nginx, a body of the same length, fewer idle ones"),
        Reach::RatioAtLeast(1.3),
    ),
    goal(
        Part::Heartbeat,
        "heartbeat",
        "s",
        "one request on each of all connections, and its answer, at an unlimited rate",
        None,
        Reach::Nothing,
    ),
    goal(
        Part::Heartbeat,
        "heartbeat_p99",
        "ms",
        "p99 of the answers, 64 under way in each client worker",
        None,
        Reach::Nothing,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_part_has_a_figure_and_each_figure_a_name_of_its_own() {
        let names: BTreeSet<&str> = GOALS.iter().map(|goal| goal.name).collect();
        assert_eq!(names.len(), GOALS.len());
        for part in Part::value_variants() {
            assert!(GOALS.iter().any(|goal| goal.part == *part), "{part:?}");
        }
    }

    #[test]
    fn a_ratio_has_something_to_be_the_ratio_of() {
        for goal in GOALS {
            let is_ratio = !matches!(goal.reach, Reach::Nothing | Reach::AtMost(_));
            assert!(!is_ratio || goal.against.is_some(), "{}", goal.name);
        }
    }
}
