//! Where values are collected, and what they come to.

use std::collections::BTreeMap;

use super::{
    catalog::{GOALS, Goal, Reach},
    cli::Part,
    record::Figure,
    series::{ratios, spread},
};

/// What was measured for one figure so far.
#[derive(Debug, Clone, Default)]
struct Entry {
    values: Vec<f64>,
    against: Vec<f64>,
    notes: Vec<String>,
    violations: Vec<String>,
    reason: Option<String>,
}

/// Values by the name of the figure.
#[derive(Debug, Default)]
pub(crate) struct Board(BTreeMap<&'static str, Entry>);

impl Board {
    fn entry(&mut self, name: &'static str) -> &mut Entry {
        debug_assert!(GOALS.iter().any(|goal| goal.name == name), "{name} is no figure");
        self.0.entry(name).or_default()
    }

    /// One value of one run.
    pub(crate) fn value(&mut self, name: &'static str, value: f64) {
        self.entry(name).values.push(value);
    }

    /// One value of what it is held against.
    pub(crate) fn against(&mut self, name: &'static str, value: f64) {
        self.entry(name).against.push(value);
    }

    /// What was measured so far.
    pub(crate) fn values(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], |entry| &entry.values)
    }

    /// Something worth knowing. The same is told once.
    pub(crate) fn note(&mut self, name: &'static str, note: impl Into<String>) {
        let (entry, note) = (self.entry(name), note.into());
        if !entry.notes.contains(&note) {
            entry.notes.push(note);
        }
    }

    /// Something that must not be: the figure is not met, however good its values are.
    pub(crate) fn violation(&mut self, name: &'static str, what: impl Into<String>) {
        self.entry(name).violations.push(what.into());
    }

    /// Why the rest of a part's figures cannot be measured.
    pub(crate) fn unmeasured(&mut self, part: Part, reason: &str) {
        for goal in GOALS.iter().filter(|goal| goal.part == part) {
            let entry = self.entry(goal.name);
            entry.reason.get_or_insert_with(|| reason.into());
        }
    }

    /// The figures of the chosen parts. `thresholds`: whether there is something to reach.
    pub(crate) fn figures(&self, chosen: impl Fn(Part) -> bool, thresholds: bool) -> Vec<Figure> {
        let none = Entry::default();
        let goals = GOALS.iter().filter(|goal| chosen(goal.part));
        goals.map(|goal| figure(goal, self.0.get(goal.name).unwrap_or(&none), thresholds)).collect()
    }
}

fn figure(goal: &Goal, entry: &Entry, thresholds: bool) -> Figure {
    let values = spread(&entry.values);
    let (pairs, ratio_of) = match goal.reach {
        Reach::TimesAsFast(_) => (ratios(&entry.against, &entry.values), "against / value"),
        _ => (ratios(&entry.values, &entry.against), "value / against"),
    };
    let ratio = spread(&pairs);
    let reason = entry.reason.clone();
    let reason = match values {
        None => reason.or_else(|| Some("nothing was measured".into())),
        Some(_) => reason,
    };
    Figure {
        name: goal.name.into(),
        unit: goal.unit.into(),
        about: goal.about.into(),
        median: values.map(|it| it.median),
        min: values.map(|it| it.min),
        max: values.map(|it| it.max),
        runs: entry.values.len() as u64,
        values: entry.values.clone(),
        against: goal.against.map(Into::into),
        against_median: spread(&entry.against).map(|it| it.median),
        against_values: entry.against.clone(),
        ratio: ratio.map(|it| it.median),
        ratio_min: ratio.map(|it| it.min),
        ratio_max: ratio.map(|it| it.max),
        ratio_of: goal.against.map(|_| ratio_of.into()),
        to_reach: thresholds.then(|| told(goal.reach)).flatten(),
        met: thresholds
            .then(|| met(goal.reach, values.map(|it| it.median), ratio.map(|it| it.median)))
            .flatten()
            .map(|met| met && entry.violations.is_empty()),
        notes: entry.notes.clone(),
        violations: entry.violations.clone(),
        reason,
    }
}

/// What is to be reached, in words.
fn told(reach: Reach) -> Option<String> {
    Some(match reach {
        Reach::Nothing => return None,
        Reach::AtMost(most) => format!("≤ {most}"),
        Reach::RatioAtMost(most) => format!("≤ {most:.2} ×"),
        Reach::RatioWithin(most) => format!("1 ± {most:.2}"),
        Reach::RatioAtLeast(least) | Reach::TimesAsFast(least) => format!("≥ {least} ×"),
    })
}

fn met(reach: Reach, value: Option<f64>, ratio: Option<f64>) -> Option<bool> {
    match reach {
        Reach::Nothing => None,
        Reach::AtMost(most) => value.map(|value| value <= most),
        Reach::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
        Reach::RatioWithin(most) => ratio.map(|ratio| (ratio - 1.0).abs() <= most),
        Reach::RatioAtLeast(least) | Reach::TimesAsFast(least) => ratio.map(|ratio| ratio >= least),
    }
}

/// So much for each.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes of one host are below 2^52")]
pub(crate) fn per(sum: u64, count: u64) -> f64 {
    sum as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(board: &Board, name: &str, thresholds: bool) -> Figure {
        let figures = board.figures(|_| true, thresholds);
        assert_eq!(figures.len(), GOALS.len());
        figures.into_iter().find(|figure| figure.name == name).unwrap()
    }

    #[test]
    fn ratios_are_of_what_was_measured_in_turn_and_decide() {
        let mut board = Board::default();
        for (value, against) in [(11.0, 10.0), (30.0, 20.0), (10.0, 10.0)] {
            board.value("ramp", value);
            board.against("ramp", against);
        }
        let figure = only(&board, "ramp", true);
        assert_eq!((figure.median, figure.against_median), (Some(11.0), Some(10.0)));
        assert_eq!((figure.ratio, figure.ratio_max, figure.runs), (Some(1.1), Some(1.5), 3));
        assert_eq!((figure.met, figure.reason), (Some(true), None));
        board.violation("ramp", "one lost");
        assert_eq!(only(&board, "ramp", true).met, Some(false));
        let quick = only(&board, "ramp", false);
        assert_eq!((quick.met, quick.to_reach), (None, None));
    }

    #[test]
    fn times_as_fast_divides_the_other_way() {
        let mut board = Board::default();
        board.value("states", 1.0);
        board.against("states", 4.0);
        let figure = only(&board, "states", true);
        assert_eq!((figure.ratio, figure.met), (Some(4.0), Some(false)));
        assert_eq!(figure.ratio_of.as_deref(), Some("against / value"));
    }

    #[test]
    fn what_was_foretold_may_be_off_in_both_directions() {
        for (foretold, met) in [(94.0, false), (96.0, true), (104.0, true), (106.0, false)] {
            let mut board = Board::default();
            board.value("doctor_memory", foretold);
            board.against("doctor_memory", 100.0);
            assert_eq!(only(&board, "doctor_memory", true).met, Some(met), "{foretold}");
        }
    }

    #[test]
    fn what_was_not_measured_says_why_and_is_not_met() {
        let mut board = Board::default();
        board.unmeasured(Part::Watch, "no eBPF");
        let figure = only(&board, "watch", true);
        assert_eq!((figure.median, figure.met), (None, None));
        assert_eq!(figure.reason.as_deref(), Some("no eBPF"));
        assert!(only(&board, "ramp", true).reason.is_some(), "silence is no reason");
    }
}
