//! Connection tracking of this network namespace.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::SockRef;

/// Connections that are made to see whether they are tracked: more than come and go by themselves
/// at the same time.
const TRIES: usize = 16;
/// Over loopback it takes no time, or does not come.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// Does a connection within this network namespace get an entry? Tried with a few over loopback,
/// since nothing says it: a rule has to ask for it, and then it does for all. `None`: there is no
/// loopback to try it with.
#[must_use]
pub fn is_tracking() -> Option<bool> {
    let Some(before) = count() else { return Some(false) };
    let max = number("nf_conntrack_max").unwrap_or(u64::MAX);
    if before.saturating_add(TRIES as u64) > max {
        // Full already: nobody would get through.
        return Some(true);
    }
    let pairs = pairs().ok()?;
    let now = count()?;
    drop(pairs);
    Some(now.saturating_sub(before) >= TRIES as u64 / 2)
}

fn count() -> Option<u64> {
    number("nf_conntrack_count")
}

/// Of net.netfilter
fn number(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse().ok()
}

/// They end by reset, and leave nothing behind.
fn pairs() -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let pair = |_| {
        let near = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
        let far = listener.accept()?.0;
        SockRef::from(&near).set_linger(Some(Duration::ZERO))?;
        SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
        Ok((near, far))
    };
    (0..TRIES).map(pair).collect()
}

/// A line of names, then one of hexadecimal numbers a CPU (net/netfilter/nf_conntrack_standalone.c,
/// ct_cpu_seq_show, 6.18). The columns have changed with versions, so they are found by name.
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
        let text = fs::read_to_string("/proc/net/stat/nf_conntrack");
        // One line for each CPU behind the names: what the kernel counts is read, and is not unknown.
        let has_lines = text.is_ok_and(|text| text.lines().count() > 1 && text.contains(" drop "));
        assert_eq!(counters().is_some(), has_lines);
    }
}
