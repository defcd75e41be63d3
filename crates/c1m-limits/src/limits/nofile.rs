//! RLIMIT_NOFILE: the descriptors that one table may hold.

use c1m_record::{Assessment, Cause, Confidence, LimitName, Scope};

use super::{About, Limit, UsageMetric};
use crate::{
    case::{Case, EMFILE},
    client::outcome::{Outcome, evidence},
    configured::{
        descriptors::{Descriptors, Setter, Value, of_unit, value_of},
        lines::LimitType,
        setting::{Answer, Context},
    },
    finding::Finding,
    preflight::need::{Need, Planned},
    raise::{at_least, with_slack},
    reading::{Readings, Usage},
};

const LESS: &str = "a program with one descriptor table holds fewer connections";

pub(super) struct Nofile;

impl Limit for Nofile {
    fn about(&self) -> &'static About {
        &About {
            name: LimitName::Nofile,
            scope: Scope::Process,
            unit: "descriptors",
            setting: "RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd); more --workers, each of which has a table of its own",
            source: "getrlimit(RLIMIT_NOFILE) times the tables; connections and own descriptors",
            symptom: "accept, socket: EMFILE; connections wait in the accept queue, which overflows behind it",
            distinguished_by: "EMFILE of accept or socket; of open, inotify_init and the like it is another limit, or a program that tries how far it comes",
            kernel: "fs/file.c, alloc_fd (5.10 to 6.18)",
            label: "open files of a process (RLIMIT_NOFILE)",
            summary: ["accept, socket: EMFILE", "RLIMIT_NOFILE"],
            metric: Some(UsageMetric {
                name: "c1m_descriptors",
                help: "Open descriptors of the server, which RLIMIT_NOFILE limits in each of its tables",
                scope: Scope::Process,
            }),
        }
    }

    fn source_of_others(&self) -> Option<&'static str> {
        Some("/proc/PID/limits and /proc/PID/fd, of the fullest table")
    }

    fn is_resource_limit(&self) -> bool {
        true
    }

    fn usage(&self, now: &Readings) -> Usage {
        Usage::new(now.descriptors, now.descriptors_max)
    }

    fn per_connection(&self) -> Option<u64> {
        Some(1)
    }

    fn preflight(&self, planned: &Planned<'_>) -> Need {
        let tables = &planned.host.tables;
        let wanted = at_least(with_slack(tables.needed), planned.now.nofile);
        let above = planned.now.nr_open.filter(|most| *most < wanted);
        Need {
            now: planned.now.nofile,
            needed: Some(tables.needed),
            stops_at: tables.by_nofile.map(|held| held.saturating_add(1)),
            counts: true,
            remedy: format!(
                "more --workers, each of which has a table of its own; or a hard limit of {wanted} descriptors (LimitNOFILE={wanted} of a \
                 systemd unit, which does not read limits.conf; ulimit -Hn in a shell){}",
                above.map_or(String::new(), |most| format!("; fs.nr_open={most} has to be raised first"))
            ),
            risk: "above fs.nr_open it can't be raised; without CAP_SYS_RESOURCE the hard limit stands".into(),
            note: Some(format!("of one descriptor table, of which a program has up to {}", tables.most)),
            unknown: planned.now.nofile.is_none().then(|| "RLIMIT_NOFILE can't be read".into()),
            ..Need::default()
        }
    }

    fn assess_descriptors(&self, line: &Descriptors, context: &Context<'_>) -> Option<Answer> {
        Some(match &line.from {
            Setter::LogIn { domain, limit_type } => {
                of_log_ins(context, domain, *limit_type, &line.value)
            }
            Setter::Unit(_) => of_units(context, &line.value, ""),
            Setter::EveryUnit => {
                of_units(context, &line.value, " of each unit without LimitNOFILE=")
            }
        })
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let refused = case.opening_failed(EMFILE);
        if refused == 0 || is_cut_by_nr_open(case) {
            return None;
        }
        let found = Finding::new(
            LimitName::Nofile,
            Confidence::Certain,
            format!("a descriptor table was full {refused} times: connections waited in the accept queue, or could not be opened"),
        )
        .saw_opening_failed(case, EMFILE);
        Some(match case.observed.own("accept EMFILE") {
            1.. => found.beside(
                "getrlimit(RLIMIT_NOFILE)",
                "own descriptors",
                case.peak(LimitName::Nofile),
            ),
            // Another process's: its table is not read.
            0 => found,
        })
    }

    fn judge_client(&self, outcome: &Outcome) -> Option<Cause> {
        let names = ["socket EMFILE"];
        let count = outcome.sum(&names);
        if count == 0 {
            return None;
        }
        // Some of each table's own besides its connections.
        let wanted = outcome.connections.div_ceil(outcome.workers.max(1)) + 64;
        let first = match outcome.nr_open {
            Some(most) if most < wanted => format!(" (fs.nr_open={most} has to be raised first)"),
            _ => String::new(),
        };
        let mut came = outcome.evidence(&names);
        if let Some(most) = outcome.nofile {
            let each = outcome.connections.div_ceil(outcome.workers.max(1));
            came.push(evidence(
                "getrlimit(RLIMIT_NOFILE)",
                "connections of one table",
                each,
                Some(most),
            ));
        }
        Some(Cause {
            limit: LimitName::Nofile,
            scope: self.about().scope,
            confidence: Confidence::Certain,
            text: format!("{count} connections had no descriptor: a worker's table was full"),
            evidence: came,
            to_confirm: None,
            remedy: Some(format!(
                "--workers auto, or more than {}; or a hard limit of {wanted} descriptors (ulimit -Hn, LimitNOFILE=){first}",
                outcome.workers
            )),
        })
    }

    fn remedy(&self, case: &Case<'_>) -> String {
        let (nofile, tables) = (case.now.nofile, case.now.descriptors_max);
        let own = case.observed.own("accept EMFILE") > 0;
        let wanted = match (own, nofile) {
            (true, Some(each)) => each.saturating_mul(2),
            _ => at_least(1 << 20, nofile),
        };
        let at_most =
            case.now.nr_open.filter(|most| *most < wanted).map_or(String::new(), |most| {
                format!("; fs.nr_open={most} is below that, and has to be raised first")
            });
        let workers = match (own, tables) {
            (true, Some(tables)) => {
                format!(
                    "more --workers (each has a table of its own: {tables} descriptors together now), or "
                )
            }
            _ => String::new(),
        };
        format!(
            "{workers}a hard limit of {wanted} descriptors (LimitNOFILE={wanted} of a systemd unit, which does not read limits.conf; ulimit -n \
         in a shell){at_most}"
        )
    }
}

/// setrlimit refuses more than fs.nr_open, but that can be lowered later (kernel/sys.c, do_prlimit, 6.18).
pub(super) fn is_cut_by_nr_open(case: &Case<'_>) -> bool {
    matches!((case.now.nofile, case.now.nr_open), (Some(nofile), Some(most)) if nofile > most)
}

/// In limits.conf.
fn of_log_ins(context: &Context<'_>, domain: &str, limit_type: LimitType, value: &str) -> Answer {
    // Neither groups nor `*` are root (pam_limits, limits.conf(5)).
    let of = match domain {
        "*" => "of log-ins of everybody but root".to_owned(),
        "root" => "of log-ins of root".to_owned(),
        other => format!("of log-ins of {other} alone"),
    };
    let Some(limit) = value_of(value) else {
        return Answer::new(
            Assessment::Refused,
            format!("`{value}` is not a number: pam_limits leaves the line out"),
        );
    };
    let nr_open = context.host.readings.nr_open;
    if let (Value::Number(value), Some(most)) = (&limit, nr_open)
        && *value > most
    {
        return Answer::harms(format!(
            "above fs.nr_open={most}: the limit can't be raised to it, and log-ins fail ({of})"
        ));
    }
    if let Some(unit) = context.unit {
        let text = format!(
            "{unit} is a unit of systemd, which does not read limits.conf: LimitNOFILE= in the unit is what counts"
        );
        return Answer { unasked: true, ..Answer::nothing(text) };
    }
    let say = match (limit, limit_type) {
        (Value::Unlimited, _) => {
            return unlimited(
                context,
                &format!(
                    "pam_limits takes fs.nr_open{} for it (before Linux-PAM 1.4 log-ins failed), {of}",
                    nr_open.map_or(String::new(), |most| format!("={most}"))
                ),
            );
        }
        (Value::Number(_), LimitType::Soft) => Answer::nothing(
            "c1m's programs raise the soft limit to the hard one by themselves; a program that does not stops here",
        ),
        (Value::Number(value), _) => table(context, value),
    };
    Answer { text: format!("{} ({of})", say.text), ..say }
}

/// In a unit of systemd.
fn of_units(context: &Context<'_>, value: &str, of: &str) -> Answer {
    let nr_open = context.host.readings.nr_open;
    match of_unit(value) {
        None if value.is_empty() => Answer::nothing("it takes back what was set before"),
        None => Answer::new(
            Assessment::Refused,
            format!(
                "`{value}` is not a number, `infinity` or SOFT:HARD: systemd leaves the line out"
            ),
        ),
        Some(Value::Unlimited) => unlimited(
            context,
            "systemd takes as much as it has itself, which is fs.nr_open as a rule",
        ),
        Some(Value::Number(value)) if nr_open.is_some_and(|most| value > most) => {
            Answer::nothing(format!(
                "above fs.nr_open={}: systemd takes as much as it has itself",
                nr_open.unwrap_or(0)
            ))
        }
        Some(Value::Number(value)) => {
            let say = table(context, value);
            Answer { text: format!("{}{of}", say.text), ..say }
        }
    }
}

fn unlimited(context: &Context<'_>, text: &str) -> Answer {
    let most = context.host.readings.nr_open;
    let needed = context.host.tables.needed;
    let helps = context.host.readings.nofile.is_some_and(|nofile| nofile < needed)
        && most.is_some_and(|most| most >= needed);
    Answer::new(if helps { Assessment::Helps } else { Assessment::Nothing }, text)
}

fn table(context: &Context<'_>, value: u64) -> Answer {
    let present = context.host.readings.nofile.map(i128::from);
    context.compared(Some(LimitName::Nofile), LESS, value.into(), present)
}

#[cfg(test)]
mod tests {
    use c1m_record::LimitName;

    use crate::{
        evidence::{Call, Evidence, errno},
        forecast::History,
        limits::tests::remedy,
        reading::Readings,
        verdict::judge,
    };

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

    #[test]
    fn the_limit_above_it_is_named() {
        let seen =
            Evidence { own_errors: [("accept EMFILE".into(), 1)].into(), ..Evidence::default() };
        let now = Readings {
            nofile: Some(1000),
            nr_open: Some(1500),
            descriptors_max: Some(4000),
            ..Readings::default()
        };
        let text = remedy(LimitName::Nofile, &seen, now);
        assert!(
            text.contains("LimitNOFILE=2000") && text.contains("fs.nr_open=1500 is below"),
            "{text}"
        );
    }
}
