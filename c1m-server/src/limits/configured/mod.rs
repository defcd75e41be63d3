//! Configured settings: what somebody wrote into files, or set in the running kernel, and the assessment of each line. Advice that is copied from
//! page to page is often for another kernel, another unit, or another problem.
//!
//! - [`lines`]: what stands in a line.
//! - [`kernel`]: what the kernel makes of a value; [`known`]: the settings that are assessed.
//! - [`order`]: which of two lines counts.
//! - `rules`, `memory`, `descriptors`: what a value does, for a planned run on a host.

mod descriptors;
pub mod kernel;
pub mod known;
pub mod lines;
mod memory;
pub mod order;
mod rules;

use std::collections::BTreeMap;

use self::{
    kernel::{Kind, Taken, take},
    known::{Known, Rule, similar},
    lines::Line,
    order::{Entry, What, entries},
};
use super::walls::{Examination, Host, Run};
use crate::output::record::{Assessment, ConfiguredSetting};

/// The place of what the running kernel has.
pub const NOW: &str = "now";
/// The ports that connections take theirs from.
const RANGE: &str = "net.ipv4.ip_local_port_range";
/// The first port, and the last one.
type Range = (i128, i128);
/// The name of RLIMIT_NOFILE, as limits.conf has it.
pub const NOFILE: &str = "nofile";

/// What an assessment depends on.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub run: &'a Run,
    pub host: &'a Host,
    pub examination: &'a Examination,
    /// This process belongs to a unit of systemd.
    pub unit: Option<&'a str>,
    /// The host's own settings by their names with dots. `None`: this kernel has no such setting, or does not show it here. A name that is not
    /// in it was not looked for.
    pub present: &'a BTreeMap<String, Option<String>>,
}

/// What is to be said of all lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assessed {
    pub settings: Vec<ConfiguredSetting>,
    /// Names of settings in files that were named and of which c1m has no opinion, each once, in the order of the lines.
    pub unassessed: Vec<String>,
    /// A line of a file that was named harms, or sets nothing because it is refused, and no other one counts instead.
    pub has_fault: bool,
}

/// An assessment, and its reason.
pub(super) struct Say {
    assessment: Assessment,
    text: String,
    /// The numbers that the kernel takes.
    taken: Option<String>,
    /// It is told although nobody named the file.
    unasked: bool,
}

impl Say {
    fn new(assessment: Assessment, text: impl Into<String>) -> Self {
        let unasked = assessment == Assessment::Harms;
        Self { assessment, text: text.into(), taken: None, unasked }
    }

    /// Behind the reason why it is not.
    fn if_read(&self) -> String {
        format!(". If it were read: it {}: {}", self.assessment.says(), self.text)
    }

    fn harms(text: impl Into<String>) -> Self {
        Self::new(Assessment::Harms, text)
    }

    fn nothing(text: impl Into<String>) -> Self {
        Self::new(Assessment::Nothing, text)
    }
}

/// Assesses every line. Of lines that nobody asked for, only those that harm are told.
#[must_use]
pub fn assess(lines: &[Line], case: &Circumstances<'_>) -> Assessed {
    let entries = entries(lines);
    let range = case.configured_range(&entries);
    let said: Vec<Option<Say>> = entries.iter().map(|entry| case.say(entry, range)).collect();
    let mut all = Assessed::default();
    for (entry, say) in entries.iter().zip(&said) {
        let name = entry.name();
        let Some(say) = say else {
            if entry.line.asked && !all.unassessed.contains(&name) {
                all.unassessed.push(name);
            }
            continue;
        };
        if !entry.line.asked && (!say.unasked || entry.overridden_by.is_some()) {
            continue;
        }
        let is_fault = matches!(say.assessment, Assessment::Harms | Assessment::Refused);
        all.has_fault |= entry.line.asked && is_fault && entry.overridden_by.is_none();
        let by = entry.overridden_by.map(|by| &entries[by]);
        let by_refused =
            entry.overridden_by.and_then(|by| said[by].as_ref()).map(|it| it.assessment)
                == Some(Assessment::Refused);
        all.settings.push(ConfiguredSetting {
            file: entry.line.file.clone(),
            line: entry.line.number,
            value: entry.value().into(),
            taken: say.taken.clone(),
            present: case.present_of(entry),
            assessment: say.assessment,
            overridden_by: by.map(|by| place(by.line)),
            text: by.map_or_else(|| say.text.clone(), |by| overridden(entry, by, by_refused, say)),
            name,
        });
    }
    all
}

fn place(line: &Line) -> String {
    line.number.map_or_else(|| line.file.clone(), |number| format!("{}:{number}", line.file))
}

/// Why the line does not count, and what it would do by itself.
fn overridden(entry: &Entry<'_>, by: &Entry<'_>, by_refused: bool, say: &Say) -> String {
    let place = place(by.line);
    let how = match by.value() == entry.value() {
        true => format!("repeated by {place} with the same value"),
        false => format!("overridden by {place}, which sets {}", by.value()),
    };
    let but = match by_refused {
        true if say.assessment == Assessment::Refused => "; the kernel refuses that one as well",
        true => {
            "; the kernel refuses that one, so systemd-sysctl sets neither, and `sysctl -p` leaves this one"
        }
        false => "",
    };
    format!("{how}{but}. By itself it {}: {}", say.assessment.says(), say.text)
}

impl Circumstances<'_> {
    /// `None`: c1m has no opinion.
    fn say(&self, entry: &Entry<'_>, range: Option<Range>) -> Option<Say> {
        let Some(by) = &entry.line.masked_by else { return self.say_read(entry, range) };
        let why = format!("{by} has the same name, and is read instead of this file");
        let say = self.say_read(entry, range);
        Some(Say::new(Assessment::Ignored, why + &say.as_ref().map_or(String::new(), Say::if_read)))
    }

    /// The same, of a file that is read.
    fn say_read(&self, entry: &Entry<'_>, range: Option<Range>) -> Option<Say> {
        match &entry.what {
            What::Sysctl { name, value } => self.sysctl(name, value, range),
            What::NotRead { name, value, why } => {
                let say = self.sysctl(name, value, range);
                let then = say.as_ref().map_or(String::new(), Say::if_read);
                Some(Say::new(Assessment::Ignored, format!("{why}{then}")))
            }
            What::Descriptors(descriptors) => Some(self.descriptors(descriptors)),
            What::Unassessed { .. } => None,
            What::Other { .. } => Some(Say::new(
                Assessment::Ignored,
                "this is no setting: neither `name = value` nor a line of limits.conf. It sets nothing",
            )),
        }
    }

    fn sysctl(&self, name: &str, value: &str, range: Option<Range>) -> Option<Say> {
        let Some(known) = Known::of(name) else {
            let is_absent = self.present.get(name).is_some_and(Option::is_none);
            let near = similar(name).map_or(String::new(), |near| format!("; {near} is one"));
            return is_absent.then(|| {
                Say::new(Assessment::Absent, format!("there is no setting of this name{near}"))
            });
        };
        if let Rule::Removed(why) = known.rule {
            return Some(Say::new(Assessment::Absent, why));
        }
        Some(match take(&self.kind(known), value) {
            Err(refused) => {
                let before: Vec<String> = refused.set.iter().map(ToString::to_string).collect();
                let but = match before.as_slice() {
                    [] => String::new(),
                    set => format!("; but it sets what stands before that: {}", set.join(" ")),
                };
                Say::new(Assessment::Refused, format!("{} (EINVAL){but}", refused.why))
            }
            Ok(taken) => self.taken(known, value, &taken, range),
        })
    }

    fn taken(&self, known: &Known, written: &str, taken: &Taken, range: Option<Range>) -> Say {
        let (text, say) = match taken {
            Taken::Ports(ports) => (written.to_owned(), self.reserved_ports(ports, range)),
            Taken::Numbers(numbers) => {
                let all = self.completed(known, numbers);
                let text = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                (text, self.numbers(known, &all))
            }
        };
        let missing = match taken {
            Taken::Numbers(numbers) if numbers.len() < known.count() => format!(
                "only {} of {} numbers: the others stay as they are. ",
                numbers.len(),
                known.count()
            ),
            _ => String::new(),
        };
        Say { text: missing + &say.text, taken: Some(text), ..say }
    }

    fn kind(&self, known: &Known) -> Kind {
        known.kind(self.host.readings.first_unprivileged_port.unwrap_or(1024))
    }

    /// The range of local ports that the lines set.
    fn configured_range(&self, entries: &[Entry<'_>]) -> Option<Range> {
        let known = Known::of(RANGE)?;
        let counts = entries.iter().rev().find_map(|entry| match &entry.what {
            What::Sysctl { name, value } if name == RANGE && entry.overridden_by.is_none() => {
                Some(value)
            }
            _ => None,
        });
        match take(&self.kind(known), counts?) {
            Ok(Taken::Numbers(numbers)) => match self.completed(known, &numbers).as_slice() {
                [first, last] => Some((*first, *last)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Numbers that were not written stay as they are.
    fn completed(&self, known: &Known, numbers: &[i128]) -> Vec<i128> {
        let present = self.present_numbers(known.name);
        let rest =
            present.iter().skip(numbers.len()).take(known.count().saturating_sub(numbers.len()));
        numbers.iter().chain(rest).copied().collect()
    }

    /// The host's own value as numbers; empty when it is not known.
    fn present_numbers(&self, name: &str) -> Vec<i128> {
        let text = self.present.get(name).cloned().flatten().unwrap_or_default();
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
    }

    fn present_of(&self, entry: &Entry<'_>) -> Option<String> {
        match &entry.what {
            _ if entry.line.file == NOW => None,
            What::Sysctl { name, .. } | What::NotRead { name, .. } => {
                self.present.get(known::canonical(name)).cloned().flatten()
            }
            // The soft limit is not read.
            What::Descriptors(descriptors) if descriptors.is_soft() => None,
            What::Descriptors(_) => self.host.readings.nofile.map(|nofile| nofile.to_string()),
            What::Unassessed { .. } | What::Other { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
