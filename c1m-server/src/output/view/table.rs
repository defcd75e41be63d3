//! The rows of the view: limits and holders, as text.

use std::cmp::Ordering;

use super::{Sort, View};
use c1m_record::LimitReading;
use c1m_text::{escape, records::watch::known};

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
    fn of(reading: &LimitReading) -> Self {
        Self {
            name: reading.limit.name(),
            scope: reading.scope.name(),
            used: known(reading.used),
            ceiling: known(reading.ceiling),
            percent: percent(reading),
            headroom: reading.headroom.map_or("unknown from here".into(), |left| {
                format!("{left} {}", escape::line(&reading.unit))
            }),
            time: match (reading.in_s, reading.at_connection) {
                (Some(seconds), _) if seconds <= 0.0 => "past".into(),
                (Some(seconds), _) => format!("{seconds:.0}s"),
                (None, Some(connection)) => format!("at {connection}"),
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
        let rows = readings.into_iter().map(Row::of);
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
                    holder.sockets.to_string(),
                    holder.receive_bytes.to_string(),
                    holder.send_bytes.to_string(),
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
