//! Limits of open files, in limits.conf(5) and in units of systemd.

use super::{
    Circumstances, Say,
    lines::Which,
    order::{Descriptors, Setter},
};
use c1m_record::{Assessment, LimitName};

const LESS: &str = "a program with one descriptor table holds fewer connections";

/// What a text stands for.
enum Limit {
    Number(u64),
    Unlimited,
}

fn limit(text: &str) -> Option<Limit> {
    match text {
        "unlimited" | "infinity" | "-1" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::Number),
    }
}

impl Descriptors {
    /// Whoever reads the line leaves it out, and what was set before stays. An empty value of a unit is none of these: it takes back.
    pub(super) fn is_left_out(&self) -> bool {
        match &self.from {
            Setter::LogIn { .. } => limit(&self.value).is_none(),
            Setter::Unit(_) | Setter::EveryUnit => {
                !self.value.is_empty() && of_unit(&self.value).is_none()
            }
        }
    }
}

/// The hard limit of `hard` or `soft:hard`: that is what a program can have.
fn of_unit(value: &str) -> Option<Limit> {
    match value.split_once(':') {
        None => limit(value.trim()),
        Some((soft, hard)) => limit(soft.trim()).and(limit(hard.trim())),
    }
}

impl Circumstances<'_> {
    pub(super) fn descriptors(&self, setting: &Descriptors) -> Say {
        match &setting.from {
            Setter::LogIn { domain, which } => self.of_log_ins(domain, *which, &setting.value),
            Setter::Unit(_) => self.of_units(&setting.value, ""),
            Setter::EveryUnit => {
                self.of_units(&setting.value, " of each unit without LimitNOFILE=")
            }
        }
    }

    fn of_log_ins(&self, domain: &str, which: Which, value: &str) -> Say {
        // Neither groups nor `*` are root (pam_limits, limits.conf(5)).
        let of = match domain {
            "*" => "of log-ins of everybody but root".to_owned(),
            "root" => "of log-ins of root".to_owned(),
            other => format!("of log-ins of {other} alone"),
        };
        let Some(limit) = limit(value) else {
            return Say::new(
                Assessment::Refused,
                format!("`{value}` is not a number: pam_limits leaves the line out"),
            );
        };
        let nr_open = self.host.readings.nr_open;
        if let (Limit::Number(value), Some(most)) = (&limit, nr_open)
            && *value > most
        {
            return Say::harms(format!(
                "above fs.nr_open={most}: the limit can't be raised to it, and log-ins fail ({of})"
            ));
        }
        if let Some(unit) = self.unit {
            let text = format!(
                "{unit} is a unit of systemd, which does not read limits.conf: LimitNOFILE= in the unit is what counts"
            );
            return Say { unasked: true, ..Say::nothing(text) };
        }
        let say = match (limit, which) {
            (Limit::Unlimited, _) => return self.unlimited(&format!(
                "pam_limits takes fs.nr_open{} for it (before Linux-PAM 1.4 log-ins failed), {of}",
                nr_open.map_or(String::new(), |most| format!("={most}"))
            )),
            (Limit::Number(_), Which::Soft) => Say::nothing(
                "c1m's programs raise the soft limit to the hard one by themselves; a program that does not stops here",
            ),
            (Limit::Number(value), _) => self.table(value),
        };
        Say { text: format!("{} ({of})", say.text), ..say }
    }

    fn of_units(&self, value: &str, of: &str) -> Say {
        let nr_open = self.host.readings.nr_open;
        match of_unit(value) {
            None if value.is_empty() => Say::nothing("it takes back what was set before"),
            None => Say::new(
                Assessment::Refused,
                format!(
                    "`{value}` is not a number, `infinity` or SOFT:HARD: systemd leaves the line out"
                ),
            ),
            Some(Limit::Unlimited) => self
                .unlimited("systemd takes as much as it has itself, which is fs.nr_open as a rule"),
            Some(Limit::Number(value)) if nr_open.is_some_and(|most| value > most) => {
                Say::nothing(format!(
                    "above fs.nr_open={}: systemd takes as much as it has itself",
                    nr_open.unwrap_or(0)
                ))
            }
            Some(Limit::Number(value)) => {
                let say = self.table(value);
                Say { text: format!("{}{of}", say.text), ..say }
            }
        }
    }

    fn unlimited(&self, text: &str) -> Say {
        let most = self.host.readings.nr_open;
        let needed = self.host.tables.needed;
        let helps = self.host.readings.nofile.is_some_and(|nofile| nofile < needed)
            && most.is_some_and(|most| most >= needed);
        Say::new(if helps { Assessment::Helps } else { Assessment::Nothing }, text)
    }

    fn table(&self, value: u64) -> Say {
        let present = self.host.readings.nofile.map(i128::from);
        self.compared(Some(LimitName::Nofile), LESS, value.into(), present)
    }
}
