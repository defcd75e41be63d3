//! eBPF instructions as text: a line each, complete enough that two functions with the same lines do the same.
//!
//! The encoding is that of RFC 9669, section 3. An unknown instruction is shown as its fields, never as a guess.

/// The size of one slot. A wide instruction takes two.
pub(crate) const INSTRUCTION_BYTES: usize = 8;
/// The same, for offsets.
const SLOT: i64 = 8;

const LDDW: u8 = 0x18;
const CALL: u8 = 0x85;
/// Source register of a call to a function in the same object.
const CALL_LOCAL: u8 = 1;

const ALU: [&str; 14] = [
    "add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "neg", "mod", "xor", "mov", "arsh",
    "end",
];
const JUMPS: [&str; 14] = [
    "ja", "jeq", "jgt", "jge", "jset", "jne", "jsgt", "jsge", "call", "exit", "jlt", "jle", "jslt",
    "jsle",
];
const SIZES: [&str; 4] = ["w", "h", "b", "dw"];

/// The fields of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
    /// Of a wide instruction: the upper half of its constant.
    upper: i32,
}

impl Instruction {
    /// Reads one slot of [`INSTRUCTION_BYTES`], little-endian; missing bytes count as zeros.
    pub(crate) fn decode(slot: &[u8]) -> Self {
        let mut bytes = [0; INSTRUCTION_BYTES];
        for (to, from) in bytes.iter_mut().zip(slot) {
            *to = *from;
        }
        let [code, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            code,
            destination: registers & 0xf,
            source: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
            upper: 0,
        }
    }

    /// Whether the next slot belongs to this instruction.
    pub(crate) fn is_wide(self) -> bool {
        self.code == LDDW
    }

    /// With the constant's upper half from the second slot.
    pub(crate) fn widened(self, second: Option<&[u8]>) -> Self {
        Self { upper: second.map_or(0, |slot| Self::decode(slot).immediate), ..self }
    }

    pub(crate) fn is_call(self) -> bool {
        self.code == CALL
    }

    /// The address in the same section that this instruction, at `address`, calls without a relocation.
    pub(crate) fn call_target(self, address: u64) -> Option<u64> {
        let slots = i64::from(self.immediate) + 1;
        (self.is_call() && self.source == CALL_LOCAL)
            .then(|| address.checked_add_signed(slots * SLOT))?
    }

    /// What a relocation against a section adds to the section's start, in bytes: a call counts slots, from the next one.
    pub(crate) fn offset_in_section(self) -> u64 {
        let immediate = i64::from(self.immediate);
        let offset = if self.is_call() { (immediate + 1) * SLOT } else { immediate };
        offset.cast_unsigned()
    }
}

/// One line of text. `name`: what a relocation puts in place of the constant.
pub(crate) fn line(instruction: &Instruction, name: Option<&str>) -> String {
    let i = instruction;
    let place = |register: u8| format!("[r{register}{:+}]", i.offset);
    match i.code & 7 {
        0 if i.is_wide() => {
            let low = u64::from(i.immediate.cast_unsigned());
            let constant = u64::from(i.upper.cast_unsigned()) << 32 | low;
            let value = name.map_or_else(|| format!("{constant:#x}"), str::to_owned);
            format!("lddw r{}, {value} kind {}", i.destination, i.source)
        }
        1 if i.code >> 5 == 3 => format!("ldx{} r{}, {}", size(i), i.destination, place(i.source)),
        1 if i.code >> 5 == 4 => format!("ldxs{} r{}, {}", size(i), i.destination, place(i.source)),
        2 if i.code >> 5 == 3 => format!("st{} {}, {}", size(i), place(i.destination), i.immediate),
        3 if i.code >> 5 == 3 => format!("stx{} {}, r{}", size(i), place(i.destination), i.source),
        3 if i.code >> 5 == 6 => {
            let (operation, at) = (i.immediate, place(i.destination));
            format!("atomic{} {at}, r{} operation {operation:#x}", size(i), i.source)
        }
        5 | 6 => jump(i, name),
        4 | 7 => arithmetic(i, name),
        _ => fields(i),
    }
}

fn size(i: &Instruction) -> &'static str {
    SIZES[usize::from(i.code >> 3 & 3)]
}

fn arithmetic(i: &Instruction, name: Option<&str>) -> String {
    let Some(operation) = ALU.get(usize::from(i.code >> 4)) else { return fields(i) };
    let bits = if i.code & 7 == 7 { "64" } else { "32" };
    // Signed division and moves with sign extension are told by the offset.
    let variant = if i.offset == 0 { String::new() } else { format!(" variant {}", i.offset) };
    format!("{operation}{bits} r{}, {}{variant}", i.destination, operand(i, name))
}

fn jump(i: &Instruction, name: Option<&str>) -> String {
    let Some(operation) = JUMPS.get(usize::from(i.code >> 4)) else { return fields(i) };
    let bits = if i.code & 7 == 5 { "" } else { "32" };
    match *operation {
        "call" => {
            let callee = name.map_or_else(|| i.immediate.to_string(), str::to_owned);
            format!("call{bits} {callee} kind {}", i.source)
        }
        "exit" => "exit".to_owned(),
        "ja" if bits.is_empty() => format!("ja {:+}", i.offset),
        "ja" => format!("ja32 {:+}", i.immediate),
        _ => format!("{operation}{bits} r{}, {}, {:+}", i.destination, operand(i, name), i.offset),
    }
}

/// The second operand: a register where bit 3 of the code is set, else the constant.
fn operand(i: &Instruction, name: Option<&str>) -> String {
    match name {
        Some(name) => name.to_owned(),
        None if i.code & 8 != 0 && i.immediate == 0 => format!("r{}", i.source),
        // Byte swaps: the bit says which order, the constant says how many bits.
        None if i.code & 8 != 0 => format!("r{} {}", i.source, i.immediate),
        None => i.immediate.to_string(),
    }
}

fn fields(i: &Instruction) -> String {
    let Instruction { code, destination, source, offset, immediate, .. } = i;
    format!("code {code:#04x} r{destination}, r{source}, {offset:+}, {immediate:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(slot: [u8; 8]) -> String {
        line(&Instruction::decode(&slot), None)
    }

    #[test]
    fn instructions_of_every_class() {
        assert_eq!(text([0x79, 0x16, 0x08, 0, 0, 0, 0, 0]), "ldxdw r6, [r1+8]");
        assert_eq!(text([0x63, 0x7a, 0xfc, 0xff, 0, 0, 0, 0]), "stxw [r10-4], r7");
        assert_eq!(text([0x72, 0x0a, 0xfc, 0xff, 5, 0, 0, 0]), "stb [r10-4], 5");
        assert_eq!(text([0xdb, 0x12, 0, 0, 1, 0, 0, 0]), "atomicdw [r2+0], r1 operation 0x1");
        assert_eq!(text([0x07, 0x02, 0, 0, 0xfc, 0xff, 0xff, 0xff]), "add64 r2, -4");
        assert_eq!(text([0xbc, 0x12, 0, 0, 0, 0, 0, 0]), "mov32 r2, r1");
        assert_eq!(text([0xbf, 0x12, 32, 0, 0, 0, 0, 0]), "mov64 r2, r1 variant 32");
        assert_eq!(text([0xdc, 0x02, 0, 0, 16, 0, 0, 0]), "end32 r2, r0 16");
        assert_eq!(text([0x15, 0x00, 0x05, 0, 0, 0, 0, 0]), "jeq r0, 0, +5");
        assert_eq!(text([0x2e, 0x21, 0xfb, 0xff, 0, 0, 0, 0]), "jgt32 r1, r2, -5");
        assert_eq!(text([0x85, 0x00, 0, 0, 1, 0, 0, 0]), "call 1 kind 0");
        assert_eq!(text([0x95, 0, 0, 0, 0, 0, 0, 0]), "exit");
        assert_eq!(text([0xff, 0x21, 0, 0, 0, 0, 0, 0]), "code 0xff r1, r2, +0, 0x0");
    }

    #[test]
    fn a_wide_constant_takes_both_slots() {
        let first = Instruction::decode(&[0x18, 1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(first.is_wide());
        let whole = first.widened(Some(&[0, 0, 0, 0, 1, 0, 0, 0]));
        assert_eq!(line(&whole, None), "lddw r1, 0x1ffffffff kind 0");
        assert_eq!(line(&whole, Some("COUNTS")), "lddw r1, COUNTS kind 0");
    }

    #[test]
    fn calls_are_relative_to_the_next_slot() {
        let call = Instruction::decode(&[0x85, 0x10, 0, 0, 2, 0, 0, 0]);
        assert_eq!(call.call_target(16), Some(40));
        assert_eq!(call.offset_in_section(), 24);
        let helper = Instruction::decode(&[0x85, 0x00, 0, 0, 2, 0, 0, 0]);
        assert_eq!(helper.call_target(16), None);
    }
}
