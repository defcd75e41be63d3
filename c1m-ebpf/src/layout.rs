//! Kernel structures: offsets as frozen globals, and the one typed load through a BTF pointer.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use c1m_ebpf::{ABSENT, Config, Layout, WATCHED_PORTS};

/// include/linux/socket.h
pub(crate) const AF_INET6: u16 = 10;

/// Set by user space before the object is loaded, and frozen.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::ABSENT;

#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::NONE;

/// The offset of a member in the running kernel. Volatile: to the compiler the global is a constant, and it would put in the value
/// that stands in the source.
macro_rules! offset {
    ($member:ident) => {{
        // SAFETY: the address of a member of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::layout::LAYOUT.$member) }
    }};
}

/// A value that user space chose at load; volatile like [`offset`].
macro_rules! config {
    ($($member:tt)+) => {{
        // SAFETY: the address of a member of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::layout::CONFIG.$($member)+) }
    }};
}

/// An argument of the hook, as a number, where the running kernel has it: `argument!(context, HOOK_X, value)`.
macro_rules! argument {
    ($context:expr, $hook:ident, $which:ident) => {
        $crate::layout::word($context, $crate::layout::config!(arguments[$hook as usize].$which))
    };
}

pub(crate) use {argument, config, offset};

/// Loads a word of the context. In assembly, because of two loads at different offsets the compiler makes one with a computed address,
/// which the verifier refuses; of these it keeps one, for the position is frozen, and never looks at the others.
macro_rules! load {
    ($context:ident, $offset:literal) => {{
        let value: u64;
        // SAFETY: the verifier proves that a context has a word there.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(u64 *)({context} + ", $offset, ")"),
                context = in(reg) $context,
                value = out(reg) value,
                options(nostack),
            );
        }
        value
    }};
}

/// The argument at this position; 0 for one that the kernel does not have.
#[inline(always)]
pub(crate) fn word(context: *mut core::ffi::c_void, position: u32) -> u64 {
    match position {
        0 => load!(context, "0"),
        1 => load!(context, "8"),
        2 => load!(context, "16"),
        3 => load!(context, "24"),
        4 => load!(context, "32"),
        5 => load!(context, "40"),
        6 => load!(context, "48"),
        7 => load!(context, "56"),
        _ => 0,
    }
}

/// The register at this word of struct pt_regs: on x86_64 those of arguments and result are words 8 to 14 and the stack pointer is word 19,
/// on aarch64 0 to 7 and 31. 0 for one that is none of these.
#[inline(always)]
pub(crate) fn register(context: *mut core::ffi::c_void, position: u32) -> u64 {
    match position {
        8 => load!(context, "64"),
        9 => load!(context, "72"),
        10 => load!(context, "80"),
        11 => load!(context, "88"),
        12 => load!(context, "96"),
        13 => load!(context, "104"),
        14 => load!(context, "112"),
        19 => load!(context, "152"),
        31 => load!(context, "248"),
        _ => word(context, position),
    }
}

/// A pointer to a kernel structure. Of most the verifier knows the type, and a load through it never faults: the kernel answers 0 for a
/// bad address. What a register held has no type, and is copied by a helper, with the same answer.
#[derive(Clone, Copy)]
pub(crate) struct BtfPtr {
    address: *const u8,
    /// Known when the program is compiled: each load is one of the two.
    is_typed: bool,
}

impl BtfPtr {
    /// # Safety
    /// `address` must come from a tracepoint's argument or another `BtfPtr`, unchanged.
    #[inline(always)]
    pub(crate) unsafe fn new(address: *const u8) -> Self {
        Self { address, is_typed: true }
    }

    #[inline(always)]
    pub(crate) fn untyped(address: *const u8) -> Self {
        Self { address, is_typed: false }
    }

    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.address.is_null()
    }

    #[inline(always)]
    pub(crate) fn raw(self) -> u64 {
        self.address as u64
    }

    /// The member at `offset` bytes, which must be one from [`Layout`], of the size of `T`.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> T {
        let member = self.address(offset).cast::<T>();
        if self.is_typed {
            // SAFETY: the verifier proves that a member of this size is there.
            unsafe { core::ptr::read_volatile(member) }
        } else {
            // SAFETY: the helper checks the address, and all zeros are a value of the numbers and pointers that are loaded.
            unsafe { bpf_probe_read_kernel(member).unwrap_or_else(|_| core::mem::zeroed()) }
        }
    }

    /// The structure that the member at `offset` points to.
    #[inline(always)]
    pub(crate) fn follow(self, offset: u32) -> Self {
        Self { address: self.load::<*const u8>(offset), ..self }
    }

    /// The address of the member at `offset`, for a helper that copies.
    #[inline(always)]
    pub(crate) fn address(self, offset: u32) -> *const u8 {
        // SAFETY: never dereferenced here.
        unsafe { self.address.add(offset as usize) }
    }
}

/// Copies what a pointer to a plain number or array points to: BTF gives such a pointer no type to load through.
#[inline(always)]
pub(crate) fn copy<T: Copy + Default>(address: *const T) -> T {
    // SAFETY: the helper checks the address; a bad one is answered with an error.
    unsafe { bpf_probe_read_kernel(address) }.unwrap_or_default()
}

/// struct sock
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) BtfPtr);

impl Sock {
    /// tcp_mem is TCP's and MPTCP's.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        let protocol: u16 = self.0.load(offset!(sock_protocol));
        protocol == c1m_ebpf::TCP || protocol == c1m_ebpf::MPTCP
    }

    /// On a watched port, in the watched network namespace? `port` is [`Sock::port`] or [`Sock::last_port`].
    #[inline(always)]
    pub(crate) fn is_watched(self, port: u16) -> bool {
        is_port_watched(port) && (config!(watch_netns) == 0 || self.netns() == config!(watch_netns))
    }

    /// Did a listener give birth to it?
    ///
    /// A socket that does has noted by which interface the handshake came (net/ipv4/tcp_ipv4.c, `tcp_v4_syn_recv_sock`: `mc_index`;
    /// net/ipv6/tcp_ipv6.c, `tcp_v6_syn_recv_sock`: `mcast_oif`; 5.4 to 6.18). No other one has: the options that set these members are
    /// refused for stream sockets (IP_MULTICAST_IF, IPV6_MULTICAST_IF). It stays until the socket is freed, so a connection is the same at its
    /// birth and at its end. They stand behind the end of a struct sock, so a helper has to copy them.
    #[inline(always)]
    pub(crate) fn is_accepted(self) -> bool {
        let interface: i32 = copy(self.0.address(offset!(inet_mc_index)).cast());
        if interface != 0 {
            return true;
        }
        if offset!(inet_pinet6) == ABSENT || self.0.load::<u16>(offset!(sock_family)) != AF_INET6 {
            return false;
        }
        let pinfo: u64 = copy(self.0.address(offset!(inet_pinet6)).cast());
        let interface: i32 =
            copy(pinfo.wrapping_add(offset!(pinfo_mcast_oif).into()) as *const i32);
        pinfo != 0 && interface != 0
    }

    /// The cgroup of whoever made it; 0: unknown.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        if offset!(sock_cgroup) == ABSENT {
            return 0;
        }
        self.0.follow(offset!(sock_cgroup)).follow(offset!(cgroup_kn)).load(offset!(kernfs_id))
    }

    /// The limit of a listener's accept queue.
    #[inline(always)]
    pub(crate) fn backlog(self) -> u32 {
        self.0.load(offset!(sock_max_ack_backlog))
    }

    #[inline(always)]
    pub(crate) fn accept_queue_len(self) -> u32 {
        self.0.load(offset!(sock_ack_backlog))
    }

    /// Segments that were dropped; of a listener all that it refused.
    #[inline(always)]
    pub(crate) fn drops(self) -> u32 {
        self.0.load(offset!(sock_drops))
    }

    /// As the kernel asks: include/net/sock.h, `sk_acceptq_is_full`, 5.4 to 6.18.
    #[inline(always)]
    pub(crate) fn is_accept_queue_full(self) -> bool {
        self.accept_queue_len() > self.backlog()
    }

    /// Requests of a listener whose handshake has not ended. It stands behind the end of a struct sock, so a helper has to copy it.
    #[inline(always)]
    pub(crate) fn request_queue_len(self) -> u32 {
        copy(self.0.address(offset!(request_queue_len)).cast())
    }

    /// Local port, host byte order; 0 once the socket gave it back, which is before its state says CLOSE.
    #[inline(always)]
    pub(crate) fn port(self) -> u16 {
        self.0.load(offset!(sock_num))
    }

    /// Local port, host byte order, also of a socket that gave it back. Dearer: it stands behind what the verifier takes for the end
    /// of a struct sock, so a helper has to copy it.
    #[inline(always)]
    pub(crate) fn last_port(self) -> u16 {
        u16::from_be(copy(self.0.address(offset!(inet_sport)).cast()))
    }

    /// Is it connected to somebody, or was it?
    #[inline(always)]
    pub(crate) fn has_peer(self) -> bool {
        self.0.load::<u16>(offset!(sock_dport)) != 0
    }

    /// Inode of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        self.0.follow(offset!(sock_net)).load(offset!(net_inum))
    }

    #[inline(always)]
    pub(crate) fn proto(self) -> Proto {
        Proto(self.0.follow(offset!(sock_prot)))
    }

    /// truesize of the receive queue, bytes.
    #[inline(always)]
    pub(crate) fn receive_queue_bytes(self) -> u32 {
        self.0.load(offset!(sock_rmem_alloc))
    }

    /// SO_RCVBUF as the kernel compares it, bytes.
    #[inline(always)]
    pub(crate) fn receive_buffer_bytes(self) -> i32 {
        self.0.load(offset!(sock_rcvbuf))
    }

    /// skbs of the receive queue.
    #[inline(always)]
    pub(crate) fn receive_queue_len(self) -> u32 {
        self.0.load(offset!(sock_receive_queue_len))
    }

    /// What the socket has of tcp_mem without using it, bytes.
    #[inline(always)]
    pub(crate) fn forward_alloc_bytes(self) -> i32 {
        self.0.load(offset!(sock_forward_alloc))
    }

    /// truesize of the write queue, bytes.
    #[inline(always)]
    pub(crate) fn send_queue_bytes(self) -> u32 {
        self.0.load(offset!(sock_wmem_queued))
    }
}

/// Any port is, when none is named.
#[inline(always)]
fn is_port_watched(port: u16) -> bool {
    if config!(watch_ports[0]) == 0 {
        return true;
    }
    let mut index = 0;
    while index < WATCHED_PORTS {
        if u32::from(port) == config!(watch_ports[index]) {
            return true;
        }
        index += 1;
    }
    false
}

/// struct proto: `tcp_prot`, `tcpv6_prot` and MPTCP's all point to the same counters.
#[derive(Clone, Copy)]
pub(crate) struct Proto(pub(crate) BtfPtr);

impl Proto {
    /// What the kernel compares with the limits, in pages. Negative for an instant at times, which the kernel takes for 0.
    #[inline(always)]
    pub(crate) fn pages(self) -> u64 {
        let pages: i64 = self.0.follow(offset!(proto_memory_allocated)).load(0);
        if pages < 0 { 0 } else { pages as u64 }
    }

    #[inline(always)]
    pub(crate) fn tcp_mem(self) -> [u64; 3] {
        copy(self.0.load::<*const [u64; 3]>(offset!(proto_sysctl_mem)))
    }

    /// The jiffies at which memory pressure was entered; 0: not under pressure.
    #[inline(always)]
    pub(crate) fn pressure_since(self) -> u64 {
        copy(self.0.load::<*const u64>(offset!(proto_memory_pressure)))
    }
}
