//! What the server says of limits, without any privilege.

use c1m_record::{Confidence, LimitName, LimitReading, Limits, Record, Verdict};
use c1m_testkit::net::{bound, bound_for, start_connecting};

use crate::support::*;

fn reading(limits: &Limits, name: LimitName) -> LimitReading {
    limits.limits.iter().find(|reading| reading.limit == name).unwrap().clone()
}

/// The records from the first `limits` on that are about limits, and a word for the summary.
fn ending(program: &mut Program) -> (Limits, Verdict) {
    let mut before = None;
    program.wait_for("verdict", |record| match (before.take(), record) {
        (Some(limits), Record::Verdict(verdict)) => Some((limits, verdict.clone())),
        (_, Record::Limits(limits)) => {
            before = Some(limits.clone());
            None
        }
        (_, Record::Summary(summary)) => panic!("no verdict before {summary:?}"),
        _ => None,
    })
}

#[test]
fn limits_come_at_the_start_and_before_the_last_verdict() {
    let mut program = Program::start(Some(256), &["--workers", "2", "--quiet"]);
    let at_start = program.wait_for("limits", |record| match record {
        Record::Limits(limits) => Some(limits.clone()),
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
    let (at_end, verdict) = ending(&mut program);
    assert_eq!(reading(&at_end, LimitName::Nofile).used, Some(44));
    assert_eq!(verdict.quiet, verdict.causes.is_empty());
    // Other tests overflow queues in the same network namespace; none of them fills this server's tables.
    assert!(verdict.causes.iter().all(|cause| cause.limit != LimitName::Nofile), "{verdict:?}");
    program.summary();
}

#[test]
fn a_full_table_is_the_root_of_what_queues_behind_it() {
    let mut program =
        Program::start(Some(256), &["--workers", "1", "--backlog", "4", "--interval", "50ms"]);
    let capacity = usize::try_from(program.listening.capacity).unwrap();
    let mut held: Vec<_> = (0..capacity).map(|_| connect(program.address)).collect();
    held.iter_mut().for_each(ask);
    // It waits in the accept queue.
    let _more = connect(program.address);
    let verdict = program.wait_for("verdict on its table", |record| match record {
        Record::Verdict(verdict) => {
            let is_named = verdict.causes.iter().any(|cause| cause.limit == LimitName::Nofile);
            is_named.then(|| verdict.clone())
        }
        _ => None,
    });
    let first = &verdict.causes[0];
    assert_eq!((first.limit, first.confidence), (LimitName::Nofile, Confidence::Certain));
    let own = first.evidence.iter().find(|seen| seen.source == "accept EMFILE").unwrap();
    assert!(own.value > 0);
    assert!(first.remedy.as_ref().is_some_and(|text| text.contains("LimitNOFILE=512")));
    program.signal(&["TERM"]);
    let last = &ending(&mut program).1.causes[0];
    assert_eq!(last.limit, LimitName::Nofile);
    // The first verdict may have been made of a reading from just before the last descriptor was taken.
    let table = last.evidence.iter().find(|seen| seen.limit == Some(256)).unwrap();
    assert_eq!(table.value, 256, "{last:?}");
}

#[test]
fn an_accept_queue_of_another_program_is_not_the_servers() {
    let other = bound("127.0.0.1:0".parse().unwrap()).unwrap();
    other.listen(1).unwrap();
    let address = other.local_addr().unwrap().as_socket().unwrap();
    let connects = |count| -> Vec<_> {
        let begin = |_| start_connecting(bound_for(address).unwrap(), address).unwrap();
        (0..count).map(begin).collect()
    };
    // Full before the server starts, and overflowing while it runs.
    let _full = connects(2);
    let mut program = Program::start(
        None,
        &["--workers", "1", "--interval", "50ms", "--max-connections", "100", "--backlog", "77"],
    );
    let mut streams: Vec<_> = (0..50).map(|_| connect(program.address)).collect();
    let _more = connects(4);
    streams.iter_mut().for_each(ask);
    program.signal(&["TERM"]);
    let (at_end, verdict) = ending(&mut program);
    let queue = reading(&at_end, LimitName::AcceptQueue);
    assert_eq!((queue.used, queue.ceiling), (Some(0), Some(77)), "its own");
    let named = |cause: &c1m_record::Cause| cause.limit == LimitName::AcceptQueue;
    assert!(!verdict.causes.iter().any(named), "{verdict:?}");
    program.summary();
}
