//! What the programs need to know of the running kernel's types, from its BTF.

use c1m_btf::Btf;
use c1m_ebpf::{ABSENT, Arguments, Attachment, Config, Layout, PROGRAMS, Program, WATCHED_PORTS};

use super::TraceError;

/// What aya needs of the kernel's types to attach programs by these names.
pub(super) fn outline(
    btf: &Btf,
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<aya::Btf, aya::BtfError> {
    aya::Btf::parse(&btf.outline(names), aya::Endianness::Little)
}

/// The offsets of every member that the programs read. One that is missing is an error that names
/// it, but for those that not every kernel has: the plan tells what their absence costs.
pub fn layout(btf: &Btf) -> Result<Layout, TraceError> {
    let member = |structure: &'static str, path: &'static str| {
        find(btf, structure, path)?.ok_or(TraceError::NoMember(path))
    };
    // Before 5.15 sk_cgrp_data holds a number that may be a pointer; since then a pointer.
    let cgroup = match find(btf, "sock", "sk_cgrp_data.cgroup")? {
        Some(offset) if find(btf, "sock", "sk_cgrp_data.val")?.is_none() => offset,
        _ => ABSENT,
    };
    Ok(Layout {
        sock_prot: member("sock", "__sk_common.skc_prot")?,
        sock_family: member("sock", "__sk_common.skc_family")?,
        sock_num: member("sock", "__sk_common.skc_num")?,
        sock_dport: member("sock", "__sk_common.skc_dport")?,
        sock_daddr: member("sock", "__sk_common.skc_daddr")?,
        sock_rcv_saddr: member("sock", "__sk_common.skc_rcv_saddr")?,
        // Absent without CONFIG_IPV6: then there is no IPv6 socket to read it from.
        sock_v6_daddr: find(btf, "sock", "__sk_common.skc_v6_daddr")?.unwrap_or(0),
        sock_v6_rcv_saddr: find(btf, "sock", "__sk_common.skc_v6_rcv_saddr")?.unwrap_or(0),
        sock_net: member("sock", "__sk_common.skc_net.net")?,
        sock_protocol: member("sock", "sk_protocol")?,
        sock_rmem_alloc: member("sock", "sk_backlog.rmem_alloc")?,
        sock_wmem_queued: member("sock", "sk_wmem_queued")?,
        sock_max_ack_backlog: member("sock", "sk_max_ack_backlog")?,
        sock_ack_backlog: member("sock", "sk_ack_backlog")?,
        sock_drops: member("sock", "sk_drops")?,
        sock_rcvbuf: member("sock", "sk_rcvbuf")?,
        sock_forward_alloc: member("sock", "sk_forward_alloc")?,
        sock_receive_queue_len: member("sock", "sk_receive_queue.qlen")?,
        sock_cgroup: cgroup,
        inet_sport: member("inet_sock", "inet_sport")?,
        inet_mc_index: member("inet_sock", "mc_index")?,
        // Absent without CONFIG_IPV6.
        inet_pinet6: find(btf, "inet_sock", "pinet6")?.unwrap_or(ABSENT),
        pinfo_mcast_oif: find(btf, "ipv6_pinfo", "mcast_oif")?.unwrap_or(ABSENT),
        request_queue_len: member("inet_connection_sock", "icsk_accept_queue.qlen")?,
        proto_memory_allocated: member("proto", "memory_allocated")?,
        proto_memory_pressure: member("proto", "memory_pressure")?,
        proto_sysctl_mem: member("proto", "sysctl_mem")?,
        net_inum: member("net", "ns.inum")?,
        net_syncookies: find(btf, "net", "ipv4.sysctl_tcp_syncookies")?.unwrap_or(ABSENT),
        cgroup_kn: if cgroup == ABSENT { ABSENT } else { member("cgroup", "kn")? },
        kernfs_id: if cgroup == ABSENT { ABSENT } else { member("kernfs_node", "id")? },
        task_tgid: member("task_struct", "tgid")?,
        task_comm: member("task_struct", "comm")?,
        skb_protocol: member("sk_buff", "protocol")?,
        // Named by the architecture: x86_64, aarch64.
        regs_call: match find(btf, "pt_regs", "orig_ax")? {
            Some(offset) => offset,
            None => find(btf, "pt_regs", "syscallno")?.unwrap_or(ABSENT),
        },
        oom_memcg: find(btf, "oom_control", "memcg")?.unwrap_or(ABSENT),
    })
}

/// The numbers that are not offsets. What the kernel does not have stays [`ABSENT`]; the plan tells
/// what that costs.
pub fn config(
    btf: &Btf,
    watch_ports: &[u16],
    watch_netns: u32,
    cpus: u32,
) -> Result<Config, TraceError> {
    let registers = registers(btf)?;
    // Those that have no place are refused where they are typed.
    let mut ports = [0; WATCHED_PORTS];
    for (slot, port) in ports.iter_mut().zip(watch_ports) {
        *slot = u32::from(*port);
    }
    Ok(Config {
        watch_ports: ports,
        watch_netns,
        drop_reason_proto_mem: number(
            btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_PROTO_MEM"),
        ),
        drop_reason_listen_overflow: number(
            btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW"),
        ),
        reset_reason_memory: number(
            btf.enum_value("sk_rst_reason", "SK_RST_REASON_TCP_ABORT_ON_MEMORY"),
        ),
        min_sndbuf_bytes: min_sndbuf_bytes(
            btf.size_of("sk_buff").ok_or(TraceError::NoMember("struct sk_buff"))?,
        ),
        cpus,
        stack_pointer: number(registers.stack_pointer),
        return_bytes: registers.return_bytes,
        arguments: PROGRAMS.each_ref().map(|program| arguments(btf, program, &registers)),
    })
}

fn number(value: Option<impl TryInto<u32>>) -> u32 {
    value.and_then(|value| value.try_into().ok()).unwrap_or(ABSENT)
}

/// Where this program finds its arguments.
fn arguments(btf: &Btf, program: &Program, registers: &Registers) -> Arguments {
    let target = program.target;
    let position = |name: Option<&str>| {
        let name = name?;
        match program.attachment {
            Attachment::Tracepoint => btf.tracepoint_param(target, name),
            _ => btf.func_param(target, name),
        }
    };
    let register = |name: Option<&str>| registers.arguments.get(position(name)?).copied();
    match program.attachment {
        Attachment::Tracepoint | Attachment::Entry | Attachment::Exit => Arguments {
            object: number(position(program.object)),
            value: number(position(program.value)),
            result: match program.attachment {
                Attachment::Exit => number(btf.func_arity(target)),
                _ => ABSENT,
            },
        },
        Attachment::Kprobe | Attachment::Kretprobe => Arguments {
            object: number(register(program.object)),
            value: number(register(program.value)),
            result: match program.attachment {
                Attachment::Kretprobe => number(registers.result),
                _ => ABSENT,
            },
        },
    }
}

/// Where the architecture's calling convention has things, in words of struct pt_regs.
#[derive(Debug, Default)]
struct Registers {
    /// Of the first arguments, in their order
    arguments: Vec<u32>,
    result: Option<u32>,
    stack_pointer: Option<u32>,
    return_bytes: u32,
}

/// x86_64 and aarch64 are distinguished by the names of their registers; of another architecture
/// none is known.
fn registers(btf: &Btf) -> Result<Registers, TraceError> {
    /// System V ABI for x86_64, 3.2.3
    const X86_64: [&str; 6] = ["di", "si", "dx", "cx", "r8", "r9"];
    /// Procedure Call Standard for aarch64, 6.8.2
    const AARCH64: std::ops::Range<u32> = 0..8;
    let word = |path| find(btf, "pt_regs", path).map(|offset| offset.map(|bytes| bytes / 8));
    let stack_pointer = word("sp")?;
    if let Some(result) = word("ax")? {
        let arguments = X86_64.into_iter().filter_map(|name| word(name).transpose());
        return Ok(Registers {
            arguments: arguments.collect::<Result<_, _>>()?,
            result: Some(result),
            stack_pointer,
            // `ret` takes the return address from the stack.
            return_bytes: 8,
        });
    }
    let Some(first) = word("regs")? else { return Ok(Registers::default()) };
    let arguments = AARCH64.map(|register| first + register).collect();
    Ok(Registers { arguments, result: Some(first), stack_pointer, return_bytes: 0 })
}

/// SOCK_MIN_SNDBUF: twice 2048 and an sk_buff, aligned to a cache line. include/net/sock.h,
/// `TCP_SKB_MIN_TRUESIZE`, 5.10 to 6.18.
fn min_sndbuf_bytes(sk_buff_bytes: u32) -> u32 {
    2 * (2048 + sk_buff_bytes.next_multiple_of(64))
}

pub(super) fn find(
    btf: &Btf,
    structure: &'static str,
    path: &'static str,
) -> Result<Option<u32>, TraceError> {
    btf.member(structure, path)
        .map(|member| member.map(|m| m.offset_bytes))
        .map_err(|error| TraceError::BadBtf { path: c1m_btf::PATH, error })
}

#[cfg(test)]
mod tests {
    use c1m_ebpf::*;

    use super::*;

    fn kernel(name: &str) -> Btf {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../c1m-btf/tests/fixtures/btf")
            .join(name);
        Btf::parse(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
            .unwrap()
    }

    #[test]
    fn the_layout_of_linux_6_18() {
        let layout = layout(&kernel("x86_64-6.18.44.btf")).unwrap();
        assert_eq!(
            (layout.sock_prot, layout.sock_family, layout.sock_num, layout.sock_dport),
            (40, 16, 14, 12)
        );
        assert_eq!(
            (layout.sock_net, layout.sock_rmem_alloc, layout.sock_wmem_queued),
            (48, 192, 376)
        );
        assert_eq!((layout.sock_protocol, layout.sock_max_ack_backlog), (532, 604));
        assert_eq!(
            (layout.proto_memory_allocated, layout.proto_memory_pressure, layout.proto_sysctl_mem),
            (256, 280, 288)
        );
        assert_eq!((layout.sock_ack_backlog, layout.sock_rcvbuf), (600, 244));
        assert_eq!(layout.sock_drops, 136);
        assert_eq!((layout.sock_forward_alloc, layout.sock_receive_queue_len), (356, 168 + 16));
        for offset in
            [layout.sock_cgroup, layout.net_syncookies, layout.regs_call, layout.oom_memcg]
        {
            assert_ne!(offset, ABSENT, "{layout:?}");
        }
    }

    #[test]
    fn the_numbers_of_linux_6_18() {
        let config = config(&kernel("x86_64-6.18.44.btf"), &[8000, 443], 7, 2).unwrap();
        assert_eq!((config.drop_reason_proto_mem, config.drop_reason_listen_overflow), (20, 40));
        assert_eq!((config.reset_reason_memory, config.min_sndbuf_bytes), (13, 4608));
        assert_eq!((config.watch_netns, config.cpus), (7, 2));
        assert_eq!(config.watch_ports, [8000, 443, 0, 0, 0, 0, 0, 0]);
        let of = |hook: u32| config.arguments[hook as usize];
        assert_eq!((of(HOOK_DROP).object, of(HOOK_DROP).value), (3, 2));
        assert_eq!((of(HOOK_RESET).object, of(HOOK_RESET).value), (0, 2));
        assert_eq!((of(HOOK_CALL).object, of(HOOK_CALL).value), (0, 1));
        assert_eq!((of(HOOK_REQUEST).object, of(HOOK_REQUEST).result), (2, ABSENT));
        assert_eq!((of(HOOK_CHECK_OOM).object, of(HOOK_CHECK_OOM).result), (0, 2));
        assert_eq!((of(HOOK_CONNECT_6).object, of(HOOK_CONNECT_6).result), (1, 2));
        assert_eq!((of(HOOK_ORPHAN_SUM).object, of(HOOK_ORPHAN_SUM).result), (ABSENT, 0));
        assert_eq!((of(HOOK_RAISE).object, of(HOOK_RAISE).result), (0, 4));
        assert_eq!((of(HOOK_SYN_RECV_6).value, of(HOOK_PRUNE).result), (1, 2));
    }

    /// As arch/x86/include/asm/ptrace.h has it.
    #[test]
    fn registers_of_x86_64() {
        let [ax, dx, si, di, sp] = [10, 12, 13, 14, 19];
        let config = config(&kernel("x86_64-6.18.44.btf"), &[8000], 7, 2).unwrap();
        assert_eq!((config.stack_pointer, config.return_bytes), (sp, 8));
        let of = |hook: u32| config.arguments[kprobe(hook) as usize];
        assert_eq!((of(HOOK_REQUEST).object, of(HOOK_REQUEST).result), (dx, ABSENT));
        assert_eq!((of(HOOK_CHECK_OOM).object, of(HOOK_CHECK_OOM).value), (di, si));
        assert_eq!((of(HOOK_CHECK_OOM).result, of(HOOK_ORPHAN_SUM).result), (ax, ax));
        // A seventh argument is on the stack, and the ones that are read are not behind it.
        assert_eq!((of(HOOK_SYN_RECV_4).object, of(HOOK_SYN_RECV_6).value), (di, si));
    }

    #[test]
    fn older_kernels_lack_what_they_lack() {
        let old = config(&kernel("debian-6.1.192.btf"), &[8000, 443], 7, 2).unwrap();
        assert_eq!((old.drop_reason_proto_mem, old.drop_reason_listen_overflow), (16, ABSENT));
        assert_eq!(old.reset_reason_memory, ABSENT);
        let of = |hook: u32| old.arguments[hook as usize];
        assert_eq!((of(HOOK_DROP).object, of(HOOK_DROP).value), (ABSENT, 2));
        assert_eq!((of(HOOK_RESET).object, of(HOOK_RESET).value), (0, ABSENT));
        assert_eq!((of(HOOK_PRUNE).object, of(HOOK_PRUNE).result), (ABSENT, 1));
        assert_eq!((of(HOOK_SYN_FLOOD).object, of(HOOK_REQUEST).object), (ABSENT, 2));
        let newer = config(&kernel("debian-6.12.117.btf"), &[8000, 443], 7, 2).unwrap();
        assert_eq!(newer.arguments[HOOK_DROP as usize].object, 3);
        assert_eq!(
            (newer.arguments[HOOK_SYN_FLOOD as usize].object, newer.reset_reason_memory),
            (0, 13)
        );
    }
}
