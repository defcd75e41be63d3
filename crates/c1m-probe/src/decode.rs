//! An entry of the ring buffer as a Rust value.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, EVENT_ABORTED, EVENT_CALL_ERROR, EVENT_CROSSING, EVENT_OOM_KILL,
    EVENT_OVERFLOW, EVENT_PORTS, EVENT_PRESSURE, EVENT_REFUSAL, Event, HOOK_CHECK_OOM,
    HOOK_DESTROY, HOOK_SET_STATE, OOM_CGROUP, OOM_HOST, PRESSURE_ENTERED, PRESSURE_TCP_MEM,
    QUEUE_ACCEPT_SYN, QUEUE_SYN, REFUSED_FAIR_SHARE, REFUSED_HIGH, SIDE_SEND, SocketRecord,
};
use c1m_record::{
    Aborted, CallError, Direction, OomKill, Overflow, Ports, Pressure, Refusal, Resolution, Socket,
};
use c1m_sys::errno;

use super::{calls, plan};

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
    Pressure(Pressure),
    Overflow(Overflow),
    Ports(Ports),
    CallError(CallError),
}

/// tcp_mem usage in another zone than before.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSeen {
    pub pages: u64,
    pub tcp_mem: [u64; 3],
    pub connections: u64,
    pub socket: Socket,
    pub hook: String,
    pub resolution: Resolution,
    /// How long the kernel had been under pressure; `None`: it was not, or its tick rate is not
    /// known.
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
    plan::program(event.hook)?;
    let what = what(&event, plan::hook_name(event.hook))?;
    let age = Duration::from_nanos(clocks.monotonic_ns.saturating_sub(event.ktime_ns));
    Some(Observation {
        time: clocks.wall.checked_sub(age).unwrap_or(clocks.wall),
        ktime_ns: event.ktime_ns,
        what,
    })
}

fn what(event: &Event, hook: String) -> Option<What> {
    Some(match event.kind {
        EVENT_CROSSING => What::Usage(usage(event, hook)),
        EVENT_REFUSAL => What::Refusal(refusal(event, hook)),
        EVENT_ABORTED => What::Aborted(aborted(event, hook)),
        EVENT_OOM_KILL => What::OomKill(OomKill {
            pid: event.socket.pid,
            comm: comm(&event.socket.comm),
            in_cgroup: match u64::from(event.limit) {
                OOM_HOST => Some(false),
                OOM_CGROUP => Some(true),
                _ => None,
            },
            hook,
        }),
        EVENT_PRESSURE => What::Pressure(pressure(event, hook)),
        EVENT_OVERFLOW => What::Overflow(overflow(event, hook)),
        EVENT_PORTS => What::Ports(Ports {
            source: ip(&event.socket.local, event.socket.family).map(|ip| ip.to_string()),
            destination: socket(&event.socket).remote,
            pid: event.socket.pid,
            comm: comm(&event.socket.comm),
            netns: socket(&event.socket).netns,
            hook,
        }),
        EVENT_CALL_ERROR => What::CallError(CallError {
            call: calls::name(event.limit).into(),
            errno: errno::name(calls::errno(event.side)?).into(),
            pid: event.socket.pid,
            comm: comm(&event.socket.comm),
            hook,
        }),
        _ => return None,
    })
}

fn usage(event: &Event, hook: String) -> UsageSeen {
    UsageSeen {
        pages: event.pages,
        tcp_mem: event.tcp_mem,
        connections: held(event.connections),
        socket: socket(&event.socket),
        hook,
        // The others stand on the allocation that crossed.
        resolution: if event.hook == HOOK_DESTROY && is_sample(&event.socket) {
            Resolution::Interval
        } else if matches!(event.hook, HOOK_SET_STATE | HOOK_DESTROY) {
            Resolution::Connection
        } else {
            Resolution::Exact
        },
        pressure_age_ms: pressure_age_ms(event),
        suppressed: event.suppressed,
    }
}

fn refusal(event: &Event, hook: String) -> Refusal {
    Refusal {
        limit: match event.limit {
            REFUSED_HIGH => "tcp_mem_high",
            REFUSED_FAIR_SHARE => "fair_share",
            _ => "memcg",
        }
        .into(),
        side: if event.side == SIDE_SEND { "send" } else { "receive" }.into(),
        pages: event.pages,
        tcp_mem: event.tcp_mem,
        connections: held(event.connections),
        receive_queue_bytes: event.receive_queue_bytes.into(),
        send_queue_bytes: event.send_queue_bytes.into(),
        socket: socket(&event.socket),
        hook,
    }
}

/// A socket that never had a port nor a peer: the one by which user space looks, once an interval.
/// The crossing is not its.
fn is_sample(record: &SocketRecord) -> bool {
    (record.local_port, record.remote_port) == (0, 0)
}

/// Connections that were there before the programs are counted as they close: then the number can
/// be below zero.
pub(super) fn held(connections: u64) -> u64 {
    u64::try_from(connections.cast_signed()).unwrap_or(0)
}

fn aborted(event: &Event, hook: String) -> Aborted {
    let is_for_memory = event.limit == ABORTED_OUT_OF_MEMORY;
    Aborted {
        limit: if is_for_memory { "out_of_memory" } else { "too_many_orphans" }.into(),
        pages: event.pages,
        tcp_mem: event.tcp_mem,
        penalty: (plan::purpose(event.hook) == HOOK_CHECK_OOM)
            .then(|| 1u32.checked_shl(u32::try_from(event.value).ok()?))
            .flatten(),
        socket: socket(&event.socket),
        hook,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn pressure(event: &Event, hook: String) -> Pressure {
    let has_begun = event.side == PRESSURE_ENTERED;
    let cause = if event.limit == PRESSURE_TCP_MEM { "tcp_mem" } else { "allocator" };
    Pressure {
        direction: if has_begun { Direction::Up } else { Direction::Down },
        cause: has_begun.then(|| cause.into()),
        duration_ms: (event.value > 0).then(|| event.value as f64 / 1e6),
        pages: event.pages,
        tcp_mem: event.tcp_mem,
        socket: socket(&event.socket),
        hook,
    }
}

fn overflow(event: &Event, hook: String) -> Overflow {
    let Socket { local, cgroup, netns, .. } = socket(&event.socket);
    Overflow {
        queue: if event.limit == QUEUE_SYN { "syn" } else { "accept" }.into(),
        at: if matches!(event.limit, QUEUE_SYN | QUEUE_ACCEPT_SYN) { "syn" } else { "ack" }.into(),
        listener: local,
        len: event.value,
        max: event.bound,
        cgroup,
        netns,
        hook,
    }
}

fn ip(bytes: &[u8; 16], family: u16) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        // An IPv4 peer of an IPv6 socket is shown as what it is.
        libc::AF_INET6 => Some(Ipv6Addr::from(*bytes).to_canonical()),
        _ => None,
    }
}

fn socket(record: &SocketRecord) -> Socket {
    let address = |bytes: &[u8; 16], port: u16| {
        // Port 0 is no port: a socket that was disconnected has lost its peer's (net/ipv4/tcp.c,
        // tcp_disconnect, 6.18).
        if port == 0 {
            return None;
        }
        let ip = ip(bytes, record.family)?;
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
    Some(f64::from(ticks) * 1000.0 / f64::from(known_tick_rate(event.jiffies, event.ktime_ns)?))
}

/// The tick rate of the running kernel, which never changes: once a pair of clocks has given it, it
/// is known where the next pair does not.
pub(super) fn known_tick_rate(jiffies: u64, monotonic_ns: u64) -> Option<u32> {
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    remembered(&KNOWN, tick_rate(jiffies, monotonic_ns))
}

/// `known`: 0 while it is not.
fn remembered(known: &AtomicU32, rate: Option<u32>) -> Option<u32> {
    if let Some(rate) = rate {
        known.store(rate, Relaxed);
    }
    rate.or_else(|| Some(known.load(Relaxed)).filter(|rate| *rate != 0))
}

/// CONFIG_HZ, which no interface tells: jiffies start at 2³² − 300 × HZ (include/linux/jiffies.h,
/// INITIAL_JIFFIES) and grow with the clock, so that one pair of both gives it. `None` where two
/// rates fit: within some seconds of an uptime of five minutes, and after a suspend, which stops
/// one clock only.
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
    use c1m_ebpf::{
        CALL_ACCEPT, ERROR_EMFILE, HOOK_CALL, HOOK_CONNECT_4, HOOK_EXCEED, HOOK_OOM,
        HOOK_PRESSURE_ENTER, HOOK_PRESSURE_LEAVE, HOOK_REQUEST, HOOK_RESET, PRESSURE_LEFT,
        SIDE_RECEIVE,
    };

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
            (usage.pages, usage.connections, usage.resolution),
            (101, 42, Resolution::Connection)
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
            assert_eq!((aborted.limit.as_str(), aborted.penalty), (name, None));
        }
        event.hook = HOOK_CHECK_OOM;
        event.value = 2;
        let What::Aborted(aborted) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!((aborted.penalty, aborted.hook.as_str()), (Some(4), "fexit/tcp_check_oom"));
    }

    #[test]
    fn pressure_has_a_cause_or_a_duration() {
        let mut event = event(EVENT_PRESSURE, HOOK_PRESSURE_ENTER);
        let What::Pressure(began) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!((began.direction, began.duration_ms), (Direction::Up, None));
        assert_eq!(began.cause.as_deref(), Some("tcp_mem"));
        event = Event { hook: HOOK_PRESSURE_LEAVE, side: PRESSURE_LEFT, value: 1_500_000, ..event };
        let What::Pressure(ended) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!(
            (ended.direction, ended.cause, ended.duration_ms),
            (Direction::Down, None, Some(1.5))
        );
    }

    #[test]
    fn an_overflow_names_its_listener() {
        let mut event = Event { value: 6, bound: 5, ..event(EVENT_OVERFLOW, HOOK_REQUEST) };
        event.socket.remote_port = 0;
        for (limit, queue, at) in [(0, "accept", "syn"), (1, "accept", "ack"), (2, "syn", "syn")] {
            event.limit = limit;
            let What::Overflow(seen) = decode(&bytes(&event), CLOCKS).unwrap().what else {
                panic!()
            };
            assert_eq!(
                (seen.queue.as_str(), seen.at.as_str(), seen.len, seen.max),
                (queue, at, 6, 5)
            );
            assert_eq!(seen.listener.as_deref(), Some("127.0.0.1:8000"));
        }
    }

    #[test]
    fn who_failed_is_told() {
        let mut event =
            Event { limit: CALL_ACCEPT, side: ERROR_EMFILE, ..event(EVENT_CALL_ERROR, HOOK_CALL) };
        event.socket.pid = 77;
        let What::CallError(error) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!(
            (error.call.as_str(), error.errno.as_str(), error.pid),
            ("accept", "EMFILE", 77)
        );
        event.side = 99;
        assert_eq!(decode(&bytes(&event), CLOCKS), None);
        event = Event { kind: EVENT_PORTS, hook: HOOK_CONNECT_4, ..event };
        event.socket.local_port = 0;
        let What::Ports(ports) = decode(&bytes(&event), CLOCKS).unwrap().what else { panic!() };
        assert_eq!(ports.source.as_deref(), Some("127.0.0.1"));
        assert_eq!((ports.destination.as_deref(), ports.pid), (Some("127.0.1.9:40000"), 77));
        event = Event { kind: EVENT_OOM_KILL, hook: HOOK_OOM, ..event };
        for (scope, in_cgroup) in [(0, None), (1, Some(false)), (2, Some(true))] {
            event.limit = scope;
            let What::OomKill(kill) = decode(&bytes(&event), CLOCKS).unwrap().what else {
                panic!()
            };
            assert_eq!((kill.in_cgroup, kill.pid), (in_cgroup, 77));
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
    fn a_tick_rate_that_was_known_stays_known() {
        let known = AtomicU32::new(0);
        assert_eq!(remembered(&known, None), None);
        assert_eq!(remembered(&known, Some(250)), Some(250));
        assert_eq!(remembered(&known, None), Some(250));
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
