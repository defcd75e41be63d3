//! The rows of the view: limits and holders, as text.

use std::cmp::Ordering;

use super::{Sort, View};
use c1m_record::LimitReading;
use c1m_text::{
    escape,
    units::{grouped, quantity, size, unit_of},
};

/// One limit, as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) scope: &'static str,
    pub(super) used: String,
    pub(super) ceiling: String,
    /// Percent of the ceiling; `None`: not known.
    pub(super) percent: Option<u64>,
    pub(super) headroom: String,
    pub(super) time: String,
}

impl Row {
    fn of(reading: &LimitReading, page_bytes: Option<u64>) -> Self {
        let amount = |value: u64| quantity(value, &reading.unit, page_bytes);
        let known = |value: Option<u64>| value.map_or_else(|| "unknown".into(), amount);
        let unit =
            unit_of(&reading.unit, page_bytes).map_or(String::new(), |unit| format!(" {unit}"));
        Self {
            name: reading.limit.name(),
            scope: reading.scope.name(),
            used: known(reading.used),
            ceiling: known(reading.ceiling),
            percent: percent(reading),
            headroom: reading.headroom.map_or("unknown from here".into(), |left| {
                escape::line(&(amount(left) + &unit)).into_owned()
            }),
            time: match (reading.in_s, reading.at_connection) {
                (Some(seconds), _) if seconds <= 0.0 => "past".into(),
                (Some(seconds), _) => format!("{seconds:.0}s"),
                (None, Some(connection)) => format!("at {}", grouped(connection)),
                (None, None) => String::new(),
            },
        }
    }
}

fn percent(reading: &LimitReading) -> Option<u64> {
    let (used, ceiling) = (reading.used?, reading.ceiling?.max(1));
    u64::try_from(u128::from(used) * 100 / u128::from(ceiling)).ok()
}

impl View {
    pub(super) fn page_bytes(&self) -> Option<u64> {
        self.watching.as_ref()?.page_bytes
    }

    /// Pages of tcp_mem for people.
    pub(super) fn memory(&self, pages: u64) -> String {
        let unit = if self.page_bytes().is_some() { "" } else { " pages" };
        quantity(pages, "pages", self.page_bytes()) + unit
    }

    /// The limits that pass the filter, in order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(limits) = &self.limits else { return Vec::new() };
        let mut readings: Vec<&LimitReading> = limits.limits.iter().collect();
        // Stable: what is equal stays in the catalog's order.
        readings.sort_by(|a, b| match self.sort {
            Sort::Usage => percent(b).cmp(&percent(a)),
            Sort::Time => sooner(a.in_s, b.in_s),
            Sort::Name => a.limit.name().cmp(b.limit.name()),
            Sort::Scope => a.scope.cmp(&b.scope),
        });
        let rows = readings.into_iter().map(|reading| Row::of(reading, self.page_bytes()));
        rows.filter(|row| self.passes(&format!("{} {}", row.name, row.scope))).collect()
    }

    /// The holders that pass the filter.
    pub(super) fn holder_rows(&self) -> Vec<[String; 4]> {
        let holders = self.holders.iter().flat_map(|holders| &holders.rows);
        holders
            .filter(|holder| self.passes(&holder.name))
            .map(|holder| {
                [
                    escape::line(&holder.name).into_owned(),
                    grouped(holder.sockets),
                    size(holder.receive_bytes),
                    size(holder.send_bytes),
                ]
            })
            .collect()
    }
}

/// What has no time comes last.
fn sooner(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}
