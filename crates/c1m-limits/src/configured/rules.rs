//! What a number does: to the limit that it is of, beside the host's own value.

use super::{
    Circumstances, RANGE, Range, Say,
    known::{Known, Rule},
};
use c1m_record::{Assessment, Effect, LimitName, Wall};

/// Connections to one destination that a range has to have room for, where no run needs them: half of the kernel's own range.
const FEW_PORTS: u64 = 14_116;

impl Circumstances<'_> {
    /// `all`: as many as the setting has, or fewer where the host's own are not known.
    pub(super) fn numbers(&self, known: &Known, all: &[i128]) -> Say {
        match (known.rule, all) {
            (Rule::Larger(limit, less), [value]) => self.larger(known.name, limit, less, *value),
            (Rule::Larger(_, less), values) => self.each_larger(known.name, less, values),
            (Rule::TcpMem, [low, pressure, high]) => self.tcp_mem([*low, *pressure, *high]),
            (Rule::Buffer, [least, default, most]) => {
                self.buffer(known.name, [*least, *default, *most])
            }
            (Rule::PortRange, [first, last]) => self.port_range(*first, *last),
            (Rule::Switch { harmful, harms, .. }, [value]) if *value == harmful => {
                Say::harms(harms)
            }
            (Rule::Switch { else_: text, .. } | Rule::Inert(text) | Rule::Removed(text), _) => {
                Say::nothing(text)
            }
            // The rest of it is not known.
            _ => Say::nothing(
                "what it comes to depends on the values that the host has already, which can't be read here",
            ),
        }
    }

    pub(super) fn wall(&self, limit: LimitName) -> Option<&Wall> {
        self.examination.rows.iter().find(|wall| wall.limit == limit)
    }

    /// A setting of which more permits more.
    pub(super) fn larger(
        &self,
        name: &str,
        limit: Option<LimitName>,
        less: &str,
        value: i128,
    ) -> Say {
        if let Some(default) = limit.and_then(|limit| self.default_of(limit)).map(i128::from)
            && value < default
        {
            return Say::harms(format!(
                "below the kernel's own default of {default} for this host: lowered it saves nothing, and {less}"
            ));
        }
        let present = self.present_numbers(name).first().copied();
        self.compared(limit, less, value, present)
    }

    /// Beside what the host has, and beside what the run needs.
    pub(super) fn compared(
        &self,
        limit: Option<LimitName>,
        less: &str,
        value: i128,
        present: Option<i128>,
    ) -> Say {
        let wall = limit.and_then(|limit| self.wall(limit));
        let needed = wall.and_then(needed);
        let unit = wall.map_or("", |wall| wall.unit.as_str());
        let short = needed.filter(|needed| value < *needed);
        let short_text = short.map_or(String::new(), |it| format!(", and this run needs {it}"));
        // The walls say so of a rate that was not given.
        let is_unknown = wall.is_some_and(|wall| wall.needed.is_none());
        match (present, needed) {
            (Some(present), _) if value < present => Say::harms(format!(
                "lower than the {present} that this host has already{short_text}: {less}"
            )),
            (_, Some(needed)) if value < needed => {
                Say::nothing(format!("not enough: this run needs {needed} {unit}"))
            }
            (Some(present), Some(needed)) if present < needed => Say::new(
                Assessment::Helps,
                format!("this run needs {needed} {unit}, and the host has {present}"),
            ),
            (Some(present), _) if value == present => {
                Say::nothing("the host has this value already")
            }
            (Some(present), Some(needed)) => Say::nothing(format!(
                "the {present} {unit} of this host are enough for the {needed} that this run needs"
            )),
            (Some(present), None) if is_unknown => Say::nothing(format!(
                "more than the {present} of this host; --rate tells what this run needs"
            )),
            (Some(present), None) => Say::nothing(format!(
                "more than the {present} of this host, and this run does not depend on it"
            )),
            (None, Some(needed)) => Say::nothing(format!(
                "enough for the {needed} {unit} that this run needs; the host's own value can't be read here"
            )),
            (None, None) => Say::nothing(
                "this run does not depend on it; the host's own value can't be read here",
            ),
        }
    }

    fn each_larger(&self, name: &str, less: &str, values: &[i128]) -> Say {
        let present = self.present_numbers(name);
        if values.iter().zip(&present).any(|(value, present)| value < present) {
            let own = present.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            return Say::harms(format!("lower than the {own} that this host has already: {less}"));
        }
        Say::nothing("TCP connections need none of it")
    }

    /// As `tcp_init` makes them: half of the buckets of the hash table of established connections (net/ipv4/tcp.c, 6.18).
    fn default_of(&self, limit: LimitName) -> Option<u64> {
        let is_so = matches!(limit, LimitName::Orphans | LimitName::TimeWait);
        self.host.ehash_buckets.filter(|_| is_so).map(|buckets| buckets / 2)
    }

    fn port_range(&self, first: i128, last: i128) -> Say {
        let less = "fewer connections to one destination have a port";
        let present = match self.present_numbers(RANGE).as_slice() {
            [first, last] => Some(last - first + 1),
            _ => None,
        };
        self.compared(Some(LimitName::Ports), less, last - first + 1, present)
    }

    /// What is left of the range that connections take their ports from.
    pub(super) fn reserved_ports(&self, ports: &[(u16, u16)], range: Option<Range>) -> Say {
        let range = range.or(match self.present_numbers(RANGE).as_slice() {
            [first, last] => Some((*first, *last)),
            _ => None,
        });
        let Some((first, last)) = range else {
            return Say::nothing(format!("{RANGE} can't be read, so what it leaves is not known"));
        };
        let is_taken = |port: i128| {
            ports
                .iter()
                .any(|(first, last)| (i128::from(*first)..=i128::from(*last)).contains(&port))
        };
        let all = u64::try_from(last - first + 1).unwrap_or(0);
        let taken = (first..=last).filter(|port| is_taken(*port)).count() as u64;
        let left = all.saturating_sub(taken);
        let leaves = format!(
            "it takes {taken} of the {all} ports from {first} to {last}, and leaves {left}"
        );
        let needed = self.wall(LimitName::Ports).and_then(|wall| wall.needed).unwrap_or(0);
        match () {
            () if taken == 0 => {
                Say::nothing(format!("none of these is among the ports from {first} to {last}"))
            }
            () if left < needed => {
                Say::harms(format!("{leaves}, where this run needs {needed} for each destination"))
            }
            () if left < FEW_PORTS => {
                Say::harms(format!("{leaves}: connections that this host opens run out of ports"))
            }
            () => Say::nothing(format!("{leaves}, which are enough")),
        }
    }
}

/// What the run needs of a limit that stops it or keeps it waiting. Of one that only resets or forgets, nothing, unless it counts for this run.
fn needed(wall: &Wall) -> Option<i128> {
    let counts = wall.hit || matches!(wall.effect, Effect::Stops | Effect::Stalls);
    wall.needed.filter(|needed| counts && *needed > 0).map(i128::from)
}
