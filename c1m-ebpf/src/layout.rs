//! Kernel structures: offsets as frozen globals, and loads through typed and untyped pointers.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use c1m_ebpf::{ABSENT, Config, Layout, is_port_watched};

/// include/linux/socket.h
pub(crate) const AF_INET6: u16 = 10;

/// Set by user space before the object is loaded, and frozen.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Layout = Layout::ABSENT;

#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = Config::NONE;

/// The offset of a member in the running kernel. Volatile: to the compiler the global is a
/// constant, and it would use the value in the source.
macro_rules! offset {
    ($member:ident) => {{
        // SAFETY: the address of a member of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::layout::LAYOUT.$member) }
    }};
}

/// A value that user space set at load; volatile like [`offset`].
macro_rules! config {
    ($($member:tt)+) => {{
        // SAFETY: the address of a member of a static.
        unsafe { core::ptr::read_volatile(&raw const $crate::layout::CONFIG.$($member)+) }
    }};
}

/// An argument of the hook, as a number: `argument!(context, HOOK_X, value)`.
macro_rules! argument {
    ($context:expr, $hook:ident, $which:ident) => {
        $crate::layout::word($context, $crate::layout::config!(arguments[$hook as usize].$which))
    };
}

pub(crate) use {argument, config, offset};

/// Loads a word of the context. In assembly, because the compiler merges loads at different offsets
/// into one with a computed address, which the verifier refuses. The position is frozen, so the
/// verifier keeps one of these loads and removes the others.
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

/// The argument at this position; 0 for an argument that the kernel does not have.
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

/// The register at this word of struct pt_regs: on x86_64 arguments and result are words 8 to 14
/// and the stack pointer is word 19, on aarch64 words 0 to 7 and 31. 0 for any other word.
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

/// A pointer to a kernel structure. If the verifier knows its type, a load through it never faults:
/// the kernel returns 0 for a bad address. A pointer from a register has no type: members are
/// copied by a helper, also with 0 for a bad address.
#[derive(Clone, Copy)]
pub(crate) struct BtfPtr {
    address: *const u8,
    /// Known at compile time: each load is compiled to one of the two.
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
            // SAFETY: the helper checks the address, and all zeros are a value of the numbers and
            // pointers that are loaded.
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

/// Copies a number or array: in BTF a pointer to one has no type to load through.
#[inline(always)]
pub(crate) fn copy<T: Copy + Default>(address: *const T) -> T {
    // SAFETY: the helper checks the address, and returns an error for a bad one.
    unsafe { bpf_probe_read_kernel(address) }.unwrap_or_default()
}

/// struct sock
#[derive(Clone, Copy)]
pub(crate) struct Sock(pub(crate) BtfPtr);

impl Sock {
    /// Is its memory counted in tcp_mem? TCP's and MPTCP's is.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        let protocol: u16 = self.0.load(offset!(sock_protocol));
        protocol == c1m_ebpf::TCP || protocol == c1m_ebpf::MPTCP
    }

    /// On a watched port, in the watched network namespace? `port` is [`Sock::port`] or
    /// [`Sock::last_port`].
    #[inline(always)]
    pub(crate) fn is_watched(self, port: u16) -> bool {
        is_port_watched(port, |index| config!(watch_ports[index]))
            && (config!(watch_netns) == 0 || self.netns() == config!(watch_netns))
    }

    /// Was it created by a listener?
    ///
    /// Such a socket has the interface of its handshake (net/ipv4/tcp_ipv4.c,
    /// `tcp_v4_syn_recv_sock`: `mc_index`; net/ipv6/tcp_ipv6.c, `tcp_v6_syn_recv_sock`:
    /// `mcast_oif`; 5.4 to 6.18). No other has: the options that set these members are refused for
    /// stream sockets (IP_MULTICAST_IF, IPV6_MULTICAST_IF). The members stay the same until the
    /// socket is freed, so the answer is the same when a connection opens and when it closes. They
    /// are behind the end of struct sock, so a helper copies them.
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

    /// The cgroup of the process that created it; 0: unknown.
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

    /// Dropped segments; of a listener, all that it refused.
    #[inline(always)]
    pub(crate) fn drops(self) -> u32 {
        self.0.load(offset!(sock_drops))
    }

    #[inline(always)]
    pub(crate) fn is_accept_queue_full(self) -> bool {
        c1m_ebpf::is_accept_queue_full(self.accept_queue_len(), self.backlog())
    }

    /// Requests of a listener whose handshake is not complete. The member is behind the end of
    /// struct sock, so a helper copies it.
    #[inline(always)]
    pub(crate) fn request_queue_len(self) -> u32 {
        copy(self.0.address(offset!(request_queue_len)).cast())
    }

    /// Local port, host byte order; 0 once the socket has returned it, which is before its state is
    /// CLOSE.
    #[inline(always)]
    pub(crate) fn port(self) -> u16 {
        self.0.load(offset!(sock_num))
    }

    /// Local port, host byte order, also of a socket that has returned it. More expensive: the
    /// member is behind the end of struct sock, so a helper copies it.
    #[inline(always)]
    pub(crate) fn last_port(self) -> u16 {
        u16::from_be(copy(self.0.address(offset!(inet_sport)).cast()))
    }

    /// Is it connected, or was it?
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

    /// Memory of tcp_mem that is reserved for the socket and unused, bytes.
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

/// struct proto: `tcp_prot`, `tcpv6_prot` and MPTCP's point to the same counters.
#[derive(Clone, Copy)]
pub(crate) struct Proto(pub(crate) BtfPtr);

impl Proto {
    /// Usage as the kernel compares it with the limits, in pages. The counter can be negative for
    /// an instant, which the kernel takes for 0.
    #[inline(always)]
    pub(crate) fn pages(self) -> u64 {
        let pages: i64 = self.0.follow(offset!(proto_memory_allocated)).load(0);
        if pages < 0 { 0 } else { pages as u64 }
    }

    #[inline(always)]
    pub(crate) fn tcp_mem(self) -> [u64; 3] {
        copy(self.0.load::<*const [u64; 3]>(offset!(proto_sysctl_mem)))
    }

    /// The jiffies at which memory pressure was entered; 0: no pressure.
    #[inline(always)]
    pub(crate) fn pressure_since(self) -> u64 {
        copy(self.0.load::<*const u64>(offset!(proto_memory_pressure)))
    }
}
