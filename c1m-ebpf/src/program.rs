//! The programs of the object, each with the place in the kernel that it is for.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A tracepoint, with typed arguments
    Tracepoint,
    /// The entry of a kernel function
    Entry,
    /// The return of a kernel function
    Exit,
}

impl Attachment {
    /// As the kernel's tools name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tp_btf",
            Self::Entry => "fentry",
            Self::Exit => "fexit",
        }
    }
}

/// One program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub attachment: Attachment,
    /// The tracepoint or kernel function
    pub target: &'static str,
    /// In the object
    pub name: &'static str,
    /// Parameters that the program reads, by their names in the kernel: the object that it is about, and a value. The program of a
    /// tracepoint that has none of them does without, or reads the ones that never moved.
    pub object: Option<&'static str>,
    pub value: Option<&'static str>,
}

const fn program(
    attachment: Attachment,
    target: &'static str,
    object: Option<&'static str>,
    value: Option<&'static str>,
) -> Program {
    Program { attachment, target, name: target, object, value }
}

use Attachment::{Entry, Exit, Tracepoint};

/// Indices of [`PROGRAMS`].
pub const HOOK_SET_STATE: u32 = 0;
pub const HOOK_EXCEED: u32 = 1;
pub const HOOK_DESTROY: u32 = 2;
pub const HOOK_DROP: u32 = 3;
pub const HOOK_RESET: u32 = 4;
pub const HOOK_OOM: u32 = 5;
pub const HOOK_CALL: u32 = 6;
pub const HOOK_RAISE: u32 = 7;
pub const HOOK_FORCED: u32 = 8;
pub const HOOK_PRESSURE_ENTER: u32 = 9;
pub const HOOK_PRESSURE_LEAVE: u32 = 10;
pub const HOOK_RECEIVE: u32 = 11;
pub const HOOK_PRUNE: u32 = 12;
pub const HOOK_CHECK_OOM: u32 = 13;
pub const HOOK_RESOURCES: u32 = 14;
pub const HOOK_ORPHAN_SUM: u32 = 15;
pub const HOOK_REQUEST: u32 = 16;
pub const HOOK_SYN_FLOOD: u32 = 17;
pub const HOOK_SYN_RECV_4: u32 = 18;
pub const HOOK_SYN_RECV_6: u32 = 19;
pub const HOOK_CONNECT_4: u32 = 20;
pub const HOOK_CONNECT_6: u32 = 21;
pub const HOOK_OOM_ENTER: u32 = 22;
pub const HOOK_OOM_EXIT: u32 = 23;
pub const HOOK_FORCED_EXIT: u32 = 24;
pub const HOOK_COLLAPSE: u32 = 25;
pub const HOOK_DROP_AGAIN: u32 = 26;

/// Every program, in the order of `HOOK_*`.
pub const PROGRAMS: [Program; 27] = [
    program(Tracepoint, "inet_sock_set_state", None, None),
    program(Tracepoint, "sock_exceed_buf_limit", None, None),
    program(Tracepoint, "tcp_destroy_sock", None, None),
    program(Tracepoint, "kfree_skb", Some("rx_sk"), Some("reason")),
    program(Tracepoint, "tcp_send_reset", Some("sk"), Some("reason")),
    program(Tracepoint, "mark_victim", Some("task"), None),
    program(Tracepoint, "sys_exit", Some("regs"), Some("ret")),
    program(Exit, "__sk_mem_raise_allocated", Some("sk"), Some("kind")),
    Program {
        name: "sk_forced_mem_schedule_entry",
        ..program(Entry, "sk_forced_mem_schedule", Some("sk"), Some("size"))
    },
    program(Entry, "tcp_enter_memory_pressure", Some("sk"), None),
    program(Entry, "tcp_leave_memory_pressure", Some("sk"), None),
    program(Exit, "tcp_try_rmem_schedule", Some("sk"), None),
    program(Exit, "tcp_prune_ofo_queue", Some("sk"), None),
    program(Exit, "tcp_check_oom", Some("sk"), Some("shift")),
    program(Exit, "tcp_out_of_resources", Some("sk"), None),
    program(Exit, "tcp_orphan_count_sum", None, None),
    program(Entry, "tcp_conn_request", Some("sk"), None),
    program(Entry, "tcp_syn_flood_action", Some("sk"), None),
    program(Entry, "tcp_v4_syn_recv_sock", Some("sk"), None),
    program(Entry, "tcp_v6_syn_recv_sock", Some("sk"), Some("skb")),
    program(Exit, "inet_hash_connect", Some("sk"), None),
    program(Exit, "inet6_hash_connect", Some("sk"), None),
    Program {
        name: "oom_kill_process_entry",
        ..program(Entry, "oom_kill_process", Some("oc"), None)
    },
    Program { name: "oom_kill_process_exit", ..program(Exit, "oom_kill_process", None, None) },
    Program {
        name: "sk_forced_mem_schedule_exit",
        ..program(Exit, "sk_forced_mem_schedule", Some("sk"), None)
    },
    program(Entry, "tcp_collapse_one", None, None),
    Program {
        name: "kfree_skb_again",
        ..program(Tracepoint, "kfree_skb", Some("rx_sk"), Some("reason"))
    },
];

/// Programs with a second one on the same hook: the kernel skips a program that is running on the CPU already, and what the first one misses
/// for that the second one takes. An event is lost only when both were skipped.
pub const SECONDS: [(u32, u32); 1] = [(HOOK_DROP, HOOK_DROP_AGAIN)];

/// Where a program finds what it reads in its context, in the running kernel. [`crate::ABSENT`]: nowhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub object: u32,
    pub value: u32,
    /// Of [`Attachment::Exit`]: behind the last argument
    pub result: u32,
}

impl Arguments {
    pub const ABSENT: Self =
        Self { object: crate::ABSENT, value: crate::ABSENT, result: crate::ABSENT };
}
