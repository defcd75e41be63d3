//! Which signal comes from which hook, and what this kernel must have for it.

use c1m_ebpf::{ABSENT, Config, HOOK_NAMES, REASON_ARGUMENT};

use super::btf::Btf;

/// One program of the object.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Tracepoint and name of the program.
    pub name: &'static str,
    /// What it proves.
    pub signal: &'static str,
    /// Why it can't give that on this kernel; `None` when it can.
    pub lack: fn(&Btf, &Config) -> Option<&'static str>,
}

/// Every hook, in the order of [`HOOK_NAMES`].
pub const HOOKS: [Hook; HOOK_NAMES.len()] = [
    Hook {
        name: HOOK_NAMES[0],
        signal: "connections on the watched port; tcp_mem compared with its limits at each new one",
        lack: |_, _| None,
    },
    Hook {
        name: HOOK_NAMES[1],
        signal: "each allocation that tcp_mem, the fair share or a memory cgroup refused",
        lack: |_, _| None,
    },
    Hook {
        name: HOOK_NAMES[2],
        signal: "tcp_mem compared with its limits at each socket that goes",
        lack: |_, _| None,
    },
    Hook {
        name: HOOK_NAMES[3],
        signal: "received skbs dropped because they could not be charged",
        lack: |_, config| {
            (config.drop_reason_argument != REASON_ARGUMENT
                || config.drop_reason_proto_mem == ABSENT)
                .then_some("this kernel gives no drop reasons where 5.17 to 6.18 do")
        },
    },
    Hook {
        name: HOOK_NAMES[4],
        signal: "orphans reset for their number or for memory",
        lack: |_, config| {
            (config.reset_reason_argument != REASON_ARGUMENT || config.reset_reason_memory == ABSENT)
                .then_some("this kernel gives no reset reasons where 6.10 to 6.18 do; TcpExt TCPAbortOnMemory counts them")
        },
    },
    Hook {
        name: HOOK_NAMES[5],
        signal: "a process chosen by the OOM killer",
        lack: |btf, _| {
            btf.tracepoint_param("mark_victim", "task")
                .is_none()
                .then_some("this kernel's tracepoint does not give the process")
        },
    },
];
