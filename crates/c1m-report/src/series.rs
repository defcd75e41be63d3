//! What was read once an interval, in bounded memory.

/// Points that are kept: more than a plot is wide.
pub(super) const POINTS: usize = 1024;

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Microseconds since 1970, UTC.
    pub(super) at: u64,
    pub(super) connections: Option<u64>,
    /// Pages of tcp_mem.
    pub(super) pages: Option<u64>,
}

impl Point {
    fn height(&self) -> Option<u64> {
        self.pages.or(self.connections)
    }
}

/// Readings in the order in which they came. Of too many the highest and the lowest of each stretch
/// are kept, so that no peak is lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    points: Vec<Point>,
    /// All that there were.
    pub(super) seen: u64,
}

impl Series {
    pub(super) fn push(&mut self, point: Point) {
        self.seen += 1;
        self.points.push(point);
        if self.points.len() > POINTS {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let last = self.points.pop();
        self.points = self.points.chunks(4).flat_map(extremes).collect();
        self.points.extend(last);
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }
}

/// The lowest and the highest of a few, in their order.
fn extremes(few: &[Point]) -> Vec<Point> {
    let lowest = (0..few.len()).min_by_key(|at| few[*at].height());
    // The last of equals, so that a flat stretch keeps both its ends.
    let highest = (0..few.len()).max_by_key(|at| few[*at].height());
    match (lowest, highest) {
        (Some(lowest), Some(highest)) if lowest == highest => vec![few[lowest]],
        (Some(lowest), Some(highest)) => {
            vec![few[lowest.min(highest)], few[lowest.max(highest)]]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_million_readings_the_peaks_stay() {
        let mut series = Series::default();
        for at in 0..1_000_000 {
            let pages = if at == 654_321 { 1_000_000 } else { at % 1000 };
            series.push(Point { at, connections: Some(at), pages: Some(pages) });
        }
        assert_eq!(series.seen, 1_000_000);
        let points = series.points();
        assert!((POINTS / 2..=POINTS).contains(&points.len()), "{}", points.len());
        assert!(points.iter().any(|point| point.pages == Some(1_000_000)));
        assert!(points.is_sorted_by_key(|point| point.at));
        assert_eq!(points.last().unwrap().at, 999_999);
        assert!(points[0].at < 1000);
    }

    #[test]
    fn few_are_kept_as_they_are() {
        let mut series = Series::default();
        for at in 0..5 {
            series.push(Point { at, connections: None, pages: None });
        }
        assert_eq!(series.points().len(), 5);
    }
}
