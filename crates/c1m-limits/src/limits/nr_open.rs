//! fs.nr_open: up to which RLIMIT_NOFILE can be raised.

use c1m_record::{Confidence, LimitName, Scope};

use super::{About, Limit, UsageMetric, nofile::is_cut_by_nr_open};
use crate::{
    case::{Case, EMFILE},
    configured::setting::{Known, Numbers, Rule},
    finding::Finding,
    preflight::need::{Need, Planned, setting},
    raise::{at_least, with_slack},
    reading::{Readings, Usage},
};

pub(super) struct NrOpen;

impl Limit for NrOpen {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::NrOpen,
            scope: Scope::Host,
            unit: "descriptors",
            setting: "fs.nr_open",
            source: "fs.nr_open; RLIMIT_NOFILE, which can be raised up to it",
            symptom: "RLIMIT_NOFILE can't be raised; EMFILE below RLIMIT_NOFILE",
            distinguished_by: "EMFILE while RLIMIT_NOFILE is above fs.nr_open",
            kernel: "fs/file.c, expand_files; kernel/sys.c, do_prlimit (6.18)",
            label: "fs.nr_open",
            summary: ["RLIMIT_NOFILE can't be raised", "fs.nr_open"],
            metric: Some(UsageMetric {
                name: "c1m_rlimit_nofile",
                help: "RLIMIT_NOFILE of the server, which fs.nr_open limits",
                scope: Scope::Process,
            }),
        }
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.nofile, now.nr_open)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let tables = &planned.host.tables;
        let wanted = at_least(with_slack(tables.needed), planned.now.nofile);
        let wanted = at_least(wanted, planned.now.nr_open);
        Need {
            now: planned.now.nr_open,
            needed: Some(tables.needed),
            stops_at: tables.by_nr_open.map(|held| held.saturating_add(1)),
            counts: true,
            remedy: format!("fs.nr_open={wanted} (descriptors of one table)"),
            risk: "it lets any process that may raise its limit take so many descriptors, and 8 bytes of memory for each".into(),
            settings: setting("fs.nr_open", wanted),
            note: Some("of one descriptor table; RLIMIT_NOFILE can't be raised above it".into()),
            unknown: planned.now.nr_open.is_none().then(|| "fs.nr_open can't be read".into()),
            ..Need::default()
        }
    }

    fn settings(&self) -> &'static [Known] {
        const {
            &[
                // fs/file_table.c, sysctl_nr_open_min and sysctl_nr_open_max on 64 bits.
                Known::new(
                    "fs.nr_open",
                    Numbers::Within(64, 0x7fff_ffc0),
                    Rule::Larger(
                        Some(LimitName::NrOpen),
                        "no limit of descriptors can be raised above it",
                    ),
                ),
            ]
        }
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let refused = case.opening_failed(EMFILE);
        (refused > 0 && is_cut_by_nr_open(case)).then(|| {
            Finding::new(
                LimitName::NrOpen,
                Confidence::Likely,
                format!("{refused} connections could not be had: fs.nr_open is below the limit of open files, and cuts it"),
            )
            .confirmed_by("whether the table that was full is this process's, or one with a limit of its own")
            .saw_opening_failed(case, EMFILE)
            .beside("fs.nr_open", "limit of open files", case.peak(LimitName::NrOpen))
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let wanted = at_least(case.now.nofile.unwrap_or(1 << 20), case.now.nr_open);
        format!(
            "fs.nr_open={wanted} (descriptors of one table) at least, which is what RLIMIT_NOFILE says already"
        )
    }
}
