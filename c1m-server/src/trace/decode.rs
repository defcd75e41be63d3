//! An entry of the ring buffer as a Rust value.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, EVENT_ABORTED, EVENT_CROSSING, EVENT_OOM_KILL, EVENT_REFUSAL, Event,
    HOOK_EXCEED, HOOK_NAMES, REFUSED_FAIR_SHARE, REFUSED_HIGH, SIDE_SEND, SocketRecord,
};

use crate::output::record::{Aborted, OomKill, Precision, Refusal, Socket};

/// What a kernel program reported, with the time at which it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub time: SystemTime,
    /// CLOCK_MONOTONIC, for the order
    pub ktime_ns: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Usage(UsageSeen),
    Refusal(Refusal),
    Aborted(Aborted),
    OomKill(OomKill),
}

/// tcp_mem usage in another zone than before.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSeen {
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    pub connections: u64,
    pub socket: Socket,
    pub hook: String,
    pub precision: Precision,
    /// How long the kernel had been under pressure; `None`: it was not, or its tick rate is not known.
    pub pressure_age_ms: Option<f64>,
    /// Crossings counted without being reported, since the start.
    pub suppressed: u64,
}

/// Both clocks at one instant, to turn the kernel's time stamps into dates.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    pub wall: SystemTime,
    pub monotonic_ns: u64,
}

/// Reads one entry. `None`: not one of c1m's (another size or kind).
#[must_use]
pub fn decode(bytes: &[u8], clocks: Clocks) -> Option<Observation> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    let mut words = [0u64; Event::WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(chunk.try_into().ok()?);
    }
    let event = Event::from_words(words);
    let name = HOOK_NAMES.get(usize::try_from(event.hook).ok()?)?;
    let hook = format!("tp_btf/{name}");
    let what = match event.kind {
        EVENT_CROSSING => What::Usage(UsageSeen {
            pages: event.pages,
            tcp_mem: event.tcp_mem,
            connections: event.connections,
            socket: socket(&event.socket),
            hook,
            precision: if event.hook == HOOK_EXCEED {
                Precision::Exact
            } else {
                Precision::Connection
            },
            pressure_age_ms: pressure_age_ms(&event),
            suppressed: event.suppressed,
        }),
        EVENT_REFUSAL => What::Refusal(Refusal {
            limit: match event.limit {
                REFUSED_HIGH => "tcp_mem_high",
                REFUSED_FAIR_SHARE => "fair_share",
                _ => "memcg",
            }
            .into(),
            side: if event.side == SIDE_SEND { "send" } else { "receive" }.into(),
            pages: event.pages,
            tcp_mem: event.tcp_mem,
            connections: event.connections,
            receive_queue_bytes: event.receive_queue_bytes.into(),
            send_queue_bytes: event.send_queue_bytes.into(),
            socket: socket(&event.socket),
            hook,
        }),
        EVENT_ABORTED => What::Aborted(Aborted {
            limit: if event.limit == ABORTED_OUT_OF_MEMORY {
                "out_of_memory"
            } else {
                "too_many_orphans"
            }
            .into(),
            pages: event.pages,
            tcp_mem: event.tcp_mem,
            socket: socket(&event.socket),
            hook,
        }),
        EVENT_OOM_KILL => {
            What::OomKill(OomKill { pid: event.socket.pid, comm: comm(&event.socket.comm), hook })
        }
        _ => return None,
    };
    let age = Duration::from_nanos(clocks.monotonic_ns.saturating_sub(event.ktime_ns));
    Some(Observation {
        time: clocks.wall.checked_sub(age).unwrap_or(clocks.wall),
        ktime_ns: event.ktime_ns,
        what,
    })
}

fn socket(record: &SocketRecord) -> Socket {
    let address = |bytes: &[u8; 16], port: u16| {
        // Port 0 is no port: a socket that was disconnected has lost its peer's (net/ipv4/tcp.c, tcp_disconnect, 6.18).
        if port == 0 {
            return None;
        }
        let ip = match i32::from(record.family) {
            libc::AF_INET => IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            // An IPv4 peer of an IPv6 socket is shown as what it is.
            libc::AF_INET6 => Ipv6Addr::from(*bytes).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port).to_string())
    };
    Socket {
        local: address(&record.local, record.local_port),
        remote: address(&record.remote, record.remote_port),
        pid: (record.pid != 0).then_some(record.pid),
        comm: (record.pid != 0).then(|| comm(&record.comm)),
        cgroup: (record.cgroup != 0).then_some(record.cgroup),
        netns: (record.netns != 0).then_some(record.netns),
    }
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `memory_pressure` holds the jiffies of entry: net/ipv4/tcp.c, `tcp_enter_memory_pressure`.
fn pressure_age_ms(event: &Event) -> Option<f64> {
    if event.pressure_since_jiffies == 0 {
        return None;
    }
    let ticks = event.jiffies.wrapping_sub(event.pressure_since_jiffies);
    let ticks = u32::try_from(ticks).ok()?;
    Some(f64::from(ticks) * 1000.0 / f64::from(tick_rate(event.jiffies, event.ktime_ns)?))
}

/// CONFIG_HZ, which no interface tells: jiffies start at 2³² − 300 × HZ (include/linux/jiffies.h, INITIAL_JIFFIES) and grow with the
/// clock, so that one pair of both gives it. `None` where two rates fit: within some seconds of an uptime of five minutes, and after
/// a suspend, which stops one clock only.
fn tick_rate(jiffies: u64, monotonic_ns: u64) -> Option<u32> {
    const START_S: i128 = 300;
    /// More than jiffies ever lag behind the clock
    const SLACK_NS: i128 = 1_000_000_000;
    let fits = |hz: &u32| {
        let ticks = i128::from(jiffies) - (1i128 << 32) + START_S * i128::from(*hz);
        (ticks * 1_000_000_000 / i128::from(*hz) - i128::from(monotonic_ns)).abs() <= SLACK_NS
    };
    let mut rates = [100u32, 250, 300, 1000].into_iter().filter(fits);
    match (rates.next(), rates.next()) {
        (Some(hz), None) => Some(hz),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use c1m_ebpf::{HOOK_RESET, HOOK_SET_STATE, SIDE_RECEIVE};

    use super::*;

    const CLOCKS: Clocks = Clocks { wall: SystemTime::UNIX_EPOCH, monotonic_ns: 5_000_000_000 };

    fn event(kind: u32, hook: u32) -> Event {
        let mut socket = SocketRecord {
            family: 2,
            local_port: 8000,
            remote_port: 40000,
            ..SocketRecord::default()
        };
        socket.local[..4].copy_from_slice(&[127, 0, 0, 1]);
        socket.remote[..4].copy_from_slice(&[127, 0, 1, 9]);
        Event {
            kind,
            hook,
            socket,
            pages: 101,
            tcp_mem: [50, 75, 100],
            connections: 42,
            ..Event::from_words([0; Event::WORDS])
        }
    }

    fn bytes(event: &Event) -> Vec<u8> {
        event.words().iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn a_crossing_of_a_softirq_names_no_process() {
        let clocks = Clocks {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            monotonic_ns: 5_000_000_000,
        };
        let event = Event { ktime_ns: 4_000_000_000, ..event(EVENT_CROSSING, HOOK_SET_STATE) };
        let seen = decode(&bytes(&event), clocks).unwrap();
        assert_eq!(seen.time, SystemTime::UNIX_EPOCH + Duration::from_secs(99));
        let What::Usage(usage) = seen.what else { panic!("{seen:?}") };
        assert_eq!(
            (usage.pages, usage.connections, usage.precision),
            (101, 42, Precision::Connection)
        );
        assert_eq!(usage.hook, "tp_btf/inet_sock_set_state");
        assert_eq!(usage.socket.local.as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(usage.socket.remote.as_deref(), Some("127.0.1.9:40000"));
        assert_eq!(
            (usage.socket.pid, usage.socket.comm, usage.pressure_age_ms),
            (None, None, None)
        );
    }

    #[test]
    fn a_refusal_in_a_system_call_names_its_process() {
        let mut event = event(EVENT_REFUSAL, HOOK_EXCEED);
        event.socket.pid = 77;
        event.socket.comm[..5].copy_from_slice(b"nginx");
        let What::Refusal(refusal) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!((refusal.limit.as_str(), refusal.side.as_str()), ("tcp_mem_high", "send"));
        assert_eq!((refusal.socket.pid, refusal.socket.comm.as_deref()), (Some(77), Some("nginx")));
        event.limit = 2;
        event.side = SIDE_RECEIVE;
        let What::Refusal(refusal) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!((refusal.limit.as_str(), refusal.side.as_str()), ("memcg", "receive"));
    }

    #[test]
    fn an_orphan_says_why_it_was_reset() {
        let mut event = event(EVENT_ABORTED, HOOK_RESET);
        for (limit, name) in [(0, "too_many_orphans"), (1, "out_of_memory")] {
            event.limit = limit;
            let What::Aborted(aborted) = decode(&bytes(&event), CLOCKS).unwrap().what else {
                panic!()
            };
            assert_eq!(aborted.limit, name);
        }
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_shown_as_ipv4() {
        let mut event = event(EVENT_CROSSING, HOOK_SET_STATE);
        event.socket.family = 10;
        event.socket.local = Ipv6Addr::LOCALHOST.octets();
        event.socket.remote = Ipv4Addr::new(127, 0, 1, 9).to_ipv6_mapped().octets();
        let What::Usage(usage) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!(usage.socket.local.as_deref(), Some("[::1]:8000"));
        assert_eq!(usage.socket.remote.as_deref(), Some("127.0.1.9:40000"));
    }

    #[test]
    fn an_end_without_a_port_is_not_known() {
        let mut event = event(EVENT_CROSSING, HOOK_SET_STATE);
        event.socket.remote_port = 0;
        let What::Usage(usage) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!(usage.socket.local.as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(usage.socket.remote, None);
    }

    #[test]
    fn what_is_not_ours_is_not_decoded() {
        assert_eq!(decode(&[0; 8], CLOCKS), None);
        assert_eq!(decode(&bytes(&event(99, 0)), CLOCKS), None);
        assert_eq!(decode(&bytes(&event(EVENT_CROSSING, 99)), CLOCKS), None);
    }

    #[test]
    fn the_tick_rate_follows_from_one_pair_of_clocks() {
        let pair = |hz: u64, uptime_s: u64| {
            ((1u64 << 32) - 300 * hz + uptime_s * hz, uptime_s * 1_000_000_000)
        };
        for hz in [100, 250, 300, 1000] {
            for uptime in [5, 200, 400, 1_000_000] {
                let (jiffies, ns) = pair(hz, uptime);
                assert_eq!(
                    tick_rate(jiffies, ns).map(u64::from),
                    Some(hz),
                    "at an uptime of {uptime} s"
                );
            }
        }
        let (jiffies, ns) = pair(250, 300);
        assert_eq!(tick_rate(jiffies, ns), None, "at 300 s every rate gives the same jiffies");
    }

    #[test]
    fn pressure_has_an_age() {
        let uptime_s = 1_000;
        let jiffies = (1u64 << 32) - 300 * 250 + uptime_s * 250;
        let event = Event {
            jiffies,
            ktime_ns: uptime_s * 1_000_000_000,
            pressure_since_jiffies: jiffies - 25,
            ..event(EVENT_CROSSING, HOOK_SET_STATE)
        };
        assert_eq!(pressure_age_ms(&event), Some(100.0));
    }
}
