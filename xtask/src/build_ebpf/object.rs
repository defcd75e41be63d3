//! What stands in an eBPF object: functions with their relocations resolved, and data.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use object::{
    Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind, SymbolKind,
    read::elf::ElfFile64,
};

use super::disassembly::{self, INSTRUCTION_BYTES, Instruction};

/// A function, as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Instructions as the kernel counts them, where a 64-bit constant takes two.
    pub(crate) instructions: usize,
    /// One line an instruction, with names in place of what a relocation fills in.
    pub(crate) listing: String,
}

/// The contents of an object that decide what it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    /// By section and name, such as `tp_btf/mark_victim victim`.
    pub(crate) programs: BTreeMap<String, Function>,
    /// Functions that programs call, by name.
    pub(crate) functions: BTreeMap<String, Function>,
    /// Bytes of maps, constants and variables, by section.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let elf =
            ElfFile64::<object::Endianness>::parse(bytes).context("not a 64-bit ELF object")?;
        ensure!(elf.architecture() == object::Architecture::Bpf, "not an object for BPF");
        let mut contents = Self::default();
        for section in elf.sections() {
            let name = section.name()?.to_owned();
            match section.kind() {
                SectionKind::Text => contents.add_code(&elf, &section, &name)?,
                SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                    contents.data.insert(name, section.data()?.to_vec());
                }
                SectionKind::UninitializedData => {
                    contents.data.insert(name, section.size().to_le_bytes().to_vec());
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    fn add_code<'a>(
        &mut self,
        elf: &ElfFile64<'a>,
        section: &impl ObjectSection<'a>,
        section_name: &str,
    ) -> Result<()> {
        let code = section.data()?;
        let names = relocated(elf, section)?;
        let starts = functions(elf, section.index());
        for (name, address, size) in &starts {
            let range = usize::try_from(*address)?..usize::try_from(address + size)?;
            let code = code.get(range).with_context(|| format!("{name} leaves {section_name}"))?;
            let function = list(code, *address, &names, &starts);
            let clash = if section_name.starts_with(".text") {
                self.functions.insert(name.clone(), function)
            } else {
                self.programs.insert(format!("{section_name} {name}"), function)
            };
            ensure!(clash.is_none(), "two functions are called {name} in {section_name}");
        }
        Ok(())
    }
}

fn list(
    code: &[u8],
    start: u64,
    names: &BTreeMap<u64, String>,
    functions: &[(String, u64, u64)],
) -> Function {
    let mut lines = String::new();
    let mut address = start;
    let mut slots = code.chunks_exact(INSTRUCTION_BYTES);
    while let Some(slot) = slots.next() {
        let mut instruction = Instruction::decode(slot);
        if instruction.is_wide() {
            instruction = instruction.widened(slots.next());
        }
        let called = || {
            let target = instruction.call_target(address)?;
            functions.iter().find(|function| function.1 == target).map(|function| &function.0)
        };
        let name = names.get(&address).or_else(called).map(String::as_str);
        lines.push_str(&disassembly::line(&instruction, name));
        lines.push('\n');
        address += INSTRUCTION_BYTES as u64 * if instruction.is_wide() { 2 } else { 1 };
    }
    Function { instructions: code.len() / INSTRUCTION_BYTES, listing: lines }
}

/// The functions of a section: name, address in it, size in bytes.
fn functions(elf: &ElfFile64<'_>, section: SectionIndex) -> Vec<(String, u64, u64)> {
    elf.symbols()
        .filter(|symbol| {
            symbol.section_index() == Some(section) && symbol.kind() == SymbolKind::Text
        })
        .filter_map(|symbol| Some((readable(symbol.name().ok()?), symbol.address(), symbol.size())))
        .collect()
}

/// What the relocations of a section refer to, by address: a symbol, or a place in a section.
fn relocated<'a>(
    elf: &ElfFile64<'a>,
    section: &impl ObjectSection<'a>,
) -> Result<BTreeMap<u64, String>> {
    let code = section.data()?;
    let mut names = BTreeMap::new();
    for (address, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let symbol = elf.symbol_by_index(index)?;
        let at = usize::try_from(address)?;
        let slot =
            code.get(at..at + INSTRUCTION_BYTES).context("a relocation leaves its section")?;
        let instruction = Instruction::decode(slot);
        let name = match (symbol.kind(), symbol.section_index()) {
            (SymbolKind::Section, Some(index)) => {
                let offset = instruction.offset_in_section();
                functions(elf, index)
                    .into_iter()
                    .find(|function| instruction.is_call() && function.1 == offset)
                    .map_or(format!("{}+{offset}", elf.section_by_index(index)?.name()?), |f| f.0)
            }
            _ => readable(symbol.name()?),
        };
        names.insert(address, name);
    }
    Ok(names)
}

/// A symbol's name without the hash that stands for version and place of its crate.
fn readable(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

#[cfg(test)]
pub(crate) mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, RelocationFlags, SymbolFlags, SymbolScope,
        elf::{R_BPF_64_32, R_BPF_64_64},
        write::{self, Relocation, StandardSection, Symbol, SymbolSection},
    };

    use super::*;

    const LOAD_MAP: [u8; 16] = [0x18, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const CALL: [u8; 8] = [0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn symbol(
        name: &str,
        kind: SymbolKind,
        section: write::SectionId,
        range: (u64, u64),
    ) -> Symbol {
        Symbol {
            name: name.into(),
            value: range.0,
            size: range.1,
            kind,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        }
    }

    /// An object with a program that loads a map, calls a function in another section, and ends.
    pub(crate) fn sample(path_in_data: &str) -> Vec<u8> {
        let mut object =
            write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &EXIT, 8);
        object.append_section_data(text, &EXIT, 8);
        object.add_symbol(symbol("first", SymbolKind::Text, text, (0, 8)));
        object.add_symbol(symbol("_RNvC8c1m_ebpf4bump", SymbolKind::Text, text, (8, 8)));
        let data = object.section_id(StandardSection::ReadOnlyData);
        object.append_section_data(data, path_in_data.as_bytes(), 8);
        let map = object.add_symbol(symbol("COUNTS", SymbolKind::Data, data, (0, 4)));

        let hook = object.add_section(Vec::new(), b"tp_btf/hook".to_vec(), SectionKind::Text);
        object.append_section_data(hook, &[&LOAD_MAP[..], &CALL, &EXIT].concat(), 8);
        object.add_symbol(symbol("state", SymbolKind::Text, hook, (0, 32)));
        let function = object.section_symbol(text);
        // A call to a section counts slots from the next one, so that 0 is the second function.
        for (offset, symbol, r_type) in [(0, map, R_BPF_64_64), (16, function, R_BPF_64_32)] {
            let flags = RelocationFlags::Elf { r_type };
            object.add_relocation(hook, Relocation { offset, symbol, addend: 0, flags }).unwrap();
        }
        let mut bytes = object.write().unwrap();
        let call = bytes.windows(8).position(|window| window == CALL).unwrap();
        bytes[call + 4..call + 8].fill(0);
        bytes
    }

    #[test]
    fn relocations_become_names_and_wide_constants_count_twice() {
        let contents = Contents::parse(&sample("maps")).unwrap();
        let program = &contents.programs["tp_btf/hook state"];
        assert_eq!(program.listing, "lddw r1, COUNTS kind 0\ncall c1m_ebpf::bump kind 1\nexit\n");
        assert_eq!(program.instructions, 4);
        assert_eq!(contents.functions["first"].instructions, 1);
        assert_eq!(contents.data[".rodata"], b"maps");
    }

    #[test]
    fn what_is_no_object_for_bpf_is_refused() {
        assert!(Contents::parse(b"\x7fELF").is_err());
        let host = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Contents::parse(&host).unwrap_err().to_string().contains("not an object for BPF"));
    }
}
