//! Questions to the type information (BTF) of the running kernel: where is a member, what is an enumerator's value, which
//! argument of a tracepoint has that name.
//!
//! Absent is an answer, not an error: kernels differ, and the caller decides what a missing member means. An error means
//! that the BTF itself makes no sense. Nothing in it is trusted: every access is checked, and every walk is bounded.

pub mod blob;
mod names;
mod outline;

use std::{collections::BTreeSet, iter};

use blob::{Blob, Kind, Type};
use names::Names;

pub use blob::BtfError;

/// The running kernel's types, which anybody may read.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

/// The kernels whose BTF is read here are 64-bit; BTF does not say the size of a pointer.
const POINTER_BYTES: u64 = 8;
/// Of nesting and of chains of typedefs and qualifiers. Kernels stay under 10.
const MAX_DEPTH: u32 = 32;
/// Looked at in one look-up of a member. The largest structs of kernels have about a thousand, nested ones included.
const MAX_MEMBERS: u32 = 100_000;

/// The BTF of a kernel, to be asked and then dropped. Costs its bytes, and twelve to sixteen bytes a type.
#[derive(Debug, Clone)]
pub struct Btf {
    blob: Blob,
    names: Names,
}

/// A type's number in its BTF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(pub u32);

/// Where a member lies in the struct that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub offset_bytes: u32,
    /// Of the whole member, arrays included. Of a bitfield: of the narrowest aligned load that holds all its bits.
    pub size_bytes: u32,
    pub bitfield: Option<Bitfield>,
}

/// Which bits of the `size_bytes` loaded at `offset_bytes` are the member: shift right by `bit_offset`, keep `bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitfield {
    pub bit_offset: u32,
    pub bits: u32,
}

/// A member as its record has it, from the start of the struct that the search began with.
struct Field {
    bits_from_start: u64,
    /// 0: not a bitfield
    width_bits: u32,
    type_id: u32,
}

impl Btf {
    /// Takes a whole BTF, such as the content of /sys/kernel/btf/vmlinux. A module's BTF, which builds on another one, is
    /// not understood.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let blob = Blob::parse(bytes)?;
        let names = Names::of(&blob);
        Ok(Self { blob, names })
    }

    /// The full definition of that struct; forward declarations and unions of that name don't count.
    pub fn struct_named(&self, name: &str) -> Option<TypeId> {
        self.definitions(Kind::Struct, name).next().map(|(id, _)| TypeId(id))
    }

    /// In bytes; `None` if there is no such struct.
    pub fn size_of(&self, struct_name: &str) -> Option<u32> {
        self.definitions(Kind::Struct, struct_name).next().map(|(_, ty)| ty.size_or_type)
    }

    /// Finds a member by the path that C has for it, such as `sk_backlog.rmem_alloc`. Unnamed structs and unions on the way
    /// are seen through, typedefs and qualifiers too, and of an array on the way the first element is taken. The path ends
    /// at a pointer: what it points to is no part of the struct. `Ok(None)`: no such struct or no such member.
    pub fn member(&self, struct_name: &str, path: &str) -> Result<Option<Member>, BtfError> {
        let (mut found, mut budget) = (None, MAX_MEMBERS);
        for (_, ty) in self.definitions(Kind::Struct, struct_name) {
            match (self.member_of(ty, path, &mut budget)?, found) {
                (Some(member), Some(other)) if member != other => {
                    return Err(BtfError::Ambiguous {
                        name: struct_name.into(),
                        member: path.into(),
                    });
                }
                (Some(member), _) => found = Some(member),
                (None, _) => {}
            }
        }
        Ok(found)
    }

    /// The value of an enumerator of a named enum; `None` if there is no such one, or several that disagree.
    pub fn enum_value(&self, enum_name: &str, enumerator: &str) -> Option<i64> {
        let all = self.enums(enum_name).flat_map(|ty| self.enumerators(ty));
        let named = all.filter(|(_, name)| self.blob.is_named(*name, enumerator));
        unanimous(named.map(|(value, _)| value))
    }

    /// All enumerators of a named enum in the order of their declaration; empty if there is no such enum. Unsigned values
    /// above `i64::MAX` come out negative.
    pub fn enum_names(&self, enum_name: &str) -> Vec<(i64, String)> {
        let first = self.enums(enum_name).next();
        let all = first.into_iter().flat_map(|ty| self.enumerators(ty));
        all.filter_map(|(value, name)| Some((value, self.blob.string(name)?.to_owned()))).collect()
    }

    /// Number of arguments that a `tp_btf` program on this tracepoint has; `None` if there is no such tracepoint.
    pub fn tracepoint_arity(&self, tracepoint: &str) -> Option<usize> {
        // The first parameter is the tracepoint's private data, which programs don't get.
        (self.tracepoint_proto(tracepoint)?.vlen as usize).checked_sub(1)
    }

    /// Position of an argument in the context of a `tp_btf` program, by its name in TP_PROTO; a suffix `__nullable`, by
    /// which newer kernels tell the verifier that it may be NULL, is not part of the name.
    ///
    /// `btf_trace_<name>`, which the kernel itself goes by, has the types of the arguments but no names (seen on 6.1, 6.12
    /// and 6.18): those come from the functions that include/linux/tracepoint.h and include/trace/bpf_probe.h make of the
    /// same TP_PROTO: `__probestub_` from 6.6 on, `__traceiter_`, and `__bpf_trace_` (of the event class).
    pub fn tracepoint_param(&self, tracepoint: &str, param: &str) -> Option<usize> {
        let own = self.tracepoint_proto(tracepoint)?;
        let nullable = format!("{param}__nullable");
        let named = ["__probestub_", "__traceiter_", "__bpf_trace_"];
        let named = named.iter().flat_map(|prefix| self.protos(&format!("{prefix}{tracepoint}")));
        iter::once(own)
            .chain(named.filter(|proto| proto.vlen == own.vlen))
            .find_map(|proto| self.position(proto, &[param, &nullable]))?
            .checked_sub(1)
    }

    /// Position of a kernel function's parameter by its name; `None` if there is no such function or parameter, or several
    /// functions of that name that disagree.
    pub fn func_param(&self, func: &str, param: &str) -> Option<usize> {
        unanimous(self.protos(func).into_iter().map(|proto| self.position(proto, &[param])))
            .flatten()
    }

    /// Number of a kernel function's parameters; `None` if there is no such function, or several of that name that disagree.
    pub fn func_arity(&self, func: &str) -> Option<usize> {
        unanimous(self.protos(func).into_iter().map(|proto| proto.vlen as usize))
    }

    /// Whether the kernel has a function of that name that is not inlined everywhere. Not every one can be traced.
    pub fn func_exists(&self, func: &str) -> bool {
        self.definitions(Kind::Func, func).next().is_some()
    }

    /// All types of that kind and name, in the order of their ids.
    fn definitions(&self, kind: Kind, name: &str) -> impl Iterator<Item = (u32, Type)> {
        self.names.find(&self.blob, kind, name)
    }

    fn member_of(
        &self,
        root: Type,
        path: &str,
        budget: &mut u32,
    ) -> Result<Option<Member>, BtfError> {
        let (mut holder, mut bits_from_start) = (root, 0);
        let mut segments = path.split('.').peekable();
        while let Some(name) = segments.next() {
            let Some(mut field) = self.field(&holder, name, 0, budget)? else {
                return Ok(None);
            };
            field.bits_from_start += bits_from_start;
            if segments.peek().is_none() {
                return self.locate(&field, path).map(Some);
            }
            bits_from_start = field.bits_from_start;
            holder = self.behind_aliases(field.type_id, true)?;
        }
        Ok(None)
    }

    /// Searches a struct or union, and the unnamed ones in it, for one member.
    fn field(
        &self,
        holder: &Type,
        name: &str,
        depth: u32,
        budget: &mut u32,
    ) -> Result<Option<Field>, BtfError> {
        if !matches!(holder.kind, Kind::Struct | Kind::Union) {
            return Ok(None);
        }
        if depth == MAX_DEPTH {
            return Err(BtfError::TooDeep(MAX_DEPTH));
        }
        for entry in 0..holder.vlen {
            *budget = budget.checked_sub(1).ok_or(BtfError::TooManyMembers(MAX_MEMBERS))?;
            let word = |index| self.blob.entry_word(holder, 12, entry, index);
            let (name_at, type_id, offset) = (word(0)?, word(1)?, word(2)?);
            let (bits_from_start, width_bits) =
                if holder.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            let bits_from_start = u64::from(bits_from_start);
            if self.blob.is_named(name_at, name) {
                return Ok(Some(Field { bits_from_start, width_bits, type_id }));
            }
            if self.blob.string(name_at) == Some("") {
                let inner = self.behind_aliases(type_id, false)?;
                if let Some(mut field) = self.field(&inner, name, depth + 1, budget)? {
                    field.bits_from_start += bits_from_start;
                    return Ok(Some(field));
                }
            }
        }
        Ok(None)
    }

    fn locate(&self, field: &Field, path: &str) -> Result<Member, BtfError> {
        let out_of_range = || BtfError::OutOfRange(path.into());
        let ty = self.behind_aliases(field.type_id, false)?;
        let (mut bit, mut width) = (field.bits_from_start, field.width_bits);
        if width == 0 && ty.kind == Kind::Int {
            // Where no member of the struct carries a width, the integer's type may: offset and number of bits.
            let encoding = self.blob.entry_word(&ty, 0, 0, 0)?;
            if u64::from(encoding & 0xff) != u64::from(ty.size_or_type) * 8 {
                bit += u64::from(encoding >> 16 & 0xff);
                width = encoding & 0xff;
            }
        }
        if width == 0 {
            let size =
                u32::try_from(self.size_bytes(field.type_id)?).map_err(|_| out_of_range())?;
            let offset = u32::try_from(bit / 8).ok().filter(|_| bit % 8 == 0);
            return Ok(Member {
                offset_bytes: offset.ok_or_else(out_of_range)?,
                size_bytes: size,
                bitfield: None,
            });
        }
        for size_bytes in [1u32, 2, 4, 8] {
            let start = bit / 8 / u64::from(size_bytes) * u64::from(size_bytes);
            let bit_offset = u32::try_from(bit - start * 8).map_err(|_| out_of_range())?;
            if bit_offset + width <= size_bytes * 8 {
                return Ok(Member {
                    offset_bytes: u32::try_from(start).map_err(|_| out_of_range())?,
                    size_bytes,
                    bitfield: Some(Bitfield { bit_offset, bits: width }),
                });
            }
        }
        Err(out_of_range())
    }

    /// Follows typedefs and qualifiers, and on demand arrays to their elements, to what has a layout of its own.
    fn behind_aliases(&self, mut id: u32, through_arrays: bool) -> Result<Type, BtfError> {
        for _ in 0..MAX_DEPTH {
            let ty = self.blob.get(id)?;
            id = match ty.kind {
                Kind::Array if through_arrays => self.blob.entry_word(&ty, 0, 0, 0)?,
                kind if kind.is_alias() => ty.size_or_type,
                _ => return Ok(ty),
            };
        }
        Err(BtfError::TooDeep(MAX_DEPTH))
    }

    fn size_bytes(&self, mut id: u32) -> Result<u64, BtfError> {
        let mut elements = 1u64;
        for _ in 0..MAX_DEPTH {
            let ty = self.blob.get(id)?;
            let size = match ty.kind {
                Kind::Array => {
                    let count = u64::from(self.blob.entry_word(&ty, 0, 0, 2)?);
                    elements = elements.saturating_mul(count);
                    id = self.blob.entry_word(&ty, 0, 0, 0)?;
                    continue;
                }
                Kind::Ptr => POINTER_BYTES,
                Kind::Int | Kind::Float | Kind::Enum | Kind::Enum64 => ty.size_or_type.into(),
                Kind::Struct | Kind::Union => ty.size_or_type.into(),
                kind if kind.is_alias() => {
                    id = ty.size_or_type;
                    continue;
                }
                _ => return Err(BtfError::NoSize(id)),
            };
            return Ok(elements.saturating_mul(size));
        }
        Err(BtfError::TooDeep(MAX_DEPTH))
    }

    /// Enums of that name that have enumerators: one without is only declared.
    fn enums(&self, name: &str) -> impl Iterator<Item = Type> {
        let wide = self.definitions(Kind::Enum64, name);
        let all = self.definitions(Kind::Enum, name).chain(wide);
        all.map(|(_, ty)| ty).filter(|ty| ty.vlen > 0)
    }

    /// Values, and where their names stand.
    fn enumerators(&self, ty: Type) -> impl Iterator<Item = (i64, u32)> {
        let (_, entry_bytes) = ty.kind.extra_bytes();
        (0..ty.vlen).filter_map(move |entry| {
            let word = |index| self.blob.entry_word(&ty, entry_bytes, entry, index).ok();
            let low = word(1)?;
            let value = match ty.kind {
                Kind::Enum64 => (u64::from(low) | u64::from(word(2)?) << 32).cast_signed(),
                _ if ty.flag => low.cast_signed().into(),
                _ => low.into(),
            };
            Some((value, word(0)?))
        })
    }

    fn tracepoint_proto(&self, tracepoint: &str) -> Option<Type> {
        let name = format!("btf_trace_{tracepoint}");
        self.definitions(Kind::Typedef, &name).find_map(|(_, typedef)| {
            let pointer = self.behind_aliases(typedef.size_or_type, false).ok()?;
            let proto = self.blob.get(pointer.size_or_type).ok()?;
            (pointer.kind == Kind::Ptr && proto.kind == Kind::FuncProto).then_some(proto)
        })
    }

    /// Prototypes of the functions of that name, each one once.
    fn protos(&self, func: &str) -> Vec<Type> {
        let ids = self.definitions(Kind::Func, func).map(|(_, ty)| ty.size_or_type);
        let types =
            ids.collect::<BTreeSet<_>>().into_iter().filter_map(|id| self.blob.get(id).ok());
        types.filter(|proto| proto.kind == Kind::FuncProto).collect()
    }

    fn position(&self, proto: Type, names: &[&str]) -> Option<usize> {
        let found = (0..proto.vlen).find(|entry| {
            let name = self.blob.entry_word(&proto, 8, *entry, 0).unwrap_or(0);
            names.iter().any(|wanted| self.blob.is_named(name, wanted))
        });
        found.map(|entry| entry as usize)
    }
}

/// The one value that all of them have; `None` if there is none or they differ.
fn unanimous<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}
