//! Which failed system calls count.

use c1m_ebpf::{
    CALL_ACCEPT, CALL_BIND, CALL_CONNECT, CALL_DESCRIPTOR, CALL_EPOLL, CALL_OTHER, CALL_RECEIVE,
    CALL_SEND, CALL_SOCKET, CALLS, ERRNOS, ERROR_EADDRNOTAVAIL, ERROR_EMFILE, ERROR_ENFILE,
    ERROR_ENOBUFS, ERROR_ENOMEM, ERROR_ENOSPC, error_of, is_of_a_limit,
};

#[test]
fn an_error_is_found_by_what_a_call_returned() {
    for (index, errno) in (0..).zip(ERRNOS) {
        assert_eq!(error_of(-i64::from(errno)), Some(index), "errno {errno}");
        assert_eq!(error_of(errno.into()), None, "{errno} is a result, not an error");
    }
    // 0, EAGAIN, EADDRINUSE
    assert_eq!([0, -11, -98, i64::MIN].map(error_of), [None; 4]);
}

#[test]
fn errors_of_limits_count_for_the_calls_that_meet_the_limit() {
    let calls_of =
        |error| (0..CALLS as u32).filter(|call| is_of_a_limit(*call, error)).collect::<Vec<_>>();
    let all: Vec<u32> = (0..CALLS as u32).collect();
    assert_eq!((calls_of(ERROR_EMFILE), calls_of(ERROR_ENFILE)), (all.clone(), all));
    let with_buffers = [CALL_SOCKET, CALL_ACCEPT, CALL_BIND, CALL_CONNECT, CALL_SEND];
    assert_eq!(calls_of(ERROR_ENOBUFS), with_buffers);
    assert_eq!(calls_of(ERROR_EADDRNOTAVAIL), [CALL_BIND, CALL_CONNECT]);
    assert_eq!(calls_of(ERROR_ENOSPC), [CALL_EPOLL], "a full disk is none");
    let memory = calls_of(ERROR_ENOMEM);
    assert!(!memory.contains(&CALL_OTHER) && memory.len() == CALLS - 1, "{memory:?}");
    assert!(memory.contains(&CALL_RECEIVE) && memory.contains(&CALL_DESCRIPTOR));
    assert_eq!(calls_of(ERRNOS.len() as u32), [0; 0]);
}
