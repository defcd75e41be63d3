//! One socket, as a snapshot found it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use c1m_ebpf::{HELD_DEAD, HELD_FILE, HELD_SOCKET, HeldSocket};
use c1m_record::{Holder, TcpState};

const AF_INET6: u16 = 10;

/// What one socket holds, and who holds it; or many that are alike, and hold nothing. The numbers
/// are of one instant each, not of the same one: nobody stops the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many it stands for. Of more than one, ports, addresses and cgroup are not told.
    pub sockets: u64,
    pub holder: Holder,
    /// The process with the first descriptor that was found; 0 without one.
    pub pid: u32,
    /// Other processes have descriptors of it as well.
    pub is_shared: bool,
    pub state: TcpState,
    pub local_port: u16,
    pub remote: Option<IpAddr>,
    pub netns: u32,
    /// Id of the socket's own cgroup in the v2 hierarchy; 0: unknown
    pub cgroup: u64,
    /// truesize of the receive queue
    pub receive_bytes: u32,
    /// truesize of the backlog, which is not charged
    pub backlog_bytes: u32,
    /// truesize of the send and retransmission queues
    pub send_bytes: u32,
    /// Charged and not in use
    pub forward_bytes: i32,
}

impl Held {
    pub(super) fn of(record: &HeldSocket) -> Self {
        let has = |flag| record.flags & flag != 0;
        let holder = if record.tgid != 0 {
            Holder::Process
        } else if has(HELD_DEAD) {
            Holder::Orphan
        } else if !has(HELD_SOCKET) {
            Holder::AcceptQueue
        } else if has(HELD_FILE) {
            Holder::Elsewhere
        } else {
            Holder::Kernel
        };
        Self {
            sockets: 1,
            holder,
            pid: record.tgid,
            is_shared: false,
            state: TcpState::from_kernel(record.state, record.remote_port != 0),
            local_port: record.local_port,
            remote: (record.remote_port != 0).then(|| remote(record)),
            netns: record.netns,
            cgroup: record.cgroup,
            receive_bytes: record.receive_bytes,
            backlog_bytes: record.backlog_bytes,
            send_bytes: record.send_bytes,
            forward_bytes: record.forward_bytes,
        }
    }

    /// One more descriptor of it was found. A process may have several, and then shares it with
    /// nobody.
    pub(super) fn add_holder(&mut self, tgid: u32) {
        self.is_shared |= tgid != self.pid;
    }

    /// Takes it out of those that were counted as idle: the same process's in the same state, or in
    /// another, if it has changed since. Of a connection that was made meanwhile there is none.
    pub(super) fn leave(&self, idle: &mut [Self]) {
        let of_process = idle.iter_mut().filter(|it| {
            it.sockets > 0
                && (it.pid, it.netns) == (self.pid, self.netns)
                && it.state != TcpState::Listen
        });
        if let Some(among) = of_process.min_by_key(|it| it.state != self.state) {
            among.sockets -= 1;
        }
    }

    /// Pages of tcp_mem: what the kernel charges is queued bytes and what it holds in advance, in
    /// whole pages (net/core/sock.c, __sk_mem_schedule, 5.10 to 6.18).
    #[must_use]
    pub fn pages(&self, page_bytes: u64) -> u64 {
        let bytes = i64::from(self.receive_bytes)
            + i64::from(self.send_bytes)
            + i64::from(self.forward_bytes);
        u64::try_from(bytes).unwrap_or(0).div_ceil(page_bytes)
    }
}

/// The same address for both families, where a socket of IPv6 has a peer of IPv4.
fn remote(record: &HeldSocket) -> IpAddr {
    let [a, b, c, d, ..] = record.remote;
    match record.family {
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(record.remote)).to_canonical(),
        _ => Ipv4Addr::new(a, b, c, d).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: HeldSocket = HeldSocket {
        socket: 1,
        cgroup: 0,
        tgid: 0,
        tid: 0,
        netns: 1,
        flags: 0,
        receive_bytes: 4000,
        backlog_bytes: 9000,
        send_bytes: 100,
        forward_bytes: 0,
        family: 2,
        local_port: 80,
        remote_port: 0,
        state: 1,
        remote: [0; 16],
    };

    #[test]
    fn who_holds_it_follows_from_what_it_has() {
        let holder = |tgid, flags| Held::of(&HeldSocket { tgid, flags, ..RECORD }).holder;
        assert_eq!(holder(7, HELD_SOCKET | HELD_FILE), Holder::Process);
        assert_eq!(holder(0, HELD_DEAD), Holder::Orphan);
        assert_eq!(holder(0, 0), Holder::AcceptQueue);
        assert_eq!(holder(0, HELD_SOCKET), Holder::Kernel);
        assert_eq!(holder(0, HELD_SOCKET | HELD_FILE), Holder::Elsewhere);
    }

    #[test]
    fn pages_are_of_what_is_charged() {
        let pages = |forward_bytes| Held::of(&HeldSocket { forward_bytes, ..RECORD }).pages(4096);
        assert_eq!((pages(0), pages(-4), pages(-5), pages(4092), pages(4093)), (2, 1, 1, 2, 3));
        assert_eq!(pages(-5000), 0);
    }

    #[test]
    fn a_second_descriptor_of_the_same_process_is_no_sharing() {
        let mut held = Held::of(&HeldSocket { tgid: 7, ..RECORD });
        held.add_holder(7);
        assert!(!held.is_shared);
        held.add_holder(8);
        held.add_holder(7);
        assert!(held.is_shared);
    }

    #[test]
    fn what_is_come_upon_again_leaves_the_idle_ones_of_its_process() {
        let of = |pid, state, sockets| Held {
            pid,
            state,
            sockets,
            ..Held::of(&HeldSocket { tgid: pid, ..RECORD })
        };
        use TcpState::{CloseWait, Established, Listen};
        let mut idle =
            [of(7, Listen, 1), of(7, CloseWait, 1), of(7, Established, 2), of(8, Established, 1)];
        let left = |idle: &[Held]| idle.iter().map(|it| it.sockets).collect::<Vec<_>>();
        of(7, Established, 1).leave(&mut idle);
        assert_eq!(left(&idle), [1, 1, 1, 1]);
        // It was established when it was counted.
        of(7, TcpState::FinWait1, 1).leave(&mut idle);
        assert_eq!(left(&idle), [1, 0, 1, 1]);
        of(9, Established, 1).leave(&mut idle);
        assert_eq!(left(&idle), [1, 0, 1, 1]);
        of(7, CloseWait, 1).leave(&mut idle);
        of(7, CloseWait, 1).leave(&mut idle);
        assert_eq!(left(&idle), [1, 0, 0, 1], "a listener holds nothing");
    }

    #[test]
    fn a_peer_of_ipv4_is_the_same_over_both_families() {
        let mut record = HeldSocket { remote_port: 9, remote: [0; 16], ..RECORD };
        assert_eq!(Held::of(&RECORD).remote, None);
        record.remote[..4].copy_from_slice(&[127, 0, 0, 2]);
        let over_4 = Held::of(&record).remote;
        record.family = AF_INET6;
        record.remote = Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped().octets();
        assert_eq!((over_4, Held::of(&record).remote), (Some([127, 0, 0, 2].into()), over_4));
    }
}
