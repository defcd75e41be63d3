//! A page of metrics, taken apart.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels, as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Each sample once, each behind the help and the type of its name, which stand once as well.
#[track_caller]
pub(crate) fn parse(page: &str) -> Samples {
    let (mut samples, mut told, mut help, mut name) = (Samples::new(), BTreeSet::new(), "", "");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().0;
            assert!(told.insert(help), "{help} stands twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let kind;
            (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, help, "a type without help");
            let is_counter = name.ends_with("_total");
            assert_eq!(kind, if is_counter { "counter" } else { "gauge" }, "{name}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next(), Some(name), "a sample without a type: {line}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite(), "{line}");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} stands twice");
        }
    }
    samples
}
