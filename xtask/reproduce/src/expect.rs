//! The number of the connection at which a limit must be crossed, from the plan alone.

/// The first connection with which more than `limit_pages` are charged, when `connections` of them get `planned_pages`
/// spread evenly (error diffusion: the first n together have ⌊n · planned / connections⌋). `None`: the plan never gets there.
#[must_use]
pub(super) fn crossing(
    limit_pages: u64,
    baseline_pages: u64,
    planned_pages: u64,
    connections: u64,
) -> Option<u64> {
    // Crossed means above the limit, so one page more than it (net/core/sock.c, __sk_mem_raise_allocated, 6.18).
    let missing = (u128::from(limit_pages) + 1).saturating_sub(u128::from(baseline_pages));
    if planned_pages == 0 {
        return None;
    }
    let first = (missing * u128::from(connections)).div_ceil(u128::from(planned_pages));
    u64::try_from(first).ok().filter(|first| *first <= connections)
}

/// Of what sockstat says before anything is queued, the part that must really be there.
///
/// The kernel keeps up to `reserve` pages of its counter outside of it, by CPU, with either sign (include/net/proto_memory.h,
/// `sk_memory_allocated_add`, since 6.0). On a host whose sockets hold nothing the counter shows such a residue, not memory.
#[must_use]
pub(super) fn baseline(sockstat_pages: u64, reserve_pages: u64) -> u64 {
    sockstat_pages.saturating_sub(reserve_pages)
}

/// How far `actual` is from `expected`, in percent of it.
#[must_use]
pub(super) fn error_percent(actual: u64, expected: u64) -> f64 {
    100.0 * as_f64(actual.abs_diff(expected)) / as_f64(expected.max(1))
}

/// How many connections `actual` may be off: half a percent, or what the kernel's reserve explains, which is more at a small scale.
#[must_use]
pub(super) fn tolerance(
    expected: u64,
    reserve_pages: u64,
    planned_pages: u64,
    connections: u64,
) -> u64 {
    let reserve = u128::from(reserve_pages) * u128::from(connections);
    let reserve = reserve.div_ceil(u128::from(planned_pages.max(1)));
    u64::try_from(reserve).unwrap_or(u64::MAX).max(expected / 200)
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes of one host are far below 2^52")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,024,000 connections of 1.8825 pages, as 7.53 KiB are.
    const PLANNED: u64 = 1_927_680;

    #[test]
    fn the_article_crosses_high_at_990_650() {
        let at = |limit| crossing(limit, 0, PLANNED, 1_024_000);
        assert_eq!(at(1_864_896), Some(990_650));
        assert_eq!(at(1_243_264), Some(660_433));
        assert_eq!(at(932_448), Some(495_325));
        // The cure is never reached.
        assert_eq!(at(2_097_152), None);
        // With the pin as a whole number of bytes it is a few connections earlier.
        assert_eq!(crossing(1_864_896, 0, 1_024_000 * 7_711 / 4_096, 1_024_000), Some(990_614));
    }

    #[test]
    fn it_is_the_first_connection_above() {
        for (limit, baseline, planned, connections) in
            [(10, 0, 30, 16), (29_139, 17, 30_121, 16_000), (7, 3, 16, 16), (0, 0, 1, 9)]
        {
            let charged = |n: u64| baseline + n * planned / connections;
            let n = crossing(limit, baseline, planned, connections).unwrap();
            assert!(charged(n) > limit, "{n} is not above {limit}");
            assert!(charged(n - 1) <= limit, "{} is above {limit} already", n - 1);
        }
    }

    #[test]
    fn the_edges_have_an_answer() {
        assert_eq!(crossing(10, 0, 0, 1_000), None);
        assert_eq!(crossing(10, 0, 10, 1_000), None);
        assert_eq!(crossing(10, 0, 11, 1_000), Some(1_000));
        // Above the limit before the first one came.
        assert_eq!(crossing(10, 11, 100, 1_000), Some(0));
        assert_eq!(crossing(u64::MAX, 0, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_residue_is_no_baseline() {
        assert_eq!(baseline(275, 510), 0);
        assert_eq!(baseline(10_510, 510), 10_000);
    }

    #[test]
    fn half_a_percent_or_the_reserve() {
        assert_eq!(tolerance(990_650, 510, PLANNED, 1_024_000), 4_953);
        // 510 pages are 271 connections, which is more than 77.
        assert_eq!(tolerance(15_479, 510, 30_120, 16_000), 271);
        assert!((error_percent(15_400, 15_479) - 0.510_36).abs() < 1e-4);
        assert!(error_percent(7, 7).abs() < f64::EPSILON);
    }
}
