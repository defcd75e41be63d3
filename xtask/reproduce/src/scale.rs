//! The article's figures, and how they shrink to the connections that a host can hold.

use c1m_limits::footprint::{self, Sizes};
use c1m_record::Role;

/// Connections of the article: 16 source addresses of 64,000 each.
pub(super) const ARTICLE_CONNECTIONS: u64 = 1_024_000;
/// Bytes of a page of the article's server.
pub(super) const ARTICLE_PAGE_BYTES: u64 = 4_096;
/// `tcp_mem` of the article's server as it came, in pages: low, pressure, high.
pub(super) const ARTICLE_DEFAULT: [u64; 3] = [932_448, 1_243_264, 1_864_896];
/// `tcp_mem` with which the article reached its goal, in pages.
pub(super) const ARTICLE_CURE: [u64; 3] = [786_432, 2_097_152, 3_145_728];
/// What one connection cost in the article, and what act 1 and 2 therefore pin in each, as the client takes it.
pub(super) const PIN: &str = "7.53K";

const PIN_BYTES: u64 = 7_711;
/// What the rest of the host needs to stay responsive.
const SPARE_BYTES: u64 = 192 << 20;
/// Fewer connections than this would be lost in the kernel's per-CPU reserve.
pub(super) const CONNECTIONS_MIN: u64 = 1_000;

/// The article's `tcp_mem` by the factor of the connections, as many bytes in pages of this size, rounded down to whole ones.
#[must_use]
pub(super) fn tcp_mem(article: [u64; 3], connections: u64, page_bytes: u64) -> [u64; 3] {
    article.map(|pages| {
        let bytes = u128::from(pages) * u128::from(ARTICLE_PAGE_BYTES);
        let of = u128::from(ARTICLE_CONNECTIONS) * u128::from(page_bytes.max(1));
        let scaled = bytes * u128::from(connections) / of;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    })
}

/// Memory for both ends of so many connections, with their pinned bytes and 5 % for what is in flight, in bytes.
#[must_use]
pub fn need_bytes(connections: u64, page_bytes: u64) -> u64 {
    let queued = footprint::payload_of(PIN_BYTES, page_bytes);
    let need = footprint::need(&Sizes::default(), Role::Both, false, connections, queued);
    (need.bytes / 20 * 21).saturating_add(SPARE_BYTES)
}

/// What sockets of so many connections have queued, in bytes: a limit of its own in version 1 of memory cgroups.
#[must_use]
pub(super) fn queued_bytes(connections: u64) -> u64 {
    connections.saturating_mul(PIN_BYTES) / 20 * 21
}

/// The largest power-of-two fraction of the article's connections that so much memory holds, and that may queue so many bytes in sockets.
#[must_use]
pub(super) fn auto(available_bytes: u64, sockets_bytes: u64, page_bytes: u64) -> Option<u64> {
    (0..)
        .map(|power| ARTICLE_CONNECTIONS >> power)
        .take_while(|connections| *connections >= CONNECTIONS_MIN)
        .filter(|connections| queued_bytes(*connections) <= sockets_bytes)
        .find(|connections| need_bytes(*connections, page_bytes) <= available_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect;

    #[test]
    fn the_pin_is_what_the_client_is_told() {
        assert_eq!(c1m_text::units::parse_bytes(PIN), Ok(PIN_BYTES));
    }

    #[test]
    fn limits_shrink_with_the_connections() {
        let tcp_mem = |article, connections| tcp_mem(article, connections, 4_096);
        assert_eq!(tcp_mem(ARTICLE_DEFAULT, ARTICLE_CONNECTIONS), ARTICLE_DEFAULT);
        assert_eq!(tcp_mem(ARTICLE_DEFAULT, 16_000), [14_569, 19_426, 29_139]);
        assert_eq!(tcp_mem(ARTICLE_CURE, 512_000), [393_216, 1_048_576, 1_572_864]);
        assert_eq!(tcp_mem(ARTICLE_CURE, 2_048_000), ARTICLE_CURE.map(|pages| 2 * pages));
    }

    /// The plan of a whole run with larger pages: the limits are as many bytes, and are met by as many connections.
    #[test]
    fn limits_are_met_by_as_many_connections_with_pages_of_any_size() {
        let planned = |page: u64| {
            let pages = ARTICLE_CONNECTIONS * PIN_BYTES / page;
            let limits = tcp_mem(ARTICLE_DEFAULT, ARTICLE_CONNECTIONS, page);
            limits.map(|limit| {
                expect::crossing(limit, 0, pages, ARTICLE_CONNECTIONS).unwrap_or(u64::MAX)
            })
        };
        assert_eq!(
            tcp_mem(ARTICLE_DEFAULT, ARTICLE_CONNECTIONS, 65_536),
            [58_278, 77_704, 116_556]
        );
        for (small, large) in planned(4_096).into_iter().zip(planned(65_536)) {
            assert!(large < ARTICLE_CONNECTIONS && small.abs_diff(large) < 20, "{small} {large}");
        }
        let cure = tcp_mem(ARTICLE_CURE, ARTICLE_CONNECTIONS, 65_536)[1];
        let pages = ARTICLE_CONNECTIONS * PIN_BYTES / 65_536;
        assert_eq!(expect::crossing(cure, 0, pages, ARTICLE_CONNECTIONS), None);
    }

    #[test]
    fn auto_takes_the_largest_fraction_that_fits() {
        for page in [4_096, 65_536] {
            let need_bytes = |connections| need_bytes(connections, page);
            let auto = |available, sockets| auto(available, sockets, page);
            let of_memory = |available_bytes| auto(available_bytes, u64::MAX);
            assert_eq!(of_memory(need_bytes(1_024_000)), Some(1_024_000));
            assert_eq!(of_memory(need_bytes(1_024_000) - 1), Some(512_000));
            assert_eq!(of_memory(u64::MAX), Some(1_024_000));
            assert_eq!(of_memory(need_bytes(1_000)), Some(1_000));
            assert_eq!(of_memory(need_bytes(1_000) - 1), None);
            assert_eq!(of_memory(0), None);
            assert_eq!(auto(u64::MAX, queued_bytes(64_000)), Some(64_000));
            assert_eq!(auto(need_bytes(1_000), queued_bytes(64_000)), Some(1_000));
            assert_eq!(auto(u64::MAX, 0), None);
        }
    }
}
