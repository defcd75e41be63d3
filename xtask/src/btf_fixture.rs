//! `cargo xtask btf-fixture`: cuts out of a kernel's BTF what c1m asks it, as a small BTF of its own, to be committed as
//! test data. Holds the structs with everything that lies in them by value; what they point to is a forward declaration
//! or void. The numbers are the kernel's; nothing is computed here but the types' new ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use c1m_btf::blob::{Blob, Kind, Type};

/// Whose members c1m reads, or may come to read, in kernel programs.
const STRUCTS: &[&str] = &[
    "bpf_iter__task_file",
    "bpf_iter__tcp",
    "cgroup",
    "file",
    "kernfs_node",
    "net",
    "netns_ipv4",
    "oom_control",
    "proto",
    "proto_accept_arg",
    "pt_regs",
    "request_sock",
    "sk_buff",
    "sock",
    "socket",
    "task_struct",
    "tcp_sock",
];
const ENUMS: &[&str] = &["skb_drop_reason", "sk_rst_reason"];
const TRACEPOINTS: &[&str] = &[
    "inet_sock_set_state",
    "kfree_skb",
    "mark_victim",
    "sk_data_ready",
    "sock_exceed_buf_limit",
    "sys_exit",
    "tcp_destroy_sock",
    "tcp_send_reset",
];
const FUNCTIONS: &[&str] = &[
    "__sk_mem_raise_allocated",
    "alloc_fd",
    "inet6_hash_connect",
    "inet_hash_connect",
    "oom_kill_process",
    "sk_forced_mem_schedule",
    "sk_prot_alloc",
    "tcp_check_oom",
    "tcp_conn_request",
    "tcp_enter_memory_pressure",
    "tcp_leave_memory_pressure",
    "tcp_orphan_count_sum",
    "tcp_out_of_resources",
    "tcp_prune_ofo_queue",
    "tcp_syn_flood_action",
    "tcp_try_rmem_schedule",
    "tcp_v4_syn_recv_sock",
    "tcp_v6_syn_recv_sock",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A kernel's whole BTF, such as /sys/kernel/btf/vmlinux
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Where to write the fixture
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let whole = fs::read(&args.from).with_context(|| format!("read {}", args.from.display()))?;
    let whole = Blob::parse(whole).with_context(|| format!("parse {}", args.from.display()))?;
    let fixture = cut(&whole)?;
    fs::write(&args.output, &fixture)
        .with_context(|| format!("write {}", args.output.display()))?;
    eprintln!("{}: {} bytes", args.output.display(), fixture.len());
    Ok(())
}

/// The fixture's bytes. Cutting a fixture again gives the same bytes.
fn cut(whole: &Blob) -> Result<Vec<u8>> {
    let mut kept = BTreeSet::new();
    for id in roots(whole)? {
        keep_by_value(whole, id, &mut kept)?;
    }
    Cutter::new(whole, &kept)?.write()
}

fn roots(whole: &Blob) -> Result<Vec<u32>> {
    let mut functions: BTreeSet<String> = FUNCTIONS.iter().map(|name| (*name).into()).collect();
    let mut typedefs = BTreeSet::new();
    for tracepoint in TRACEPOINTS {
        typedefs.insert(format!("btf_trace_{tracepoint}"));
        for prefix in ["__probestub_", "__traceiter_", "__bpf_trace_"] {
            functions.insert(format!("{prefix}{tracepoint}"));
        }
    }
    let mut roots = Vec::new();
    for id in whole.ids() {
        let ty = whole.get(id)?;
        let name = whole.string(ty.name).unwrap_or_default();
        let wanted = match ty.kind {
            Kind::Struct => STRUCTS.contains(&name),
            Kind::Enum | Kind::Enum64 => ENUMS.contains(&name),
            Kind::Func => functions.contains(name),
            Kind::Typedef => typedefs.contains(name),
            _ => false,
        };
        if wanted {
            roots.push(id);
        }
        if wanted && ty.kind == Kind::Typedef {
            // What a pointer points to is not kept for its own sake, but the arguments of a tracepoint are asked for.
            roots.push(whole.get(ty.size_or_type)?.size_or_type);
        }
    }
    ensure!(
        !roots.is_empty(),
        "this BTF has none of the structs that c1m reads: is it a kernel's?"
    );
    Ok(roots)
}

/// Adds a type and all that it needs to have a size.
fn keep_by_value(whole: &Blob, root: u32, kept: &mut BTreeSet<u32>) -> Result<()> {
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if id == 0 || !kept.insert(id) {
            continue;
        }
        let ty = whole.get(id)?;
        if ty.kind != Kind::Ptr {
            let words = words(whole, id)?;
            open.extend(type_words(&ty).into_iter().map(|at| words[at]));
        }
    }
    Ok(())
}

fn words(whole: &Blob, id: u32) -> Result<Vec<u32>> {
    let record = whole.record(id).with_context(|| format!("type {id} is not there"))?;
    Ok(record.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// Which words of a record are ids of types.
fn type_words(ty: &Type) -> Vec<usize> {
    let entries = |words: usize| (0..ty.vlen as usize).map(move |entry| 4 + entry * words);
    match ty.kind {
        Kind::Struct | Kind::Union => entries(3).collect(),
        Kind::FuncProto => [2].into_iter().chain(entries(2)).collect(),
        Kind::Array => vec![3, 4],
        Kind::Ptr | Kind::Func => vec![2],
        kind if kind.is_alias() => vec![2],
        _ => vec![],
    }
}

/// Which words of a record are names.
fn name_words(ty: &Type) -> Vec<usize> {
    let words = match ty.kind {
        Kind::Struct | Kind::Union | Kind::Enum64 => 3,
        Kind::Enum | Kind::FuncProto => 2,
        _ => return vec![0],
    };
    [0].into_iter().chain((0..ty.vlen as usize).map(|entry| 3 + entry * words)).collect()
}

struct Cutter<'a> {
    whole: &'a Blob,
    /// Old ids to new ones, in their order.
    ids: BTreeMap<u32, u32>,
    /// Forward declarations behind them: name, whether of a union, to id.
    forwards: BTreeMap<(String, bool), u32>,
    strings: Vec<u8>,
    string_at: BTreeMap<String, u32>,
}

impl<'a> Cutter<'a> {
    fn new(whole: &'a Blob, kept: &BTreeSet<u32>) -> Result<Self> {
        let mut ids = BTreeMap::from([(0, 0)]);
        ids.extend(kept.iter().copied().zip(1..));
        let mut cutter = Self {
            whole,
            ids,
            forwards: BTreeMap::new(),
            strings: vec![0],
            string_at: BTreeMap::from([(String::new(), 0)]),
        };
        for id in kept {
            let ty = whole.get(*id)?;
            if ty.kind == Kind::Ptr
                && let Some(key) = cutter.forward_of(ty.size_or_type)?
            {
                cutter.forwards.insert(key, 0);
            }
        }
        let first = u32::try_from(cutter.ids.len())?;
        cutter.forwards.values_mut().zip(first..).for_each(|(id, new)| *id = new);
        Ok(cutter)
    }

    /// The forward declaration that stands for a pointer's target; `None` for a target that is kept or becomes void.
    fn forward_of(&self, mut id: u32) -> Result<Option<(String, bool)>> {
        while !self.ids.contains_key(&id) {
            let ty = self.whole.get(id)?;
            let name = self.whole.string(ty.name).unwrap_or_default();
            id = match ty.kind {
                Kind::Struct if !name.is_empty() => return Ok(Some((name.into(), false))),
                Kind::Union if !name.is_empty() => return Ok(Some((name.into(), true))),
                Kind::Fwd => return Ok(Some((name.into(), ty.flag))),
                kind if kind.is_alias() => ty.size_or_type,
                _ => return Ok(None),
            };
        }
        Ok(None)
    }

    /// The new id of what a pointer points to. Qualifiers that nothing else needs are lost on the way.
    fn pointee(&self, mut id: u32) -> Result<u32> {
        if let Some(key) = self.forward_of(id)? {
            return Ok(self.forwards[&key]);
        }
        loop {
            match self.ids.get(&id) {
                Some(new) => return Ok(*new),
                None => {
                    let ty = self.whole.get(id)?;
                    id = if ty.kind.is_alias() { ty.size_or_type } else { 0 };
                }
            }
        }
    }

    fn intern(&mut self, text: &str) -> Result<u32> {
        if let Some(at) = self.string_at.get(text) {
            return Ok(*at);
        }
        let at = u32::try_from(self.strings.len())?;
        self.strings.extend(text.bytes().chain([0]));
        self.string_at.insert(text.into(), at);
        Ok(at)
    }

    fn write(mut self) -> Result<Vec<u8>> {
        let mut types = Vec::new();
        for id in self.ids.keys().copied().filter(|id| *id != 0).collect::<Vec<_>>() {
            let ty = self.whole.get(id)?;
            let mut words = words(self.whole, id)?;
            for at in name_words(&ty) {
                let name = self.whole.string(words[at]).context("a name is not text")?;
                words[at] = self.intern(name)?;
            }
            for at in type_words(&ty) {
                words[at] = match ty.kind {
                    Kind::Ptr => self.pointee(words[at])?,
                    _ => *self.ids.get(&words[at]).context("a type that is needed was not kept")?,
                };
            }
            types.extend(words);
        }
        for (name, union) in self.forwards.keys().cloned().collect::<Vec<_>>() {
            let flag = u32::from(union) << 31;
            types.extend([self.intern(&name)?, flag | (Kind::Fwd as u32) << 24, 0]);
        }
        let types_len = u32::try_from(types.len() * 4)?;
        let strings_len = u32::try_from(self.strings.len())?;
        // Magic and version; the header's length; offsets, from its end, and lengths of the sections.
        let header = [0x0001_eb9f, 24, 0, types_len, types_len, strings_len];
        let words = header.into_iter().chain(types).flat_map(u32::to_le_bytes);
        Ok(words.chain(self.strings).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_a_fixture_again_changes_nothing() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/c1m-btf/tests/fixtures/btf");
        let mut fixtures = 0;
        for entry in fs::read_dir(folder).expect("the fixtures are committed") {
            let path = entry.expect("read the folder").path();
            if path.extension().is_some_and(|extension| extension == "btf") {
                let bytes = fs::read(&path).expect("read the fixture");
                let again = cut(&Blob::parse(bytes.clone()).expect("parse")).expect("cut");
                assert!(again == bytes, "{} was cut otherwise", path.display());
                fixtures += 1;
            }
        }
        assert_eq!(fixtures, 3);
    }
}
