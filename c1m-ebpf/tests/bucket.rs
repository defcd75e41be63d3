//! Which examples are sent: token buckets and windows of a second.

use c1m_ebpf::{
    Bucket, EXAMPLE_EVERY_NS as EVERY, EXAMPLES, EXAMPLES_PER_SECOND as LIMIT, RateWindow,
};

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_bucket_is_emptied_and_fills_again() {
    let mut bucket = Bucket::full(5);
    for left in (0..EXAMPLES).rev() {
        bucket = bucket.at(5).less_one();
        assert_eq!(bucket.tokens, left);
    }
    assert_eq!((bucket.at(4 + EVERY).tokens, bucket.at(5 + EVERY).tokens), (0, 1));
    // The time towards the next token is kept, and a bucket never has more than all tokens.
    let bucket = bucket.at(5 + EVERY + EVERY / 2);
    assert_eq!((bucket.tokens, bucket.at(5 + 2 * EVERY).tokens), (1, 2));
    assert_eq!(bucket.at(u64::MAX), Bucket::full(u64::MAX));
    // The clock of another CPU was ahead.
    assert_eq!(bucket.at(0), bucket);
    assert_eq!(Bucket { tokens: 0, ..bucket }.less_one().tokens, 0);
}

#[test]
fn a_window_has_room_for_its_limit_and_is_empty_a_second_later() {
    let mut window = RateWindow { start_ns: 7, sent: 0 };
    for sent in 0..LIMIT {
        assert!(window.has_room(LIMIT), "{sent} sent");
        window = window.at(8).with_one();
    }
    assert_eq!(window, RateWindow { start_ns: 7, sent: LIMIT });
    assert!(!window.has_room(LIMIT) && window.has_room(LIMIT + 1));
    assert_eq!(window.at(7 + SECOND_NS - 1), window);
    assert_eq!(window.at(7 + SECOND_NS), RateWindow { start_ns: 7 + SECOND_NS, sent: 0 });
}

#[test]
fn a_cpu_whose_clock_is_behind_empties_no_window() {
    let full = RateWindow { start_ns: 5 * SECOND_NS, sent: LIMIT };
    assert_eq!(full.at(5 * SECOND_NS - 1), full);
    assert_eq!(full.at(0), full);
}
