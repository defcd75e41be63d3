//! Metrics as a page for readers.

use super::{Base, Metric};

/// The rows of a table in Markdown: name, type, unit, labels, meaning, source.
#[must_use]
pub fn rows<S>(table: &[Metric<S>]) -> String {
    table.iter().map(row).collect()
}

fn row<S>(metric: &Metric<S>) -> String {
    let unit = match metric.unit {
        Base::Count => "",
        Base::Bytes => "bytes",
        Base::Seconds => "seconds",
        Base::Ratio => "ratio",
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!(
        "| `{}` | {} | {unit} | {} | {} | {} |\n",
        metric.exported(),
        metric.kind.name(),
        labels.join(", "),
        metric.help,
        metric.source
    )
}
