//! Writes BTF by hand: well-formed as far as the test wants it.

/// The bit of a record's info that makes offsets of members carry widths, and values of enums signed.
pub(crate) const FLAG: u32 = 1 << 31;

pub(crate) const INT: u32 = 1;
pub(crate) const PTR: u32 = 2;
pub(crate) const ARRAY: u32 = 3;
pub(crate) const STRUCT: u32 = 4;
pub(crate) const UNION: u32 = 5;
pub(crate) const ENUM: u32 = 6;
pub(crate) const FWD: u32 = 7;
pub(crate) const TYPEDEF: u32 = 8;
pub(crate) const CONST: u32 = 10;
pub(crate) const FUNC: u32 = 12;
pub(crate) const FUNC_PROTO: u32 = 13;
pub(crate) const FLOAT: u32 = 16;
pub(crate) const ENUM64: u32 = 19;

pub(crate) struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    layout: Vec<[u8; 4]>,
    next: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: vec![], strings: vec![0], layout: vec![], next: 1 }
    }

    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len();
        self.strings.extend(name.bytes().chain([0]));
        at.try_into().expect("a small test")
    }

    /// Appends a record, whose kind may come with `FLAG`, and answers its id.
    pub(crate) fn record(
        &mut self,
        kind: u32,
        vlen: u32,
        name: &str,
        word: u32,
        body: &[u32],
    ) -> u32 {
        let name = self.name(name);
        let info = (kind & FLAG) | (kind & 0x7f) << 24 | vlen;
        self.types.extend([name, info, word]);
        self.types.extend(body);
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn int(&mut self, size: u32, bits: u32) -> u32 {
        self.record(INT, 0, "int", size, &[bits])
    }

    /// Members: name, type, offset in bits (with `FLAG` on the kind: and width << 24).
    pub(crate) fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let mut body = Vec::new();
        for (name, ty, offset) in members {
            body.extend([self.name(name), *ty, *offset]);
        }
        let vlen = members.len().try_into().expect("a small test");
        self.record(kind, vlen, name, size, &body)
    }

    pub(crate) fn proto(&mut self, params: &[(&str, u32)]) -> u32 {
        let mut body = Vec::new();
        for (name, ty) in params {
            body.extend([self.name(name), *ty]);
        }
        self.record(FUNC_PROTO, params.len().try_into().expect("a small test"), "", 0, &body)
    }

    /// Tells the length of records of a kind, as kernels from 7.2 on do: bytes once, and for each entry.
    pub(crate) fn layout(&mut self, kind: usize, once: u8, each: u8) {
        self.layout.resize(self.layout.len().max(kind + 1), [0; 4]);
        self.layout[kind] = [once, each, 0, 0];
    }

    pub(crate) fn build(self) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).expect("a small test");
        let (types, strings) = (length(self.types.len() * 4), length(self.strings.len()));
        let layout = length(self.layout.len() * 4);
        let mut header = vec![0x0001_eb9f, 24, 0, types, types + layout, strings];
        if layout > 0 {
            header[1] = 32;
            header.extend([types, layout]);
        }
        let words = header.into_iter().chain(self.types).flat_map(u32::to_le_bytes);
        words.chain(self.layout.into_iter().flatten()).chain(self.strings).collect()
    }
}

/// Sets references of a BTF to other types, and leaves the records well-formed. `bends` is told how many references there
/// are, and answers which of them (from 0 on) become which type's.
pub(crate) fn bend(btf: &[u8], bends: impl FnOnce(usize) -> Vec<(usize, u32)>) -> Vec<u8> {
    let mut bytes = btf.to_vec();
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().expect("four bytes"));
    let end = 24 + word(12) as usize;
    let mut references = Vec::new();
    let mut at = 24;
    while at < end {
        let (kind, vlen) = (word(at + 4) >> 24 & 0x7f, word(at + 4) as usize & 0xffff);
        let (body, own, entries) = match kind {
            INT => (4, None, 0),
            ARRAY => (12, Some(12), 0),
            STRUCT | UNION => (vlen * 12, None, 12),
            ENUM => (vlen * 8, None, 0),
            ENUM64 => (vlen * 12, None, 0),
            FUNC_PROTO => (vlen * 8, Some(8), 8),
            FWD | FLOAT => (0, None, 0),
            _ => (0, Some(8), 0),
        };
        references.extend(own.map(|offset| at + offset));
        if entries > 0 {
            references.extend((0..vlen).map(|entry| at + 12 + entry * entries + 4));
        }
        at += 12 + body;
    }
    for (index, to) in bends(references.len()) {
        bytes[references[index]..][..4].copy_from_slice(&to.to_le_bytes());
    }
    bytes
}
