//! fs.file-max: open files of the host.

use c1m_record::{Cause, Confidence, LimitName, Scope};

use super::{A_FEW, About, Limit, UsageMetric, memory};
use crate::{
    case::{Case, ENFILE},
    client::outcome::Outcome,
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, OWN_FILES, Planned, first_without, setting},
    raise::{at_least, with_slack},
    reading::{Readings, Usage},
};

pub(super) struct FileMax;

impl Limit for FileMax {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::FileMax,
            scope: Scope::Host,
            unit: "files",
            setting: "fs.file-max",
            source: "/proc/sys/fs/file-nr",
            symptom: "accept, socket, open of every process without CAP_SYS_ADMIN: ENFILE",
            distinguished_by: "ENFILE with file-nr near its maximum; ENFILE far below it is an inode that could not be had, so memory",
            kernel: "fs/file_table.c, alloc_empty_file; net/socket.c, sock_alloc (6.18)",
            label: "open files of the host (fs.file-max)",
            summary: ["accept, socket, open of every process …: ENFILE", "fs.file-max"],
            metric: Some(UsageMetric {
                name: "c1m_files",
                help: "Open files of the host (fs.file-max)",
                scope: Scope::Host,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.file_nr.map(|files| files.allocated), now.file_nr.map(|files| files.max))
    }

    fn per_connection(&self) -> Option<u64> {
        Some(1)
    }

    fn noise(&self, _: &Readings) -> u64 {
        A_FEW
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let files = planned.now.file_nr;
        let used = files.map(|files| files.allocated);
        let needed = planned
            .connections()
            .saturating_mul(planned.ends())
            .saturating_add(OWN_FILES)
            .saturating_add(used.unwrap_or(0));
        let wanted = at_least(needed.saturating_add(10_000), files.map(|files| files.max));
        Need {
            now: files.map(|files| files.max),
            used,
            needed: Some(needed),
            stops_at: files.and_then(|files| first_without(files.max, files.allocated.saturating_add(OWN_FILES), planned.ends())),
            counts: true,
            remedy: format!("fs.file-max={wanted} (files of the whole host)"),
            risk: "too low hits every service of the host at once; each file takes a kibibyte or more".into(),
            settings: setting("fs.file-max", wanted),
            note: planned
                .host
                .is_exempt_from_file_max
                .then(|| "a process with CAP_SYS_ADMIN is not refused, but uses up what the others need; with --trace the server gives it up".into()),
            unknown: files.is_none().then(|| "/proc/sys/fs/file-nr can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[Known::new(
                "fs.file-max",
                Numbers::Long(1),
                Rule::Larger(
                    Some(LimitName::FileMax),
                    "every program of the host may be refused a file",
                ),
            )]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let refused = case.opening_failed(ENFILE);
        if refused == 0 {
            return None;
        }
        let peak = case.peak(LimitName::FileMax);
        let (confidence, to_confirm) = match peak {
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
        let mut found =
            Finding::new(LimitName::FileMax, confidence, format!("the host's table of open files was full {refused} times: connections could not be had by any process"))
                .saw_opening_failed(case, ENFILE)
                .beside("/proc/sys/fs/file-nr", "open files", peak);
        found.to_confirm = to_confirm;
        Some(found)
    }

    fn judge_client(&self, outcome: &Outcome) -> Option<Cause> {
        let names = ["socket ENFILE"];
        let count = outcome.sum(&names);
        if count == 0 {
            return None;
        }
        Some(Cause {
        limit: LimitName::FileMax,
        scope: self.about().scope,
        confidence: Confidence::Likely,
        text: format!("{count} connections had no file: the host's table of open files was full"),
        evidence: outcome.evidence(&names),
        to_confirm: Some("/proc/sys/fs/file-nr at that instant: ENFILE also stands for an inode that could not be had".into()),
        remedy: Some(format!(
            "fs.file-max: what is open now and {} more (files of the whole host), for both ends when the server is here",
            outcome.connections.saturating_mul(2).saturating_add(10_000)
        )),
    })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let sockets = case.history.sockets_max();
        let used = case.peak(LimitName::FileMax).map_or(0, |peak| peak.used.max(peak.ceiling));
        let wanted =
            with_slack(used).max(sockets.saturating_add(10_000)).max(used.saturating_add(10_000));
        let wanted = at_least(wanted, case.now.file_nr.map(|files| files.max));
        format!(
            "fs.file-max={wanted} (files of the whole host). Every service of the host is hit at once when it is too low; root is not, and \
         uses up what others need"
        )
    }
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
            assert_eq!(first.to_confirm.is_none(), confidence == Confidence::Certain);
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
}
