//! A sample of usage and memory pressure at a time of our choice, and the count of what was there
//! before us.

use std::{fs::File, io, io::Read as _, path::PathBuf};

use aya::{Ebpf, programs::Iter};
use c1m_ebpf::Shared;
use c1m_sys::confine::enter_network;
use socket2::{Domain, Socket, Type};

use super::decode::known_tick_rate;
use crate::chain;

const PROGRAM: &str = "count_established";
/// The function of the kernel that stands for the iterator.
pub(super) const TYPE_NAME: &str = "bpf_iter_tcp";

/// What the kernel's own variables held at that moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// CLOCK_MONOTONIC
    pub at_ns: u64,
    pub pages: u64,
    /// low, pressure, high, in pages
    pub tcp_mem: [u64; 3],
    pub pressure: Option<PressureAge>,
}

/// The kernel is under memory pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PressureAge {
    /// Since when; `None`: its tick is not known.
    pub ms: Option<f64>,
}

impl Sample {
    pub(super) fn of(shared: &Shared) -> Self {
        let since = shared.sample_pressure_since_jiffies;
        // Also without pressure: at a later sample the clocks may not give it.
        let rate = known_tick_rate(shared.sample_jiffies, shared.sample_ktime_ns);
        let pressure = (since != 0).then(|| {
            let ticks = u32::try_from(shared.sample_jiffies.wrapping_sub(since)).ok();
            PressureAge {
                ms: ticks
                    .zip(rate)
                    .map(|(ticks, rate)| f64::from(ticks) * 1000.0 / f64::from(rate)),
            }
        });
        Self {
            at_ns: shared.sample_ktime_ns,
            pages: shared.sample_pages,
            tcp_mem: shared.sample_tcp_mem,
            pressure,
        }
    }
}

/// Has the kernel run the program of tcp_destroy_sock, by a socket that ends without ever having
/// had a peer.
///
/// # Errors
/// No descriptor is left, or the host has no TCP.
pub(super) fn provoke() -> io::Result<()> {
    // Its end is the system call's: when this returns the program has run.
    Socket::new(Domain::IPV4, Type::STREAM, None).map(drop)
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Own,
    /// A file such as /proc/PID/ns/net; entering it needs CAP_SYS_ADMIN.
    Of(PathBuf),
}

/// Has the kernel count the connections that are there already in each of these, once the programs
/// count those that come: what is opened or closed meanwhile may be counted twice or not at all.
pub(super) fn count_present(
    ebpf: &mut Ebpf,
    kernel_types: &aya::Btf,
    places: &[Place],
) -> Result<(), String> {
    let program: &mut Iter = ebpf
        .program_mut(PROGRAM)
        .ok_or("the object has no such program: build it by `cargo xtask build-ebpf`")?
        .try_into()
        .map_err(|error| chain(&error))?;
    program.load("tcp", kernel_types).map_err(|error| chain(&error))?;
    let counted = places.iter().try_for_each(|place| count_in(program, place));
    // It is of no further use.
    let _ = program.unload();
    counted
}

fn count_in(program: &mut Iter, place: &Place) -> Result<(), String> {
    let link = program.attach().map_err(|error| chain(&error))?;
    let link = program.take_link(link).map_err(|error| chain(&error))?;
    // The iterator is of the network namespace in which it is made.
    let open = move || link.into_file().map_err(|error| chain(&error));
    let iterator = match place {
        Place::Own => open()?,
        Place::Of(path) => {
            let namespace =
                File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let entered = std::thread::spawn(move || {
                enter_network(&namespace).map_err(|error| error.to_string())?;
                open()
            });
            entered.join().map_err(|_| "the thread panicked".to_owned())??
        }
    };
    run(iterator).map_err(|error| error.to_string())
}

/// Reads to the end, where nothing stands. The kernel pauses after a million objects without any
/// output (kernel/bpf/bpf_iter.c, MAX_ITER_OBJECTS, 6.18).
fn run(mut iterator: File) -> io::Result<()> {
    let mut nothing = [0; 64];
    loop {
        match iterator.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_an_age_in_the_kernels_ticks() {
        // An hour after the start, at 250 ticks a second.
        let jiffies = (1u64 << 32) - 300 * 250 + 3600 * 250;
        let shared = Shared {
            sample_pages: 5,
            sample_tcp_mem: [1, 2, 3],
            sample_jiffies: jiffies,
            sample_pressure_since_jiffies: jiffies - 500,
            sample_ktime_ns: 3600 * 1_000_000_000,
            ..Shared::default()
        };
        let sample = Sample::of(&shared);
        assert_eq!((sample.pages, sample.tcp_mem), (5, [1, 2, 3]));
        assert_eq!(sample.pressure, Some(PressureAge { ms: Some(2000.0) }));
        let none = Sample::of(&Shared { sample_pressure_since_jiffies: 0, ..shared });
        assert_eq!(none.pressure, None);
        // No tick rate fits both clocks, and the kernel's was known before.
        let odd = Sample::of(&Shared { sample_ktime_ns: 1, ..shared });
        assert_eq!(odd.pressure, Some(PressureAge { ms: Some(2000.0) }));
    }
}
