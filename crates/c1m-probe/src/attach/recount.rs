//! Counts all connections again, when one may have come or gone that no program saw.

use std::fs;

use c1m_btf::Btf;
use c1m_ebpf::HOOK_SET_STATE;
use c1m_sys::process;

use super::{
    super::sample::{self, Place},
    Tracer,
};
use crate::chain;

impl Tracer {
    /// Calls that the program of births and ends was skipped for since the number of connections
    /// was last counted; `None` where the kernel does not tell.
    ///
    /// Those that the backup program took over count as well: where calls are inside each other,
    /// Linux 6.18 now and then runs neither program for a call, and counts no skip
    /// (docs/architecture.md, "Tracing").
    fn skips(&self) -> Option<u64> {
        let at = self.attached.hooks.iter().position(|hook| *hook == HOOK_SET_STATE)?;
        let skipped = self.programs.get(at)?.skipped()?;
        Some(skipped.first().saturating_sub(self.recounted))
    }

    /// Counts all connections again if a birth or an end may have been missed, which
    /// [`Tracer::connections`] would be wrong by for ever. By how much it was.
    ///
    /// `Ok(None)`: the program was not skipped, or connections came or went meanwhile, and it is to
    /// be tried again.
    ///
    /// # Errors
    /// The kernel refused the iterator.
    pub fn recount_if_needed(&mut self) -> Result<Option<i64>, String> {
        let Some(skips) = self.skips().filter(|skips| *skips > 0) else {
            return Ok(None);
        };
        // It takes a walk over all sockets, and is of use only when none comes or goes meanwhile:
        // so not before an interval was quiet.
        let changes = self.changes();
        let is_quiet = std::mem::replace(&mut self.changes_seen, changes) == changes;
        if self.present.is_err() || !is_quiet {
            return Ok(None);
        }
        let places = self.places.clone();
        let difference = self.recount(&places)?;
        if difference.is_some() {
            self.recounted += skips;
        }
        Ok(difference)
    }

    /// Connections that came and went.
    fn changes(&self) -> (u64, u64) {
        let counters = self.counters();
        (counters.opened, counters.closed)
    }

    /// Counts all connections in these namespaces, and puts their number in the place of the
    /// present one.
    ///
    /// # Errors
    /// The kernel refused the iterator.
    pub fn recount(&mut self, places: &[Place]) -> Result<Option<i64>, String> {
        let types =
            fs::read(c1m_btf::PATH).map_err(|error| format!("{}: {error}", c1m_btf::PATH))?;
        let btf = Btf::parse(types).map_err(|error| chain(&error))?;
        let types = super::super::layout::outline(&btf, [sample::TYPE_NAME])
            .map_err(|error| chain(&error))?;
        drop(btf);
        let before = self.changes();
        self.maps.forget_present();
        let counted = sample::count_present(&mut self.ebpf, &types, places);
        drop(types);
        process::trim_heap();
        counted?;
        let shared = self.maps.shared();
        if self.changes() != before {
            return Ok(None);
        }
        let difference = shared.present.wrapping_sub(shared.connections).cast_signed();
        self.maps.add_connections(difference);
        Ok(Some(difference))
    }
}
