//! Sockets on the hot path, and socket options that socket2 does not know.

use std::{
    io,
    io::IoSlice,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

use super::check;

/// Responses up to here are copied into one piece: less than what an array of pieces costs the
/// kernel to read.
const ONE_PIECE_BYTES: usize = 512;

/// A system call of the hot path, past the C library's wrapper: in a program with threads glibc
/// makes each of these calls a point at which the thread can be cancelled, with two atomic
/// operations a call. Nobody cancels threads here.
///
/// # Safety
/// As of the call: what `arguments` point to is valid for it.
unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A C int as the kernel takes it out of a register: the low half of it.
#[expect(clippy::cast_sign_loss, reason = "the kernel reads the same bits as an int again")]
fn int(value: libc::c_int) -> usize {
    value as usize
}

/// Takes one connection from the accept queue: non-blocking, close-on-exec, without asking for the
/// peer's address.
pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let flags = int(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    // SAFETY: null addresses are allowed.
    let fd = unsafe { call(libc::SYS_accept4, [int(listener), 0, 0, flags, 0, 0]) }?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the descriptor is fresh and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads what is there. 0 is the peer's end of stream.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, 0)
}

/// Copies what is there without taking it.
pub fn peek(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_with(fd, buffer, libc::MSG_PEEK)
}

fn receive_with(fd: RawFd, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    let (start, len) = (buffer.as_mut_ptr().expose_provenance(), buffer.len());
    // SAFETY: the buffer is valid for its length; null addresses are allowed.
    unsafe { call(libc::SYS_recvfrom, [int(fd), start, len, int(flags), 0, 0]) }
}

/// Sends one buffer, without SIGPIPE.
pub fn send(fd: RawFd, buffer: &[u8]) -> io::Result<usize> {
    let (start, len) = (buffer.as_ptr().expose_provenance(), buffer.len());
    // SAFETY: the buffer is valid for its length; no address is needed on a connection.
    unsafe { call(libc::SYS_sendto, [int(fd), start, len, int(libc::MSG_NOSIGNAL), 0, 0]) }
}

/// Sends several buffers in one call, so that one response is one skb; without SIGPIPE.
pub fn send_vectored(fd: RawFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut piece = [0; ONE_PIECE_BYTES];
    let mut len = 0;
    for buffer in buffers {
        let Some(room) = piece.get_mut(len..len + buffer.len()) else {
            return send_pieces(fd, buffers);
        };
        room.copy_from_slice(buffer);
        len += buffer.len();
    }
    send(fd, &piece[..len])
}

fn send_pieces(fd: RawFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all zeros are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice has the layout of iovec by its documentation; sendmsg only reads through it.
    message.msg_iov = buffers.as_ptr().cast_mut().cast();
    #[cfg_attr(
        target_env = "gnu",
        expect(clippy::useless_conversion, reason = "size_t with glibc, int with musl")
    )]
    let count = buffers.len().try_into();
    message.msg_iovlen = count.map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
    let header = (&raw const message).expose_provenance();
    let flags = int(libc::MSG_NOSIGNAL);
    // SAFETY: `message` and the buffers behind it live through the call.
    unsafe { call(libc::SYS_sendmsg, [int(fd), header, flags, 0, 0, 0]) }
}

/// Ends the sending side: the peer gets everything sent so far and then the end of the stream.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer; a wrong descriptor is answered with EBADF or ENOTSOCK.
    check(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(drop)
}

/// Closes a connection that is known by its number alone, as an epoll loop without objects per
/// connection does.
///
/// The caller got the number out of an `OwnedFd` (`into_raw_fd`) and uses it no more. Linux frees
/// the number even when it reports an error, so there is nothing to do about one.
pub fn close(fd: RawFd) {
    // SAFETY: the caller's promise.
    let _ = unsafe { call(libc::SYS_close, [int(fd), 0, 0, 0, 0, 0]) };
}

/// The error that the kernel keeps for a socket (SO_ERROR), which reading clears. `None`: no error.
pub fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    let mut error: libc::c_int = 0;
    get_option(fd, libc::SOL_SOCKET, libc::SO_ERROR, std::slice::from_mut(&mut error))?;
    Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
}

/// From now on closing `fd` sends a reset: neither an orphan nor a TIME_WAIT is left (SO_LINGER
/// with 0 seconds).
pub fn reset_on_close(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })
}

/// Whether what arrives is acknowledged at once (TCP_QUICKACK), or may wait for data to travel
/// with; the kernel goes on from there by itself (net/ipv4/tcp.c, `__tcp_sock_set_quickack`, 6.18).
///
/// Off before `connect` saves the segment that ends the handshake: it goes with the first request
/// (net/ipv4/tcp_input.c, `tcp_rcv_synsent_state_process`).
pub fn set_quick_ack(fd: RawFd, is_on: bool) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, &libc::c_int::from(is_on))
}

/// Memory of one socket (SO_MEMINFO), bytes but for `drops`. include/uapi/linux/sock_diag.h, since
/// 4.12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemInfo {
    /// truesize of the skbs in the receive queue
    pub rmem_alloc: u32,
    pub rcvbuf: u32,
    pub wmem_alloc: u32,
    pub sndbuf: u32,
    /// bought from tcp_mem and not used yet
    pub fwd_alloc: u32,
    /// truesize of the skbs in the write queue
    pub wmem_queued: u32,
    pub optmem: u32,
    pub backlog: u32,
    pub drops: u32,
}

pub fn mem_info(fd: RawFd) -> io::Result<MemInfo> {
    const SO_MEMINFO: libc::c_int = 55;
    let mut info = [0u32; 9];
    get_option(fd, libc::SOL_SOCKET, SO_MEMINFO, &mut info)?;
    let [rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops] =
        info;
    Ok(MemInfo {
        rmem_alloc,
        rcvbuf,
        wmem_alloc,
        sndbuf,
        fwd_alloc,
        wmem_queued,
        optmem,
        backlog,
        drops,
    })
}

/// Spreads new connections evenly over these members of a SO_REUSEPORT group, by their index in it
/// (the order of their `listen` calls). The others stay in the group, keep what is queued, and get
/// nothing new.
///
/// A classic BPF program: it needs no privilege, and takes effect for the whole group, whichever
/// member it is set on. net/core/sock_reuseport.c, `reuseport_select_sock`: an index that is out of
/// range falls back to the flow's hash.
pub fn steer_reuseport(listener: &impl AsRawFd, members: &[u32]) -> io::Result<()> {
    // BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_MOD|BPF_K, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K:
    // include/uapi/linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const MODULO: u16 = 0x94;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // SKF_AD_OFF + SKF_AD_RANDOM, include/uapi/linux/filter.h.
    const RANDOM: u32 = 0xffff_f000_u32.wrapping_add(56);
    let code = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let count =
        u32::try_from(members.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if count == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut program = vec![code(LOAD, 0, RANDOM), code(MODULO, 0, count)];
    for (position, member) in (0u32..).zip(members) {
        program.extend([code(JUMP_IF_EQUAL, 1, position), code(RETURN, 0, *member)]);
    }
    program.push(code(RETURN, 0, members[0]));
    let len = program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // The kernel copies the program while `program` is still alive.
    set_option(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Gives `fd` its local address and port.
pub fn bind(fd: RawFd, source: &SocketAddr) -> io::Result<()> {
    let source = socket2::SockAddr::from(*source);
    // SAFETY: the address is valid for its length and lives through the call.
    check(unsafe { libc::bind(fd, source.as_ptr().cast(), source.len()) }).map(drop)
}

/// Connects without waiting. `Ok(true)`: connected already; `Ok(false)`: on its way.
pub fn connect(fd: RawFd, destination: &SocketAddr) -> io::Result<bool> {
    let destination = socket2::SockAddr::from(*destination);
    let start = destination.as_ptr().expose_provenance();
    let len = usize::try_from(destination.len()).unwrap_or(0);
    // SAFETY: the address is valid for its length and lives through the call.
    match unsafe { call(libc::SYS_connect, [int(fd), start, len, 0, 0, 0]) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `value` is valid for its size.
    check(unsafe { libc::setsockopt(fd, level, name, std::ptr::from_ref(value).cast(), size) })
        .map(drop)
}

/// Reads an option that is an array of plain integers; a kernel that knows fewer of them leaves the
/// rest as they are.
fn get_option<T: bytemuck::Pod>(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [T],
) -> io::Result<()> {
    let mut size = libc::socklen_t::try_from(size_of_val(value))
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `value` has room for `size` bytes, and any bytes are valid integers.
    check(unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut size) })
        .map(drop)
}
