//! A worker without its thread, where what it does next has to be seen step by step.

use std::net::TcpListener;

use super::*;

const PLAN: Plan = Plan { workers: 2, window: 2, table: 100, margin: 10, backlog: 9 };

#[test]
fn a_worker_that_waited_for_a_slot_waits_no_more_when_the_server_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = Arc::new(Shared::new(&PLAN, Some(1), Duration::MAX).unwrap());
    let mut worker = Worker::new(0, listener.as_raw_fd(), Arc::clone(&shared), &PLAN).unwrap();
    let slots = &shared.slots;
    assert_eq!(slots.take(), Some(1));
    assert!(!slots.give_back(1, 1), "nobody waits yet");
    worker.accept().unwrap();
    assert_eq!(worker.parked, Some(Parked::NoSlot));
    shared.order.store(order::STOP_ACCEPTING, SeqCst);
    for _ in 0..2 {
        assert!(!worker.obey().unwrap());
        assert_eq!(worker.parked, Some(Parked::Forever));
    }
    assert!(!slots.close(1), "each close would wake every worker");
    // And the count of those who wait is right, not merely zero: the next one is woken.
    assert_eq!((slots.take(), slots.take()), (Some(1), None));
    assert!(slots.give_back(1, 0));
}
