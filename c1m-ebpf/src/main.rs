//! The object: license, the maps of events and counters, and a module per group of hooks.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no fetch_add in core::sync, but it has the instruction"
)]

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, RingBuf},
};
use c1m_ebpf::{Counters, Shared};

mod accept;
mod backup;
mod call;
mod event;
mod function;
mod holders;
mod idle;
mod layout;
mod memory;
mod oom;
mod orphan;
mod port;
mod pressure;
mod queue;
mod receive;
mod tables;

/// The kernel lets only GPL-compatible programs read its memory.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Events for user space. An event that finds the buffer full is counted in
/// `Counters::dropped_events`.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// One slot per CPU; user space sets the number when it loads the object. Mapped: reading it takes
/// neither a system call nor a capability.
#[map]
static COUNTERS: Array<Counters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static SHARED: Array<Shared> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
