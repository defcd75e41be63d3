//! Programs on kernel functions: one body each, and two ways to attach it.
//!
//! By fentry and fexit the arguments are there with their types, on the way out as well. By kprobe and kretprobe, where the kernel has
//! no trampolines, there are registers alone: a structure is read by a helper that copies, and what a body on the way out needs of the
//! arguments is kept from the way in.

use aya_ebpf::{macros::map, maps::LruHashMap};

use crate::{
    event,
    layout::{BtfPtr, argument, config, register, word},
};

/// What a body sees of a call.
pub(crate) trait Call: Copy {
    const HOOK: u32;
    /// Does the backup program see it?
    const IS_BACKUP: bool;
    /// Where the hook has put what the program is given: on the stack, at the same place for both programs of a hook.
    fn context(self) -> *mut core::ffi::c_void;
    /// The structure that the call is about.
    fn object(self) -> BtfPtr;
    fn value(self) -> u64;
    /// What the function returned; all 64 bits of the register.
    fn result(self) -> u64;
}

/// Seen by a tracepoint, by fentry or by fexit.
#[derive(Clone, Copy)]
pub(crate) struct Typed<const HOOK: u32, const IS_BACKUP: bool = false>(
    pub(crate) *mut core::ffi::c_void,
);

impl<const HOOK: u32, const IS_BACKUP: bool> Typed<HOOK, IS_BACKUP> {
    /// The structure that the argument at this position points to, and a number at another one: of tracepoints whose arguments never moved.
    #[inline(always)]
    pub(crate) fn object_at(self, position: u32) -> BtfPtr {
        // SAFETY: the argument is a pointer to a kernel structure.
        unsafe { BtfPtr::new(word(self.0, position) as *const u8) }
    }

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

/// Seen by kprobe, or by kretprobe when nothing but the result is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Probed<const HOOK: u32>(pub(crate) *mut core::ffi::c_void);

impl<const HOOK: u32> Call for Probed<HOOK> {
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

/// Arguments of a call that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    object: u64,
    value: u64,
    hook: u64,
}

/// By the place on the stack that the return address is at, which is nobody else's until then: neither another thread's nor that of a
/// softirq that comes in between. The least recent ones make room, of calls whose return was missed. User space sets the size.
#[map]
static KEPT: LruHashMap<u64, Kept> = LruHashMap::with_max_entries(1, 0);

/// On the way in.
#[inline(always)]
pub(crate) fn keep<C: Call>(call: C, context: *mut core::ffi::c_void) {
    let stack = register(context, config!(stack_pointer));
    let kept = Kept { object: call.object().raw(), value: call.value(), hook: C::HOOK.into() };
    // One that finds no room is missing on the way out, and counted there.
    let _ = KEPT.insert(stack, kept, 0);
}

/// Seen by kretprobe, with what was kept.
#[derive(Clone, Copy)]
pub(crate) struct Returned<const HOOK: u32> {
    context: *mut core::ffi::c_void,
    kept: Kept,
}

impl<const HOOK: u32> Returned<HOOK> {
    /// `None`: the way in was missed, and the call is lost.
    #[inline(always)]
    pub(crate) fn new(context: *mut core::ffi::c_void) -> Option<Self> {
        let stack = register(context, config!(stack_pointer)) - u64::from(config!(return_bytes));
        // SAFETY: copied at once; an entry is written before the call that removes it begins.
        let kept = unsafe { KEPT.get(stack) }.copied();
        let _ = KEPT.remove(stack);
        match kept {
            Some(kept) if kept.hook == u64::from(HOOK) => Some(Self { context, kept }),
            _ => {
                event::lost::<Self>();
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
        BtfPtr::untyped(self.kept.object as *const u8)
    }

    #[inline(always)]
    fn value(self) -> u64 {
        self.kept.value
    }

    #[inline(always)]
    fn result(self) -> u64 {
        register(self.context, config!(arguments[HOOK as usize].result))
    }
}

/// Makes both programs of a tracepoint. The body gets a [`Typed`].
macro_rules! on_tracepoint {
    ($target:tt, $hook:ident: $body:path, $first:ident, $backup:ident) => {
        #[aya_ebpf::macros::btf_tracepoint(function = $target)]
        pub(crate) fn $first(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }>(aya_ebpf::EbpfContext::as_ptr(
                &ctx,
            )));
            0
        }

        #[aya_ebpf::macros::btf_tracepoint(function = $target)]
        pub(crate) fn $backup(ctx: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }, true>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
}

/// Makes the programs of one body. `entry`: on the way in. `exit`: on the way out, with the arguments. `result`: on the way out, with
/// nothing else. With a name behind `backup`, the backup program too.
macro_rules! on_function {
    (entry $target:tt, $hook:ident: $body:path, $typed:ident, $probe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fentry $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fentry $target, $hook: $body, $backup, true);)?
        $crate::function::on_function!(@kprobe $target, $hook: $body, $probe);
    };
    (exit $target:tt, $hook:ident: $body:path, $typed:ident, $keep:ident, $probe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fexit $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fexit $target, $hook: $body, $backup, true);)?

        #[aya_ebpf::macros::kprobe(function = $target)]
        pub(crate) fn $keep(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            $crate::function::keep(
                $crate::function::Probed::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>(context),
                context,
            );
            0
        }

        #[aya_ebpf::macros::kretprobe(function = $target)]
        pub(crate) fn $probe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            let context = aya_ebpf::EbpfContext::as_ptr(&ctx);
            if let Some(call) =
                $crate::function::Returned::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>::new(context)
            {
                $body(call);
            }
            0
        }
    };
    (result $target:tt, $hook:ident: $body:path, $typed:ident, $probe:ident $(, backup $backup:ident)?) => {
        $crate::function::on_function!(@fexit $target, $hook: $body, $typed, false);
        $($crate::function::on_function!(@fexit $target, $hook: $body, $backup, true);)?

        #[aya_ebpf::macros::kretprobe(function = $target)]
        pub(crate) fn $probe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            $body($crate::function::Probed::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
    (@fentry $target:tt, $hook:ident: $body:path, $name:ident, $is_backup:literal) => {
        #[aya_ebpf::macros::fentry(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }, $is_backup>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
    (@fexit $target:tt, $hook:ident: $body:path, $name:ident, $is_backup:literal) => {
        #[aya_ebpf::macros::fexit(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }, $is_backup>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
    (@kprobe $target:tt, $hook:ident: $body:path, $name:ident) => {
        #[aya_ebpf::macros::kprobe(function = $target)]
        pub(crate) fn $name(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            $body($crate::function::Probed::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
}

pub(crate) use {on_function, on_tracepoint};
