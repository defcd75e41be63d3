//! The zone of usage, and which crossings are reported.

use c1m_ebpf::{CROSSINGS_PER_SECOND as LIMIT, RateWindow, with_crossing, zone};

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_limit_is_crossed_by_the_page_above_it() {
    let tcp_mem = [10, 20, 30];
    let zones = [(0, 0), (10, 0), (11, 1), (20, 1), (21, 2), (30, 2), (31, 3), (u64::MAX, 3)];
    for (pages, expected) in zones {
        assert_eq!(zone(pages, &tcp_mem), expected, "{pages} pages");
    }
}

#[test]
fn limits_in_another_order_give_one_answer() {
    // High below low: above high alone decides.
    assert_eq!([5, 6, 100].map(|pages| zone(pages, &[20, 10, 5])), [0, 3, 3]);
    // Equal limits are crossed together.
    assert_eq!([7, 8].map(|pages| zone(pages, &[7, 7, 7])), [0, 3]);
}

#[test]
fn a_full_second_suppresses_all_but_the_first_time_in_a_zone() {
    let mut window = RateWindow { start_ns: 1, sent: 0 };
    for _ in 0..LIMIT {
        window = with_crossing(1, 2, window, 2).expect("there is room");
    }
    assert_eq!(window.sent, LIMIT);
    assert_eq!(with_crossing(1, 2, window, 2), None, "lower than the highest zone");
    assert_eq!(with_crossing(2, 2, window, 2), None, "the highest zone again");
    let first_time = with_crossing(3, 2, window, 2).expect("a zone for the first time");
    assert_eq!(first_time.sent, LIMIT + 1);
    assert_eq!(with_crossing(0, 3, first_time, 2), None);
    let next_second = with_crossing(0, 3, first_time, 1 + SECOND_NS);
    assert_eq!(next_second, Some(RateWindow { start_ns: 1 + SECOND_NS, sent: 1 }));
}
