//! A page of metrics, taken apart.

use std::collections::{BTreeMap, BTreeSet};

/// Samples by name and labels, as they are written.
pub type Samples = BTreeMap<String, f64>;

/// Each sample once, each behind the help and the type of its name, which are there once as well.
#[track_caller]
pub fn parse(page: &str) -> Samples {
    let (mut samples, mut names) = (Samples::new(), BTreeSet::new());
    let (mut help, mut name, mut kind, mut below) = ("", "", "", 0.0);
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').unwrap().0;
            assert!(names.insert(help), "{help} is there twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, help, "a type without help");
            let kinds = if name.ends_with("_total") { &["counter"][..] } else { &KINDS };
            assert!(kinds.contains(&kind), "{name} is a {kind}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let suffix = sample.split('{').next().and_then(|it| it.strip_prefix(name));
            match (kind, suffix) {
                ("histogram", Some("_bucket")) => {
                    assert!(value >= below, "buckets add up: {line}");
                    below = value;
                }
                ("histogram", Some("_sum")) => {}
                ("histogram", Some("_count")) => {
                    assert_eq!(value, std::mem::take(&mut below), "+Inf is all: {line}");
                }
                ("counter" | "gauge", Some("")) => {}
                _ => panic!("a sample without a type: {line}"),
            }
            assert!(value.is_finite(), "{line}");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{line} is there twice");
        }
    }
    samples
}

const KINDS: [&str; 2] = ["gauge", "histogram"];
