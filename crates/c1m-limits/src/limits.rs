//! The limits: one file each, with all that c1m knows of it; and their registry.

mod accept_queue;
mod conntrack;
mod epoll_watches;
mod file_max;
mod memory;
mod memory_cgroup;
mod nofile;
mod nr_open;
mod orphan_memory;
mod orphans;
mod ports;
mod receive_buffer;
mod send_buffer;
mod syn_queue;
mod tcp_mem_high;
mod tcp_mem_pressure;
mod time_wait;

use c1m_record::{Cause, LimitName, Scope};

use crate::{
    case::Case,
    client::outcome::{Outcome, Unanswered},
    configured::{
        descriptors::Descriptors,
        setting::{Answer, Context, Known},
    },
    finding::Finding,
    preflight::need::{Need, Planned},
    reading::{CgroupLimit, Readings, Usage},
};

/// Growth of a number of objects up to this says nothing: an idle host moves it as well.
const A_FEW: u64 = 64;

/// What is known of a limit whatever the host, in words.
#[derive(Debug, Clone, Copy)]
pub struct About {
    pub name: LimitName,
    /// The name for people, with its sysctl where it is one.
    pub label: &'static str,
    pub scope: Scope,
    pub unit: &'static str,
    /// What an administrator sets.
    pub setting: &'static str,
    /// The files or calls that usage and ceiling are read from.
    pub source: &'static str,
    /// What a user notices when it is hit.
    pub symptom: &'static str,
    /// What distinguishes it from limits with the same symptom.
    pub distinguished_by: &'static str,
    /// Where the kernel decides: file, function, version.
    pub kernel: &'static str,
    /// Parts of symptom and setting, for the table in README.md.
    pub summary: [&'static str; 2],
    /// `None`: no usage that can be read, or one that has metrics of its own.
    pub metric: Option<UsageMetric>,
}

/// The metric of a limit's usage. That of its ceiling is called the same, with `_limit`.
#[derive(Debug, Clone, Copy)]
pub struct UsageMetric {
    pub name: &'static str,
    /// What it counts, without a full stop.
    pub help: &'static str,
    /// Of the usage, which may be read of one of several that share the limit.
    pub scope: Scope,
}

/// All that c1m knows of one limit.
pub trait Limit: Sync {
    fn about(&self) -> &'static About;

    /// The limits that it can be a consequence of. They stand before it in the [`REGISTRY`].
    fn roots(&self) -> &'static [LimitName] {
        &[]
    }

    /// Usage and ceiling, in [`About::unit`].
    fn usage(&self, now: &Readings) -> Usage;

    /// A ceiling of the same limit that leaves less and stops nobody: it is shown instead.
    fn softer(&self, _now: &Readings) -> Option<CgroupLimit> {
        None
    }

    /// Where usage and ceiling of processes other than c1m's own server are read from, if not from [`About::source`].
    fn source_of_others(&self) -> Option<&'static str> {
        None
    }

    /// limits.conf and units of systemd set it, and no kernel setting does (getrlimit(2)).
    fn is_resource_limit(&self) -> bool {
        false
    }

    /// How much of it each connection takes, where that is so by construction.
    fn per_connection(&self) -> Option<u64> {
        None
    }

    /// Growth of usage up to this says nothing: an idle host moves it as well.
    fn noise(&self, _now: &Readings) -> u64 {
        0
    }

    /// What a planned run needs of it, with remedy and risk.
    fn preflight(&self, planned: &Planned<'_>) -> Need;

    /// The kernel settings that move it or belong to it, and how each is assessed when somebody has configured it.
    fn settings(&self) -> &'static [Known] {
        &[]
    }

    /// The assessment of a line that limits open files. `None`: that is not this limit.
    fn assess_descriptors(&self, _line: &Descriptors, _context: &Context<'_>) -> Option<Answer> {
        None
    }

    /// Whether it stopped something, by what was observed.
    fn judge(&self, case: &Case<'_>) -> Option<Finding>;

    /// Whether it kept the load client from opening connections, by the errors of its own calls.
    fn judge_client(&self, _outcome: &Outcome) -> Option<Cause> {
        None
    }

    /// How it can leave handshakes of the load client unanswered, if it can.
    fn unanswered(&self) -> Option<Unanswered> {
        None
    }

    /// What to do about it: the setting, a number that would do, its unit, and the risk. Nothing is applied.
    fn remedy(&self, case: &Case<'_>) -> String;
}

/// What is made for each limit when the program is compiled, such as functions that know their limit.
pub trait Visitor {
    /// `INDEX`: the limit's, in [`LimitName::ALL`].
    fn limit<const INDEX: usize>(&mut self);
}

/// Every limit by its file, roots before their consequences: descriptors that ran out let the accept queue fill, a process that was killed
/// leaves orphans, tcp_mem that ran out resets orphans and closes windows.
macro_rules! registry {
    ($($File:ident::$Limit:ident,)*) => {
        /// Every limit, roots before their consequences.
        pub static REGISTRY: &[&dyn Limit] = &[$(&$File::$Limit,)*];

        /// Visits every limit.
        pub fn visit(visitor: &mut impl Visitor) {
            $(visitor.limit::<{ LimitName::$Limit as usize }>();)*
        }

        /// The limit of that name.
        #[must_use]
        pub fn of(name: LimitName) -> &'static dyn Limit {
            match name {
                $(LimitName::$Limit => &$File::$Limit,)*
            }
        }
    };
}

registry! {
    nofile::Nofile,
    nr_open::NrOpen,
    file_max::FileMax,
    memory_cgroup::MemoryCgroup,
    memory::Memory,
    tcp_mem_high::TcpMemHigh,
    tcp_mem_pressure::TcpMemPressure,
    orphans::Orphans,
    orphan_memory::OrphanMemory,
    accept_queue::AcceptQueue,
    syn_queue::SynQueue,
    conntrack::Conntrack,
    ports::Ports,
    epoll_watches::EpollWatches,
    receive_buffer::ReceiveBuffer,
    send_buffer::SendBuffer,
    time_wait::TimeWait,
}

/// Every limit, in the order in which they are shown.
pub fn shown() -> impl Iterator<Item = &'static dyn Limit> {
    LimitName::ALL.into_iter().map(of)
}

#[cfg(test)]
pub(crate) mod tests {
    use c1m_record::{FileNr, Sockstat, Tier};

    use super::*;
    use crate::{evidence::Evidence, history::History};

    /// The remedy after one sample.
    pub(crate) fn remedy(limit: LimitName, observed: &Evidence, now: Readings) -> String {
        let mut history = History::default();
        history.add(&now);
        of(limit).remedy(&Case { observed, history: &history, now, tier: Tier::Counters })
    }

    fn place(name: LimitName) -> usize {
        REGISTRY.iter().position(|limit| limit.about().name == name).unwrap()
    }

    #[test]
    fn every_name_is_in_the_registry_once_and_shown_in_its_order() {
        for (index, name) in LimitName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, index);
            let registered = REGISTRY.iter().filter(|limit| limit.about().name == name);
            assert_eq!((registered.count(), of(name).about().name), (1, name));
        }
        assert_eq!(REGISTRY.len(), LimitName::ALL.len());
    }

    #[test]
    fn every_limit_is_described() {
        for limit in REGISTRY {
            let about = limit.about();
            for text in [
                about.label,
                about.unit,
                about.setting,
                about.source,
                about.symptom,
                about.distinguished_by,
                about.kernel,
            ] {
                assert!(!text.trim().is_empty(), "{about:?}");
            }
            let remedy = remedy(about.name, &Evidence::default(), Readings::default());
            assert!(!remedy.trim().is_empty(), "{about:?}: {remedy}");
        }
    }

    #[test]
    fn roots_stand_before_their_consequences() {
        let mut roots = 0;
        for limit in REGISTRY {
            for root in limit.roots() {
                assert!(place(*root) < place(limit.about().name), "{:?}: {root:?}", limit.about());
                roots += 1;
            }
        }
        assert!(roots > 10);
    }

    #[test]
    fn what_is_not_read_is_unknown_and_not_zero() {
        for limit in REGISTRY {
            assert_eq!(limit.usage(&Readings::default()), Usage::default(), "{:?}", limit.about());
        }
        // As in a container: the sum of the host is shown there, its limit is not.
        let sockstat = Sockstat { tcp_mem_pages: 7, orphan: 3, ..Sockstat::default() };
        let inside = Readings { sockstat: Some(sockstat), ..Readings::default() };
        for name in [LimitName::TcpMemHigh, LimitName::Orphans] {
            let usage = of(name).usage(&inside);
            assert!(usage.used.is_some());
            assert_eq!((usage.ceiling, usage.headroom()), (None, None));
        }
    }

    #[test]
    fn each_reads_its_own_numbers() {
        let now = Readings {
            tcp_mem: Some([1, 2, 3]),
            sockstat: Some(Sockstat { tcp_mem_pages: 9, tw: 4, ..Sockstat::default() }),
            file_nr: Some(FileNr { allocated: 5, max: 6 }),
            memory_total_bytes: Some(100),
            memory_available_bytes: Some(30),
            backlog: Some(128),
            max_syn_backlog: Some(64),
            syncookies: Some(1),
            ..Readings::default()
        };
        let both = |name, now: &Readings| {
            let usage = of(name).usage(now);
            (usage.used, usage.ceiling)
        };
        assert_eq!(both(LimitName::TcpMemPressure, &now), (Some(9), Some(2)));
        assert_eq!(both(LimitName::TcpMemHigh, &now), (Some(9), Some(3)));
        assert_eq!(both(LimitName::FileMax, &now), (Some(5), Some(6)));
        assert_eq!(both(LimitName::Memory, &now), (Some(70), Some(100)));
        assert_eq!(both(LimitName::AcceptQueue, &now), (None, Some(128)));
        assert_eq!(both(LimitName::SynQueue, &now), (None, Some(128)));
        let now = Readings { accept_queue: Some((5, 4)), syncookies: Some(0), ..now };
        assert_eq!(both(LimitName::AcceptQueue, &now), (Some(5), Some(4)));
        assert_eq!(both(LimitName::SynQueue, &now), (None, Some(64)));
    }
}
