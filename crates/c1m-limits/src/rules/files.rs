//! Descriptors: of a table (EMFILE), of the host (ENFILE).

use c1m_record::{Confidence, LimitName};

use super::{
    calls::{emfile, enfile},
    memory,
};
use crate::{
    case::Case,
    evidence::{Call, errno},
    verdict::Finding,
};

pub(crate) fn descriptors(case: &Case<'_>) -> Vec<Finding> {
    [table(case), host(case)].into_iter().flatten().collect()
}

fn table(case: &Case<'_>) -> Option<Finding> {
    let refused = emfile(case);
    if refused == 0 {
        return None;
    }
    // setrlimit refuses more than fs.nr_open, but that can be lowered later (kernel/sys.c, do_prlimit, 6.18).
    let by_nr_open =
        matches!((case.now.nofile, case.now.nr_open), (Some(nofile), Some(most)) if nofile > most);
    let mut found = if by_nr_open {
        Finding::new(
            LimitName::NrOpen,
            Confidence::Likely,
            format!("{refused} connections could not be had: fs.nr_open is below the limit of open files, and cuts it"),
        )
        .settled_by("whether the table that was full is this process's, or one with a limit of its own")
    } else {
        Finding::new(
            LimitName::Nofile,
            Confidence::Certain,
            format!(
                "a descriptor table was full {refused} times: connections waited in the accept queue, or could not be opened"
            ),
        )
    };
    for (call, source) in [(Call::Accept, "accept EMFILE"), (Call::Socket, "socket EMFILE")] {
        found = found.saw(source, "calls of any process", case.seen.failed(call, errno::EMFILE));
        found = found.saw(source, "own calls", case.seen.own(source));
    }
    let peak = case.peak(if by_nr_open { LimitName::NrOpen } else { LimitName::Nofile });
    Some(match (by_nr_open, case.seen.own("accept EMFILE")) {
        (true, _) => found.beside("fs.nr_open", "limit of open files", peak),
        (false, 1..) => found.beside("getrlimit(RLIMIT_NOFILE)", "own descriptors", peak),
        // Another process's: its table is not read.
        (false, 0) => found,
    })
}

fn host(case: &Case<'_>) -> Option<Finding> {
    let refused = enfile(case);
    if refused == 0 {
        return None;
    }
    let peak = case.peak(LimitName::FileMax);
    let (confidence, settle) = match peak {
        Some(peak) if peak.is_at(90) => (Confidence::Certain, None),
        // socket() and accept() also answer ENFILE when no inode could be had (net/socket.c, __sock_create and do_accept, 6.18).
        Some(_) if memory::was_short(case) => return None,
        _ => (
            Confidence::Likely,
            Some(
                "file-nr at the instant: ENFILE also stands for a socket's inode that could not be had",
            ),
        ),
    };
    let mut found = Finding::new(
        LimitName::FileMax,
        confidence,
        format!(
            "the host's table of open files was full {refused} times: connections could not be had by any process"
        ),
    );
    for (call, source) in [(Call::Accept, "accept ENFILE"), (Call::Socket, "socket ENFILE")] {
        found = found.saw(source, "calls of any process", case.seen.failed(call, errno::ENFILE));
        found = found.saw(source, "own calls", case.seen.own(source));
    }
    found = found.beside("/proc/sys/fs/file-nr", "open files", peak);
    found.settle = settle;
    Some(found)
}

#[cfg(test)]
mod tests {
    use c1m_record::{Confidence, FileNr, LimitName};

    use crate::{
        evidence::{Call, Evidence, OomVictim, errno},
        forecast::History,
        reading::Readings,
        verdict::judge,
    };

    #[test]
    fn enfile_is_certain_only_when_the_table_was_nearly_full() {
        let seen = Evidence {
            call_errors: [((Call::Accept, errno::ENFILE), 3)].into(),
            ..Evidence::default()
        };
        for (allocated, confidence) in [(990, Confidence::Certain), (100, Confidence::Likely)] {
            let mut history = History::default();
            let file_nr = Some(FileNr { allocated, max: 1000 });
            history.add(&Readings { file_nr, ..Readings::default() });
            let verdict = judge(&seen, &history);
            let first = &verdict.causes[0];
            assert_eq!((first.limit, first.confidence), (LimitName::FileMax, confidence));
            assert_eq!(first.settle.is_none(), confidence == Confidence::Certain);
        }
    }

    #[test]
    fn enfile_beside_an_oom_kill_is_an_inode_that_could_not_be_had() {
        let victim = OomVictim { pid: 7, comm: "server".into(), in_cgroup: Some(true) };
        let seen = Evidence {
            call_errors: [((Call::Accept, errno::ENFILE), 1)].into(),
            oom_kills: vec![victim],
            ..Evidence::default()
        };
        let limits = |allocated| {
            let mut history = History::default();
            let file_nr = Some(FileNr { allocated, max: 1000 });
            history.add(&Readings { file_nr, ..Readings::default() });
            judge(&seen, &history).causes.iter().map(|cause| cause.limit).collect::<Vec<_>>()
        };
        assert_eq!(limits(100), [LimitName::MemoryCgroup]);
        assert_eq!(limits(990), [LimitName::FileMax, LimitName::MemoryCgroup]);
    }

    #[test]
    fn a_table_above_nr_open_is_cut_by_it() {
        let seen =
            Evidence { own_errors: [("accept EMFILE".into(), 1)].into(), ..Evidence::default() };
        for (nr_open, limit) in [(1000, LimitName::NrOpen), (2000, LimitName::Nofile)] {
            let mut history = History::default();
            history.add(&Readings {
                nofile: Some(2000),
                nr_open: Some(nr_open),
                ..Readings::default()
            });
            assert_eq!(judge(&seen, &history).causes[0].limit, limit);
        }
    }

    #[test]
    fn other_calls_that_fail_with_emfile_are_not_about_connections() {
        let calls =
            [Call::Descriptor, Call::Other, Call::EpollAdd].map(|call| ((call, errno::EMFILE), 9));
        let seen = Evidence { call_errors: calls.into(), ..Evidence::default() };
        assert!(judge(&seen, &History::default()).quiet);
    }
}
