//! The kernel's own TCP counters (TcpExt) of this network namespace.

use std::{collections::BTreeMap, fs, io};

use thiserror::Error;

/// Why /proc/net/netstat was not understood.
#[derive(Debug, Error)]
pub enum NetstatError {
    #[error("cannot read /proc/net/netstat: {0}")]
    Read(#[from] io::Error),
    #[error("/proc/net/netstat has no pair of TcpExt lines")]
    Missing,
    #[error("the TcpExt lines of /proc/net/netstat do not match: {names} names, {values} numbers")]
    Unequal { names: usize, values: usize },
}

/// Counters by the kernel's names, such as `TCPMemoryPressures`.
pub type TcpExt = BTreeMap<String, u64>;

/// Reads the counters of this network namespace.
pub fn tcp_ext() -> Result<TcpExt, NetstatError> {
    parse(&fs::read_to_string("/proc/net/netstat")?)
}

/// Understands the text of /proc/net/netstat: a line of names, then a line of numbers, each after
/// `TcpExt:`.
pub fn parse(text: &str) -> Result<TcpExt, NetstatError> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let names: Vec<&str> = lines.next().ok_or(NetstatError::Missing)?.split_whitespace().collect();
    let values: Vec<u64> = lines
        .next()
        .ok_or(NetstatError::Missing)?
        .split_whitespace()
        .map_while(|value| value.parse().ok())
        .collect();
    if names.len() != values.len() {
        return Err(NetstatError::Unequal { names: names.len(), values: values.len() });
    }
    Ok(names.into_iter().map(String::from).zip(values).collect())
}

/// What was counted between two readings; counters that did not move are left out.
#[must_use]
pub fn growth(before: &TcpExt, after: &TcpExt) -> TcpExt {
    after
        .iter()
        .map(|(name, now)| {
            (name.clone(), now.saturating_sub(before.get(name).copied().unwrap_or(0)))
        })
        .filter(|(_, moved)| *moved > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_running_kernel() {
        assert!(tcp_ext().unwrap().contains_key("TCPMemoryPressures"));
    }

    #[test]
    fn names_meet_their_numbers() {
        let text = "TcpExt: A B\nTcpExt: 1 18446744073709551615\nIpExt: A\nIpExt: 7\n";
        let counters = parse(text).unwrap();
        assert_eq!(counters.get("A"), Some(&1));
        assert_eq!(counters.get("B"), Some(&u64::MAX));
    }

    #[test]
    fn broken_text_is_refused() {
        for text in [
            "",
            "TcpExt: A B\n",
            "TcpExt: A B\nTcpExt: 1\n",
            "TcpExt: A B\nTcpExt: 1 x\n",
            "TcpExt: A B\nTcpExt: 1 -2\n",
            "TcpExt: A B\nTcpExt: 1 2 3\n",
            "IpExt: A\nIpExt: 7\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_what_moved_forward_is_growth() {
        let counters = |text: &str| parse(text).unwrap();
        let before = counters("TcpExt: A B C\nTcpExt: 1 2 9\n");
        let after = counters("TcpExt: A B C D\nTcpExt: 1 5 3 4\n");
        assert_eq!(growth(&before, &after), TcpExt::from([("B".into(), 3), ("D".into(), 4)]));
    }

    proptest! {
        #[test]
        fn no_counter_is_made_up(text in "((TcpExt:|IpExt:)?( |[A-Z]|[0-9]{0,22}|\n|\\PC))*") {
            for (name, value) in parse(&text).unwrap_or_default() {
                // A number may have zeros in front.
                prop_assert!(text.contains(&name) && text.contains(&value.to_string()), "{text:?}");
            }
        }
    }
}
