//! Programs on kernel functions: one body each, and two ways to attach it.
//!
//! By fentry and fexit the arguments are there with their types, on the way out as well. By kprobe and kretprobe, where the kernel has
//! no trampolines, there are registers alone: a structure is read by a helper that copies, and what a body on the way out needs of the
//! arguments is kept from the way in.

use aya_ebpf::{macros::map, maps::LruHashMap};

use crate::{
    event,
    layout::{BtfPtr, argument, config, register},
};

/// What a body sees of a call.
pub(crate) trait Call: Copy {
    const HOOK: u32;
    /// The structure that the call is about.
    fn object(self) -> BtfPtr;
    fn value(self) -> u64;
    /// What the function returned; all 64 bits of the register.
    fn result(self) -> u64;
}

/// Seen by fentry or fexit.
#[derive(Clone, Copy)]
pub(crate) struct Typed<const HOOK: u32>(pub(crate) *mut core::ffi::c_void);

impl<const HOOK: u32> Call for Typed<HOOK> {
    const HOOK: u32 = HOOK;

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
                event::lost(HOOK);
                None
            }
        }
    }
}

impl<const HOOK: u32> Call for Returned<HOOK> {
    const HOOK: u32 = HOOK;

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

/// Makes the programs of one body. `entry`: on the way in. `exit`: on the way out, with the arguments. `result`: on the way out, with
/// nothing else.
macro_rules! on_function {
    (entry $target:tt, $hook:ident: $body:path, $typed:ident, $probe:ident) => {
        #[aya_ebpf::macros::fentry(function = $target)]
        pub(crate) fn $typed(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }>(aya_ebpf::EbpfContext::as_ptr(
                &ctx,
            )));
            0
        }

        #[aya_ebpf::macros::kprobe(function = $target)]
        pub(crate) fn $probe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            $body($crate::function::Probed::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
    (exit $target:tt, $hook:ident: $body:path, $typed:ident, $keep:ident, $probe:ident) => {
        #[aya_ebpf::macros::fexit(function = $target)]
        pub(crate) fn $typed(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }>(aya_ebpf::EbpfContext::as_ptr(
                &ctx,
            )));
            0
        }

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
    (result $target:tt, $hook:ident: $body:path, $typed:ident, $probe:ident) => {
        #[aya_ebpf::macros::fexit(function = $target)]
        pub(crate) fn $typed(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            $body($crate::function::Typed::<{ c1m_ebpf::$hook }>(aya_ebpf::EbpfContext::as_ptr(
                &ctx,
            )));
            0
        }

        #[aya_ebpf::macros::kretprobe(function = $target)]
        pub(crate) fn $probe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            $body($crate::function::Probed::<{ c1m_ebpf::probe(c1m_ebpf::$hook) }>(
                aya_ebpf::EbpfContext::as_ptr(&ctx),
            ));
            0
        }
    };
}

pub(crate) use on_function;
