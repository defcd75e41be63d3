//! Types by their names. A kernel has 150,000 types, and an attachment asks about a hundred names: so nothing is sorted and no name is
//! copied, and a look-up compares a few strings.

use std::iter;

use super::blob::{Blob, Kind, Type};

/// A hash table with chains: eight bytes a type, and no allocation for each.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// By hash: the first type of the chain, or 0.
    first: Vec<u32>,
    /// By type: the next one with a hash of the same bucket, or 0. Ids rise along a chain.
    next: Vec<u32>,
}

impl Names {
    pub(super) fn of(blob: &Blob) -> Self {
        let ids = blob.ids();
        let types = ids.len() + 1;
        let mut names = Self { first: vec![0; types.next_power_of_two()], next: vec![0; types] };
        for id in ids.rev() {
            let definition = blob.get(id).ok().filter(|ty| ty.kind.is_definition());
            let Some(ty) = definition else { continue };
            let bucket = names.bucket(blob.name_bytes(ty.name));
            names.next[id as usize] = names.first[bucket];
            names.first[bucket] = id;
        }
        names
    }

    /// All definitions of that kind and name, in the order of their ids.
    pub(super) fn find(
        &self,
        blob: &Blob,
        kind: Kind,
        name: &str,
    ) -> impl Iterator<Item = (u32, Type)> {
        let first = self.first[self.bucket(name.as_bytes())];
        let chain = iter::successors(Some(first), |id| self.next.get(*id as usize).copied());
        let ids = chain.take_while(|id| *id != 0);
        let all = ids.filter_map(|id| Some((id, blob.get(id).ok()?)));
        all.filter(move |(_, ty)| ty.kind == kind && blob.is_named(ty.name, name))
    }

    /// FNV-1a, folded onto the buckets.
    fn bucket(&self, name: &[u8]) -> usize {
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        (hash ^ hash >> 15) as usize & (self.first.len() - 1)
    }
}
