//! What the iterators need to know of the running kernel's types, beside what the hooks need.

use c1m_btf::Btf;
use c1m_ebpf::{ABSENT, SnapshotLayout};

use crate::{TraceError, layout::find};

/// The offsets of every member that only iterators read. One that is missing is an error that names
/// it.
pub(super) fn layout(btf: &Btf) -> Result<SnapshotLayout, TraceError> {
    let member = |structure: &'static str, path: &'static str| {
        find(btf, structure, path)?.ok_or(TraceError::NoMember(path))
    };
    // A counter of references until 6.12; after it one that has 0 for a single one
    // (include/linux/file_ref.h, 6.13).
    let (file_count, file_count_alone) = match find(btf, "file", "f_ref")? {
        Some(file_ref) => (file_ref, 1),
        None => (member("file", "f_count")?, 2),
    };
    // Tables that are built as those of 6.1 and later are, or else none of this.
    let of_tables = |structure, path| -> Result<u32, TraceError> {
        Ok(find(btf, structure, path)?.unwrap_or(ABSENT))
    };
    Ok(SnapshotLayout {
        sock_state: member("sock", "__sk_common.skc_state")?,
        sock_flags: member("sock", "__sk_common.skc_flags")?,
        sock_type: member("sock", "sk_type")?,
        sock_socket: member("sock", "sk_socket")?,
        sock_backlog_len: member("sock", "sk_backlog.len")?,
        timewait_substate: member("tcp_timewait_sock", "tw_sk.tw_substate")?,
        socket_sk: member("socket", "sk")?,
        socket_file: member("socket", "file")?,
        task_pid: member("task_struct", "pid")?,
        task_nsproxy: member("task_struct", "nsproxy")?,
        nsproxy_net: member("nsproxy", "net_ns")?,
        file_count,
        file_count_alone,
        task_files: member("task_struct", "files")?,
        task_signal: member("task_struct", "signal")?,
        files_count: member("files_struct", "count")?,
        signal_threads: member("signal_struct", "nr_threads")?,
        sock_nulls_node: of_tables("sock", "__sk_common.skc_nulls_node")?,
        net_hashinfo: of_tables("net", "ipv4.tcp_death_row.hashinfo")?,
        hashinfo_ehash: of_tables("inet_hashinfo", "ehash")?,
        hashinfo_ehash_mask: of_tables("inet_hashinfo", "ehash_mask")?,
        hashinfo_lhash2: of_tables("inet_hashinfo", "lhash2")?,
        hashinfo_lhash2_mask: of_tables("inet_hashinfo", "lhash2_mask")?,
        listen_bucket_list: of_tables("inet_listen_hashbucket", "nulls_head")?,
        listen_bucket_bytes: btf.size_of("inet_listen_hashbucket").unwrap_or(ABSENT),
    })
}

/// Do CPUs keep pages for themselves? Since 6.0: include/net/sock.h, `sk_memory_allocated_add`.
pub(super) fn has_reserve(btf: &Btf) -> Result<bool, TraceError> {
    Ok(find(btf, "proto", "per_cpu_fw_alloc")?.is_some())
}
