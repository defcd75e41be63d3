//! Programs on kernel functions: one body per function, and two attach methods.
//!
//! By fentry and fexit the arguments have types, on return as well. By kprobe and kretprobe, for
//! kernels without trampolines, there are only registers: structures are copied by a helper, and a
//! body that runs on return gets its arguments from a program on the entry that stored them.

use aya_ebpf::{macros::map, maps::LruHashMap};

use crate::{
    event,
    layout::{BtfPtr, argument, config, register, word},
};

/// A call of a hook, as a body sees it.
pub(crate) trait Call: Copy {
    const HOOK: u32;
    /// Does the backup program run?
    const IS_BACKUP: bool;
    /// The program's context. It is on the stack of the hook, at the same address for both
    /// programs.
    fn context(self) -> *mut core::ffi::c_void;
    /// The argument that points to the structure that the call is about.
    fn object(self) -> BtfPtr;
    fn value(self) -> u64;
    /// The function's result; all 64 bits of the register.
    fn result(self) -> u64;
}

/// A call seen by a tracepoint, by fentry or by fexit.
#[derive(Clone, Copy)]
pub(crate) struct Typed<const HOOK: u32, const IS_BACKUP: bool = false>(
    pub(crate) *mut core::ffi::c_void,
);

impl<const HOOK: u32, const IS_BACKUP: bool> Typed<HOOK, IS_BACKUP> {
    /// The structure that the argument at this position points to: for tracepoints whose arguments
    /// never changed position.
    #[inline(always)]
    pub(crate) fn object_at(self, position: u32) -> BtfPtr {
        // SAFETY: the argument is a pointer to a kernel structure.
        unsafe { BtfPtr::new(word(self.0, position) as *const u8) }
    }

    /// The number at this position, for the same tracepoints.
    #[inline(always)]
    pub(crate) fn value_at(self, position: u32) -> u64 {
        word(self.0, position)
    }
}

impl<const HOOK: u32, const IS_BACKUP: bool> Call for Typed<HOOK, IS_BACKUP> {
    const HOOK: u32 = HOOK;
    const IS_BACKUP: bool = IS_BACKUP;

    #[inline(always)]
    fn context(self) -> *mut core::ffi::c_void {
        self.0
    }

    #[inline(always)]
    fn object(self) -> BtfPtr {
        let address = argument!(self.0, HOOK, object) as *const u8;
        // SAFETY: the argument of this name is a pointer to a kernel structure.
        unsafe { BtfPtr::new(address) }
    }

    #[inline(always)]
    fn value(self) -> u64 {
        argument!(self.0, HOOK, value)
    }

    #[inline(always)]
    fn result(self) -> u64 {
        argument!(self.0, HOOK, result)
    }
}

/// A call seen by kprobe, or by kretprobe where the body reads the result alone.
#[derive(Clone, Copy)]
pub(crate) struct ByRegisters<const HOOK: u32>(pub(crate) *mut core::ffi::c_void);

impl<const HOOK: u32> Call for ByRegisters<HOOK> {
    const HOOK: u32 = HOOK;
    const IS_BACKUP: bool = false;

    #[inline(always)]
    fn context(self) -> *mut core::ffi::c_void {
        self.0
    }

    #[inline(always)]
    fn object(self) -> BtfPtr {
        BtfPtr::untyped(register(self.0, config!(arguments[HOOK as usize].object)) as *const u8)
    }

    #[inline(always)]
    fn value(self) -> u64 {
        register(self.0, config!(arguments[HOOK as usize].value))
    }

    #[inline(always)]
    fn result(self) -> u64 {
        register(self.0, config!(arguments[HOOK as usize].result))
    }
}

/// The entry arguments of a call that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EntryArguments {
    object: u64,
    value: u64,
    hook: u64,
}

/// By the stack address of the return address, which belongs to this call alone until it returns:
/// neither to another thread, nor to a softirq that interrupts. Entries of calls whose return was
/// not seen are the least recently used, and are replaced. User space sets the size.
#[map]
static ENTRY_ARGUMENTS: LruHashMap<u64, EntryArguments> = LruHashMap::with_max_entries(1, 0);

/// By the program on the entry.
#[inline(always)]
pub(crate) fn store_arguments<C: Call>(call: C, context: *mut core::ffi::c_void) {
    let stack = register(context, config!(stack_pointer));
    let (object, value) = (call.object().raw(), call.value());
    let arguments = EntryArguments { object, value, hook: C::HOOK.into() };
    // Without room the return finds no arguments, and is counted as dropped.
    let _ = ENTRY_ARGUMENTS.insert(stack, arguments, 0);
}

/// A call seen by kretprobe, with its entry arguments.
#[derive(Clone, Copy)]
pub(crate) struct Returned<const HOOK: u32> {
    context: *mut core::ffi::c_void,
    arguments: EntryArguments,
}

impl<const HOOK: u32> Returned<HOOK> {
    /// `None`: the entry was not seen. The call is counted as dropped.
    #[inline(always)]
    pub(crate) fn new(context: *mut core::ffi::c_void) -> Option<Self> {
        let stack = register(context, config!(stack_pointer)) - u64::from(config!(return_bytes));
        // SAFETY: the map gave the pointer. Volatile, because the map may reuse the entry for
        // another call at any time after its removal.
        let arguments = ENTRY_ARGUMENTS.get_ptr(stack).map(|it| unsafe { it.read_volatile() });
        let _ = ENTRY_ARGUMENTS.remove(stack);
        match arguments {
            Some(arguments) if arguments.hook == u64::from(HOOK) => {
                Some(Self { context, arguments })
            }
            _ => {
                event::count_dropped::<Self>();
                None
            }
        }
    }
}

impl<const HOOK: u32> Call for Returned<HOOK> {
    const HOOK: u32 = HOOK;
    const IS_BACKUP: bool = false;

    #[inline(always)]
    fn context(self) -> *mut core::ffi::c_void {
        self.context
    }

    #[inline(always)]
    fn object(self) -> BtfPtr {
        BtfPtr::untyped(self.arguments.object as *const u8)
    }

    #[inline(always)]
    fn value(self) -> u64 {
        self.arguments.value
    }

    #[inline(always)]
    fn result(self) -> u64 {
        register(self.context, config!(arguments[HOOK as usize].result))
    }
}

/// Defines both programs of a tracepoint. The body gets a [`Typed`].
macro_rules! on_tracepoint {
    ($target:tt, $hook:ident: $body:path, $first:ident, $backup:ident) => {
        #[aya_ebpf::macros::btf_tracepoint(function = $target)]
        pub(crate) fn $first(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            let call = $crate::function::Typed::<{ c1m_ebpf::$hook }>(context);
            $body(call);
            $crate::backup::end(call);
            0
        }

        #[aya_ebpf::macros::btf_tracepoint(function = $target)]
        pub(crate) fn $backup(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            let call = $crate::function::Typed::<{ c1m_ebpf::$hook }, true>(context);
            $body(call);
            $crate::backup::end(call);
            0
        }
    };
}

/// Defines the programs of one body. `entry`: on entry. `exit`: on return, with the arguments.
/// `result`: on return, with the result alone. With a name after `backup`, the backup program as
/// well.
macro_rules! on_function {
    (entry $target:tt, $hook:ident: $body:path, $typed:ident, $kprobe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fentry $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fentry $target, $hook: $body, $backup, true);)?
        $crate::function::on_function!(@kprobe $target, $hook: $body, $kprobe);
    };
    (exit $target:tt, $hook:ident: $body:path, $typed:ident, $entry:ident, $kprobe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fexit $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fexit $target, $hook: $body, $backup, true);)?

        #[aya_ebpf::macros::kprobe(function = $target)]
        pub(crate) fn $entry(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            $crate::function::store_arguments(
                $crate::function::ByRegisters::<{ c1m_ebpf::kprobe(c1m_ebpf::$hook) }>(context),
                context,
            );
            0
        }

        #[aya_ebpf::macros::kretprobe(function = $target)]
        pub(crate) fn $kprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            if let Some(call) =
                $crate::function::Returned::<{ c1m_ebpf::kprobe(c1m_ebpf::$hook) }>::new(context)
            {
                $body(call);
            }
            0
        }
    };
    (result $target:tt, $hook:ident: $body:path, $typed:ident, $kprobe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fexit $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fexit $target, $hook: $body, $backup, true);)?

        #[aya_ebpf::macros::kretprobe(function = $target)]
        pub(crate) fn $kprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            $body($crate::function::ByRegisters::<{ c1m_ebpf::kprobe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
    (@fentry $target:tt, $hook:ident: $body:path, $name:ident, $is_backup:literal) => {
        #[aya_ebpf::macros::fentry(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            let call = $crate::function::Typed::<{ c1m_ebpf::$hook }, $is_backup>(context);
            $body(call);
            $crate::backup::end(call);
            0
        }
    };
    (@fexit $target:tt, $hook:ident: $body:path, $name:ident, $is_backup:literal) => {
        #[aya_ebpf::macros::fexit(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            let call = $crate::function::Typed::<{ c1m_ebpf::$hook }, $is_backup>(context);
            $body(call);
            $crate::backup::end(call);
            0
        }
    };
    (@kprobe $target:tt, $hook:ident: $body:path, $name:ident) => {
        #[aya_ebpf::macros::kprobe(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            $body($crate::function::ByRegisters::<{ c1m_ebpf::kprobe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
}

pub(crate) use {on_function, on_tracepoint};
