//! Which part of a run this host has, from `--shard` alone: every host comes to the same division
//! without asking another one.

use std::{fmt, ops::Range, str::FromStr};

/// More hosts than anybody has, few enough to look at each part.
const MOST: u64 = 100_000;

/// Part `index` of `of` equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    of: u64,
}

impl Shard {
    /// A run of one host.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// `None`: there is no such part.
    #[must_use]
    pub fn new(index: u64, of: u64) -> Option<Self> {
        (index < of && of <= MOST).then_some(Self { index, of })
    }

    #[must_use]
    pub fn index(self) -> u64 {
        self.index
    }

    #[must_use]
    pub fn of(self) -> u64 {
        self.of
    }

    /// All parts of the run, this one among them.
    pub fn all(self) -> impl Iterator<Item = Self> {
        (0..self.of).map(move |index| Self { index, of: self.of })
    }

    /// This part of `total` things. The parts are equal to within one, and cover all of them once.
    #[must_use]
    pub fn share(self, total: u64) -> Range<u64> {
        let wide = self.share_wide(total.into());
        // Not above `total`.
        let narrow = |bound| u64::try_from(bound).unwrap_or(total);
        narrow(wide.start)..narrow(wide.end)
    }

    /// As [`Self::share`], of more things than 64 bits can count.
    #[must_use]
    pub fn share_wide(self, total: u128) -> Range<u128> {
        let bound = |index: u64| {
            // Of quotient and remainder: the product with the whole number could be too large.
            let (each, left) = (total / u128::from(self.of), total % u128::from(self.of));
            u128::from(index) * each + u128::from(index) * left / u128::from(self.of)
        };
        bound(self.index)..bound(self.index + 1)
    }

    /// How many of `total` things are of this part.
    #[must_use]
    pub fn count(self, total: u64) -> u64 {
        let share = self.share(total);
        share.end - share.start
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            // Not what `parse` takes besides: a sign.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let parts = text.split_once('/').and_then(|(i, n)| Some((number(i)?, number(n)?)));
        let Some((index, of)) = parts else {
            return Err(
                "use I/N, the number of this part and how many there are, such as 0/4".into()
            );
        };
        if of > MOST {
            return Err(format!("{of} parts are more than {MOST}"));
        }
        Self::new(index, of).ok_or_else(|| match of.checked_sub(1) {
            Some(last) => format!("parts are counted from 0: the last one is {last}/{of}"),
            None => "there is at least one part: 0/1".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_counted_from_nought() {
        let shard: Shard = "3/8".parse().unwrap();
        assert_eq!((shard.index(), shard.of(), shard.to_string()), (3, 8, "3/8".into()));
        assert_eq!("0/1".parse(), Ok(Shard::WHOLE));
        for (text, said) in [
            ("8/8", "the last one is 7/8"),
            ("0/0", "at least one"),
            ("0/100001", "more than 100000"),
            ("1", "such as 0/4"),
            ("-1/4", "such as 0/4"),
            ("+1/4", "such as 0/4"),
            ("1/4/4", "such as 0/4"),
            ("/4", "such as 0/4"),
            ("", "such as 0/4"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parts_cover_everything_once_and_evenly(total: u64, of in 1u64..400) {
            let mut next = 0;
            for shard in Shard::new(0, of).unwrap().all() {
                let share = shard.share(total);
                prop_assert_eq!(share.start, next);
                let count = share.end - share.start;
                prop_assert!((total / of..=total.div_ceil(of)).contains(&count));
                prop_assert_eq!(shard.count(total), count);
                next = share.end;
            }
            prop_assert_eq!(next, total);
        }

        #[test]
        fn large_numbers_are_divided_as_small_ones(total: u128, of in 1u64..=MOST) {
            let first = Shard::new(0, of).unwrap().share_wide(total);
            let last = Shard::new(of - 1, of).unwrap().share_wide(total);
            prop_assert_eq!((first.start, last.end), (0, total));
            prop_assert!((last.end - last.start).abs_diff(first.end - first.start) <= 1);
        }
    }
}
