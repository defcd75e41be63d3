//! Labels that do not lie on each other.

/// What a text covers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    fn touches(&self, other: &Self) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && self.top < other.top + other.height
            && other.top < self.top + self.height
    }

    fn is_inside(&self, frame: &Self) -> bool {
        self.left >= frame.left
            && self.top >= frame.top
            && self.left + self.width <= frame.left + frame.width
            && self.top + self.height <= frame.top + frame.height
    }
}

/// Height of a line of text, and about the width of one of its characters in a system font.
pub(super) const LINE: f64 = 15.0;
pub(super) const CHARACTER: f64 = 6.7;
/// From the line's top to its base.
const BASE: f64 = 11.5;

/// How wide a text is, about.
pub(super) fn width(text: &str) -> f64 {
    super::as_f64(text.chars().count() as u64) * CHARACTER
}

/// Everything that was placed so far.
#[derive(Debug)]
pub(super) struct Labels {
    frame: Area,
    taken: Vec<Area>,
}

impl Labels {
    pub(super) fn new(frame: Area) -> Self {
        Self { frame, taken: Vec::new() }
    }

    /// Nothing may be written here.
    pub(super) fn take(&mut self, area: Area) {
        self.taken.push(area);
    }

    /// Nothing is written over this line either.
    pub(super) fn avoid(&mut self, line: &[(f64, f64)]) {
        const STEP: f64 = 6.0;
        for ends in line.windows(2) {
            let ((from_x, from_y), (to_x, to_y)) = (ends[0], ends[1]);
            let (right, down) = (to_x - from_x, to_y - from_y);
            let steps = (right.hypot(down) / STEP).ceil().clamp(1.0, 1000.0);
            for step in 0..super::axis::rounded(steps) {
                let part = super::as_f64(step) / steps;
                let (left, top) = (from_x + part * right - 1.0, from_y + part * down - 1.0);
                self.take(Area { left, top, width: 2.0, height: 2.0 });
            }
        }
    }

    /// Where a text beside `x`, `y` begins and has its base line, at one of `places` (offsets of
    /// its left top corner); `None`: there is no room for it.
    pub(super) fn put(
        &mut self,
        text: &str,
        x: f64,
        y: f64,
        places: &[(f64, f64)],
    ) -> Option<(f64, f64)> {
        let width = width(text);
        let area = places
            .iter()
            .map(|(right, down)| Area { left: x + right, top: y + down, width, height: LINE })
            .find(|area| {
                area.is_inside(&self.frame) && !self.taken.iter().any(|taken| taken.touches(area))
            })?;
        self.taken.push(area);
        Some((area.left, area.top + BASE))
    }
}

/// Beside a mark: to its left and right, above and below, then further away, up and down first.
pub(super) fn beside(text: &str) -> Vec<(f64, f64)> {
    let places = [0.0, 3.0 * LINE].into_iter().flat_map(|aside| {
        let (left, right) = (-width(text) - 9.0 - aside, 9.0 + aside);
        [0.0, LINE, 2.0 * LINE].into_iter().flat_map(move |away| {
            let (above, below) = (-LINE - 3.0 - away, 4.0 + away);
            [(left, above), (right, below), (right, above), (left, below)]
        })
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_lies_on_another() {
        let frame = Area { left: 0.0, top: 0.0, width: 300.0, height: 200.0 };
        let mut labels = Labels::new(frame);
        let put = |labels: &mut Labels| {
            labels.put("connection 990,013", 150.0, 100.0, &beside("connection 990,013"))
        };
        let placed: Vec<_> = std::iter::from_fn(|| put(&mut labels)).collect();
        assert!((4..=24).contains(&placed.len()), "{placed:?}");
        for (index, area) in labels.taken.iter().enumerate() {
            assert!(area.is_inside(&frame));
            assert!(!labels.taken[..index].iter().any(|other| other.touches(area)));
        }
    }

    #[test]
    fn what_has_no_room_is_not_written() {
        let frame = Area { left: 0.0, top: 0.0, width: 30.0, height: 200.0 };
        assert_eq!(Labels::new(frame).put("connection 990,013", 15.0, 100.0, &beside("x")), None);
    }
}
