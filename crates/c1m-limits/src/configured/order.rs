//! The line that counts of several: for a kernel setting the last one, but a name before a pattern; for a limit the last one of the same domain and type,
//! or of the same unit.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    NOFILE, NOW,
    descriptors::{Descriptors, Setter},
    known::{all as all_known, canonical},
    lines::{LimitType, Line, Statement, is_pattern, matches},
};

/// One setting of one line; a pattern has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub line: &'a Line,
    pub what: What,
    /// The index of the entry that counts instead.
    pub overridden_by: Option<usize>,
}

/// What it sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Sysctl { name: String, value: String },
    NotRead { name: String, value: String, why: &'static str },
    Descriptors(Descriptors),
    Unassessed { name: String, value: String },
    Other { text: String },
}

impl Entry<'_> {
    /// The setting, as the line has it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.what {
            What::Sysctl { name, .. }
            | What::NotRead { name, .. }
            | What::Unassessed { name, .. } => name.clone(),
            What::Descriptors(Descriptors { from, .. }) => match from {
                Setter::LogIn { domain, limit_type } => {
                    let limit_type = match limit_type {
                        LimitType::Soft => "soft",
                        LimitType::Hard => "hard",
                        LimitType::Both => "-",
                    };
                    format!("{domain} {limit_type} {NOFILE}")
                }
                Setter::Unit(_) => "LimitNOFILE".into(),
                Setter::EveryUnit => "DefaultLimitNOFILE".into(),
            },
            What::Other { text } => text.clone(),
        }
    }

    #[must_use]
    pub fn value(&self) -> &str {
        match &self.what {
            What::Sysctl { value, .. }
            | What::NotRead { value, .. }
            | What::Unassessed { value, .. } => value,
            What::Descriptors(descriptors) => &descriptors.value,
            What::Other { .. } => "",
        }
    }

    /// What it is that only one line can set. A line of limits.conf with `-` sets two things. What this host reads by itself is apart from what was
    /// named besides: which of them would be read later is not known.
    fn keys(&self) -> Vec<String> {
        let part = match () {
            () if self.line.file == NOW => "now",
            () if self.line.installed => "installed",
            () => "named",
        };
        if self.line.masked_by.is_some() {
            return Vec::new();
        }
        let keys = match &self.what {
            What::Sysctl { name, .. } => vec![canonical(name).to_owned()],
            What::Descriptors(Descriptors { from, .. }) => match from {
                Setter::LogIn { domain, limit_type: LimitType::Soft } => {
                    vec![format!("{domain} soft")]
                }
                Setter::LogIn { domain, limit_type: LimitType::Hard } => {
                    vec![format!("{domain} hard")]
                }
                Setter::LogIn { domain, limit_type: LimitType::Both } => {
                    vec![format!("{domain} soft"), format!("{domain} hard")]
                }
                Setter::Unit(unit) if unit.is_empty() => vec![format!("{}=", self.line.file)],
                Setter::Unit(unit) => vec![format!("{unit}=")],
                Setter::EveryUnit => vec!["=".into()],
            },
            What::NotRead { .. } | What::Unassessed { .. } | What::Other { .. } => Vec::new(),
        };
        keys.into_iter().map(|key| format!("{part} {key}")).collect()
    }
}

/// All settings of all lines, in the order in which they are read.
#[must_use]
pub fn entries(lines: &[Line]) -> Vec<Entry<'_>> {
    let explicit: BTreeSet<(bool, &str)> = lines
        .iter()
        .filter(|line| line.masked_by.is_none())
        .filter_map(|line| match &line.statement {
            Statement::Sysctl { name, .. } | Statement::Exclusion { name } if !is_pattern(name) => {
                Some((line.installed, canonical(name)))
            }
            _ => None,
        })
        .collect();
    let mut all: Vec<Entry<'_>> = lines
        .iter()
        .flat_map(|line| {
            what(line, &explicit).into_iter().map(move |what| Entry {
                line,
                what,
                overridden_by: None,
            })
        })
        .collect();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for index in (0..all.len()).rev() {
        let keys = all[index].keys();
        let by: Vec<usize> = keys.iter().filter_map(|key| last.get(key)).copied().collect();
        if !keys.is_empty() && by.len() == keys.len() {
            all[index].overridden_by = by.into_iter().max();
        }
        // Such a line sets nothing, so that it takes no other one's place.
        if matches!(&all[index].what, What::Descriptors(descriptors) if descriptors.is_left_out()) {
            continue;
        }
        for key in keys {
            last.entry(key).or_insert(index);
        }
    }
    all
}

fn what(line: &Line, explicit: &BTreeSet<(bool, &str)>) -> Vec<What> {
    let is_explicit = |name: &str| explicit.contains(&(line.installed, name));
    vec![match line.statement.clone() {
        Statement::Sysctl { name, value } if is_pattern(&name) => {
            let of_known = |known: &str| What::Sysctl { name: known.into(), value: value.clone() };
            let matched = all_known().map(|known| known.name).filter(|known| matches(&name, known));
            let set: Vec<What> = matched.filter(|name| !is_explicit(name)).map(of_known).collect();
            if !set.is_empty() {
                return set;
            }
            What::Unassessed { name, value }
        }
        Statement::Sysctl { name, value } => What::Sysctl { name, value },
        Statement::Exclusion { name } => What::Unassessed { name, value: String::new() },
        Statement::NotRead { name, value, why } => What::NotRead { name, value, why },
        Statement::Limit { domain, limit_type, item, value } if item == NOFILE => {
            What::Descriptors(Descriptors { from: Setter::LogIn { domain, limit_type }, value })
        }
        Statement::Limit { item, value, .. } => What::Unassessed { name: item, value },
        Statement::Unit { unit, key, value } => match key.as_str() {
            "LimitNOFILE" => What::Descriptors(Descriptors { from: Setter::Unit(unit), value }),
            "DefaultLimitNOFILE" => {
                What::Descriptors(Descriptors { from: Setter::EveryUnit, value })
            }
            _ => What::Unassessed { name: key, value },
        },
        Statement::Other { text } => What::Other { text },
    }]
}

#[cfg(test)]
mod tests {
    use super::{super::lines::lines, *};

    /// Each entry's name and the line that overrides it.
    fn overridden(text: &str) -> Vec<(String, Option<u64>)> {
        let mut lines = lines("f", text);
        lines.iter_mut().for_each(|line| line.asked = true);
        let all = entries(&lines);
        all.iter()
            .map(|it| (it.name(), it.overridden_by.and_then(|by| all[by].line.number)))
            .collect()
    }

    fn by(text: &str) -> Vec<Option<u64>> {
        overridden(text).into_iter().map(|(_, by)| by).collect()
    }

    #[test]
    fn the_last_of_a_name_counts_however_it_is_written() {
        assert_eq!(
            by("net.core.somaxconn=1\nnet/core/somaxconn=2\n-net.core.somaxconn=3\n"),
            [Some(3), Some(3), None]
        );
        assert_eq!(
            by("net.nf_conntrack_max=1\nnet.netfilter.nf_conntrack_max=2\n"),
            [Some(2), None]
        );
    }

    #[test]
    fn a_name_counts_before_a_pattern_and_may_be_kept_out_of_it() {
        assert_eq!(
            overridden("net.ipv4.tcp_rmem = 1 2 3\nnet.ipv4.tcp_[rw]mem = 4 5 6\n"),
            [("net.ipv4.tcp_rmem".into(), None), ("net.ipv4.tcp_wmem".into(), None)]
        );
        let excluded = overridden(
            "-net.ipv4.tcp_rmem\nnet.ipv4.tcp_[rw]mem = 4 5 6\nnet.ipv4.conf.*.rp_filter = 1\n",
        );
        let names: Vec<_> = excluded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.conf.*.rp_filter"]);
    }

    #[test]
    fn limits_are_of_a_domain_and_a_type() {
        let text = "* - nofile 1\n* hard nofile 2\n* soft nofile 3\n* hard nofile 4\nroot - nofile 5\na soft nofile 6\n";
        assert_eq!(by(text), [Some(4), Some(4), None, None, None, None]);
        assert_eq!(by("* - nofile 1\n* hard nofile 2\n"), [None, None], "the soft one stays");
        assert_eq!(by("[Service]\nLimitNOFILE=1\nLimitNOFILE=2\nNice=3\n"), [Some(3), None, None]);
        assert_eq!(by("[Service]\nLimitNOFILE=524288\nLimitNOFILE=1M\n"), [None, None]);
        assert_eq!(
            by("[Service]\nLimitNOFILE=5\nLimitNOFILE=x:7\nLimitNOFILE=\n"),
            [Some(4), Some(4), None]
        );
        assert_eq!(by("* hard nofile 1\n* hard nofile many\n"), [None, None]);
    }
}
