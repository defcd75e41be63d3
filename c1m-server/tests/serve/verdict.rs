//! What the server says of limits, without any privilege.

use c1m_record::{Confidence, LimitName, LimitReading, Limits, Record, Verdict};

use crate::support::*;

fn reading(limits: &Limits, name: LimitName) -> LimitReading {
    limits.limits.iter().find(|reading| reading.limit == name).unwrap().clone()
}

/// The records from the first `limits` on that are about limits, and a word for the summary.
fn ending(program: &Program) -> (Limits, Verdict) {
    let mut before = None;
    program.wait_for(|record| match (before.take(), record) {
        (Some(limits), Record::Verdict(verdict)) => Some((limits, verdict)),
        (_, Record::Limits(limits)) => {
            before = Some(limits);
            None
        }
        (_, Record::Summary(summary)) => panic!("no verdict before {summary:?}"),
        _ => None,
    })
}

#[test]
fn limits_come_at_the_start_and_before_the_last_verdict() {
    let program = Program::start(Some(256), &["--workers", "2", "--quiet"]);
    let at_start = program.wait_for(|record| match record {
        Record::Limits(limits) => Some(limits),
        other => panic!("{other:?} before the limits"),
    });
    assert_eq!(at_start.limits.len(), LimitName::ALL.len());
    let nofile = reading(&at_start, LimitName::Nofile);
    assert_eq!((nofile.used, nofile.ceiling), (Some(14), Some(512)));
    assert_eq!(nofile.at_connection, Some(program.listening.capacity + 1));
    assert_eq!(at_start.next, Some(LimitName::Nofile), "{at_start:?}");

    let mut streams: Vec<_> = (0..30).map(|_| connect(program.address)).collect();
    streams.iter_mut().for_each(ask);
    program.signal(&["TERM"]);
    let (at_end, verdict) = ending(&program);
    assert_eq!(reading(&at_end, LimitName::Nofile).used, Some(44));
    assert_eq!(verdict.quiet, verdict.causes.is_empty());
    // Other tests overflow queues in the same network namespace; none of them fills this server's tables.
    assert!(verdict.causes.iter().all(|cause| cause.limit != LimitName::Nofile), "{verdict:?}");
    program.summary();
}

#[test]
fn a_full_table_is_the_root_of_what_queues_behind_it() {
    let program =
        Program::start(Some(256), &["--workers", "1", "--backlog", "4", "--interval", "50ms"]);
    let capacity = usize::try_from(program.listening.capacity).unwrap();
    let mut held: Vec<_> = (0..capacity).map(|_| connect(program.address)).collect();
    held.iter_mut().for_each(ask);
    // It waits in the accept queue.
    let _more = connect(program.address);
    let verdict = program.wait_for(|record| match record {
        Record::Verdict(verdict) => {
            verdict.causes.iter().any(|cause| cause.limit == LimitName::Nofile).then_some(verdict)
        }
        _ => None,
    });
    let first = &verdict.causes[0];
    assert_eq!((first.limit, first.confidence), (LimitName::Nofile, Confidence::Certain));
    let own = first.evidence.iter().find(|seen| seen.source == "accept EMFILE").unwrap();
    assert!(own.value > 0);
    assert!(first.advice.as_ref().is_some_and(|text| text.contains("LimitNOFILE=512")));
    program.signal(&["TERM"]);
    let last = &ending(&program).1.causes[0];
    assert_eq!(last.limit, LimitName::Nofile);
    // The first verdict may have been made of a reading from just before the last descriptor was taken.
    let table = last.evidence.iter().find(|seen| seen.limit == Some(256)).unwrap();
    assert_eq!(table.value, 256, "{last:?}");
}

#[test]
fn an_accept_queue_of_another_program_is_not_the_servers() {
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    other.listen(1).unwrap();
    let address = other.local_addr().unwrap();
    let connects = |count| -> Vec<_> {
        let begin = |_| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            assert!(socket.connect(&address).is_err(), "on its way");
            socket
        };
        (0..count).map(begin).collect()
    };
    // Full before the server starts, and overflowing while it runs.
    let _full = connects(2);
    let program = Program::start(
        None,
        &["--workers", "1", "--interval", "50ms", "--max-connections", "100", "--backlog", "77"],
    );
    let mut streams: Vec<_> = (0..50).map(|_| connect(program.address)).collect();
    let _more = connects(4);
    streams.iter_mut().for_each(ask);
    program.signal(&["TERM"]);
    let (at_end, verdict) = ending(&program);
    let queue = reading(&at_end, LimitName::AcceptQueue);
    assert_eq!((queue.used, queue.ceiling), (Some(0), Some(77)), "its own");
    let named = |cause: &c1m_record::Cause| cause.limit == LimitName::AcceptQueue;
    assert!(!verdict.causes.iter().any(named), "{verdict:?}");
    program.summary();
}
