//! The one rule of nftables that connection tracking needs, spoken to the kernel directly: guests have no nft.

use std::{io, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};

/// `NETLINK_NETFILTER`, and the numbers of include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.
const NETFILTER: i32 = 12;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const IPV4: u8 = 2;
const NESTED: u16 = 1 << 15;
/// `NLM_F_REQUEST`, and with `NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND`.
const REQUEST: u16 = 1;
const CREATE: u16 = REQUEST | 4 | 0x400 | 0x800;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(10);
const TABLE: &[u8] = b"c1m\0";
const CHAIN: &[u8] = b"out\0";

/// Lets connections be tracked in the calling thread's network namespace: a chain for what goes out, whose rule looks at `ct state`.
/// Without such a rule nothing is tracked (net/netfilter/nft_ct.c, `nft_ct_get_init`, 6.18).
pub fn track_connections() -> io::Result<()> {
    let state = [number(1, 1), number(2, 0)].concat();
    let expression = [attribute(1, b"ct\0"), nest(2, &state)].concat();
    let hook = [number(1, 3), number(2, 0)].concat();
    let chain =
        [attribute(1, TABLE), attribute(3, CHAIN), nest(4, &hook), attribute(7, b"filter\0")];
    let rule = [attribute(1, TABLE), attribute(2, CHAIN), nest(4, &nest(1, &expression))];
    let batch = [
        message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &[]),
        message(NEW_TABLE, CREATE, IPV4, 0, &attribute(1, TABLE)),
        message(NEW_CHAIN, CREATE, IPV4, 0, &chain.concat()),
        message(NEW_RULE, CREATE, IPV4, 0, &rule.concat()),
        message(BATCH_END, REQUEST, 0, SUBSYSTEM, &[]),
    ];
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(NETFILTER)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&batch.concat())?;
    // Each of the three is acknowledged; an error may come alone.
    let mut acknowledged = 0;
    while acknowledged < 3 {
        let mut buffer = [0; 8192];
        let count = io::Read::read(&mut (&socket), &mut buffer)?;
        acknowledged += answers(&buffer[..count])?;
    }
    Ok(())
}

/// How many acknowledgements there are; the first error, if there is one.
fn answers(mut bytes: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some((length, code)) = bytes.first_chunk().zip(bytes.get(HEADER..HEADER + 4)) {
        let code = code.try_into().map_or(0, i32::from_ne_bytes);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
        count += 1;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        bytes = bytes.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + 4 + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port: the socket asks once, and the kernel knows who asks.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// Numbers of nftables are big-endian.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}
