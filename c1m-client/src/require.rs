//! What a run has to reach: `--require "connect_p99<50ms"`, read before anything starts and judged
//! when everything is over.
//!
//! Everything is compared as whole numbers, of connections, of shares and of nanoseconds: `==`
//! means what it says.

mod metric;

use std::{cmp::Ordering, fmt, str::FromStr};

use c1m_text::units::{decimal, parse_count};

use self::metric::{Known, Measured, Metric, names};
use crate::{
    record::{EndedBy, Requirement as Judged, Summary, Unit},
    summary::AllTimes,
};

/// One `--require`.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    text: String,
    metric: Metric,
    operator: Operator,
    threshold: Threshold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
    Below,
    Above,
}

impl Operator {
    /// Longer ones first, so that `<=` is not taken for `<`.
    const ALL: [(&'static str, Self); 6] = [
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        (">", Self::Above),
    ];

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::AtMost => ordering.is_le(),
            Self::AtLeast => ordering.is_ge(),
            Self::Below => ordering.is_lt(),
            Self::Above => ordering.is_gt(),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, _) =
            Self::ALL.iter().find(|(_, operator)| operator == self).unwrap_or(&Self::ALL[0]);
        f.write_str(text)
    }
}

/// What is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threshold {
    Count(u64),
    /// `digits` / 10^`scale` percent of the whole.
    Percent {
        digits: u128,
        scale: u32,
    },
    Time {
        ns: u128,
        unit: Unit,
    },
}

/// The units of time, and their nanoseconds. Those whose end is another one's come first.
const TIMES: [(&str, Unit, u32); 5] = [
    ("ns", Unit::Ns, 1),
    ("us", Unit::Us, 1000),
    ("µs", Unit::Us, 1000),
    ("ms", Unit::Ms, 1_000_000),
    ("s", Unit::S, 1_000_000_000),
];

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['=', '!', '<', '>']).unwrap_or(text.len());
        let (name, rest) = text.split_at(at);
        let operator =
            Operator::ALL.iter().find_map(|(sign, it)| Some((*it, rest.strip_prefix(*sign)?)));
        let Some((operator, value)) = operator else {
            return Err(
                "use METRIC OPERATOR VALUE with one of == != < <= > >=, such as connected==1024000 or connect_p99<50ms".into()
            );
        };
        let name = name.trim();
        let metric = Metric::named(name)
            .ok_or_else(|| format!("`{name}` is no metric. There are: {}", names()))?;
        let threshold = metric.threshold(name, value.trim())?;
        Ok(Self { text: text.into(), metric, operator, threshold })
    }
}

impl Metric {
    /// `value`, in a unit that makes sense of this metric.
    fn threshold(&self, name: &str, value: &str) -> Result<Threshold, String> {
        let time = TIMES.iter().find_map(|(suffix, unit, ns)| {
            let number = decimal(value.strip_suffix(suffix)?.trim_end())?;
            Some((number, *unit, *ns))
        });
        let percent = value.strip_suffix('%').and_then(|number| decimal(number.trim_end()));
        match (self, time, percent) {
            (Self::Time(_) | Self::Quantile { .. }, Some(((digits, scale), unit, ns)), _) => {
                let (all, divisor) = (digits.checked_mul(ns.into()), 10u128.pow(scale));
                match all.filter(|all| all.is_multiple_of(divisor)) {
                    Some(all) => Ok(Threshold::Time { ns: all / divisor, unit }),
                    None => {
                        Err(format!("`{value}` is no whole number of nanoseconds, or too many"))
                    }
                }
            }
            (Self::Time(_) | Self::Quantile { .. }, None, Some(_)) => {
                Err(format!("{name} is a time, not a share: use ns, us, ms or s, such as 50ms"))
            }
            (Self::Time(_) | Self::Quantile { .. }, None, None) => Err(match decimal(value) {
                Some(_) => format!(
                    "{name} is a time and needs a unit: {value}ns, {value}us, {value}ms or {value}s"
                ),
                None => {
                    format!("`{value}` is no time: use a number with ns, us, ms or s, such as 50ms")
                }
            }),
            (Self::Count(_), Some(_), _) => {
                Err(format!("{name} is a count, not a time: use a number, such as 1024000 or 64k"))
            }
            (Self::Count(count), None, Some(_)) if count.whole.is_none() => {
                Err(format!("{name} is no part of anything: use a number instead of {value}"))
            }
            (Self::Count(_), None, Some((digits, scale))) => match digits > 100 * 10u128.pow(scale)
            {
                true => Err(format!("{value} is more than there can be: 100% is all")),
                false => Ok(Threshold::Percent { digits, scale }),
            },
            (Self::Count(_), None, None) => {
                Ok(Threshold::Count(parse_count(value).map_err(|error| error.to_string())?))
            }
        }
    }
}

impl Requirement {
    /// Whether it is about connections that came up, so that it says how many are wanted.
    fn is_of_connected(&self) -> bool {
        matches!(self.metric, Metric::Count(count) if count.name == "connected")
    }

    /// Judges it by what was measured. What is unknown is not held.
    fn judge(&self, measured: &Measured<'_>) -> Judged {
        let (unit, threshold) = match self.threshold {
            Threshold::Count(count) => (Unit::Count, lossy(count.into())),
            Threshold::Percent { digits, scale } => {
                (Unit::Percent, lossy(digits) / lossy(10u128.pow(scale)))
            }
            Threshold::Time { ns, unit } => (unit, in_unit(ns, unit)),
        };
        let (actual, unknown, held) = match self.compare(measured) {
            Ok((actual, ordering)) => (Some(actual), None, self.operator.holds(ordering)),
            Err(why) => (None, Some(why), false),
        };
        Judged {
            require: self.text.clone(),
            metric: self.metric.to_string(),
            operator: self.operator.to_string(),
            threshold,
            unit,
            actual,
            unknown,
            held,
        }
    }

    /// The value in the threshold's unit, and how it compares. `Err`: why it is unknown.
    fn compare(&self, measured: &Measured<'_>) -> Result<(f64, Ordering), String> {
        let known = self.metric.value(measured)?;
        match (known, self.threshold) {
            (Known::Count { count, scale, .. }, Threshold::Count(threshold)) => {
                let threshold = u128::from(threshold) * u128::from(scale);
                Ok((lossy(count.into()) / lossy(scale.into()), u128::from(count).cmp(&threshold)))
            }
            (Known::Count { count, whole, .. }, Threshold::Percent { digits, scale }) => {
                let whole = whole.filter(|whole| *whole > 0).ok_or("nothing to have a share of")?;
                // count / whole against digits / 10^scale / 100
                let own = u128::from(count) * 100 * 10u128.pow(scale);
                let percent = lossy(count.into()) * 100.0 / lossy(whole.into());
                Ok((percent, own.cmp(&(digits * u128::from(whole)))))
            }
            (Known::Time { ns }, Threshold::Time { ns: threshold, unit }) => {
                Ok((in_unit(ns, unit), ns.cmp(&threshold)))
            }
            _ => unreachable!("a threshold is made for its metric"),
        }
    }
}

/// Puts what came of each requirement into the result. Are all of them held, and as many
/// connections established as were asked for, where none of them says how many? A run that lost
/// every connection, or to which nothing answered, has reached nothing, whatever is required of it.
pub fn judge_all(requirements: &[Requirement], result: &mut Summary, times: &AllTimes) -> bool {
    let judged = |requirement: &Requirement| requirement.judge(&Measured { result, times });
    let judged: Vec<_> = requirements.iter().map(judged).collect();
    let held = judged.iter().all(|judged| judged.held);
    result.requirements = judged;
    let enough = requirements.iter().any(Requirement::is_of_connected)
        || result.connected >= result.plan.connections;
    let lost_all = result.connected > 0 && result.held_at_end == 0;
    enough && held && !lost_all && result.ended_by < EndedBy::AllLost
}

fn in_unit(ns: u128, unit: Unit) -> f64 {
    let each = TIMES.iter().find(|(_, it, _)| *it == unit).map_or(1, |(_, _, ns)| *ns);
    lossy(ns) / f64::from(each)
}

#[expect(clippy::cast_precision_loss, reason = "for people; what is compared is exact")]
fn lossy(number: u128) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests;
