//! Which events are sent up as examples: a token bucket per kind and place, so that a kind that is seldom, or a place that is quiet, is never
//! left out for the sake of another one.

/// Events of a kind and place that are sent one after the other; each later one takes a token.
pub const EXAMPLES: u64 = 8;
/// A token comes back after this time.
pub const EXAMPLE_EVERY_NS: u64 = 10_000_000_000;
/// Of a kind, whatever the place: many places can have their first examples at the same time.
pub const EXAMPLES_PER_SECOND: u64 = 16;
/// Kinds and places that are told apart: of more, the least recent ones are forgotten, and begin with all their tokens.
pub const EXAMPLE_PLACES: u32 = 1024;

const SECOND_NS: u64 = 1_000_000_000;

/// What is counted together: the key of a map, so without implicit padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// `EXAMPLE_*`
    pub kind: u32,
    /// Inode of the network namespace; 0: of none
    pub netns: u32,
    /// Within it: the cgroup of a refused or aborted socket, the port of a listener, the process of a failed call
    pub within: u64,
}

/// Tokens of one kind and place. Written without a lock: two CPUs at once may send one more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub tokens: u64,
    /// CLOCK_MONOTONIC: up to when tokens have come back
    pub since_ns: u64,
}

impl Bucket {
    #[inline(always)]
    #[must_use]
    pub fn full(now_ns: u64) -> Self {
        Self { tokens: EXAMPLES, since_ns: now_ns }
    }

    /// With what has come back by now.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now_ns: u64) -> Self {
        // Another CPU's time can be ahead.
        let elapsed = now_ns.saturating_sub(self.since_ns);
        let back = elapsed / EXAMPLE_EVERY_NS;
        if self.tokens + back >= EXAMPLES {
            return Self::full(now_ns);
        }
        Self { tokens: self.tokens + back, since_ns: self.since_ns + back * EXAMPLE_EVERY_NS }
    }

    /// Without one token.
    #[inline(always)]
    #[must_use]
    pub fn less_one(self) -> Self {
        Self { tokens: self.tokens.saturating_sub(1), ..self }
    }
}

/// Examples of one kind in this second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub start_ns: u64,
    pub sent: u64,
}

impl Second {
    /// As of now: nothing was sent in a new one.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now_ns: u64) -> Self {
        if now_ns.saturating_sub(self.start_ns) >= SECOND_NS {
            Self { start_ns: now_ns, sent: 0 }
        } else {
            self
        }
    }

    #[inline(always)]
    #[must_use]
    pub fn has_room(self) -> bool {
        self.sent < EXAMPLES_PER_SECOND
    }
}
