//! The rules of the verdict, one file a family. Each has its tests; the pairs that must be told apart are tested in `pairs`.

pub(super) mod buffers;
pub(super) mod calls;
pub(super) mod files;
pub(super) mod memory;
pub(super) mod orphans;
pub(super) mod queues;
pub(super) mod tcp_mem;

#[cfg(test)]
mod pairs;
#[cfg(test)]
mod quiet;
