//! The BTF reader against the running kernel, with two other readers as oracles. What they need may be missing: then the
//! test is counted as ignored.

use std::{collections::HashMap, error::Error, fs, process::Command};

use aya::Endianness;
use aya_obj::btf::BtfKind;
use c1m_btf::{Btf, Member};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const STRUCTS: [&str; 13] = [
    "cgroup",
    "file",
    "inet_connection_sock",
    "inet_sock",
    "kernfs_node",
    "net",
    "netns_ipv4",
    "proto",
    "sk_buff",
    "sock",
    "sock_common",
    "task_struct",
    "tcp_sock",
];

fn main() {
    let arguments = Arguments::from_args();
    let readable = fs::File::open(VMLINUX).is_ok();
    let bpftool = Command::new("bpftool").arg("version").output();
    let bpftool = bpftool.is_ok_and(|output| output.status.success());
    let no_types = (!readable).then(|| format!("no {VMLINUX}"));
    let no_bpftool = no_types.clone().or((!bpftool).then(|| "no bpftool".into()));
    let trials = vec![
        test("aya_agrees_about_the_types", aya_agrees, no_types),
        test("bpftool_agrees_about_the_members", bpftool_agrees, no_bpftool),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn test(name: &str, run: fn() -> Result<(), Failed>, missing: Option<String>) -> Trial {
    Trial::ignorable_test(name, move || match missing {
        Some(missing) => Ok(Completion::ignored_with(missing)),
        None => run().map(|()| Completion::Completed),
    })
}

fn live() -> Result<Btf, Box<dyn Error>> {
    Ok(Btf::parse(fs::read(VMLINUX)?)?)
}

fn aya_agrees() -> Result<(), Failed> {
    let btf = live()?;
    let other = aya_obj::btf::Btf::parse(&fs::read(VMLINUX)?, Endianness::default())?;
    for name in STRUCTS {
        let id = other.id_by_type_name_kind(name, BtfKind::Struct).ok();
        if btf.struct_named(name).map(|id| id.0) != id || id.is_none() {
            return Err(format!("{name}: {:?}, but aya says {id:?}", btf.struct_named(name)).into());
        }
    }
    Ok(())
}

/// What bpftool prints of a struct: size in bytes, and of each named member the offset and, for a bitfield, the width, in
/// bits.
struct Printed {
    size_bytes: u32,
    members: Vec<(String, u32, Option<u32>)>,
}

/// The number behind `name=`.
fn field(line: &str, name: &str) -> Option<u32> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn quoted(line: &str) -> Option<&str> {
    line.split('\'').nth(1)
}

/// Reads lines such as `[7] STRUCT 'sock' size=784 vlen=96`, and below it `\t'sk_err' type_id=21 bits_offset=2272`.
fn printed(text: &str) -> HashMap<&str, Vec<Printed>> {
    let mut structs: HashMap<&str, Vec<Printed>> = HashMap::new();
    let mut open = None;
    for line in text.lines() {
        let name = quoted(line).filter(|name| *name != "(anon)");
        if line.starts_with('[') {
            open = name.filter(|_| line.contains("] STRUCT "));
            if let (Some(name), Some(size)) = (open, field(line, "size")) {
                let definition = Printed { size_bytes: size, members: Vec::new() };
                structs.entry(name).or_default().push(definition);
            }
        } else if let (Some(name), Some(offset)) = (name, field(line, "bits_offset"))
            && let Some(holder) = open.and_then(|open| structs.get_mut(open)?.last_mut())
        {
            holder.members.push((name.to_owned(), offset, field(line, "bitfield_size")));
        }
    }
    structs
}

fn bpftool_agrees() -> Result<(), Failed> {
    let arguments = ["btf", "dump", "file", VMLINUX, "format", "raw"];
    let output = Command::new("bpftool").args(arguments).output()?;
    let structs = printed(str::from_utf8(&output.stdout)?);
    let btf = live()?;
    let mut checked = 0;
    for name in STRUCTS {
        let [definition] = structs.get(name).map(Vec::as_slice).unwrap_or_default() else {
            return Err(format!("bpftool does not print one struct {name}").into());
        };
        if btf.size_of(name) != Some(definition.size_bytes) {
            return Err(format!("{name}: size {:?}", btf.size_of(name)).into());
        }
        for (path, offset, width) in &definition.members {
            let member =
                btf.member(name, path)?.ok_or_else(|| format!("{name}.{path} is missing"))?;
            if !agrees(&member, *offset, *width) {
                return Err(format!("{name}.{path}: {member:?}, not {offset} {width:?}").into());
            }
            checked += 1;
        }
    }
    // tcp_sock alone has more.
    if checked < 100 { Err(format!("only {checked} members were compared").into()) } else { Ok(()) }
}

fn agrees(member: &Member, bits_from_start: u32, width: Option<u32>) -> bool {
    let bit_offset = member.bitfield.map_or(0, |field| field.bit_offset);
    member.offset_bytes * 8 + bit_offset == bits_from_start
        && member.bitfield.map(|field| field.bits) == width
}
