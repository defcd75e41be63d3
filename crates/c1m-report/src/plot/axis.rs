//! From numbers to places, and the round numbers that stand at an axis.

use crate::say::grouped;

/// A straight axis from 0 or later to `to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    /// Where they are in the picture.
    pub(super) begin: f64,
    pub(super) end: f64,
}

impl Axis {
    pub(super) fn place(&self, value: f64) -> f64 {
        let span = (self.to - self.from).max(f64::MIN_POSITIVE);
        self.begin + (value - self.from) / span * (self.end - self.begin)
    }
}

/// A round step that makes at most `most` of them up to `to`.
fn step(to: f64, most: f64, steps: &[f64]) -> f64 {
    let rough = to / most;
    if let Some(step) = steps.iter().find(|step| **step >= rough) {
        return *step;
    }
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999_999)
        .unwrap_or(rough)
}

/// Values and labels from 0 to `to`, at most `most` steps; whole numbers alone.
pub(super) fn counts(to: f64, most: f64) -> Vec<(f64, String)> {
    let step = step(to.max(1.0), most, &[1.0]);
    values(step, to.max(1.0)).map(|value| (value, grouped(rounded(value)))).collect()
}

/// Values and labels from 0 to the first step that is not below `to`; fractions as well.
pub(super) fn numbers(to: f64, most: f64) -> Vec<(f64, String)> {
    let to = if to > 0.0 { to } else { 1.0 };
    let step = step(to, most, &[]);
    let label = |value: f64| match step < 1.0 {
        true => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => grouped(rounded(value)),
    };
    values(step, (to / step - 1e-6).ceil() * step).map(|value| (value, label(value))).collect()
}

/// The same of seconds.
pub(super) fn times(to: f64, most: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 23] = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
        600.0, 900.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0,
    ];
    let step = step(to, most, &STEPS);
    values(step, to).map(|value| (value, time(value, step))).collect()
}

fn time(value: f64, step: f64) -> String {
    let part = |unit: f64| {
        let value = value / unit;
        if (value - value.round()).abs() < 1e-6 {
            format!("{}", value.round())
        } else {
            format!("{value:.1}")
        }
    };
    match step {
        _ if value == 0.0 => "0".into(),
        _ if step < 0.1 => format!("{:.0} ms", value * 1000.0),
        _ if step < 1.0 => format!("{value:.1} s"),
        _ if step < 60.0 => format!("{value:.0} s"),
        _ if step < 3600.0 => format!("{} min", part(60.0)),
        _ => format!("{} h", part(3600.0)),
    }
}

fn values(step: f64, to: f64) -> impl Iterator<Item = f64> {
    let last = rounded((to / step * 1.000_001).floor()).min(100);
    (0..=last).map(move |index| crate::say::as_f64(index) * step)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and none is negative"
)]
pub(super) fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(labels(counts(1_024_000.0, 5.0)), ["0", "500,000", "1,000,000"]);
        assert_eq!(labels(counts(36_423.0, 5.0)), ["0", "10,000", "20,000", "30,000"]);
        assert_eq!(labels(counts(2.0, 5.0)), ["0", "1", "2"]);
        assert_eq!(labels(counts(0.0, 5.0)), ["0", "1"]);
        assert_eq!(labels(times(24.0, 6.0)), ["0", "5 s", "10 s", "15 s", "20 s"]);
        assert_eq!(
            labels(times(0.3, 6.0)),
            ["0", "50 ms", "100 ms", "150 ms", "200 ms", "250 ms", "300 ms"]
        );
        assert_eq!(labels(times(700.0, 4.0)), ["0", "5 min", "10 min"]);
        assert_eq!(labels(times(1_000_000.0, 3.0)).len(), 3);
    }

    #[test]
    fn a_scale_ends_at_a_round_number_that_is_not_below() {
        for (to, most) in
            [(0.0, "1"), (0.3, "0.3"), (0.31, "0.4"), (4.0, "4"), (9.1, "10"), (8_601.0, "10,000")]
        {
            assert_eq!(labels(numbers(to, 5.0)).last().unwrap(), most, "{to}");
        }
        assert_eq!(labels(numbers(1.0, 5.0)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn no_number_makes_endless_ticks() {
        for to in [0.0, 1e-9, 1.0, 1e18, f64::MAX] {
            assert!(counts(to, 5.0).len() < 12, "{to}");
            assert!(times(to, 5.0).len() < 12, "{to}");
        }
    }

    #[test]
    fn a_place_is_between_the_ends() {
        let axis = Axis { from: 0.0, to: 10.0, begin: 100.0, end: 0.0 };
        assert!((axis.place(2.5) - 75.0).abs() < 1e-9);
        let empty = Axis { from: 0.0, to: 0.0, begin: 100.0, end: 0.0 };
        assert!(empty.place(0.0).is_finite());
    }
}
