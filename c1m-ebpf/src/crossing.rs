//! tcp_mem usage and its limits: four zones, and which changes of the zone are reported.

use crate::RateWindow;

/// Reported crossings per second, and reported changes of memory pressure per second. The first
/// time that usage reaches a zone is reported in any case.
pub const CROSSINGS_PER_SECOND: u64 = 16;

/// How many of the limits low, pressure and high `pages` is above, as the kernel compares
/// (`allocated > limit`).
#[inline(always)]
#[must_use]
pub const fn zone(pages: u64, tcp_mem: &[u64; 3]) -> u64 {
    // From high down: limits in a nonsensical order still give one answer.
    if pages > tcp_mem[2] {
        3
    } else if pages > tcp_mem[1] {
        2
    } else if pages > tcp_mem[0] {
        1
    } else {
        0
    }
}

/// Usage is in another zone: is that reported? `Some`: yes, and this is the window afterwards.
/// `None`: no, it is counted as suppressed.
#[inline(always)]
#[must_use]
pub fn with_crossing(
    zone: u64,
    highest_zone: u64,
    window: RateWindow,
    now_ns: u64,
) -> Option<RateWindow> {
    let window = window.at(now_ns);
    (zone > highest_zone || window.has_room(CROSSINGS_PER_SECOND)).then(|| window.with_one())
}
