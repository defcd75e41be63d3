//! Connection tracking of this network namespace.

use std::fs;

/// What /proc/net/stat/nf_conntrack counts, all CPUs together, since the namespace came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conntrack {
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
}

/// `None`: the kernel tracks nothing here, or was built without the file.
#[must_use]
pub fn counters() -> Option<Conntrack> {
    parse(&fs::read_to_string("/proc/net/stat/nf_conntrack").ok()?)
}

/// A line of names, then one of hexadecimal numbers a CPU (net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show, 6.18). The columns
/// have changed with versions, so they are found by name.
#[must_use]
pub fn parse(text: &str) -> Option<Conntrack> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let rows: Vec<Vec<u64>> = lines
        .map(|line| {
            line.split_whitespace().map_while(|cell| u64::from_str_radix(cell, 16).ok()).collect()
        })
        .collect();
    let sum = |name: &str| -> Option<u64> {
        let column = names.iter().position(|known| *known == name)?;
        rows.iter().try_fold(0u64, |sum, row| sum.checked_add(*row.get(column)?))
    };
    Some(Conntrack {
        insert_failed: sum("insert_failed")?,
        drop: sum("drop")?,
        early_drop: sum("early_drop")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
entries  clashres found new insert insert_failed drop early_drop icmp_error
0000000a  00000000 00000001 00000002 00000000 00000003 00000010 00000001 00000000
0000000a  00000000 00000000 00000000 00000000 00000001 00000001 00000000 00000000
";

    #[test]
    fn columns_are_found_by_name_and_summed_over_cpus() {
        let expected = Conntrack { insert_failed: 4, drop: 17, early_drop: 1 };
        assert_eq!(parse(TEXT), Some(expected));
        assert_eq!(parse(&TEXT.replace(" drop ", " x ")), None);
        assert_eq!(parse(&TEXT.replace("00000010", "zz")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_running_kernel_is_understood_where_it_tracks() {
        let has_file = std::path::Path::new("/proc/net/stat/nf_conntrack").exists();
        assert_eq!(counters().is_some(), has_file);
    }
}
