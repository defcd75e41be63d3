//! How much memory connections take: the objects that the kernel keeps for each end, what waits in its queues, and what the programs keep.
//!
//! The one place for this model. On Linux 6.18 it gives 8,202 bytes of slab for both ends of an idle connection, which is what
//! /proc/slabinfo shows for 1,024,000 of them; docs/doctor.md has the measurements.

use c1m_record::{MemoryNeed, Role, SizesFrom};

/// Pages of the largest slab, as a power of two: mm/slub.c, PAGE_ALLOC_COSTLY_ORDER (6.18).
const SLAB_ORDER_MAX: u32 = 3;
/// Somewhat more than the largest slab with the largest pages, of 64 KiB.
const SLAB_BYTES_SANE: u64 = 1 << 20;
/// Charged for an skb besides its payload: struct `sk_buff`, the small head and its `skb_shared_info`, as `c1m-client --pin` measures it
/// (net/core/skbuff.c, `__alloc_skb`, 6.18).
pub const SKB_OVERHEAD_BYTES: u64 = 832;
/// Kept for an skb besides its payload by a sender on the same host: the small head, and the pair of `sk_buff` that a sender
/// allocates, of which the receiver keeps half (net/ipv4/tcp.c, `tcp_stream_alloc_skb`, 6.18).
const SKB_KEPT_BYTES: u64 = 1_095;
/// A sender makes no skb longer than half of the usual first window (include/net/tcp.h, `tcp_bound_to_half_wnd`, 6.18).
const SKB_PAYLOAD_BYTES: u64 = 32 * 1024;
/// A slot of a descriptor table, with its bits of the three maps; a table grows by doubling, so between half of its slots and all are
/// used (fs/file.c, `alloc_fdtable`, 6.18).
const DESCRIPTOR_BYTES: u64 = 8 * 3 / 2 + 1;
/// Of c1m-server and c1m-client for one idle connection: PSS at 1,024,000 of them.
const SERVER_BYTES: u64 = 8;
const CLIENT_BYTES: u64 = 72;
/// Programs, stacks of their threads, eBPF maps, page tables.
const FIXED_BYTES: u64 = 4 << 20;
/// A memory cgroup is charged a pointer for each object besides it (mm/memcontrol.c, `obj_full_size`, 6.18).
const CHARGE_BYTES: u64 = 8;

/// A kernel object of which each end of a connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// As /sys/kernel/slab has it.
    pub cache: &'static str,
    /// As BTF has it; `None`: it has no struct that BTF knows.
    pub structure: Option<&'static str>,
    /// One object, on Linux 6.18, and the same with its share of the slab.
    measured_bytes: [u64; 2],
    of: Of,
    /// Memory cgroups are charged for it (SLAB_ACCOUNT).
    is_charged: bool,
}

/// Which end has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Ipv4,
    Ipv6,
    Each,
    Client,
}

const fn object(
    cache: &'static str,
    structure: Option<&'static str>,
    measured_bytes: [u64; 2],
    of: Of,
) -> Object {
    Object { cache, structure, measured_bytes, of, is_charged: structure.is_some() }
}

/// All of them: net/ipv4/tcp_ipv4.c (`tcp_prot`), net/socket.c (`sock_alloc_inode`), fs/file_table.c, fs/dcache.c, fs/eventpoll.c,
/// security/security.c, net/ipv4/inet_hashtables.c (`inet_bind2_bucket`, one for each source address and port), 6.18.
pub const OBJECTS: [Object; 11] = [
    object("TCP", Some("tcp_sock"), [2_368, 2_521], Of::Ipv4),
    object("TCPv6", Some("tcp6_sock"), [2_496, 2_521], Of::Ipv6),
    object("sock_inode_cache", Some("socket_alloc"), [832, 863], Of::Each),
    object("filp", Some("file"), [192, 196], Of::Each),
    object("dentry", Some("dentry"), [192, 196], Of::Each),
    object("eventpoll_epi", Some("epitem"), [128, 128], Of::Each),
    object("eventpoll_pwq", Some("eppoll_entry"), [64, 64], Of::Each),
    object("ep_head", Some("epitems_head"), [16, 16], Of::Each),
    object("lsm_inode_cache", None, [32, 32], Of::Each),
    object("lsm_file_cache", None, [24, 25], Of::Each),
    object("tcp_bind2_bucket", Some("inet_bind2_bucket"), [128, 128], Of::Client),
];

/// Bytes of one object of each cache, and the same with its share of the slab, in the order of [`OBJECTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    bytes: [[u64; 2]; OBJECTS.len()],
    from: SizesFrom,
}

impl Default for Sizes {
    /// As measured on Linux 6.18.
    fn default() -> Self {
        Self { bytes: OBJECTS.map(|object| object.measured_bytes), from: SizesFrom::Measured }
    }
}

impl Sizes {
    /// From slabs: `slab` has the bytes of one object of that cache, those of a slab, and the objects in it. `None` when the socket's own cache
    /// is not known; of another one that is not there, such as those of security modules, there are no objects.
    #[must_use]
    pub fn of_slabs(slab: impl Fn(&str) -> Option<[u64; 3]>) -> Option<Self> {
        let each = |object: Object| {
            let [one, bytes, objects] = slab(object.cache)?;
            let makes_sense = objects > 0 && bytes <= SLAB_BYTES_SANE && one <= bytes;
            makes_sense.then(|| [one, bytes.div_ceil(objects)])
        };
        each(OBJECTS[0])?;
        let bytes = OBJECTS.map(|object| each(object).unwrap_or([0; 2]));
        Some(Self { bytes, from: SizesFrom::Slab })
    }

    /// From the sizes of structures, and that of a page. `None` when the socket's own is not known.
    #[must_use]
    pub fn of_structures(size: impl Fn(&str) -> Option<u64>, page_bytes: u64) -> Option<Self> {
        let each = |object: Object| {
            let bytes = size(object.structure?)?;
            (1..page_bytes << SLAB_ORDER_MAX).contains(&bytes).then(|| packed(bytes, page_bytes))
        };
        each(OBJECTS[0])?;
        let bytes = OBJECTS.map(|object| each(object).unwrap_or(object.measured_bytes));
        Some(Self { bytes, from: SizesFrom::Btf })
    }

    /// The objects of one end of an idle connection.
    fn end(&self, is_client: bool, ipv6: bool) -> impl Iterator<Item = (&Object, [u64; 2])> {
        let is_there = move |of| match of {
            Of::Ipv4 => !ipv6,
            Of::Ipv6 => ipv6,
            Of::Each => true,
            Of::Client => is_client,
        };
        OBJECTS.iter().zip(self.bytes).filter(move |(object, _)| is_there(object.of))
    }

    /// Memory of one end.
    fn taken(&self, is_client: bool, ipv6: bool) -> u64 {
        self.end(is_client, ipv6).map(|(_, [_, packed])| packed).sum()
    }

    /// What a memory cgroup is charged for one end. Sockets of a server come from a softirq, which is in nobody's cgroup; they are charged when they
    /// are accepted, and only where socket memory counts (net/ipv4/af_inet.c, `__inet_accept`, 6.18).
    fn charged(&self, is_client: bool, ipv6: bool, counts_sockets: bool) -> u64 {
        self.end(is_client, ipv6)
            .filter(|(object, _)| {
                let is_socket = matches!(object.of, Of::Ipv4 | Of::Ipv6);
                object.is_charged && (is_client || counts_sockets || !is_socket)
            })
            .map(|(_, [one, _])| one + CHARGE_BYTES)
            .sum()
    }
}

/// An object as SLUB lays it out, and the same with its share of a slab: larger ones have the pointer to the next free one behind them, as those
/// that RCU frees or that keep what a constructor made must have, and are aligned to cache lines; the larger the object, the larger the slab
/// (mm/slub.c, `calculate_sizes`, `calculate_order`, 6.18).
fn packed(bytes: u64, page_bytes: u64) -> [u64; 2] {
    let largest = page_bytes << SLAB_ORDER_MAX;
    let (aligned, slab) = match bytes {
        0..=256 => (bytes.next_multiple_of(8), page_bytes),
        257..=1024 => ((bytes + 8).next_multiple_of(64), largest / 2),
        _ => (bytes.saturating_add(8).next_multiple_of(64), largest),
    };
    match slab / aligned.max(1) {
        0 => [aligned, aligned],
        objects => [aligned, slab.div_ceil(objects)],
    }
}

/// Pages that tcp_mem is charged for so many queued bytes: whole ones of their skbs (include/net/sock.h, `sk_mem_pages`, 6.18). 0 for 0.
#[must_use]
pub fn charged_pages(queued_bytes: u64, page_bytes: u64) -> u64 {
    queued_bytes
        .saturating_add(skbs(queued_bytes).saturating_mul(SKB_OVERHEAD_BYTES))
        .div_ceil(page_bytes)
}

/// The payload of one skb that is charged so many bytes on average: in the middle of what comes to the same pages, as `c1m-client --pin`
/// has it; less than a page is charged to some connections, and to the others nothing. At least 1.
#[must_use]
pub fn payload_of(charged_bytes: u64, page_bytes: u64) -> u64 {
    let half = page_bytes / 2;
    let payload = match charged_bytes < page_bytes {
        true => half.saturating_sub(SKB_OVERHEAD_BYTES) * charged_bytes / page_bytes,
        false => charged_bytes.saturating_sub(SKB_OVERHEAD_BYTES + half),
    };
    payload.max(1)
}

fn skbs(queued_bytes: u64) -> u64 {
    queued_bytes.div_ceil(SKB_PAYLOAD_BYTES)
}

/// What `connections` take of this host, with `queued_bytes` waiting in each.
#[must_use]
pub fn need(
    sizes: &Sizes,
    role: Role,
    ipv6: bool,
    connections: u64,
    queued_bytes: u64,
) -> MemoryNeed {
    let server = if role.has_server() { sizes.taken(false, ipv6) } else { 0 };
    let client = if role.has_client() { sizes.taken(true, ipv6) } else { 0 };
    let kernel = server + client + role.ends() * DESCRIPTOR_BYTES;
    let user = user_bytes(role);
    let queued = queued_bytes.saturating_add(skbs(queued_bytes).saturating_mul(SKB_KEPT_BYTES));
    let each = queued.saturating_add(kernel + user);
    MemoryNeed {
        bytes: connections.saturating_mul(each).saturating_add(FIXED_BYTES),
        kernel_bytes_per_connection: kernel,
        user_bytes_per_connection: user,
        queued_bytes_per_connection: queued,
        fixed_bytes: FIXED_BYTES,
        sizes_from: sizes.from,
    }
}

fn user_bytes(role: Role) -> u64 {
    u64::from(role.has_server()) * SERVER_BYTES + u64::from(role.has_client()) * CLIENT_BYTES
}

/// What a memory cgroup that both programs are in is charged for a connection. `queued_bytes`: in whole pages, as [`charged_pages`] has
/// them. `counts_sockets`: it is charged for socket memory, as version 2
/// always is.
#[must_use]
pub fn charged_each(
    sizes: &Sizes,
    role: Role,
    ipv6: bool,
    queued_bytes: u64,
    counts_sockets: bool,
) -> u64 {
    let end = |is_there: bool, is_client| match is_there {
        true => sizes.charged(is_client, ipv6, counts_sockets) + DESCRIPTOR_BYTES,
        false => 0,
    };
    let queued = if counts_sockets { queued_bytes } else { 0 };
    let ends = end(role.has_server(), false) + end(role.has_client(), true);
    queued.saturating_add(ends + user_bytes(role))
}

/// So many connections of `each` bytes take so many.
#[must_use]
pub fn sum(each: u64, connections: u64) -> u64 {
    connections.saturating_mul(each).saturating_add(FIXED_BYTES)
}

/// How many connections of `each` bytes so many hold.
#[must_use]
pub fn held_by(each: u64, bytes: u64) -> u64 {
    bytes.saturating_sub(FIXED_BYTES) / each.max(1)
}

/// Of one connection, all together.
#[must_use]
pub fn each(need: &MemoryNeed) -> u64 {
    need.kernel_bytes_per_connection
        .saturating_add(need.user_bytes_per_connection)
        .saturating_add(need.queued_bytes_per_connection)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    /// As arm64 and ppc64le kernels are built by some distributions.
    #[test]
    fn pages_of_64_kib_are_fewer_and_their_slabs_larger() {
        const LARGE: u64 = 65_536;
        assert_eq!((charged_pages(3_170, LARGE), charged_pages(200_000, LARGE)), (1, 4));
        let queued = |page| page * charged_pages(3_000, page);
        let version_2 =
            |page| charged_each(&Sizes::default(), Role::Both, false, queued(page), true);
        assert_eq!(version_2(LARGE) - version_2(PAGE), LARGE - PAGE);
        // One connection in eight or nine has a page.
        assert_eq!(payload_of(7_711, LARGE), (32_768 - SKB_OVERHEAD_BYTES) * 7_711 / LARGE);
        assert_eq!(payload_of(2 * LARGE, LARGE), LARGE + LARGE / 2 - SKB_OVERHEAD_BYTES);
        // 8 pages are 512 KiB, with 220 sockets in them.
        let slab = |name: &str| (name == "TCP").then_some([2_368, 8 * LARGE, 220]);
        let sizes = Sizes::of_slabs(slab).unwrap();
        assert_eq!(sizes.bytes[0], [2_368, 2_384]);
        assert_eq!(packed(2_304, LARGE), [2_368, 8 * LARGE / 221 + 1]);
        assert!(Sizes::of_structures(|_| Some(40_000), LARGE).is_some());
        assert!(Sizes::of_structures(|_| Some(40_000), PAGE).is_none());
    }

    fn idle(role: Role) -> MemoryNeed {
        need(&Sizes::default(), role, false, 1_024_000, 0)
    }

    #[test]
    fn both_ends_of_an_idle_connection_are_what_slabinfo_shows() {
        // 8,202 bytes of slab at 1,024,000 connections, and the tables.
        let both = idle(Role::Both);
        let slab = both.kernel_bytes_per_connection - 2 * DESCRIPTOR_BYTES;
        assert!(slab.abs_diff(8_202) < 10, "{both:?}");
        assert_eq!(
            both.kernel_bytes_per_connection,
            idle(Role::Server).kernel_bytes_per_connection
                + idle(Role::Client).kernel_bytes_per_connection
        );
    }

    #[test]
    fn the_sizes_of_6_18_come_out_of_its_slabs_and_of_its_types() {
        let slabs = |cache: &str| {
            Some(match cache {
                "TCP" => [2_368, 32_768, 13],
                "TCPv6" => [2_496, 32_768, 13],
                "sock_inode_cache" => [832, 16_384, 19],
                "filp" | "dentry" => [192, 4096, 21],
                "eventpoll_epi" | "tcp_bind2_bucket" => [128, 4096, 32],
                "eventpoll_pwq" => [64, 4096, 64],
                "ep_head" => [16, 4096, 256],
                "lsm_inode_cache" => [32, 4096, 128],
                "lsm_file_cache" => [24, 4096, 170],
                _ => return None,
            })
        };
        let of_slabs = Sizes::of_slabs(slabs).unwrap();
        assert_eq!(of_slabs.bytes, Sizes::default().bytes);
        let types = |name: &str| {
            Some(match name {
                "tcp_sock" => 2304,
                "tcp6_sock" => 2432,
                "socket_alloc" => 768,
                "file" => 184,
                "dentry" => 192,
                "epitem" | "inet_bind2_bucket" => 128,
                "eppoll_entry" => 64,
                "epitems_head" => 16,
                _ => return None,
            })
        };
        let of_types = Sizes::of_structures(types, PAGE).unwrap();
        let both = |sizes: &Sizes| need(sizes, Role::Both, false, 1_024_000, 0).bytes;
        let (exact, about) = (both(&of_slabs), both(&of_types));
        assert!(exact.abs_diff(about) * 100 < exact * 5, "{exact} {about}");
        assert_eq!(Sizes::of_slabs(|_| None), None);
        assert_eq!(Sizes::of_slabs(|_| Some([1, 4096, 0])), None);
        assert_eq!(Sizes::of_structures(|_| Some(0), PAGE), None);
    }

    #[test]
    fn a_cgroup_is_charged_less_than_is_taken() {
        // memory.usage_in_bytes of version 1 grew by 5,576 bytes a connection from 20,000 to 40,000 of them, both ends in it.
        let version_1 = charged_each(&Sizes::default(), Role::Both, false, 0, false);
        assert!(version_1.abs_diff(5_576) < 50, "{version_1}");
        let version_2 = charged_each(
            &Sizes::default(),
            Role::Both,
            false,
            PAGE * charged_pages(3_000, PAGE),
            true,
        );
        assert_eq!(version_2 - version_1, 2_368 + CHARGE_BYTES + PAGE);
    }

    #[test]
    fn queued_bytes_are_charged_by_the_page() {
        // As /proc/net/sockstat has it for unread responses of 3,000 and 20,000 bytes with their heads of some hundred.
        assert_eq!(
            (charged_pages(0, PAGE), charged_pages(3_170, PAGE), charged_pages(20_170, PAGE)),
            (0, 1, 6)
        );
        // `--pin 7.53K` sends 1,653 bytes to 11,743 of 100,000 connections, and 5,313 to the others.
        let pinned = (1_653 * 11_743 + 5_313 * 88_257) / 100_000;
        assert!(payload_of(7_711, PAGE).abs_diff(pinned) < 100);
        assert_eq!((charged_pages(payload_of(8192, PAGE), PAGE), payload_of(0, PAGE)), (2, 1));
        assert_eq!(charged_pages(u64::MAX, PAGE), u64::MAX.div_ceil(PAGE));
    }

    proptest! {
        #[test]
        fn need_grows_and_what_fits_is_its_inverse(connections: u64, queued in 0u64..1 << 40, ipv6: bool, more in 1u64..1000) {
            let of = |connections| need(&Sizes::default(), Role::Both, ipv6, connections, queued);
            let (this, next) = (of(connections), of(connections.saturating_add(more)));
            prop_assert!(this.bytes <= next.bytes);
            if this.bytes < u64::MAX {
                prop_assert_eq!(this.bytes, sum(each(&this), connections));
                prop_assert_eq!(held_by(each(&this), this.bytes), connections);
                prop_assert!(held_by(each(&this), this.bytes - 1) < connections || connections == 0);
            }
        }
    }
}
