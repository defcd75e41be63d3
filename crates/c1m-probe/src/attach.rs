//! Loads the object, attaches each hook by itself, and says why one is refused.

use std::{borrow::Cow, fs, io, os::fd::AsFd as _, time::SystemTime};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, RingBuf},
};
use c1m_btf::Btf;
use c1m_ebpf::{ABSENT, Config, Counters, HOOK_DROP, Layout, Shared};
use c1m_record::Hook;
use c1m_sys::{process, readable::Readable};

use super::{
    Options, TraceError, calls, chain,
    counters::CounterMaps,
    decode::{Clocks, Observation, decode, held},
    layout,
    lost::{Descriptors, Lost, Skipped, taken_over},
    methods::Methods,
    plan,
    sample::{self, Place, Sample},
};

mod recount;

/// The object that `cargo xtask build-ebpf` made of the sources.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../c1m-ebpf/prebuilt/c1m.bpf.o");

/// The attached hooks. Dropping it detaches them.
pub struct Tracer {
    /// Holds the links.
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    ready: Readable,
    maps: CounterMaps,
    log: Option<super::log::KernelLog>,
    attached: Attached,
    /// In the order of [`Attached::hooks`]
    programs: Vec<Descriptors>,
    /// Whether what was there before was counted.
    present: Result<(), String>,
    /// Where it was.
    places: Vec<Place>,
    /// Births and ends that both programs were skipped for, and that a count of all has made good.
    recounted: u64,
    /// Connections opened and closed when that was last to be done.
    changes_seen: (u64, u64),
    undecoded: u64,
}

/// What is attached, and what the kernel's types let it tell.
#[derive(Debug, Clone)]
pub struct Attached {
    /// `HOOK_*`
    pub hooks: Vec<u32>,
    pub config: Config,
}

impl Attached {
    /// Is the program of this purpose (`HOOK_*`) attached, by whichever method?
    #[must_use]
    pub fn has(&self, hook: u32) -> bool {
        self.hooks.iter().any(|attached| plan::purpose(*attached) == hook)
    }

    /// Does kfree_skb name the socket that the segment was for?
    #[must_use]
    pub fn names_receiver(&self) -> bool {
        self.has(HOOK_DROP) && self.config.arguments[HOOK_DROP as usize].object != ABSENT
    }

    /// Does kfree_skb tell the end of a handshake that found the accept queue full?
    #[must_use]
    pub fn tells_listen_drops(&self) -> bool {
        self.has(HOOK_DROP) && self.config.drop_reason_listen_overflow != ABSENT
    }

    /// Is one of them on a kernel function?
    #[must_use]
    pub fn has_functions(&self) -> bool {
        self.hooks.iter().any(|hook| plan::is_of_functions(*hook))
    }
}

impl Tracer {
    /// Attaches what this kernel allows. The second value says, for every hook, whether and why
    /// not. Needs a tokio runtime.
    pub fn attach(options: &Options) -> Result<(Self, Vec<Hook>), TraceError> {
        check_privilege()?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(what, error)| io::Error::other(format!("{what}: {error}")))?;
        let (btf, layout, config) = {
            let btf = Btf::parse(
                fs::read(c1m_btf::PATH)
                    .map_err(|error| TraceError::NoBtf { path: c1m_btf::PATH, error })?,
            )
            .map_err(|error| TraceError::BadBtf { path: c1m_btf::PATH, error })?;
            let netns = options.netns.unwrap_or(0);
            let cpus = u32::try_from(cpus).map_err(io::Error::other)?;
            let (layout, config) =
                (layout::layout(&btf)?, layout::config(&btf, &options.ports, netns, cpus)?);
            (btf, layout, config)
        };
        let mut ebpf = load(options, &layout, &config)?;
        tell_calls(&mut ebpf)?;
        let maps = match (ebpf.map("COUNTERS"), ebpf.map("SHARED")) {
            (Some(Map::Array(counters)), Some(Map::Array(shared))) => {
                CounterMaps::new(counters.fd().as_fd(), shared.fd().as_fd(), cpus)?
            }
            _ => return Err(TraceError::Load("COUNTERS and SHARED are not arrays".into())),
        };
        let (hooks, (attached, programs), present) = {
            let mut methods = Methods::new(&mut ebpf, &btf, (&layout, &config), options)?;
            (methods.take_best()?, methods.attached(), methods.count_present(&maps))
        };
        drop(btf);

        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?)
            .map_err(|e| TraceError::Load(e.to_string()))?;
        let log = super::log::KernelLog::of(&mut ebpf)?;
        let tracer = Self {
            ebpf,
            ready: Readable::new(ring.as_fd())?,
            ring,
            maps,
            log,
            attached: Attached { hooks: attached, config },
            programs,
            present,
            places: options.present.clone().unwrap_or_default(),
            recounted: 0,
            changes_seen: (0, 0),
            undecoded: 0,
        };
        // The kernel's types took megabytes, which the server is measured without.
        process::trim_heap();
        Ok((tracer, hooks))
    }

    #[must_use]
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Where usage stands, and what has been highest.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.maps.shared()
    }

    /// Waits until the kernel has reported something.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.log {
            None => self.ready.wait().await,
            Some(log) => tokio::select! {
                ready = self.ready.wait() => ready,
                ready = log.readable() => ready,
            },
        }
    }

    /// Takes what the kernel has reported so far, in its order.
    pub fn drain(&mut self) -> io::Result<Vec<Observation>> {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let clocks = Clocks { wall: SystemTime::now(), monotonic_ns: process::monotonic_ns()? };
        let mut observations = Vec::new();
        while let Some(entry) = self.ring.next() {
            match decode(&entry, clocks) {
                Some(observation) => observations.push(observation),
                None => self.undecoded += 1,
            }
        }
        Ok(observations)
    }

    /// Connections established and not yet closed on the watched ports. Of those that were there
    /// before and were not counted then, only the end is: such a number below zero is 0 here.
    #[must_use]
    pub fn connections(&self) -> u64 {
        held(self.maps.shared().connections)
    }

    /// Whether [`Tracer::connections`] has those that were there before too; why not, in words.
    ///
    /// # Errors
    /// Nobody asked for it, or the kernel refused.
    pub fn counted_present(&self) -> Result<(), &str> {
        self.present.as_ref().copied().map_err(String::as_str)
    }

    /// Usage and memory pressure of this instant, from the kernel's own variables. `None`: the hook
    /// that tells is not there.
    #[must_use]
    pub fn sample(&self) -> Option<Sample> {
        let before = self.maps.shared().samples;
        sample::provoke().ok()?;
        let shared = self.maps.shared();
        (shared.samples != before).then(|| Sample::of(&shared))
    }

    /// Crossings, and beginnings and ends of memory pressure, that were counted without being
    /// reported.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        let shared = self.maps.shared();
        shared.suppressed + shared.pressure_suppressed
    }

    /// Examples that were counted without being reported.
    #[must_use]
    pub fn not_shown(&self) -> u64 {
        self.maps.shared().not_shown
    }

    /// What the kernel has counted, over all CPUs.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.maps.total()
    }

    /// What did not reach us. Complete only after [`Tracer::drain`].
    #[must_use]
    pub fn lost(&self) -> Lost {
        // /proc/self/fdinfo needs no capability, unlike BPF_OBJ_GET_INFO_BY_FD before 5.19.
        let skipped: Option<Vec<(u32, Skipped)>> = self
            .attached
            .hooks
            .iter()
            .zip(&self.programs)
            .map(|(hook, programs)| Some((*hook, programs.skipped()?)))
            .collect();
        // Afterwards, so that nothing is taken for lost that was taken over meanwhile.
        let (counters, shared) = (self.counters(), self.maps.shared());
        let missed = skipped.map(|skipped| {
            let lost = |(hook, skipped): &(u32, Skipped)| {
                (plan::hook_name(*hook), skipped.lost(taken_over(&counters, *hook)))
            };
            skipped.iter().map(lost).collect()
        });
        let ring: u64 = counters.dropped_events.iter().sum();
        Lost {
            ring: ring.saturating_sub(shared.dropped_crossings),
            crossings: shared.dropped_crossings,
            missed,
            undecoded: self.undecoded,
        }
    }
}

/// What loading needs, as bits and by name; CAP_SYS_ADMIN contains both:
/// include/uapi/linux/capability.h, since 5.8.
pub const CAPABILITIES: [(u32, &str); 2] = [(39, "CAP_BPF"), (38, "CAP_PERFMON")];

pub(super) fn check_privilege() -> Result<(), TraceError> {
    const CAP_SYS_ADMIN: u32 = 21;
    let effective = process::effective_capabilities()?;
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect();
    if missing.is_empty() || has(CAP_SYS_ADMIN) {
        // The kernel asks for them in the first user namespace (kernel/bpf/syscall.c,
        // bpf_map_create, 5.10 to 6.18).
        return match process::is_in_own_user_namespace() {
            true => Err(TraceError::UserNamespace),
            false => Ok(()),
        };
    }
    Err(TraceError::NotPermitted { missing: missing.join(" and ") })
}

fn load(options: &Options, layout: &Layout, config: &Config) -> Result<Ebpf, TraceError> {
    let bytes: Cow<'_, [u8]> = match &options.object {
        None => OBJECT.into(),
        Some(path) => {
            fs::read(path).map_err(|error| TraceError::Object { path: path.clone(), error })?.into()
        }
    };
    let mut loader = EbpfLoader::new();
    if let Some(bytes) = options.ring_bytes {
        loader.map_max_entries("EVENTS", bytes);
    }
    loader
        // aya's own look at the kernel's types is needed for relocations, and ours have none:
        // offsets are globals.
        .btf(None)
        .override_global("LAYOUT", layout.words(), true)
        .override_global("CONFIG", config.words(), true)
        .map_max_entries("COUNTERS", config.cpus)
        // Of calls in flight, which a CPU has few of; a map of the least recently used hands its
        // entries to CPUs by the dozen.
        .map_max_entries("ENTRY_ARGUMENTS", config.cpus.saturating_mul(256))
        .map_max_entries("COUNTED", config.cpus.saturating_mul(256))
        .load(&bytes)
        .map_err(|error| TraceError::Load(chain(&error)))
}

/// Tells the programs which number is which system call.
fn tell_calls(ebpf: &mut Ebpf) -> Result<(), TraceError> {
    let map = ebpf
        .map_mut("CALL_KINDS")
        .ok_or_else(|| TraceError::Load("the object has no map CALL_KINDS".into()))?;
    let mut kinds: Array<_, u32> =
        map.try_into().map_err(|error| TraceError::Load(chain(&error)))?;
    for (number, kind) in calls::table() {
        kinds.set(number, kind, 0).map_err(|error| TraceError::Load(chain(&error)))?;
    }
    Ok(())
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, TraceError> {
    ebpf.take_map(name).ok_or_else(|| TraceError::Load(format!("the object has no map {name}")))
}
