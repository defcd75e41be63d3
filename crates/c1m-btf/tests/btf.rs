//! The BTF reader against the BTF of real kernels (see fixtures/btf/README.md), and against garbage.

use std::str::FromStr;

use c1m_btf::{Bitfield, Btf, BtfError, Member};
use proptest::prelude::*;

mod btf_builder;

use btf_builder::{ARRAY, Builder, CONST, ENUM, ENUM64, FLAG, FUNC, FWD, PTR, STRUCT, TYPEDEF};

macro_rules! fixture {
    ($name:literal) => {
        Fixture {
            name: $name,
            btf: include_bytes!(concat!("fixtures/btf/", $name, ".btf")),
            offsets: include_str!(concat!("fixtures/btf/", $name, ".offsets")),
        }
    };
}

struct Fixture {
    name: &'static str,
    btf: &'static [u8],
    offsets: &'static str,
}

const DEBIAN_6_1: Fixture = fixture!("debian-6.1.192");
const DEBIAN_6_12: Fixture = fixture!("debian-6.12.117");
const LINUX_6_18: Fixture = fixture!("x86_64-6.18.44");
const FIXTURES: [Fixture; 3] = [DEBIAN_6_1, DEBIAN_6_12, LINUX_6_18];

impl Fixture {
    fn parse(&self) -> Btf {
        Btf::parse(self.btf.to_vec()).expect(self.name)
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    (text != "absent").then(|| text.parse().ok().expect("a number"))
}

#[test]
fn offsets_are_those_of_a_compiler() {
    for fixture in FIXTURES {
        let btf = fixture.parse();
        let lines = fixture.offsets.lines().filter(|line| !line.starts_with('#'));
        let mut checked = 0;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let context = format!("{}: {line}", fixture.name);
            match words[..] {
                [name, ".", _, size] => {
                    assert_eq!(btf.size_of(name), number(size), "{context}");
                    assert!(btf.struct_named(name).is_some(), "{context}");
                }
                [name, ".", "absent"] => {
                    assert_eq!(btf.size_of(name), None, "{context}");
                    assert_eq!(btf.struct_named(name), None, "{context}");
                }
                [name, path, "absent"] => {
                    assert_eq!(btf.member(name, path), Ok(None), "{context}");
                }
                [name, path, offset, size] => {
                    let member = Member {
                        offset_bytes: number(offset).expect(&context),
                        size_bytes: number(size).expect(&context),
                        bitfield: None,
                    };
                    assert_eq!(btf.member(name, path), Ok(Some(member)), "{context}");
                }
                _ => panic!("cannot read {context}"),
            }
            checked += 1;
        }
        assert!(checked > 80, "{} says too little", fixture.name);
    }
}

/// Read on that kernel by programs that ran in it, not from its BTF.
#[test]
fn offsets_are_those_measured_on_6_18_44() {
    let btf = LINUX_6_18.parse();
    let measured = [
        ("sock", "skc_prot", None),
        ("sock", "__sk_common.skc_prot", Some(40)),
        ("sock", "sk_drops", Some(136)),
        ("sock", "sk_receive_queue", Some(168)),
        ("sock", "sk_backlog.rmem_alloc", Some(192)),
        ("sock", "sk_rcvbuf", Some(244)),
        ("sock", "sk_socket", Some(288)),
        ("sock", "sk_memcg", Some(296)),
        ("sock", "sk_forward_alloc", Some(356)),
        ("sock", "sk_wmem_queued", Some(376)),
        ("sock", "sk_sndbuf", Some(568)),
        ("sock", "sk_shutdown", Some(575)),
        ("sock", "sk_ack_backlog", Some(600)),
        ("proto", "memory_allocated", Some(256)),
        ("proto", "memory_allocated.counter", None),
        ("proto", "memory_pressure", Some(280)),
        ("proto", "sysctl_mem", Some(288)),
        ("proto", "orphan_count", None),
        ("tcp_sock", "lsndtime", Some(1584)),
        ("tcp_sock", "linger2", Some(2228)),
        ("sk_buff", "truesize", Some(208)),
        ("proto_accept_arg", "err", Some(4)),
    ];
    for (name, path, offset) in measured {
        let member = btf.member(name, path).expect("a sound BTF");
        assert_eq!(member.map(|member| member.offset_bytes), offset, "{name} {path}");
    }
    assert_eq!(btf.size_of("sock"), Some(784));
    assert_eq!(btf.size_of("tcp_sock"), Some(2304));
}

#[test]
fn bitfields_of_kernels() {
    // Bit offsets in the struct and widths, as bpftool prints them.
    let printed = [
        (DEBIAN_6_1, "sock", "sk_userlocks", 4100, 4),
        (DEBIAN_6_1, "sock", "__sk_common.skc_reuseport", 156, 1),
        (DEBIAN_6_1, "tcp_sock", "is_cwnd_limited", 13119, 1),
        (DEBIAN_6_12, "tcp_sock", "nonagle", 13512, 4),
        (DEBIAN_6_12, "tcp_sock", "thin_lto", 15440, 1),
        (LINUX_6_18, "tcp_sock", "syn_ect_rcv", 15309, 2),
        (LINUX_6_18, "tcp_sock", "nonagle", 13128, 4),
        (LINUX_6_18, "sock", "sk_txtime_deadline_mode", 5232, 1),
    ];
    for (fixture, name, path, bit, bits) in printed {
        let member = fixture.parse().member(name, path).expect(path).expect(path);
        // All of these lie within one byte, so one byte is loaded.
        let bitfield = Some(Bitfield { bit_offset: bit % 8, bits });
        assert_eq!(
            member,
            Member { offset_bytes: bit / 8, size_bytes: 1, bitfield },
            "{} {path}",
            fixture.name
        );
    }
}

#[test]
fn enumerators_move_between_versions() {
    for (fixture, proto_mem, abort_on_memory, reasons) in [
        (DEBIAN_6_1, 16, None, 67),
        (DEBIAN_6_12, 19, Some(13), 106),
        (LINUX_6_18, 20, Some(13), 130),
    ] {
        let btf = fixture.parse();
        let value = btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_PROTO_MEM");
        assert_eq!(value, Some(proto_mem), "{}", fixture.name);
        let value = btf.enum_value("sk_rst_reason", "SK_RST_REASON_TCP_ABORT_ON_MEMORY");
        assert_eq!(value, abort_on_memory, "{}", fixture.name);
        let names = btf.enum_names("skb_drop_reason");
        assert_eq!(names.len(), reasons, "{}", fixture.name);
        assert!(names.contains(&(proto_mem, "SKB_DROP_REASON_PROTO_MEM".into())));
        assert_eq!(btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_PROTO"), None);
        assert_eq!(btf.enum_value("skb_drop", "SKB_DROP_REASON_PROTO_MEM"), None);
        assert_eq!(btf.enum_names("skb_drop"), []);
    }
    let btf = LINUX_6_18.parse();
    for (name, value) in
        [("SOCKET_RCVBUFF", 6), ("SOCKET_BACKLOG", 29), ("TCP_LISTEN_OVERFLOW", 40), ("NOMEM", 81)]
    {
        let name = format!("SKB_DROP_REASON_{name}");
        assert_eq!(btf.enum_value("skb_drop_reason", &name), Some(value), "{name}");
    }
}

#[test]
fn arguments_of_tracepoints() {
    let all: [&[Fixture]; 3] =
        [&[DEBIAN_6_1, DEBIAN_6_12, LINUX_6_18], &[DEBIAN_6_1], &[DEBIAN_6_12, LINUX_6_18]];
    let [everywhere, old, new] = all;
    let expected: [(&[Fixture], &str, &[&str]); 9] = [
        (everywhere, "inet_sock_set_state", &["sk", "oldstate", "newstate"]),
        (everywhere, "sock_exceed_buf_limit", &["sk", "prot", "allocated", "kind"]),
        (old, "kfree_skb", &["skb", "location", "reason"]),
        (new, "kfree_skb", &["skb", "location", "reason", "rx_sk"]),
        (old, "tcp_send_reset", &["sk", "skb"]),
        (new, "tcp_send_reset", &["sk", "skb", "reason"]),
        (everywhere, "tcp_destroy_sock", &["sk"]),
        (everywhere, "mark_victim", &["task", "uid"]),
        (new, "sk_data_ready", &["sk"]),
    ];
    for (fixtures, tracepoint, params) in expected {
        for fixture in fixtures {
            let context = format!("{} {tracepoint}", fixture.name);
            let btf = fixture.parse();
            assert_eq!(btf.tracepoint_arity(tracepoint), Some(params.len()), "{context}");
            for (position, param) in params.iter().enumerate() {
                assert_eq!(btf.tracepoint_param(tracepoint, param), Some(position), "{context}");
            }
            for absent in ["__data", "none", ""] {
                assert_eq!(btf.tracepoint_param(tracepoint, absent), None, "{context}");
            }
        }
    }
    let btf = DEBIAN_6_1.parse();
    assert_eq!(btf.tracepoint_param("tcp_send_reset", "reason"), None);
    assert_eq!(btf.tracepoint_arity("sk_data_ready"), None);
    assert_eq!(btf.tracepoint_param("sk_data_ready", "sk"), None);
}

#[test]
fn parameters_of_functions() {
    for fixture in FIXTURES {
        let btf = fixture.parse();
        assert!(btf.func_exists("tcp_conn_request"), "{}", fixture.name);
        assert!(!btf.func_exists("tcp_conn"), "{}", fixture.name);
        assert_eq!(btf.func_param("tcp_conn_request", "sk"), Some(2), "{}", fixture.name);
        assert_eq!(btf.func_param("tcp_conn_request", "none"), None, "{}", fixture.name);
        assert_eq!(btf.func_param("sk_forced_mem_schedule", "size"), Some(1), "{}", fixture.name);
    }
}

/// Another reader takes the fixtures for BTF, and finds the same types in them.
#[test]
fn aya_agrees_about_the_types() {
    use aya::Endianness;
    use aya_obj::btf::{Btf as Other, BtfKind};
    for fixture in FIXTURES {
        let btf = fixture.parse();
        let other = Other::parse(fixture.btf, Endianness::Little).expect(fixture.name);
        for name in ["sock", "proto", "tcp_sock", "net", "task_struct", "sk_buff", "no_such"] {
            let id = other.id_by_type_name_kind(name, BtfKind::Struct).ok();
            assert_eq!(btf.struct_named(name).map(|id| id.0), id, "{} {name}", fixture.name);
        }
    }
}

fn parse(builder: Builder) -> Btf {
    Btf::parse(builder.build()).expect("well-formed")
}

#[test]
fn what_is_no_btf_is_refused() {
    let refused = |bytes: &[u8]| Btf::parse(bytes.to_vec()).expect_err("this is no BTF");
    let sound = Builder::new().build();
    assert!(Btf::parse(sound.clone()).is_ok());
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(refused(b""), BtfError::NotBtf);
    assert_eq!(refused(b"\x7fELF"), BtfError::NotBtf);
    assert_eq!(refused(b"\xeb\x9f\x01\x00"), BtfError::BigEndian);
    assert_eq!(refused(&with(2, 2)), BtfError::Version(2));
    assert!(matches!(refused(&with(4, 23)), BtfError::Truncated { what: "the header", .. }));
    assert!(matches!(refused(&with(15, 0xff)), BtfError::Truncated { .. }));
    assert!(matches!(refused(&with(20, 2)), BtfError::Truncated { .. }));
    assert_eq!(refused(&with(20, 0)), BtfError::Strings);
    assert_eq!(refused(&with(24, b'x')), BtfError::Strings);
    for end in 0..sound.len() {
        refused(&sound[..end]);
    }
}

#[test]
fn unknown_kinds_are_stepped_over_where_their_length_is_told() {
    let build = |told: bool| {
        let mut builder = Builder::new();
        builder.record(77, 2, "novelty", 0, &[1, 2, 3, 4, 5]);
        builder.composite(STRUCT, "sock", 8, &[]);
        if told {
            builder.layout(77, 4, 8);
        }
        Btf::parse(builder.build())
    };
    assert_eq!(build(true).expect("its length is told").size_of("sock"), Some(8));
    assert_eq!(
        build(false).expect_err("its length is not told"),
        BtfError::Kind { id: 1, kind: 77 }
    );
}

#[test]
fn full_definitions_win_over_forward_ones() {
    let mut builder = Builder::new();
    let int = builder.int(4, 32);
    builder.record(FWD, 0, "sock", 0, &[]);
    builder.record(TYPEDEF, 0, "sock", int, &[]);
    builder.record(ENUM, 0, "reason", 4, &[]);
    let full = builder.composite(STRUCT, "sock", 4, &[("a", int, 0)]);
    let name = builder.name("A");
    builder.record(ENUM, 1, "reason", 4, &[name, 7]);
    let btf = parse(builder);
    assert_eq!(btf.struct_named("sock").map(|id| id.0), Some(full));
    assert_eq!(btf.struct_named("soc"), None);
    assert_eq!(btf.struct_named(""), None);
    assert_eq!(btf.struct_named("sock\0reason"), None);
    assert_eq!(btf.enum_value("reason", "A"), Some(7));
    assert_eq!(btf.enum_names("reason"), [(7, "A".to_owned())]);
}

#[test]
fn definitions_that_disagree_are_not_chosen_from() {
    let mut builder = Builder::new();
    let int = builder.int(4, 32);
    builder.composite(STRUCT, "sock", 12, &[("same", int, 0), ("moved", int, 32)]);
    builder.composite(
        STRUCT,
        "sock",
        12,
        &[("same", int, 0), ("moved", int, 64), ("new", int, 32)],
    );
    let name = builder.name("A");
    builder.record(ENUM, 1, "reason", 4, &[name, 7]);
    builder.record(ENUM, 1, "reason", 4, &[name, 8]);
    for params in [[("sk", int), ("same", int)], [("skb", int), ("same", int)]] {
        let proto = builder.proto(&params);
        builder.record(FUNC, 0, "f", proto, &[]);
    }
    let btf = parse(builder);
    let at = |path| btf.member("sock", path).map(|member| member.map(|member| member.offset_bytes));
    assert_eq!(at("same"), Ok(Some(0)));
    assert_eq!(at("new"), Ok(Some(4)));
    let ambiguous = BtfError::Ambiguous { name: "sock".into(), member: "moved".into() };
    assert_eq!(at("moved"), Err(ambiguous));
    assert_eq!(btf.enum_value("reason", "A"), None);
    assert_eq!(btf.func_param("f", "same"), Some(1));
    assert_eq!(btf.func_param("f", "sk"), None);
}

#[test]
fn paths_go_through_unnamed_members_aliases_and_arrays() {
    let mut builder = Builder::new();
    let int = builder.int(4, 32);
    let pointer = builder.record(PTR, 0, "", int, &[]);
    let inner = builder.composite(STRUCT, "", 12, &[("a", int, 0), ("p", pointer, 32)]);
    let alias = builder.record(TYPEDEF, 0, "alias_t", inner, &[]);
    let qualified = builder.record(CONST, 0, "", alias, &[]);
    let array = builder.record(ARRAY, 0, "", 0, &[qualified, int, 5]);
    let members = [("", qualified, 64), ("named", qualified, 160), ("list", array, 256)];
    builder.composite(STRUCT, "sock", 92, &members);
    let btf = parse(builder);
    let at = |path| {
        let member = btf.member("sock", path).expect("a sound BTF");
        member.map(|member| (member.offset_bytes, member.size_bytes))
    };
    assert_eq!(at("a"), Some((8, 4)));
    assert_eq!(at("p"), Some((12, 8)));
    assert_eq!(at("named"), Some((20, 12)));
    assert_eq!(at("named.p"), Some((24, 8)));
    assert_eq!(at("list"), Some((32, 60)));
    assert_eq!(at("list.p"), Some((36, 8)));
    for absent in ["named.p.x", "named.a.x", "p.a", "", ".", "named.", ".a", "alias_t", "a\0p"] {
        assert_eq!(at(absent), None, "{absent:?}");
    }
}

#[test]
fn bitfields_are_loaded_whole() {
    let mut builder = Builder::new();
    let int = builder.int(4, 32);
    let old_style = builder.record(1, 0, "int", 4, &[3 << 16 | 5]);
    builder.composite(
        STRUCT | FLAG,
        "new",
        16,
        &[
            ("two_bytes", int, 6 | 4 << 24),
            ("whole", int, 32),
            ("wide", int, 70 | 50 << 24),
            ("astride", int, 60 | 32 << 24),
        ],
    );
    builder.composite(STRUCT, "old", 4, &[("five", old_style, 8)]);
    builder.composite(STRUCT, "bad", 4, &[("odd", int, 3)]);
    let btf = parse(builder);
    let at = |name, path| {
        let member = btf.member(name, path)?.expect(path);
        let bits = member.bitfield.map(|field| (field.bit_offset, field.bits));
        Ok((member.offset_bytes, member.size_bytes, bits))
    };
    assert_eq!(at("new", "two_bytes"), Ok((0, 2, Some((6, 4)))));
    assert_eq!(at("new", "whole"), Ok((4, 4, None)));
    assert_eq!(at("new", "wide"), Ok((8, 8, Some((6, 50)))));
    assert_eq!(at("new", "astride"), Err(BtfError::OutOfRange("astride".into())));
    assert_eq!(at("old", "five"), Ok((1, 1, Some((3, 5)))));
    assert_eq!(at("bad", "odd"), Err(BtfError::OutOfRange("odd".into())));
}

#[test]
fn values_of_enums_keep_their_sign() {
    let mut builder = Builder::new();
    let name = builder.name("A");
    builder.record(ENUM, 1, "unsigned", 4, &[name, u32::MAX]);
    builder.record(ENUM | FLAG, 1, "signed", 4, &[name, u32::MAX]);
    builder.record(ENUM64, 1, "wide", 8, &[name, 1, 2]);
    builder.record(ENUM64 | FLAG, 1, "wide_signed", 8, &[name, u32::MAX, u32::MAX]);
    let btf = parse(builder);
    assert_eq!(btf.enum_value("unsigned", "A"), Some(0xffff_ffff));
    assert_eq!(btf.enum_value("signed", "A"), Some(-1));
    assert_eq!(btf.enum_value("wide", "A"), Some(0x2_0000_0001));
    assert_eq!(btf.enum_value("wide_signed", "A"), Some(-1));
}

#[test]
fn the_tracepoints_own_names_come_first() {
    let mut builder = Builder::new();
    let int = builder.int(4, 32);
    let typed = |builder: &mut Builder, name: &str, params: &[(&str, u32)]| {
        let proto = builder.proto(params);
        let pointer = builder.record(PTR, 0, "", proto, &[]);
        builder.record(TYPEDEF, 0, &format!("btf_trace_{name}"), pointer, &[]);
    };
    typed(&mut builder, "named", &[("__data", int), ("a", int), ("b", int)]);
    typed(&mut builder, "other", &[("", int), ("", int)]);
    typed(&mut builder, "void", &[]);
    // Of another arity, so not of this tracepoint.
    let proto = builder.proto(&[("__data", int), ("x", int), ("a", int)]);
    builder.record(FUNC, 0, "__bpf_trace_other", proto, &[]);
    let proto = builder.proto(&[("__data", int), ("b", int), ("a", int)]);
    builder.record(FUNC, 0, "__bpf_trace_named", proto, &[]);
    let btf = parse(builder);
    assert_eq!(btf.tracepoint_param("named", "b"), Some(1));
    assert_eq!(btf.tracepoint_arity("other"), Some(1));
    assert_eq!(btf.tracepoint_param("other", "a"), None);
    assert_eq!(btf.tracepoint_arity("void"), None);
    assert_eq!(btf.tracepoint_arity("none"), None);
}

#[test]
fn cycles_end() {
    let mut builder = Builder::new();
    let chain = builder.record(TYPEDEF, 0, "a", 2, &[]);
    builder.record(TYPEDEF, 0, "b", chain, &[]);
    let array = builder.record(ARRAY, 0, "", 0, &[3, 1, 2]);
    // Type 4 holds itself without a name, 20 times at each level.
    builder.composite(STRUCT, "self", 8, &[("", 4, 0); 20]);
    builder.composite(
        STRUCT,
        "sock",
        8,
        &[("chain", chain, 0), ("array", array, 0), ("gone", 99, 0), ("void", 0, 0)],
    );
    let pointer = builder.record(PTR, 0, "", 7, &[]);
    builder.record(TYPEDEF, 0, "btf_trace_x", pointer, &[]);
    let btf = parse(builder);
    assert_eq!(btf.member("self", "none"), Err(BtfError::TooDeep(32)));
    for path in ["chain", "array", "chain.x", "array.x"] {
        assert_eq!(btf.member("sock", path), Err(BtfError::TooDeep(32)), "{path}");
    }
    assert_eq!(btf.member("sock", "gone"), Err(BtfError::NoType(99)));
    assert_eq!(btf.member("sock", "void"), Err(BtfError::NoSize(0)));
    assert_eq!(btf.tracepoint_arity("x"), None);
}

#[test]
fn wide_nesting_ends() {
    let mut builder = Builder::new();
    // Each level holds the one before it eight times: 8^20 members, of which none has that name.
    let mut level = builder.composite(STRUCT, "", 8, &[]);
    for _ in 0..20 {
        level = builder.composite(STRUCT, "", 8, &[("", level, 0); 8]);
    }
    builder.composite(STRUCT, "sock", 8, &[("", level, 0)]);
    assert_eq!(parse(builder).member("sock", "none"), Err(BtfError::TooManyMembers(100_000)));
}

/// Asks everything that can be asked; the answers are whatever they are.
fn ask(bytes: Vec<u8>) -> Result<(), BtfError> {
    let btf = Btf::parse(bytes)?;
    let paths = [
        "sk_backlog.rmem_alloc",
        "__sk_common.skc_net.net",
        "sk_shutdown",
        "none",
        "inet_conn.icsk_inet.sk",
    ];
    for name in ["sock", "tcp_sock", "net", "proto", "task_struct", ""] {
        let _ = (btf.struct_named(name), btf.size_of(name));
        for path in paths {
            let _ = btf.member(name, path);
        }
    }
    for name in ["skb_drop_reason", "sk_rst_reason"] {
        let _ = (btf.enum_value(name, "SKB_DROP_REASON_PROTO_MEM"), btf.enum_names(name));
    }
    for name in ["inet_sock_set_state", "kfree_skb", "tcp_conn_request"] {
        let _ = (btf.tracepoint_arity(name), btf.tracepoint_param(name, "reason"));
        let _ = (btf.func_param(name, "sk"), btf.func_exists(name));
    }
    Ok(())
}

proptest! {
    /// A flipped word anywhere, a cut end: an answer or an error, never a panic, and soon.
    #[test]
    fn mutated_btf_is_answered(
        fixture in 0..FIXTURES.len(),
        words in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 0u32..32), 1..12),
        end in any::<prop::sample::Index>(),
        cut in prop::bool::weighted(0.1),
    ) {
        let mut bytes = FIXTURES[fixture].btf.to_vec();
        for (at, word, shift) in words {
            // Small numbers are what type ids, counts and kinds are.
            let at = 6 + at.index(bytes.len() / 4 - 6);
            bytes[at * 4..][..4].copy_from_slice(&(word >> shift).to_le_bytes());
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let _ = ask(bytes);
    }

    /// References bent to other types: every record stays well-formed, so that the look-ups run on nonsense.
    #[test]
    fn bent_references_are_answered(
        fixture in 0..FIXTURES.len(),
        bends in prop::collection::vec((any::<prop::sample::Index>(), 0u32..900), 1..100),
    ) {
        let bytes = btf_builder::bend(FIXTURES[fixture].btf, |count| {
            bends.iter().map(|(at, to)| (at.index(count), *to)).collect()
        });
        prop_assert_eq!(ask(bytes), Ok(()));
    }

    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..2000), header in any::<bool>()) {
        let mut bytes = bytes;
        if header {
            let sections = [0x0001_eb9f, 24, 0, 600, 600, 800];
            let sections = sections.into_iter().flat_map(u32::to_le_bytes);
            bytes.splice(..bytes.len().min(24), sections);
        }
        let _ = ask(bytes);
    }
}
