//! Rate limits of events: token buckets for examples, and windows of one second.
//!
//! Every refusal, overflow and failed call is counted; only some are sent as examples. Each kind
//! and scope has a token bucket of its own, so a rare kind or a quiet cgroup is never crowded out.

/// Examples that a kind and scope may send in a row: the size of a full bucket.
pub const EXAMPLES: u64 = 8;
/// A bucket gets one token back per this many nanoseconds.
pub const EXAMPLE_EVERY_NS: u64 = 10_000_000_000;
/// Examples of one kind per second, over all scopes: many scopes can have full buckets at once.
pub const EXAMPLES_PER_SECOND: u64 = 16;
/// Buckets that exist at once. With more kinds and scopes, the least recently used bucket is
/// replaced, and starts full when its scope comes back.
pub const EXAMPLE_KEYS: u32 = 1024;

const SECOND_NS: u64 = 1_000_000_000;

/// The kind of an example and where it was observed. The key of a map: no implicit padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExampleKey {
    /// `EXAMPLE_*`
    pub kind: u32,
    /// Inode of the network namespace; 0: none
    pub netns: u32,
    /// The cgroup of a refused or aborted socket, the port of a listener, or the process of a
    /// failed call
    pub scope: u64,
}

/// The tokens of one kind and scope. Updated without a lock: two CPUs at once may spend one token
/// twice.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub tokens: u64,
    /// CLOCK_MONOTONIC: tokens have been given back up to this time
    pub since_ns: u64,
}

impl Bucket {
    #[inline(always)]
    #[must_use]
    pub fn full(now_ns: u64) -> Self {
        Self { tokens: EXAMPLES, since_ns: now_ns }
    }

    /// With the tokens that have come back by `now_ns`.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now_ns: u64) -> Self {
        // The clock of another CPU can be ahead.
        let elapsed = now_ns.saturating_sub(self.since_ns);
        let back = elapsed / EXAMPLE_EVERY_NS;
        if self.tokens + back >= EXAMPLES {
            return Self::full(now_ns);
        }
        Self { tokens: self.tokens + back, since_ns: self.since_ns + back * EXAMPLE_EVERY_NS }
    }

    /// With one token less.
    #[inline(always)]
    #[must_use]
    pub fn less_one(self) -> Self {
        Self { tokens: self.tokens.saturating_sub(1), ..self }
    }
}

/// Events that were sent in one second. Updated without a lock: two CPUs at once may send one more
/// than the limit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// CLOCK_MONOTONIC
    pub start_ns: u64,
    pub sent: u64,
}

impl RateWindow {
    /// As of `now_ns`: empty when its second is over.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now_ns: u64) -> Self {
        // Saturating: the clock of the CPU that started the window can be ahead.
        if now_ns.saturating_sub(self.start_ns) >= SECOND_NS {
            Self { start_ns: now_ns, sent: 0 }
        } else {
            self
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn has_room(self, limit: u64) -> bool {
        self.sent < limit
    }

    /// With one event more.
    #[inline(always)]
    #[must_use]
    pub fn with_one(self) -> Self {
        Self { sent: self.sent + 1, ..self }
    }
}
