//! Idle sockets: only their number per process goes to user space.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap},
};
use c1m_ebpf::{IdleKey, IdleRow, TCP_CLOSE};

use crate::{
    holders::{FILE, TASK, argument, descriptor, is_stream, member, write_descriptor},
    layout::{BtfPtr, Sock, offset},
};

/// Idle sockets with one descriptor. User space sets the size.
#[map]
static IDLE: HashMap<IdleKey, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// The idle sockets of the latest key, not yet in [`IDLE`]: descriptors come process by process.
#[map]
static IDLE_LATEST: Array<IdleRow> = Array::with_max_entries(1, 0);

/// The `skc_prot` of the latest TCP socket.
#[map]
static LATEST_PROT: Array<u64> = Array::with_max_entries(1, 0);

/// Like `snapshot_descriptors`, but idle sockets that the walk finds only once are counted by
/// process: a million idle connections make one row.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn snapshot_processes(context: *mut c_void) -> i32 {
    let (task, file) = (argument(context, TASK), argument(context, FILE));
    if task.is_null() || file.is_null() {
        return 0;
    }
    if let Some(sock) = descriptor(context)
        && is_known_tcp(sock)
        && (!is_idle(sock) || !is_alone(task, file) || !count_idle(task, sock))
    {
        write_descriptor(context, sock);
    }
    0
}

/// By `skc_prot`, which is near the other members that are read of an idle socket. Type and
/// protocol are in another cache line, and are read only when `skc_prot` is not that of the latest
/// TCP socket.
#[inline(always)]
fn is_known_tcp(sock: Sock) -> bool {
    let prot = sock.0.follow(offset!(sock_prot)).address(0) as u64;
    let Some(latest) = LATEST_PROT.get_ptr_mut(0) else { return false };
    // SAFETY: the map gave the pointer. Volatile, because it is memory of a map; user space runs
    // one iterator at a time.
    if unsafe { latest.read_volatile() } == prot {
        return true;
    }
    let is_tcp = is_stream(sock) && sock.is_tcp();
    if is_tcp {
        // SAFETY: as above.
        unsafe { latest.write_volatile(prot) };
    }
    is_tcp
}

/// Has it neither memory nor anything else to report?
#[inline(always)]
fn is_idle(sock: Sock) -> bool {
    sock.0.load::<u8>(member!(sock_state)) != TCP_CLOSE
        && sock.receive_queue_bytes() | sock.send_queue_bytes() == 0
        && sock.forward_alloc_bytes() == 0
        && sock.0.load::<u32>(member!(sock_backlog_len)) == 0
}

/// Does the walk find this file once? No other descriptor of any table refers to it, and the walk
/// visits this table once: it has one task, or it is the table of a process's leader that is shared
/// by no more tasks than the process has threads.
#[inline(always)]
fn is_alone(task: BtfPtr, file: BtfPtr) -> bool {
    if file.load::<u64>(member!(file_count)) != u64::from(member!(file_count_alone)) {
        return false;
    }
    let sharing: u32 = task.follow(member!(task_files)).load(member!(files_count));
    let threads: u32 = task.follow(member!(task_signal)).load(member!(signal_threads));
    let is_leader = task.load::<u32>(offset!(task_tgid)) == task.load::<u32>(member!(task_pid));
    sharing == 1 || (is_leader && sharing <= threads)
}

/// `false`: there is no room for another key, and the socket needs a record of its own.
#[inline(always)]
fn count_idle(task: BtfPtr, sock: Sock) -> bool {
    let key = IdleKey {
        tgid: task.load(offset!(task_tgid)),
        netns: sock.netns(),
        state: sock.0.load::<u8>(member!(sock_state)).into(),
        unused: 0,
    };
    let Some(latest) = IDLE_LATEST.get_ptr_mut(0) else { return false };
    // SAFETY: the map gave the pointer. Volatile, because it is memory of a map; user space runs
    // one iterator at a time.
    let latest_key = unsafe { (&raw const (*latest).key).read_volatile() };
    // SAFETY: as above.
    let sockets = unsafe { (&raw const (*latest).sockets).read_volatile() };
    if latest_key == key {
        // SAFETY: as above.
        unsafe { (&raw mut (*latest).sockets).write_volatile(sockets + 1) };
        return true;
    }
    if sockets > 0 {
        if let Some(counted) = IDLE.get_ptr_mut(latest_key) {
            // SAFETY: as above.
            unsafe { counted.write_volatile(counted.read_volatile() + sockets) };
        } else if IDLE.insert(latest_key, sockets, 0).is_err() {
            return false;
        }
    }
    // SAFETY: as above.
    unsafe { latest.write_volatile(IdleRow { key, sockets: 1 }) };
    true
}
