//! Counts the sockets of TCP's tables by reading them, without an iterator.
//!
//! `iter/tcp` takes each bucket's lock, and a reference to and the lock of each socket, on one CPU.
//! Here the chains are read as the kernel's own look-ups read them (net/ipv4/inet_hashtables.c,
//! `__inet_lookup_established`): under RCU alone. The end of a chain (include/linux/list_nulls.h)
//! shows whether the walk has left the chain for another one. User space runs the programs
//! (`BPF_PROG_TEST_RUN`, 5.10), several at a time, each over some buckets.
//!
//! A socket that was freed and put into the same chain again leads the walk back to the chain's
//! start, and the end shows nothing. A look-up does not care; a count does. So the walk remembers
//! the first sockets of a chain, and is torn where it meets one of them again.
//!
//! Needs `bpf_loop` (5.17), tables that the namespace points to by `tcp_death_row`, and listeners
//! in one table (6.1).

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_loop, bpf_probe_read_kernel},
    },
    macros::map,
    maps::Array,
};
use c1m_ebpf::{
    MAX_WALKERS, PORTS, TABLES_READ, TABLES_TORN, TCP_NEW_SYN_RECV, TCP_SYN_RECV, TCP_TIME_WAIT,
    Tables,
};

use crate::{
    holders::{PORT_STATES, count_state, member},
    layout::{BtfPtr, copy, offset, word},
};

/// The tables of the namespace that is being read.
#[map]
static TABLES: Array<Tables> = Array::with_max_entries(1, 0);

/// Steps that one run may take: a socket or the end of a chain each. User space asks for few
/// buckets per run, so only a broken chain takes more.
const MAX_STEPS: u32 = 1 << 20;

/// Words that are read of a socket: struct sock_common has 136 bytes (6.18).
const COMMON_WORDS: usize = 17;

/// Links that are remembered of a chain: a walk that is led back meets the first of them that is
/// still there. It would miss that only if all of them were taken out during the walk.
const FIRST_LINKS: usize = 16;

/// The first links of the chain that a walker is in, by bits 4 to 35.
#[repr(C)]
struct Links {
    count: u32,
    first: [u32; FIRST_LINKS],
}

/// By walker. Not on the stack: the verifier would follow each state of the list.
#[map]
static LINKS: Array<Links> = Array::with_max_entries(MAX_WALKERS, 0);

/// LISTENING_NULLS_BASE: include/net/inet_hashtables.h
const LISTENING_NULLS_BASE: u64 = 1 << 29;

/// A walk over the chains of some buckets.
#[repr(C)]
struct Walk {
    /// Address of the first bucket's list, and the distance from one list to the next, in bytes
    lists: u64,
    stride: u64,
    /// The end of a chain has its bucket's number plus this.
    nulls_base: u64,
    bucket: u64,
    end: u64,
    /// The next link of the chain; 0: the chain of the next bucket begins.
    link: u64,
    net: u64,
    /// First index of this walker's part of PORT_STATES
    first_port: u32,
    torn: u32,
    common: [u64; COMMON_WORDS],
    /// This walker's number
    walker: u32,
}

/// Finds the tables of the caller's network namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/find_tables")]
extern "C" fn find_tables(_: *mut c_void) -> i32 {
    // SAFETY: takes nothing, and cannot fail.
    let task = BtfPtr::untyped(unsafe { bpf_get_current_task() } as *const u8);
    let net = task.follow(member!(task_nsproxy)).follow(member!(nsproxy_net));
    let hashinfo = net.follow(member!(net_hashinfo));
    let buckets = |mask: u32| u64::from(hashinfo.load::<u32>(mask)) + 1;
    if hashinfo.is_null() {
        return TABLES_TORN;
    }
    let Some(tables) = TABLES.get_ptr_mut(0) else { return TABLES_TORN };
    let found = Tables {
        net: net.raw(),
        connections: hashinfo.follow(member!(hashinfo_ehash)).raw(),
        connection_buckets: buckets(member!(hashinfo_ehash_mask)),
        listeners: hashinfo.follow(member!(hashinfo_lhash2)).raw(),
        listener_buckets: buckets(member!(hashinfo_lhash2_mask)),
    };
    // SAFETY: the map gave the pointer. Volatile, because it is memory of a map.
    unsafe { tables.write_volatile(found) };
    TABLES_READ
}

/// Counts the connections, minisocks and requests of some buckets. Arguments: the walker's number,
/// the first bucket, and the bucket after the last one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/count_connections")]
extern "C" fn count_connections(context: *mut c_void) -> i32 {
    let Some(tables) = tables() else { return TABLES_TORN };
    // struct inet_ehash_bucket is the list's head alone.
    walk(context, tables.net, tables.connections, 8, 0)
}

/// The same for the buckets of listeners.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/count_listeners")]
extern "C" fn count_listeners(context: *mut c_void) -> i32 {
    let Some(tables) = tables() else { return TABLES_TORN };
    let first = tables.listeners + u64::from(member!(listen_bucket_list));
    let stride = member!(listen_bucket_bytes).into();
    walk(context, tables.net, first, stride, LISTENING_NULLS_BASE)
}

/// What [`find_tables`] has found.
#[inline(always)]
fn tables() -> Option<Tables> {
    // SAFETY: the map gave the pointer. Volatile, because it is memory of a map.
    TABLES.get_ptr(0).map(|tables| unsafe { tables.read_volatile() })
}

#[inline(always)]
fn walk(context: *mut c_void, net: u64, lists: u64, stride: u64, nulls_base: u64) -> i32 {
    let mut walk = Walk {
        lists,
        stride,
        nulls_base,
        bucket: word(context, 1),
        end: word(context, 2),
        link: 0,
        net,
        first_port: (word(context, 0) as u32).wrapping_mul(PORTS),
        torn: 0,
        common: [0; COMMON_WORDS],
        walker: word(context, 0) as u32,
    };
    let step: unsafe extern "C" fn(u32, *mut c_void) -> i64 = step;
    // SAFETY: the callback has the helper's signature, and the walk outlives the call.
    unsafe { bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut walk).cast(), 0) };
    if walk.torn == 0 && walk.bucket == walk.end { TABLES_READ } else { TABLES_TORN }
}

/// One link of a chain. 1 ends the walk.
unsafe extern "C" fn step(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the walk that the loop was given, on the stack of its caller.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    if walk.link == 0 {
        if walk.bucket >= walk.end {
            return 1;
        }
        walk.link = copy((walk.lists + walk.bucket * walk.stride) as *const u64);
        forget_links(walk.walker);
    }
    let link = walk.link;
    if link & 1 == 1 {
        // The end of another chain: a socket was freed and put into that chain during the walk.
        if link >> 1 != walk.bucket + walk.nulls_base {
            walk.torn = 1;
            return 1;
        }
        walk.bucket += 1;
        walk.link = 0;
        return 0;
    }
    if is_met_again(walk.walker, link) {
        walk.torn = 1;
        return 1;
    }
    let list = member!(sock_nulls_node);
    let bytes = list + 8;
    let common = walk.common.as_mut_ptr();
    let socket = link - u64::from(list);
    if bytes as usize > COMMON_WORDS * 8 {
        return 1;
    }
    // SAFETY: the copy has room for it. The memory remains that of a socket under RCU
    // (SLAB_TYPESAFE_BY_RCU); for a bad address the helper returns an error.
    if unsafe { bpf_probe_read_kernel(common.cast(), bytes, socket as *const c_void) } != 0 {
        walk.torn = 1;
        return 1;
    }
    walk.link = part(common, list);
    if part::<u64>(common, offset!(sock_net)) == walk.net {
        let port = u32::from(part::<u16>(common, offset!(sock_num)));
        let state = match part::<u8>(common, member!(sock_state)) {
            TCP_NEW_SYN_RECV => TCP_SYN_RECV,
            // A minisock has the state of its connection beside its own (net/ipv4/inet_diag.c,
            // 6.18).
            TCP_TIME_WAIT => copy((socket + u64::from(member!(timewait_substate))) as *const u8),
            state => state,
        };
        if let Some(counts) = PORT_STATES.get_ptr_mut(walk.first_port + port) {
            // SAFETY: the map gave the pointer. No other walker writes to this part of the map.
            unsafe { count_state(counts, state) };
        }
    }
    0
}

/// A new chain begins.
#[inline(always)]
fn forget_links(walker: u32) {
    if let Some(links) = LINKS.get_ptr_mut(walker) {
        // SAFETY: the map gave the pointer, and no other walker has this element.
        unsafe { (&raw mut (*links).count).write_volatile(0) };
    }
}

/// Whether the walk has been at this link of the chain before.
#[inline(always)]
fn is_met_again(walker: u32, link: u64) -> bool {
    let Some(links) = LINKS.get_ptr_mut(walker) else { return true };
    // Two sockets of one chain that are 64 GiB apart would look like one: the iterator counts then.
    let link = (link >> 4) as u32;
    for index in 0..FIRST_LINKS {
        // SAFETY: the map gave the pointer, and no other walker has this element.
        unsafe {
            let first = &raw mut (*links).first[index];
            let count = &raw mut (*links).count;
            if index as u32 == count.read_volatile() {
                first.write_volatile(link);
                count.write_volatile(index as u32 + 1);
                return false;
            }
            if first.read_volatile() == link {
                return true;
            }
        }
    }
    false
}

/// A member of the copied part of a socket.
#[inline(always)]
fn part<T: Copy>(common: *const u64, offset: u32) -> T {
    // SAFETY: the verifier proves that it lies in the copy.
    unsafe { core::ptr::read_volatile(common.cast::<u8>().add(offset as usize).cast()) }
}
