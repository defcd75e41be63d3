//! How long nothing has answered while something was asked for.

use std::time::{Duration, Instant};

/// The first time that it is worth a line.
const FIRST: Duration = Duration::from_secs(2);

/// Follows the answers of a run.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Answers so far.
    answers: u64,
    /// Since when something has been asked for without an answer.
    since: Option<Instant>,
    /// How long the silence was when it was last told. Zero: not told yet.
    told: Duration,
}

impl Silence {
    /// Takes the number of all answers so far; `asks`: an answer is waited for. Returns how long
    /// none has come. Once something was asked for, only an answer ends the silence: between two
    /// openings that time out nothing may be asked for.
    pub(super) fn look(&mut self, answers: u64, asks: bool, now: Instant) -> Duration {
        if answers != self.answers {
            *self = Self { answers, since: None, told: Duration::ZERO };
        }
        if self.since.is_none() && asks {
            self.since = Some(now);
        }
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether to tell of a silence this long: after [`FIRST`], or one `timeout` if that is
    /// shorter, and then each time that it has doubled.
    pub(super) fn is_due(&mut self, silent: Duration, timeout: Duration) -> bool {
        let due = match self.told {
            Duration::ZERO => FIRST.min(timeout),
            told => told.saturating_mul(2),
        };
        let is_due = silent >= due;
        if is_due {
            self.told = silent;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_ends_the_silence() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        let mut silence = Silence::default();
        assert_eq!(silence.look(0, false, at(0)), seconds(0), "nothing is asked for");
        assert_eq!(silence.look(0, true, at(5)), seconds(0));
        assert_eq!(silence.look(0, false, at(7)), seconds(2), "between two openings");
        assert_eq!(silence.look(0, true, at(15)), seconds(10));
        assert_eq!(silence.look(1, true, at(16)), seconds(0));
        assert_eq!(silence.look(1, true, at(18)), seconds(2));
        assert_eq!(silence.look(3, false, at(19)), seconds(0));
        assert_eq!(silence.look(3, false, at(99)), seconds(0));
    }

    #[test]
    fn it_is_told_less_and_less_often() {
        let mut silence = Silence::default();
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let told: Vec<u64> = (0..40)
            .filter(|second| {
                let silent = silence.look(0, true, start + Duration::from_secs(*second));
                silence.is_due(silent, timeout)
            })
            .collect();
        assert_eq!(told, [2, 4, 8, 16, 32]);
        silence.look(1, true, start);
        assert!(!silence.is_due(Duration::from_millis(900), timeout));
        assert!(silence.is_due(Duration::from_millis(900), Duration::from_millis(500)));
    }
}
