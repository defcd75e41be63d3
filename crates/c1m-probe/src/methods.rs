//! Takes the best method to each probe that the running kernel allows, and says why a better one is
//! refused.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    programs::{self, ProgramError, kprobe::KProbeError},
};
use c1m_btf::Btf;
use c1m_ebpf::{Attachment, Config, HOOK_SET_STATE, Layout, PROGRAMS, Program};
use c1m_record::{Hook, RefusedHook};

use super::{
    TraceError,
    counters::CounterMaps,
    lost::Descriptors,
    plan::{self, AttachMethod, Probe, Source},
    probes::PROBES,
    sample,
};
use crate::{chain, options::Options};

/// ENOTSUPP of the kernel, which user space has no name for: include/linux/errno.h
const ENOTSUPP: i32 = 524;

/// Programs are shared between probes: each is loaded and attached once, when the first probe asks
/// for it.
pub(super) struct Methods<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a Btf,
    kernel_types: aya::Btf,
    layout: &'a Layout,
    config: &'a Config,
    options: &'a Options,
    /// By `HOOK_*`: the programs' descriptors, or why there are none.
    tried: BTreeMap<u32, Result<Descriptors, String>>,
    /// By `HOOK_*`: why its backup program is not attached
    without_backup: BTreeMap<u32, String>,
}

impl<'a> Methods<'a> {
    pub(super) fn new(
        ebpf: &'a mut Ebpf,
        btf: &'a Btf,
        (layout, config): (&'a Layout, &'a Config),
        options: &'a Options,
    ) -> Result<Self, TraceError> {
        let names = PROGRAMS.iter().map(type_name).chain([sample::TYPE_NAME.into()]);
        let kernel_types =
            super::layout::outline(btf, names).map_err(|error| TraceError::Load(chain(&error)))?;
        let (tried, without_backup) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { ebpf, btf, kernel_types, layout, config, options, tried, without_backup })
    }

    /// Every probe by its best method. An error when not a single program could be attached.
    pub(super) fn take_best(&mut self) -> Result<Vec<Hook>, TraceError> {
        let hooks: Vec<Hook> = PROBES.iter().map(|probe| self.take(probe)).collect();
        if self.tried.values().all(Result::is_err) {
            let first = self.tried.values().find_map(|tried| tried.as_ref().err());
            return Err(TraceError::NoHook(first.cloned().unwrap_or_default()));
        }
        Ok(hooks)
    }

    /// Which programs are attached, and their descriptors.
    pub(super) fn attached(&self) -> (Vec<u32>, Vec<Descriptors>) {
        self.tried.iter().filter_map(|(hook, tried)| Some((hook, tried.as_ref().ok()?))).unzip()
    }

    /// Counts what is there already, once the programs count what comes.
    pub(super) fn count_present(&mut self, maps: &CounterMaps) -> Result<(), String> {
        let places = self.options.present.as_ref().map_err(Clone::clone)?;
        if !matches!(self.tried.get(&HOOK_SET_STATE), Some(Ok(_))) {
            return Err("connections are not counted on this host".into());
        }
        maps.forget_present();
        sample::count_present(self.ebpf, &self.kernel_types, places)?;
        maps.add_connections(maps.shared().present.cast_signed());
        Ok(())
    }

    fn take(&mut self, probe: &Probe) -> Hook {
        let mut refused = Vec::new();
        let mut chosen = None;
        for method in probe.methods {
            match self.try_method(method) {
                Ok(()) => {
                    chosen = Some(method);
                    break;
                }
                Err(reason) => refused.push(RefusedHook { hook: method.name(), reason }),
            }
        }
        refused.extend(chosen.map(|method| self.backups_refused(method)).into_iter().flatten());
        let reasons: Vec<String> =
            refused.iter().map(|it| format!("{}: {}", it.hook, it.reason)).collect();
        Hook {
            probe: probe.id.into(),
            proves: probe.proves.into(),
            hook: chosen.map(|method| self.name(method)),
            attached: chosen.is_some_and(|method| matches!(method.source, Source::Programs { .. })),
            resolution: chosen.map(|method| method.resolution),
            says: chosen.map(|method| method.says.into()),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
            refused,
        }
    }

    /// Of the programs that are attached for it.
    fn backups_refused(&self, method: &AttachMethod) -> Vec<RefusedHook> {
        let Source::Programs { needed, also } = method.source else { return Vec::new() };
        let refused = needed.iter().chain(also).filter_map(|hook| {
            let reason = self.without_backup.get(hook)?.clone();
            Some(RefusedHook {
                hook: format!("{} (backup program)", plan::hook_name(*hook)),
                reason,
            })
        });
        refused.collect()
    }

    /// The programs that are attached for it, or what is read.
    fn name(&self, method: &AttachMethod) -> String {
        let Source::Programs { needed, also } = method.source else { return method.name() };
        let is_attached = |hook: &&u32| matches!(self.tried.get(hook), Some(Ok(_)));
        let attached = needed.iter().chain(also).filter(is_attached);
        let names: Vec<_> = attached.map(|hook| plan::hook_name(*hook)).collect();
        names.join(" + ")
    }

    fn try_method(&mut self, method: &AttachMethod) -> Result<(), String> {
        let Source::Programs { needed, also } = method.source else { return Ok(()) };
        if let Some(lack) = (method.lack)(self.layout, self.config) {
            return Err(lack.into());
        }
        let is_there: Vec<u32> = needed
            .iter()
            .copied()
            .filter(|hook| matches!(self.tried.get(hook), Some(Ok(_))))
            .collect();
        for hook in needed {
            if let Err(reason) = self.try_program(*hook) {
                // Half of a method tells half of the truth. What another probe asked for before
                // stays.
                for half in needed.iter().filter(|hook| !is_there.contains(hook)) {
                    self.detach(*half, &reason);
                }
                return Err(if needed.len() > 1 {
                    format!("{}: {reason}", plan::hook_name(*hook))
                } else {
                    reason
                });
            }
        }
        for hook in also {
            // What the kernel does not have is not missed: without IPv6 there is nothing to see of
            // it.
            let _ = self.try_program(*hook);
        }
        Ok(())
    }

    fn try_program(&mut self, hook: u32) -> Result<(), String> {
        if let Some(tried) = self.tried.get(&hook) {
            return tried.clone().map(drop);
        }
        let result = self.attach(hook);
        self.tried.insert(hook, result.clone());
        result.map(drop)
    }

    fn attach(&mut self, hook: u32) -> Result<Descriptors, String> {
        let known = plan::program(hook).ok_or("not in the plan")?;
        let names = [known.target, known.attachment.name()];
        if self.options.without.iter().any(|left_out| names.contains(&left_out.as_str())) {
            return Err("left out by --without-hook".into());
        }
        // Both would count each call.
        if plan::purpose(hook) != hook
            && matches!(self.tried.get(&plan::purpose(hook)), Some(Ok(_)))
        {
            return Err("the function is hooked already".into());
        }
        if let Some(lack) = plan::lack(self.btf, &self.config.arguments[hook as usize], known) {
            return Err(lack);
        }
        let attached = self.attach_in_order(hook, known);
        if attached.is_err() {
            self.unload(known);
        }
        attached
    }

    /// What keeps the arguments first: no return is seen whose beginning was not. The backup
    /// program so that it runs behind the first one: what was attached later runs later on a
    /// tracepoint (kernel/tracepoint.c, `func_add`), and earlier on a function
    /// (kernel/bpf/trampoline.c, `bpf_trampoline_link_prog`, `hlist_add_head`); 5.10 to 6.18.
    fn attach_in_order(&mut self, hook: u32, known: &Program) -> Result<Descriptors, String> {
        if let Some(entry) = known.entry_program {
            self.attach_program(entry, known)?;
        }
        if known.attachment == Attachment::Tracepoint {
            let program = self.attach_program(known.name, known)?;
            return Ok(Descriptors { program, backup: self.attach_backup(hook, known) });
        }
        let backup = self.attach_backup(hook, known);
        Ok(Descriptors { program: self.attach_program(known.name, known)?, backup })
    }

    /// Without it what the first program was skipped for is lost, and said to be.
    fn attach_backup(&mut self, hook: u32, known: &Program) -> Option<i32> {
        let name = known.backup?;
        match self.attach_program(name, known) {
            Ok(program) => Some(program),
            Err(reason) => {
                self.without_backup.insert(hook, reason);
                if let Some(program) = self.ebpf.program_mut(name) {
                    unload(program);
                }
                None
            }
        }
    }

    fn attach_program(&mut self, name: &str, known: &Program) -> Result<i32, String> {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or("the object has no such program: build it by `cargo xtask build-ebpf`")?;
        attach_one(program, known.target, &self.kernel_types)
            .map_err(|error| refusal(&error, known.attachment, self.options.verbosity))
    }

    /// What was loaded and can't be attached, or is half of something, is of no use.
    fn unload(&mut self, known: &Program) {
        for name in known.entry_program.into_iter().chain([known.name]).chain(known.backup) {
            if let Some(program) = self.ebpf.program_mut(name) {
                unload(program);
            }
        }
    }

    fn detach(&mut self, hook: u32, reason: &str) {
        if let Some(known) = plan::program(hook) {
            self.unload(known);
        }
        self.tried.insert(hook, Err(reason.into()));
    }
}

/// What the kernel's types call that which a program is attached to.
fn type_name(program: &Program) -> String {
    match program.attachment {
        Attachment::Tracepoint => format!("btf_trace_{}", program.target),
        _ => program.target.into(),
    }
}

/// Returns the program's descriptor.
fn attach_one(
    program: &mut programs::Program,
    target: &str,
    kernel_types: &aya::Btf,
) -> Result<i32, ProgramError> {
    let fd = match program {
        programs::Program::BtfTracePoint(program) => {
            program.load(target, kernel_types)?;
            program.attach()?;
            program.fd()?
        }
        programs::Program::FEntry(program) => {
            program.load(target, kernel_types)?;
            program.attach()?;
            program.fd()?
        }
        programs::Program::FExit(program) => {
            program.load(target, kernel_types)?;
            program.attach()?;
            program.fd()?
        }
        programs::Program::KProbe(program) => {
            program.load()?;
            program.attach(target, 0)?;
            program.fd()?
        }
        _ => return Err(ProgramError::NotLoaded),
    };
    Ok(fd.as_fd().as_raw_fd())
}

/// Detaches it too. One that is not loaded stays so.
fn unload(program: &mut programs::Program) {
    let _ = match program {
        programs::Program::BtfTracePoint(program) => program.unload(),
        programs::Program::FEntry(program) => program.unload(),
        programs::Program::FExit(program) => program.unload(),
        programs::Program::KProbe(program) => program.unload(),
        _ => Ok(()),
    };
}

/// One cause in words.
fn refusal(error: &ProgramError, attachment: Attachment, verbosity: u8) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().filter(|l| !l.trim().is_empty()).collect();
            if lines.is_empty() {
                return without_a_log(io_error.raw_os_error(), &io_error.to_string(), attachment);
            }
            let shown = match verbosity {
                0 => lines.len().saturating_sub(1),
                1 => lines.len().saturating_sub(12),
                _ => 0,
            };
            format!("the verifier refused it: {}", lines[shown..].join("\n"))
        }
        ProgramError::SyscallError(error) => {
            without_a_log(error.io_error.raw_os_error(), &error.io_error.to_string(), attachment)
        }
        ProgramError::NotLoaded => "the object has another kind of program under this name".into(),
        // Neither the perf event of kprobes nor their file of tracefs.
        ProgramError::KProbeError(KProbeError::FileError { io_error, .. })
            if io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            "this kernel is built without kprobes".into()
        }
        ProgramError::Btf(_) => "this kernel's types do not have it".into(),
        other => chain(other),
    }
}

/// What the kernel means by an error without a log.
fn without_a_log(code: Option<i32>, text: &str, attachment: Attachment) -> String {
    let is_of_function = matches!(attachment, Attachment::Entry | Attachment::Exit);
    let is_probe = matches!(attachment, Attachment::Kprobe | Attachment::Kretprobe);
    match code {
        Some(libc::EPERM | libc::EACCES) => {
            let mode = lockdown().map_or(String::new(), |mode| format!("; lockdown is at {mode}"));
            let kind = match attachment {
                Attachment::Tracepoint => "this kind of hook",
                Attachment::Entry | Attachment::Exit => "hooks on functions",
                Attachment::Kprobe | Attachment::Kretprobe => "kprobes",
            };
            format!("the kernel refused it without a log (EPERM): this host forbids {kind}{mode}")
        }
        Some(ENOTSUPP) => {
            "trampoline refused (ENOTSUPP): more arguments than this kernel can hand on".into()
        }
        Some(libc::EBUSY) if is_of_function => {
            "trampoline refused (EBUSY): this function can't be traced in this kernel".into()
        }
        Some(libc::ENOENT | libc::EINVAL) if is_of_function => {
            format!("trampoline refused ({text}): not a function that can be traced in this kernel")
        }
        Some(libc::ENOENT | libc::EINVAL | libc::EADDRNOTAVAIL) if is_probe => {
            format!("refused ({text}): not a function that can be probed in this kernel")
        }
        _ => format!("the kernel refused it without a log ({text})"),
    }
}

/// `integrity` or `confidentiality`; `None` without lockdown.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text.split('[').nth(1)?.split(']').next()?;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_words() {
        let said = |code, kind| without_a_log(Some(code), "text", kind);
        assert!(said(libc::EPERM, Attachment::Exit).contains("forbids hooks on functions"));
        assert!(said(libc::EPERM, Attachment::Tracepoint).contains("this kind of hook"));
        assert!(said(ENOTSUPP, Attachment::Entry).contains("more arguments"));
        assert!(said(libc::EBUSY, Attachment::Entry).contains("can't be traced"));
        assert!(said(libc::EBUSY, Attachment::Tracepoint).contains("text"));
        assert!(said(libc::EPERM, Attachment::Kretprobe).contains("forbids kprobes"));
        assert!(said(libc::ENOENT, Attachment::Kprobe).contains("can be probed"));
    }
}
