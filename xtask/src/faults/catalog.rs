//! Every fault, in one table.

use c1m_record::LimitName;
use c1m_testkit::trip::Step;
use clap::builder::PossibleValuesParser;

use super::{
    drive::{buffers, cgroup, closed, conntrack, files, orphans, ports, queues, quiet, tcp_mem},
    fixture::Fixture,
    judge::Expect::{self, First, Quiet},
    other::Kind,
};

/// Where a fault is tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// In a network namespace of its own: the kernel's counters are those of the run alone.
    Own,
    /// In the host's: the settings that it is about exist nowhere else (net/ipv4/sysctl_net_ipv4.c, `ipv4_table`, 6.18).
    Host,
}

/// One fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What is done, in one sentence.
    pub(crate) about: &'static str,
    pub(crate) expect: Expect,
    pub(crate) network: Network,
    /// Whose server is under test; `None`: ours.
    pub(crate) subject: Option<Kind>,
    /// Trips it, and proves by the kernel's own word that it is there.
    pub(crate) trip: fn(&mut Fixture<'_>) -> Step,
}

/// All of them, quiet ones first.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "quiet_idle",
        about: "a hundred connections do nothing",
        expect: Quiet,
        network: Network::Own,
        subject: None,
        trip: quiet::idle,
    },
    Fault {
        name: "quiet_ramp",
        about: "two thousand connections come and are closed in the ordinary way",
        expect: Quiet,
        network: Network::Own,
        subject: None,
        trip: quiet::ramp,
    },
    Fault {
        name: "quiet_busy",
        about: "short connections with requests of all sizes, which leave TIME_WAIT behind",
        expect: Quiet,
        network: Network::Own,
        subject: None,
        trip: quiet::busy,
    },
    Fault {
        name: "tcp_mem_low",
        about: "unread data past the first value of tcp_mem, where nothing is refused",
        expect: Quiet,
        network: Network::Host,
        subject: None,
        trip: tcp_mem::low,
    },
    Fault {
        name: "tcp_mem_pressure",
        about: "unread data past the second value, every socket within its fair share",
        expect: First(LimitName::TcpMemPressure),
        network: Network::Host,
        subject: None,
        trip: tcp_mem::pressure,
    },
    Fault {
        name: "tcp_mem_fair_share",
        about: "unread data between the second and the third value, more than the fair share",
        expect: First(LimitName::TcpMemPressure),
        network: Network::Host,
        subject: None,
        trip: tcp_mem::fair_share,
    },
    Fault {
        name: "tcp_mem_high_unread",
        about: "unread data past the third value",
        expect: First(LimitName::TcpMemHigh),
        network: Network::Host,
        subject: None,
        trip: tcp_mem::high_unread,
    },
    Fault {
        name: "tcp_mem_high_unsent",
        about: "slow readers: what the server could not send is past the third value",
        expect: First(LimitName::TcpMemHigh),
        network: Network::Host,
        subject: None,
        trip: tcp_mem::high_unsent,
    },
    Fault {
        name: "closed_unread",
        about: "reset by their peers, never closed: sockets that no tool lists hold more than the third value",
        expect: First(LimitName::TcpMemHigh),
        network: Network::Host,
        subject: None,
        trip: closed::unread,
    },
    Fault {
        name: "orphans",
        about: "more closed connections whose peers stay than tcp_max_orphans",
        expect: First(LimitName::Orphans),
        network: Network::Host,
        subject: None,
        trip: orphans::too_many,
    },
    Fault {
        name: "orphan_memory",
        about: "connections closed with unsent data while usage is above the third value of tcp_mem",
        expect: First(LimitName::OrphanMemory),
        network: Network::Host,
        subject: None,
        trip: orphans::out_of_memory,
    },
    Fault {
        name: "memory_cgroup_sockets",
        about: "the server's unsent data past the socket limit of its memory cgroup (cgroup v1)",
        expect: First(LimitName::MemoryCgroup),
        network: Network::Own,
        subject: None,
        trip: cgroup::sockets,
    },
    Fault {
        name: "oom_kill_in_cgroup",
        about: "the server outgrows its memory cgroup and is killed",
        expect: First(LimitName::MemoryCgroup),
        network: Network::Own,
        subject: None,
        trip: cgroup::oom_kill,
    },
    Fault {
        name: "receive_buffer",
        about: "a full SO_RCVBUF while tcp_mem is far away",
        expect: First(LimitName::ReceiveBuffer),
        network: Network::Own,
        subject: None,
        trip: buffers::receive,
    },
    Fault {
        name: "accept_queue",
        about: "a server that stops accepting, and more connections than its accept queue holds",
        expect: First(LimitName::AcceptQueue),
        network: Network::Own,
        subject: None,
        trip: queues::accept,
    },
    Fault {
        name: "syn_queue",
        about: "more handshakes without a third segment than the SYN queue holds, without SYN cookies",
        expect: First(LimitName::SynQueue),
        network: Network::Own,
        subject: None,
        trip: queues::syn,
    },
    Fault {
        name: "nofile",
        about: "more connections than the server's descriptor table holds",
        expect: First(LimitName::Nofile),
        network: Network::Own,
        subject: None,
        trip: files::nofile,
    },
    Fault {
        name: "file_max",
        about: "more open files than the host's table holds, for a server without CAP_SYS_ADMIN",
        expect: First(LimitName::FileMax),
        network: Network::Own,
        subject: None,
        trip: files::file_max,
    },
    Fault {
        name: "epoll_watches",
        about: "more watched connections than the server's user may have",
        expect: First(LimitName::EpollWatches),
        network: Network::Own,
        subject: None,
        trip: files::epoll_watches,
    },
    Fault {
        name: "ports",
        about: "more connections to one address than ip_local_port_range has ports",
        expect: First(LimitName::Ports),
        network: Network::Own,
        subject: None,
        trip: ports::exhausted,
    },
    Fault {
        name: "conntrack",
        about: "more tracked connections than nf_conntrack_max",
        expect: First(LimitName::Conntrack),
        network: Network::Host,
        subject: None,
        trip: conntrack::full,
    },
    Fault {
        name: "quiet_nginx",
        about: "nginx, with connections that come and are closed in the ordinary way",
        expect: Quiet,
        network: Network::Own,
        subject: Some(Kind::Nginx),
        trip: quiet::ramp,
    },
    Fault {
        name: "tcp_mem_high_unread_nginx",
        about: "nginx, with unread data past the third value",
        expect: First(LimitName::TcpMemHigh),
        network: Network::Host,
        subject: Some(Kind::Nginx),
        trip: tcp_mem::high_unread,
    },
    Fault {
        name: "tcp_mem_high_unsent_nginx",
        about: "nginx, with slow readers",
        expect: First(LimitName::TcpMemHigh),
        network: Network::Host,
        subject: Some(Kind::Nginx),
        trip: tcp_mem::high_unsent,
    },
    Fault {
        name: "nofile_nginx",
        about: "more connections than nginx's descriptor table holds",
        expect: First(LimitName::Nofile),
        network: Network::Own,
        subject: Some(Kind::Nginx),
        trip: files::nofile_of_other,
    },
    Fault {
        name: "accept_queue_haproxy",
        about: "haproxy, stopped, and more connections than its accept queue holds",
        expect: First(LimitName::AcceptQueue),
        network: Network::Own,
        subject: Some(Kind::Haproxy),
        trip: queues::accept_of_other,
    },
];

/// For `--only`.
pub(crate) fn names() -> PossibleValuesParser {
    FAULTS.iter().map(|fault| fault.name).into()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::place;

    #[test]
    fn names_are_unique_and_documented() {
        let names: BTreeSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        let text = fs::read_to_string(place::root().join("docs/faults.md")).unwrap();
        for name in names {
            assert!(text.contains(&format!("| `{name}` |")), "{name} is not in docs/faults.md");
        }
    }

    #[test]
    fn at_least_three_are_quiet() {
        assert!(FAULTS.iter().filter(|fault| fault.expect == Quiet).count() >= 3);
    }
}
