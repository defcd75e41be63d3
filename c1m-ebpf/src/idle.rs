//! Idle sockets, of which nothing is told but how many each process has.

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

/// Idle sockets with one descriptor. Whoever takes snapshots says how large it is.
#[map]
static IDLE: HashMap<IdleKey, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Those of the latest key, which are not in [`IDLE`] yet: descriptors come process by process.
#[map]
static IDLE_LATEST: Array<IdleRow> = Array::with_max_entries(1, 0);

/// The `skc_prot` of the latest socket that was one of TCP.
#[map]
static LATEST_PROT: Array<u64> = Array::with_max_entries(1, 0);

/// Like `snapshot_descriptors`, but those that hold nothing and can't be come upon again are counted by process: a million idle connections make
/// one row.
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

/// By `skc_prot`, which stands beside what else is read of an idle socket; type and protocol take another cache line, and are looked at when it is another
/// one than last time.
#[inline(always)]
fn is_known_tcp(sock: Sock) -> bool {
    let prot = sock.0.follow(offset!(sock_prot)).address(0) as u64;
    let Some(latest) = LATEST_PROT.get_ptr_mut(0) else { return false };
    // SAFETY: the map gave the pointer, and one iterator runs at a time.
    if unsafe { *latest } == prot {
        return true;
    }
    let is_tcp = is_stream(sock) && sock.is_tcp();
    if is_tcp {
        // SAFETY: as above.
        unsafe { *latest = prot };
    }
    is_tcp
}

/// Nothing of it is told but that it is there.
#[inline(always)]
fn is_idle(sock: Sock) -> bool {
    sock.0.load::<u8>(member!(sock_state)) != TCP_CLOSE
        && sock.receive_queue_bytes() | sock.send_queue_bytes() == 0
        && sock.forward_alloc_bytes() == 0
        && sock.0.load::<u32>(member!(sock_backlog_len)) == 0
}

/// No other descriptor, of this or another table, leads to the file, and the walk comes to this table once: by its one task, or by the leader
/// of a process of which at least as many threads could share it as do.
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

/// `false`: there is no room for another key, and the socket is to be written.
#[inline(always)]
fn count_idle(task: BtfPtr, sock: Sock) -> bool {
    let key = IdleKey {
        tgid: task.load(offset!(task_tgid)),
        netns: sock.netns(),
        state: sock.0.load::<u8>(member!(sock_state)).into(),
        unused: 0,
    };
    let Some(latest) = IDLE_LATEST.get_ptr_mut(0) else { return false };
    // SAFETY: the map gave the pointer, and one iterator runs at a time.
    let latest = unsafe { &mut *latest };
    if latest.key == key {
        latest.sockets += 1;
        return true;
    }
    if latest.sockets > 0 {
        if let Some(sockets) = IDLE.get_ptr_mut(latest.key) {
            // SAFETY: as above.
            unsafe { *sockets += latest.sockets };
        } else if IDLE.insert(latest.key, latest.sockets, 0).is_err() {
            return false;
        }
    }
    *latest = IdleRow { key, sockets: 1 };
    true
}
