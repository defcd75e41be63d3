//! The programs of the object, each with its hook in the kernel.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A tracepoint, with typed arguments
    Tracepoint,
    /// The entry of a kernel function
    Entry,
    /// The return of a kernel function
    Exit,
    /// The entry of a kernel function: arguments are registers
    Kprobe,
    /// The return of a kernel function: the result is a register
    Kretprobe,
}

impl Attachment {
    pub const ALL: [Self; 5] =
        [Self::Tracepoint, Self::Entry, Self::Exit, Self::Kprobe, Self::Kretprobe];

    /// The name that the kernel's tools use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tp_btf",
            Self::Entry => "fentry",
            Self::Exit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
        }
    }
}

/// One program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    pub attachment: Attachment,
    /// The tracepoint or kernel function
    pub target: &'static str,
    /// Its name in the object
    pub name: &'static str,
    /// Parameters that the program reads, by their names in the kernel: an object and a value. A
    /// program on a tracepoint without either reads nothing, or arguments whose position never
    /// changed.
    pub object: Option<&'static str>,
    pub value: Option<&'static str>,
    /// Of [`Attachment::Kretprobe`]: the program on the function's entry that stores the entry
    /// arguments until the function returns
    pub entry_program: Option<&'static str>,
    /// The backup program on the same hook, for the calls that this program was skipped for; see
    /// [`crate::Marks`]. `None`: the hook cannot be reached while its program runs on the CPU, or
    /// it is a kprobe, where the kernel would skip the backup program as well
    /// (kernel/trace/bpf_trace.c, `trace_call_bpf`: `bpf_prog_active` is per CPU, not per program).
    pub backup: Option<&'static str>,
}

/// Indices of [`PROGRAMS`]. Tracepoints first.
pub const HOOK_SET_STATE: u32 = 0;
pub const HOOK_EXCEED: u32 = 1;
pub const HOOK_DESTROY: u32 = 2;
pub const HOOK_DROP: u32 = 3;
pub const HOOK_RESET: u32 = 4;
pub const HOOK_OOM: u32 = 5;
pub const HOOK_CALL: u32 = 6;
/// Functions, by fentry and fexit; [`kprobe`] gives the same by kprobe and kretprobe.
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
pub const HOOK_REQUEST_EXIT: u32 = 26;
pub const HOOK_SYN_RECV_4_EXIT: u32 = 27;
pub const HOOK_SYN_RECV_6_EXIT: u32 = 28;
const LAST_FUNCTION: u32 = HOOK_SYN_RECV_6_EXIT;

/// The first [`PROGRAMS`] are on tracepoints.
pub const TRACEPOINTS: usize = HOOK_RAISE as usize;
/// The first [`PROGRAMS`] are those that are not attached by kprobe or kretprobe.
pub const HOOKS: usize = LAST_FUNCTION as usize + 1;
const FUNCTIONS: usize = HOOKS - TRACEPOINTS;

/// The program on the same function by kprobe or kretprobe.
#[must_use]
pub const fn kprobe(function: u32) -> u32 {
    function + FUNCTIONS as u32
}

/// The hook whatever the attach method: of a program by kprobe or kretprobe, the one by fentry or
/// fexit; of any other program, itself.
#[must_use]
pub const fn purpose(hook: u32) -> u32 {
    if hook > LAST_FUNCTION { hook - FUNCTIONS as u32 } else { hook }
}

/// Every program, in the order of `HOOK_*`.
pub const PROGRAMS: [Program; TRACEPOINTS + 2 * FUNCTIONS] = {
    let mut all = [TRACEPOINT_PROGRAMS[0]; TRACEPOINTS + 2 * FUNCTIONS];
    let mut at = 0;
    while at < TRACEPOINTS {
        all[at] = TRACEPOINT_PROGRAMS[at];
        at += 1;
    }
    at = 0;
    while at < FUNCTIONS {
        [all[TRACEPOINTS + at], all[TRACEPOINTS + FUNCTIONS + at]] = FUNCTION_PROGRAMS[at];
        at += 1;
    }
    all
};

const fn tracepoint(
    target: &'static str,
    name: &'static str,
    object: Option<&'static str>,
    value: Option<&'static str>,
    backup: Option<&'static str>,
) -> Program {
    Program {
        attachment: Attachment::Tracepoint,
        target,
        name,
        object,
        value,
        entry_program: None,
        backup,
    }
}

/// Hooks without a backup program are not reached while their program runs: the OOM killer marks
/// its victims under a lock, and a system call ends in the context of its task, with preemption off
/// (5.10 to 6.18).
const TRACEPOINT_PROGRAMS: [Program; TRACEPOINTS] = [
    tracepoint(
        "inet_sock_set_state",
        "inet_sock_set_state",
        None,
        None,
        Some("inet_sock_set_state_backup"),
    ),
    tracepoint(
        "sock_exceed_buf_limit",
        "sock_exceed_buf_limit",
        None,
        None,
        Some("sock_exceed_buf_limit_backup"),
    ),
    tracepoint("tcp_destroy_sock", "tcp_destroy_sock", None, None, Some("tcp_destroy_sock_backup")),
    tracepoint("kfree_skb", "kfree_skb", Some("rx_sk"), Some("reason"), Some("kfree_skb_backup")),
    tracepoint(
        "tcp_send_reset",
        "tcp_send_reset",
        Some("sk"),
        Some("reason"),
        Some("tcp_send_reset_backup"),
    ),
    tracepoint("mark_victim", "mark_victim", Some("task"), None, None),
    tracepoint("sys_exit", "sys_exit", Some("regs"), Some("ret"), None),
];

/// A function by both attach methods: its name, the name of the programs, and the parameters that
/// they read. `backup`: it is called in system calls that a softirq can interrupt, and in softirqs.
macro_rules! function {
    (@$typed:ident $by_registers:ident $target:literal $name:literal $object:expr, $value:expr, $entry:expr) => {{
        let typed = Program {
            attachment: Attachment::$typed,
            target: $target,
            name: $name,
            object: $object,
            value: $value,
            entry_program: None,
            backup: None,
        };
        let by_registers = Program {
            attachment: Attachment::$by_registers,
            name: concat!("kprobe_", $name),
            entry_program: $entry,
            ..typed
        };
        [typed, by_registers]
    }};
    (backup $kind:ident $target:literal $name:literal $($arguments:tt)*) => {{
        let [typed, by_registers] = function!($kind $target $name $($arguments)*);
        [Program { backup: Some(concat!($name, "_backup")), ..typed }, by_registers]
    }};
    (entry $target:literal $name:literal $object:expr, $value:expr) => {
        function!(@Entry Kprobe $target $name $object, $value, None)
    };
    // Reads the result alone.
    (exit $target:literal $name:literal) => {
        function!(@Exit Kretprobe $target $name None, None, None)
    };
    (exit $target:literal $name:literal $object:expr, $value:expr) => {
        function!(@Exit Kretprobe $target $name $object, $value, Some(concat!("entry_", $name)))
    };
}

/// Functions without a backup program are called in softirqs alone (a listener's), with softirqs
/// off (`tcp_check_oom`, `tcp_out_of_resources`), in system calls alone (`inet_hash_connect`), or
/// under a lock (`oom_kill_process`): 5.10 to 6.18.
const FUNCTION_PROGRAMS: [[Program; 2]; FUNCTIONS] = [
    function!(backup exit "__sk_mem_raise_allocated" "sk_mem_raise_allocated" Some("sk"), Some("kind")),
    function!(backup entry "sk_forced_mem_schedule" "sk_forced_mem_schedule_entry" Some("sk"), Some("size")),
    function!(backup entry "tcp_enter_memory_pressure" "tcp_enter_memory_pressure" Some("sk"), None),
    function!(backup entry "tcp_leave_memory_pressure" "tcp_leave_memory_pressure" Some("sk"), None),
    function!(backup exit "tcp_try_rmem_schedule" "tcp_try_rmem_schedule" Some("sk"), None),
    function!(backup exit "tcp_prune_ofo_queue" "tcp_prune_ofo_queue"),
    function!(exit "tcp_check_oom" "tcp_check_oom" Some("sk"), Some("shift")),
    function!(exit "tcp_out_of_resources" "tcp_out_of_resources"),
    function!(backup exit "tcp_orphan_count_sum" "tcp_orphan_count_sum"),
    function!(entry "tcp_conn_request" "tcp_conn_request_entry" Some("sk"), None),
    function!(entry "tcp_syn_flood_action" "tcp_syn_flood_action" Some("sk"), None),
    function!(entry "tcp_v4_syn_recv_sock" "tcp_v4_syn_recv_sock_entry" Some("sk"), None),
    function!(entry "tcp_v6_syn_recv_sock" "tcp_v6_syn_recv_sock_entry" Some("sk"), Some("skb")),
    function!(exit "inet_hash_connect" "inet_hash_connect" Some("sk"), None),
    function!(exit "inet6_hash_connect" "inet6_hash_connect" Some("sk"), None),
    function!(entry "oom_kill_process" "oom_kill_process_entry" Some("oc"), None),
    function!(exit "oom_kill_process" "oom_kill_process_exit"),
    function!(backup exit "sk_forced_mem_schedule" "sk_forced_mem_schedule_exit" Some("sk"), None),
    function!(backup entry "tcp_collapse_one" "tcp_collapse_one" None, None),
    function!(exit "tcp_conn_request" "tcp_conn_request_exit"),
    function!(exit "tcp_v4_syn_recv_sock" "tcp_v4_syn_recv_sock_exit"),
    function!(exit "tcp_v6_syn_recv_sock" "tcp_v6_syn_recv_sock_exit"),
];

/// Has this hook (`HOOK_*`) a backup program?
#[must_use]
pub const fn has_backup(hook: u32) -> bool {
    PROGRAMS[hook as usize].backup.is_some()
}

/// Is it a tracepoint?
#[must_use]
pub const fn is_of_tracepoint(hook: u32) -> bool {
    (hook as usize) < TRACEPOINTS
}

/// Positions in a program's context in the running kernel, in words: among its arguments, or in
/// struct pt_regs. [`crate::ABSENT`]: not there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub object: u32,
    pub value: u32,
    /// Of [`Attachment::Exit`] and [`Attachment::Kretprobe`]: the function's result
    pub result: u32,
}

impl Arguments {
    pub const ABSENT: Self =
        Self { object: crate::ABSENT, value: crate::ABSENT, result: crate::ABSENT };
}
