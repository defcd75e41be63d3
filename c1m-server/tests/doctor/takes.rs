//! What the assessment says that the kernel takes, beside what it takes: texts are written to settings of a network namespace of one's own.

use std::fs;

use c1m_limits::configured::{
    kernel::{Taken, take},
    known::Known,
};
use proptest::{prelude::*, test_runner::TestRunner};

/// Settings that each network namespace has for itself on every kernel that c1m knows, and a value to begin with. Those in seconds are left out: what is
/// too many of them hangs on how often the kernel's clock ticks, and comes to months at least.
const SETTINGS: [(&str, &str); 8] = [
    ("net.core.somaxconn", "4096"),
    ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
    ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
    ("net.ipv4.ip_local_port_range", "32768 60999"),
    ("net.ipv4.ip_local_reserved_ports", "7"),
    ("net.ipv4.tcp_max_syn_backlog", "2048"),
    ("net.ipv4.tcp_max_tw_buckets", "131072"),
    ("net.ipv4.tcp_tw_reuse", "2"),
];

/// Texts as people write them.
const TEXTS: [&str; 68] = [
    "65535",
    "60999",
    "8192",
    "8192 # c",
    "8192# c",
    "8192;",
    "8192 ;",
    "0x4000",
    "0X4000",
    "0x",
    "0xg",
    "0100",
    "08",
    "-1",
    "-0",
    "+5",
    "--5",
    "- 5",
    "5-",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "",
    " ",
    "yes",
    "on",
    "3_000",
    "3,000",
    "3.0",
    "1e6",
    "1K",
    "\"5\"",
    "'5'",
    "6 yes",
    "7\r",
    "\u{a0}7",
    "\x0b\x0c7",
    "7\x0b8",
    "000000000000000000077",
    "00000000000000000000077",
    "1024 65535",
    "1024-65535",
    "1024,65535",
    "1024\t65535",
    "500 65535",
    "1023 65535",
    "1024 70000",
    "3000 2999",
    "3000 3000",
    "0 1",
    "4000 yes",
    "1024 65535 x",
    "4096 87380 6291456",
    "4096 87380",
    "4096 x 4096",
    "4096 87380 x",
    "0 1 2",
    "3 2 1",
    "1 2 3 4",
    "80,90-100",
    "80, 90",
    "90-80",
    "70000",
    "1024-60999,",
];

fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The numbers of a value, the first ones exchanged for those that were taken.
fn exchanged(before: &str, taken: &[i128]) -> String {
    let rest = before.split(' ').skip(taken.len()).map(str::to_owned);
    taken.iter().map(ToString::to_string).chain(rest).collect::<Vec<_>>().join(" ")
}

/// Ports as the kernel shows them: sorted and joined (kernel/sysctl.c, `proc_do_large_bitmap`).
fn shown(ports: &[(u16, u16)]) -> String {
    let is_in = |port: u16| ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in (0..=u16::MAX).filter(|port| is_in(*port)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let text = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// Writes as sysctl does, with a newline, and compares.
fn compare(name: &str, before: &str, text: &str) {
    fs::write(path(name), before).unwrap();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let last = before.split(' ').nth(1).and_then(|last| last.parse().ok());
    let kind = Known::of(name).unwrap().kind(first.trim().parse().unwrap(), last);
    let said = take(&kind, text);
    let done = fs::write(path(name), format!("{text}\n"));
    assert_eq!(said.is_ok(), done.is_ok(), "{name} = {text:?}: {said:?}, and the kernel {done:?}");
    let expected = match said {
        Ok(Taken::Numbers(numbers)) => exchanged(before, &numbers),
        Ok(Taken::Ports(ports)) => shown(&ports),
        Err(refused) => exchanged(before, &refused.set),
    };
    assert_eq!(read(name), expected, "{name} = {text:?}");
}

pub(crate) fn the_kernel_takes_what_is_said() {
    for (name, before) in SETTINGS {
        for text in TEXTS {
            compare(name, before, text);
        }
    }
    // Seconds are ticks in the kernel, of which there are 100 to 1000 a second.
    for text in ["2147483647", "21474837", "2147483", "0100", "-1", "-21474837", "-2147483648"] {
        compare("net.ipv4.tcp_fin_timeout", "60", text);
    }
    // Where ports of servers end decides what a range may begin with.
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "80\n").unwrap();
    for text in ["500 65535", "80 65535", "79 65535"] {
        compare("net.ipv4.ip_local_port_range", "32768 60999", text);
    }
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n").unwrap();
}

pub(crate) fn of_any_text() {
    let texts = "(0x|0|-|[0-9]{1,5}|[0-9a-f]{1,9}|[0-9]{18,22}| |\t|,|;|#|\u{a0}|[ -~]){0,8}";
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4_000)
    });
    let any = (0..SETTINGS.len(), texts);
    let done = runner.run(&any, |(index, text)| {
        let (name, before) = SETTINGS[index];
        compare(name, before, &text);
        Ok(())
    });
    done.unwrap();
}
