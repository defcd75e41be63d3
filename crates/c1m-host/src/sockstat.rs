//! /proc/net/sockstat and sockstat6: how many TCP sockets there are, and how many pages their
//! queues hold.

use std::{fs, io};

use c1m_record::Sockstat;

/// Reads both files; a kernel without IPv6 has no second one.
pub fn sockstat() -> io::Result<Sockstat> {
    below("/proc/net")
}

/// The same in the network namespace of the calling thread, which need not be its process's.
///
/// # Errors
/// There is no /proc, or a number is missing.
pub fn of_thread() -> io::Result<Sockstat> {
    below("/proc/thread-self/net")
}

fn below(folder: &str) -> io::Result<Sockstat> {
    let text = fs::read_to_string(format!("{folder}/sockstat"))?;
    let text6 = fs::read_to_string(format!("{folder}/sockstat6")).unwrap_or_default();
    parse(&text, &text6).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Understands the texts of both files; `None` when a number is missing that every kernel has.
#[must_use]
pub fn parse(text: &str, text6: &str) -> Option<Sockstat> {
    Some(Sockstat {
        sockets_used: field(text, "sockets:", "used")?,
        inuse: field(text, "TCP:", "inuse")?,
        inuse6: field(text6, "TCP6:", "inuse").unwrap_or(0),
        orphan: field(text, "TCP:", "orphan")?,
        tw: field(text, "TCP:", "tw")?,
        alloc: field(text, "TCP:", "alloc")?,
        tcp_mem_pages: field(text, "TCP:", "mem")?,
    })
}

/// The number behind `name` in the line that begins with `group`.
fn field(text: &str, group: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(group))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
sockets: used 1024380
TCP: inuse 1024009 orphan 3 tw 7 alloc 1024014 mem 2
UDP: inuse 11 mem 5
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
";
    const TEXT6: &str = "TCP6: inuse 4\nUDP6: inuse 3\n";

    #[test]
    fn each_field_is_found_in_its_own_line() {
        let expected = Sockstat {
            sockets_used: 1_024_380,
            inuse: 1_024_009,
            inuse6: 4,
            orphan: 3,
            tw: 7,
            alloc: 1_024_014,
            tcp_mem_pages: 2,
        };
        assert_eq!(parse(TEXT, TEXT6), Some(expected));
        assert_eq!(parse(TEXT, ""), Some(Sockstat { inuse6: 0, ..expected }));
    }

    #[test]
    fn what_is_missing_is_not_zero() {
        assert_eq!(parse(&TEXT.replace(" mem 2", ""), TEXT6), None);
        assert_eq!(parse("", TEXT6), None);
    }

    #[test]
    fn this_host_counts_a_listener() {
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(sockstat().unwrap().alloc > 0);
    }
}
