//! The format of a BTF blob: a header, the type records, the strings. Knows records, not what they mean.
//!
//! Format: include/uapi/linux/btf.h, with what Linux 7.2 added: 24 bits of vlen and 7 bits of kind, where older kernels
//! have zeroes, and a section that tells the lengths of kinds that a reader does not know, so that it can step over them.

use std::ops::Range;

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const HEADER_WITH_LAYOUT_BYTES: usize = 32;
/// Of the part of a record that every kind has: name, info, and a size or another type.
const RECORD_BYTES: usize = 12;
/// KSYM_NAME_LEN, which no name in a BTF that the kernel took is longer than (kernel/bpf/btf.c, 6.18).
const MAX_NAME_BYTES: usize = 512;

/// Why a blob, or an answer from it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BtfError {
    #[error("this is not BTF: it does not begin with the magic number 0xeb9f")]
    NotBtf,
    #[error("this BTF is of a big-endian machine, and only little-endian ones are supported")]
    BigEndian,
    #[error("BTF version {0} is not supported, only version 1")]
    Version(u8),
    #[error("the BTF is cut short: {what} at byte {at} lies outside of it")]
    Truncated { what: &'static str, at: u64 },
    #[error("the string section of the BTF is not a list of NUL-terminated strings")]
    Strings,
    #[error(
        "type {id} of the BTF is of kind {kind}, which is unknown and whose length the BTF does not tell: update c1m"
    )]
    Kind { id: u32, kind: u32 },
    #[error("the BTF refers to type {0}, which it does not have")]
    NoType(u32),
    #[error("type {0} of the BTF is a member or an element, and has no size")]
    NoSize(u32),
    #[error("the BTF nests types, or chains them, deeper than {0} levels")]
    TooDeep(u32),
    #[error("a look-up in the BTF went through more than {0} members")]
    TooManyMembers(u32),
    #[error("the offset or the size of `{0}` in the BTF is out of range")]
    OutOfRange(String),
    #[error("the BTF has several structs named `{name}`, which disagree about `{member}`")]
    Ambiguous { name: String, member: String },
}

/// What a record describes. The discriminant is the format's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Void,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
    /// Newer than this reader; only its length is known.
    Unknown,
}

impl Kind {
    fn of(number: u32) -> Self {
        use Kind::*;
        const KINDS: [Kind; 20] = [
            Void, Int, Ptr, Array, Struct, Union, Enum, Fwd, Typedef, Volatile, Const, Restrict,
            Func, FuncProto, Var, DataSec, Float, DeclTag, TypeTag, Enum64,
        ];
        usize::try_from(number).ok().and_then(|at| KINDS.get(at).copied()).unwrap_or(Unknown)
    }

    /// As a record has it; meaningless for [`Kind::Unknown`].
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// Bytes behind the common part of the record: once, and for each of its vlen entries.
    pub fn extra_bytes(self) -> (usize, usize) {
        match self {
            Kind::Int | Kind::Var | Kind::DeclTag => (4, 0),
            Kind::Array => (12, 0),
            Kind::Struct | Kind::Union | Kind::DataSec | Kind::Enum64 => (0, 12),
            Kind::Enum | Kind::FuncProto => (0, 8),
            _ => (0, 0),
        }
    }

    /// Whether it defines what its name stands for, and is looked up by it.
    pub fn is_definition(self) -> bool {
        use Kind::*;
        matches!(self, Struct | Enum | Enum64 | Typedef | Func)
    }

    /// Whether it only names or qualifies another type, whose layout it has.
    pub fn is_alias(self) -> bool {
        use Kind::*;
        matches!(self, Typedef | Volatile | Const | Restrict | TypeTag)
    }
}

/// The common part of a record, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    pub kind: Kind,
    /// Of a struct or union: offsets of members carry bitfield widths. Of an enum: values are signed.
    pub flag: bool,
    /// Number of entries behind the common part.
    pub vlen: u32,
    /// Where the name stands in the string section; 0: it has none.
    pub name: u32,
    /// In bytes, or a type's id: as the kind has it.
    pub size_or_type: u32,
    /// The first byte behind the common part, from the start of the blob.
    pub(super) body: usize,
}

/// The bytes, and where each type begins in them.
#[derive(Debug, Clone)]
pub struct Blob {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Of type 1, 2, …, and at last the end of the records.
    offsets: Vec<u32>,
}

impl Blob {
    /// Takes the bytes of a whole BTF, such as those of /sys/kernel/btf/vmlinux, and checks that header, records and
    /// strings lie inside of them. What the records refer to is checked when it is followed.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        match bytes.get(..2) {
            Some(magic) if magic == MAGIC.to_le_bytes() => {}
            Some(magic) if magic == MAGIC.to_be_bytes() => return Err(BtfError::BigEndian),
            _ => return Err(BtfError::NotBtf),
        }
        match bytes.get(2) {
            Some(1) => {}
            Some(version) => return Err(BtfError::Version(*version)),
            None => return Err(BtfError::Truncated { what: "the header", at: 2 }),
        }
        let header = word(&bytes, 4)? as usize;
        if header < HEADER_BYTES {
            return Err(BtfError::Truncated { what: "the header", at: header as u64 });
        }
        let types = section(&bytes, header, 8, "the section of types")?;
        let strings = section(&bytes, header, 16, "the section of strings")?;
        let text = &bytes[strings.clone()];
        if text.first() != Some(&0) || text.last() != Some(&0) {
            return Err(BtfError::Strings);
        }
        let layout = match header {
            HEADER_WITH_LAYOUT_BYTES.. => {
                section(&bytes, header, 24, "the section of record lengths")?
            }
            _ => 0..0,
        };
        let offsets = index(&bytes, types, layout)?;
        Ok(Self { bytes, strings, offsets })
    }

    /// Ids of all types but void: from 1 on, without a gap.
    pub fn ids(&self) -> Range<u32> {
        // No more than the blob's bytes, which u32 offsets reach.
        1..u32::try_from(self.offsets.len()).unwrap_or(u32::MAX)
    }

    pub fn get(&self, id: u32) -> Result<Type, BtfError> {
        if id == 0 {
            let void = Type {
                kind: Kind::Void,
                flag: false,
                vlen: 0,
                name: 0,
                size_or_type: 0,
                body: self.bytes.len(),
            };
            return Ok(void);
        }
        let at = *self.offsets.get(id as usize - 1).ok_or(BtfError::NoType(id))? as usize;
        if !self.ids().contains(&id) {
            return Err(BtfError::NoType(id));
        }
        decode(&self.bytes, at)
    }

    /// The whole record of a type; `None` for void and for ids that are not there.
    pub fn record(&self, id: u32) -> Option<&[u8]> {
        let first = (id as usize).checked_sub(1)?;
        self.bytes.get(*self.offsets.get(first)? as usize..*self.offsets.get(id as usize)? as usize)
    }

    /// The `index`th word of the `entry`th entry behind the common part, where entries are `entry_bytes` long.
    pub(super) fn entry_word(
        &self,
        ty: &Type,
        entry_bytes: usize,
        entry: u32,
        index: usize,
    ) -> Result<u32, BtfError> {
        word(&self.bytes, ty.body + entry as usize * entry_bytes + index * 4)
    }

    /// The string at a place of the string section, if one is there, is text and no longer than names may be.
    pub fn string(&self, at: u32) -> Option<&str> {
        let tail = self.bytes[self.strings.clone()].get(at as usize..)?;
        let end = tail.iter().take(MAX_NAME_BYTES).position(|byte| *byte == 0)?;
        str::from_utf8(&tail[..end]).ok()
    }

    /// The bytes of the string at `at`, no more than names may have; none for a place outside of the section.
    pub(super) fn name_bytes(&self, at: u32) -> &[u8] {
        let tail = self.bytes[self.strings.clone()].get(at as usize..).unwrap_or_default();
        let tail = &tail[..tail.len().min(MAX_NAME_BYTES)];
        tail.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether the string at `at` is `name`. Nothing is named by the empty string.
    pub fn is_named(&self, at: u32, name: &str) -> bool {
        let tail = self.bytes[self.strings.clone()].get(at as usize..).unwrap_or_default();
        let rest = tail.strip_prefix(name.as_bytes());
        rest.and_then(<[u8]>::first) == Some(&0) && !name.is_empty() && !name.contains('\0')
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let found = at.checked_add(4).and_then(|end| bytes.get(at..end));
    let word = found.and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    word.ok_or(BtfError::Truncated { what: "a word", at: at as u64 })
}

/// The section whose offset (from the end of the header) and length stand at `field`.
fn section(
    bytes: &[u8],
    header: usize,
    field: usize,
    what: &'static str,
) -> Result<Range<usize>, BtfError> {
    let start = header as u64 + u64::from(word(bytes, field)?);
    let end = start + u64::from(word(bytes, field + 4)?);
    match (usize::try_from(start), usize::try_from(end), u32::try_from(end)) {
        (Ok(start), Ok(end), Ok(_)) if end <= bytes.len() => Ok(start..end),
        _ => Err(BtfError::Truncated { what, at: end }),
    }
}

fn decode(bytes: &[u8], at: usize) -> Result<Type, BtfError> {
    let info = word(bytes, at + 4)?;
    Ok(Type {
        kind: Kind::of(info >> 24 & 0x7f),
        flag: info >> 31 == 1,
        vlen: info & 0xff_ffff,
        name: word(bytes, at)?,
        size_or_type: word(bytes, at + 8)?,
        body: at + RECORD_BYTES,
    })
}

/// Walks the records once. The length of a kind that is not known comes from the layout section, where there is one.
fn index(bytes: &[u8], types: Range<usize>, layout: Range<usize>) -> Result<Vec<u32>, BtfError> {
    let cut = |at: usize| BtfError::Truncated { what: "a type", at: at as u64 };
    let mut offsets = Vec::new();
    let mut at = types.start;
    while at < types.end {
        let ty = decode(&bytes[..types.end], at).map_err(|_| cut(at))?;
        offsets.push(u32::try_from(at).map_err(|_| cut(at))?);
        let (once, each) = match ty.kind {
            Kind::Void | Kind::Unknown => {
                let kind = word(bytes, at + 4)? >> 24 & 0x7f;
                let id = u32::try_from(offsets.len()).map_err(|_| cut(at))?;
                let told = bytes[layout.clone()].chunks_exact(4).nth(kind as usize);
                let told = told.filter(|_| kind != 0).ok_or(BtfError::Kind { id, kind })?;
                (usize::from(told[0]), usize::from(told[1]))
            }
            known => known.extra_bytes(),
        };
        let end = ty.body as u64 + once as u64 + u64::from(ty.vlen) * each as u64;
        at = usize::try_from(end).ok().filter(|end| *end <= types.end).ok_or_else(|| cut(at))?;
    }
    offsets.push(u32::try_from(types.end).map_err(|_| cut(types.end))?);
    offsets.shrink_to_fit();
    Ok(offsets)
}
