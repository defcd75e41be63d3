//! The wall clock, as cheap as it is had.

use std::io;

/// Seconds since 1970, up to a timer interrupt (1 to 10 ms) late: CLOCK_REALTIME_COARSE, which
/// needs no system call whatever clock the machine has (man 7 vdso).
pub fn wall_seconds() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills a local of the right type.
    super::check(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut time) })?;
    u64::try_from(time.tv_sec).map_err(|_| io::Error::other("CLOCK_REALTIME is before 1970"))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_clock_is_that_of_everybody_else() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (before, read, after) = (now(), wall_seconds().unwrap(), now());
        assert!((before - 1..=after).contains(&read), "{before} {read} {after}");
    }
}
