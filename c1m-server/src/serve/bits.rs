//! One bit a descriptor.

/// A set of small numbers; as large as the highest one that was ever in it.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn set(&mut self, index: usize) {
        let word = index / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }

    /// Takes `index` out, and says whether it was in.
    pub(super) fn take(&mut self, index: usize) -> bool {
        let Some(word) = self.0.get_mut(index / 64) else { return false };
        let bit = 1 << (index % 64);
        let was_set = *word & bit != 0;
        *word &= !bit;
        was_set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_taken_once() {
        let mut bits = Bits::default();
        assert!(!bits.take(1000));
        for index in [0, 63, 64, 1000] {
            bits.set(index);
        }
        assert!(!bits.take(1) && !bits.take(999));
        for index in [0, 63, 64, 1000] {
            assert!(bits.take(index), "{index}");
            assert!(!bits.take(index), "{index}");
        }
    }
}
