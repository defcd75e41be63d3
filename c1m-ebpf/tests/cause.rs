//! What the programs conclude from the numbers that they read.

use c1m_ebpf::{
    ABORTED_OUT_OF_MEMORY, ABORTED_TOO_MANY, Change, DROPPED_RECEIVE_BUFFER, DROPPED_TCP_MEM,
    PRESSURE_ALLOCATOR, PRESSURE_TCP_MEM, REFUSED_FAIR_SHARE, REFUSED_HIGH, REFUSED_MEMCG,
    WATCHED_PORTS, aborted_by, change, dropped_by, is_accept_queue_asked, is_accept_queue_full,
    is_established, is_port_watched, is_syn_queue_full, pressure_by, refused_by,
};

const TCP_MEM: [u64; 3] = [10, 20, 30];

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const CLOSE_WAIT: i32 = 8;
const LISTEN: i32 = 10;
const STATES: std::ops::RangeInclusive<i32> = 1..=13;

#[test]
fn a_connection_opens_by_the_third_segment_and_closes_once() {
    assert_eq!(change(SYN_RECV, ESTABLISHED), Some(Change::Opened));
    // The client's FIN came with the third segment.
    assert_eq!(change(SYN_RECV, CLOSE_WAIT), Some(Change::Opened));
    assert_eq!(change(ESTABLISHED, CLOSE), Some(Change::Closed));
    for never_open in [SYN_RECV, SYN_SENT, LISTEN, CLOSE] {
        assert_eq!(change(never_open, CLOSE), None, "from {never_open}");
    }
    // Whatever states a connection goes through, it is counted up once and down once.
    for first in STATES.filter(|state| ![SYN_RECV, SYN_SENT, LISTEN, CLOSE].contains(state)) {
        for second in STATES.filter(|state| ![SYN_RECV, SYN_SENT, LISTEN, CLOSE].contains(state)) {
            let path = [SYN_RECV, first, second, CLOSE];
            let changes = path.windows(2).filter_map(|pair| change(pair[0], pair[1]));
            assert_eq!(changes.collect::<Vec<_>>(), [Change::Opened, Change::Closed], "{path:?}");
        }
    }
    assert!(is_established(ESTABLISHED) && !is_established(CLOSE_WAIT));
}

#[test]
fn a_refusal_above_high_is_high_whatever_else_is_true() {
    assert_eq!(refused_by(31, &TCP_MEM, true), REFUSED_HIGH);
    assert_eq!(refused_by(31, &TCP_MEM, false), REFUSED_HIGH);
    assert_eq!(refused_by(30, &TCP_MEM, true), REFUSED_FAIR_SHARE);
    assert_eq!(refused_by(30, &TCP_MEM, false), REFUSED_MEMCG);
}

#[test]
fn an_orphan_is_out_of_memory_only_with_a_send_queue_and_above_high() {
    let min = 4608;
    assert_eq!(aborted_by(min + 1, min, 31, &TCP_MEM), ABORTED_OUT_OF_MEMORY);
    assert_eq!(aborted_by(min, min, 31, &TCP_MEM), ABORTED_TOO_MANY);
    assert_eq!(aborted_by(min + 1, min, 30, &TCP_MEM), ABORTED_TOO_MANY);
}

#[test]
fn pressure_below_the_second_limit_is_the_allocators() {
    assert_eq!(pressure_by(21, &TCP_MEM), PRESSURE_TCP_MEM);
    assert_eq!(pressure_by(20, &TCP_MEM), PRESSURE_ALLOCATOR);
}

#[test]
fn a_segment_is_dropped_for_its_buffer_when_that_is_full() {
    assert_eq!(dropped_by(1001, 1000), DROPPED_RECEIVE_BUFFER);
    assert_eq!(dropped_by(1000, 1000), DROPPED_TCP_MEM);
    // As the kernel compares: unsigned bytes with a signed limit.
    assert_eq!(dropped_by(u32::MAX, i32::MAX), DROPPED_RECEIVE_BUFFER);
    assert_eq!(dropped_by(0, -1), DROPPED_RECEIVE_BUFFER);
}

#[test]
fn an_accept_queue_has_one_place_more_than_its_limit() {
    assert!(!is_accept_queue_full(128, 128) && is_accept_queue_full(129, 128));
    assert!(!is_accept_queue_full(0, 0) && is_accept_queue_full(1, 0));
}

#[test]
fn syn_cookies_decide_which_queue_drops_a_syn() {
    // Without cookies the full SYN queue comes first.
    assert!(is_accept_queue_asked(128, 128, 0) && !is_accept_queue_asked(129, 128, 0));
    assert!(is_accept_queue_asked(129, 128, 1) && is_accept_queue_asked(129, 128, 2));
    // With cookies for every SYN the kernel calls for queues with room as well.
    for syncookies in [0, 1] {
        assert!(is_syn_queue_full(0, 128, syncookies), "{syncookies}");
    }
    assert!(!is_syn_queue_full(127, 128, 2) && is_syn_queue_full(128, 128, 2));
}

#[test]
fn a_port_is_watched_when_it_is_named_or_when_none_is() {
    let watched = |ports: [u32; WATCHED_PORTS], port| is_port_watched(port, |index| ports[index]);
    assert!(watched([0; WATCHED_PORTS], 80));
    let two = [80, 443, 0, 0, 0, 0, 0, 0];
    assert_eq!([80, 443, 81, 0].map(|port| watched(two, port)), [true, true, false, true]);
    let all: [u32; WATCHED_PORTS] = std::array::from_fn(|index| 8000 + index as u32);
    assert_eq!([7999, 8000, 8007, 8008].map(|port| watched(all, port)), [false, true, true, false]);
    // No more is loaded than decides.
    assert!(is_port_watched(80, |index| if index == 0 { 80 } else { panic!("loaded {index}") }));
}
