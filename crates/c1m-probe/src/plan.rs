//! What a probe is, what a method to it is, and what a kernel lacks for one; [`super::probes`] has
//! the table of all.

use c1m_btf::Btf;
use c1m_ebpf::{ABSENT, Arguments, Config, HOOK_DROP, Layout};
pub use c1m_ebpf::{Attachment, PROGRAMS, Program, kprobe, purpose};
use c1m_record::Resolution;

/// Something that c1m tells.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// snake_case, as in the `hooks` record
    pub id: &'static str,
    pub proves: &'static str,
    /// The records and fields that it ends in
    pub makes: &'static str,
    /// Members of kernel structures that the programs read
    pub reads: &'static str,
    /// The most exact first
    pub methods: &'static [AttachMethod],
}

/// One method to a probe.
#[derive(Debug, Clone, Copy)]
pub struct AttachMethod {
    pub source: Source,
    pub resolution: Resolution,
    /// What the resolution means here
    pub says: &'static str,
    /// Kernels on which it was read or seen to work
    pub versions: &'static str,
    /// What else than its arguments it needs of the kernel's types; why it can't do without.
    pub lack: fn(&Layout, &Config) -> Option<&'static str>,
}

/// Where a method takes it from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `needed`: all of these programs (`HOOK_*`), or it is not this method. `also`: these as well,
    /// where the kernel has what they are for.
    Programs { needed: &'static [u32], also: &'static [u32] },
    /// Read by user space once an interval, without a program
    Read(&'static str),
}

impl AttachMethod {
    /// As the `hooks` record has it: `fexit/tcp_check_oom`, or a counter's name.
    #[must_use]
    pub fn name(&self) -> String {
        match self.source {
            Source::Read(name) => name.into(),
            Source::Programs { needed, also } => {
                let names: Vec<_> =
                    needed.iter().chain(also).map(|index| hook_name(*index)).collect();
                names.join(" + ")
            }
        }
    }
}

/// `tp_btf/kfree_skb`. An index that is none of `HOOK_*` has no name.
#[must_use]
pub fn hook_name(index: u32) -> String {
    program(index).map_or_else(String::new, |it| format!("{}/{}", it.attachment.name(), it.target))
}

/// The program with this index.
#[must_use]
pub fn program(index: u32) -> Option<&'static Program> {
    PROGRAMS.get(usize::try_from(index).ok()?)
}

/// Is it a hook on a kernel function?
#[must_use]
pub fn is_of_functions(index: u32) -> bool {
    program(index).is_some_and(|it| it.attachment != Attachment::Tracepoint)
}

/// Why this program can't do its work on this kernel, by the kernel's types alone; `None` when they
/// have all that it needs.
#[must_use]
pub fn lack(btf: &Btf, arguments: &Arguments, program: &Program) -> Option<String> {
    let is_known = match program.attachment {
        Attachment::Tracepoint => btf.tracepoint_arity(program.target).is_some(),
        _ => btf.func_exists(program.target),
    };
    if !is_known {
        return Some(match program.attachment {
            Attachment::Tracepoint => "this kernel has no such tracepoint".into(),
            _ => "inlined in this kernel, or not there".into(),
        });
    }
    let missing = [(program.object, arguments.object), (program.value, arguments.value)];
    for (name, position) in missing {
        // The socket of a dropped skb makes the probe better, and is not what it stands on.
        let is_optional =
            program.target == PROGRAMS[HOOK_DROP as usize].target && name == program.object;
        if let Some(name) = name.filter(|_| position == ABSENT && !is_optional) {
            return Some(format!("without an argument `{name}` in this kernel"));
        }
    }
    match program.attachment {
        Attachment::Exit if arguments.result == ABSENT => {
            Some("several functions of this name, with other arguments".into())
        }
        Attachment::Kretprobe if arguments.result == ABSENT => {
            Some("the registers of this architecture are not known".into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use c1m_ebpf::{HOOK_CHECK_OOM, HOOK_OOM_EXIT, HOOK_ORPHAN_SUM, HOOK_SYN_RECV_6};

    use super::{super::probes::PROBES, *};

    #[test]
    fn probes_have_a_name_and_a_method() {
        let ids: BTreeSet<_> = PROBES.iter().map(|it| it.id).collect();
        assert_eq!(ids.len(), PROBES.len());
        for probe in PROBES {
            assert!(!probe.methods.is_empty(), "{}", probe.id);
            assert!(probe.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", probe.id);
            // What needs no program always works, so nothing can come after it.
            let reads = probe
                .methods
                .iter()
                .rev()
                .skip(1)
                .filter(|method| matches!(method.source, Source::Read(_)));
            assert_eq!(reads.count(), 0, "{}", probe.id);
        }
    }

    #[test]
    fn every_program_is_in_use() {
        let used: BTreeSet<u32> = PROBES
            .iter()
            .flat_map(|probe| probe.methods)
            .flat_map(|method| match method.source {
                Source::Programs { needed, also } => [needed, also].concat(),
                Source::Read(_) => Vec::new(),
            })
            .collect();
        assert_eq!(used, (0..u32::try_from(PROGRAMS.len()).unwrap()).collect());
    }

    #[test]
    fn programs_have_names_of_their_own() {
        let names: BTreeSet<_> = PROGRAMS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
        assert_eq!(hook_name(HOOK_CHECK_OOM), "fexit/tcp_check_oom");
        assert_eq!(hook_name(HOOK_OOM_EXIT), "fexit/oom_kill_process");
        assert_eq!(PROGRAMS[HOOK_SYN_RECV_6 as usize].target, "tcp_v6_syn_recv_sock");
        assert_eq!(PROGRAMS[HOOK_ORPHAN_SUM as usize].target, "tcp_orphan_count_sum");
    }
}
