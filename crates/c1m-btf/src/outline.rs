//! What aya needs of a kernel's BTF: the ids of the few types that programs are attached by.
//!
//! aya decodes each of the 150,000 types, and goes through all of them, comparing names, for each program that it loads. An outline has the same
//! ids, but everything else in it is a declaration without a name.

use crate::{
    Btf,
    blob::{Kind, Type},
};

const HEADER_BYTES: u32 = 24;
/// Of a record without anything behind the part that all have.
const RECORD_BYTES: u32 = 12;

impl Btf {
    /// Functions and tracepoints' typedefs of these names, under their ids: a BTF blob, little-endian.
    #[must_use]
    pub fn outline(&self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
        let declaration = record(0, Kind::Fwd, 0);
        let types = self.blob.ids().len();
        let mut records = declaration.repeat(types);
        let mut strings = vec![0];
        for name in names {
            let name = name.as_ref();
            let found = [Kind::Func, Kind::Typedef]
                .into_iter()
                .flat_map(|kind| self.definitions(kind, name));
            let Ok(at) = u32::try_from(strings.len()) else { break };
            for (id, Type { kind, size_or_type, .. }) in found {
                let place = (id as usize - 1) * RECORD_BYTES as usize;
                records[place..][..RECORD_BYTES as usize].copy_from_slice(&record(
                    at,
                    kind,
                    size_or_type,
                ));
            }
            strings.extend(name.bytes().chain([0]));
        }
        let lengths = [records.len(), strings.len()].map(|len| u32::try_from(len).unwrap_or(0));
        let [types_bytes, strings_bytes] = lengths;
        // Magic number, version 1, no flags.
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let header = [HEADER_BYTES, 0, types_bytes, types_bytes, strings_bytes];
        bytes.extend(header.into_iter().flat_map(u32::to_le_bytes));
        bytes.append(&mut records);
        bytes.append(&mut strings);
        bytes
    }
}

fn record(name: u32, kind: Kind, other: u32) -> [u8; RECORD_BYTES as usize] {
    let mut bytes = [0; RECORD_BYTES as usize];
    let words = [name, kind.number() << 24, other];
    bytes
        .iter_mut()
        .zip(words.into_iter().flat_map(u32::to_le_bytes))
        .for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use crate::*;

    #[test]
    fn ids_are_those_of_the_whole_btf() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf");
        let names = ["tcp_enter_memory_pressure", "btf_trace_inet_sock_set_state", "absent"];
        for kernel in ["debian-6.1.192", "debian-6.12.117", "x86_64-6.18.44"] {
            let bytes = std::fs::read(folder.join(format!("{kernel}.btf"))).unwrap();
            let whole = aya::Btf::parse(&bytes, aya::Endianness::Little).unwrap();
            let outline = Btf::parse(bytes).unwrap().outline(names);
            let outline = aya::Btf::parse(&outline, aya::Endianness::Little).unwrap();
            let id = |btf: &aya::Btf, name, kind| btf.id_by_type_name_kind(name, kind).ok();
            for kind in [BtfKind::Func, BtfKind::Typedef] {
                for name in names {
                    assert_eq!(
                        id(&outline, name, kind),
                        id(&whole, name, kind),
                        "{kernel}: {name}"
                    );
                }
            }
            assert!(id(&outline, names[0], BtfKind::Func).is_some(), "{kernel}");
            assert!(id(&outline, names[1], BtfKind::Typedef).is_some(), "{kernel}");
            assert_eq!(id(&outline, "tcp_leave_memory_pressure", BtfKind::Func), None, "{kernel}");
        }
    }
}
