//! Whose limits are read: those of this server, by its plan, or those of processes that are not
//! ours.

use c1m_host::{
    cgroup,
    target::{Bounds, Target},
};
use c1m_preflight::plan::Plan;
use c1m_sys::process::nofile;

use crate::diagnose::queues::Queues;

/// Whose.
pub(crate) enum Subject {
    Server(Plan),
    Target(Target),
}

impl Subject {
    /// Its accept queues.
    pub(super) fn queues(&self) -> Queues {
        match self {
            Self::Server(_) => Queues::of_server(),
            Self::Target(target) => Queues::of_target(target.has_processes(), target.ports.clone()),
        }
    }

    /// Its processes are listed anew at the next sample.
    pub(super) fn refresh(&mut self) {
        if let Self::Target(target) = self {
            target.refresh();
        }
    }

    /// Its processes, as far as they are not this one.
    pub(super) fn pids(&mut self) -> &[u32] {
        match self {
            Self::Server(_) => &[],
            Self::Target(target) => target.pids(),
        }
    }

    /// With so many connections.
    pub(super) fn bounds(&mut self, connections: u64) -> Bounds {
        match self {
            Self::Server(plan) => of_server(plan, connections, nofile().ok().map(|(soft, _)| soft)),
            Self::Target(target) => target.bounds(),
        }
    }

    /// What of it is not looked at, in words. `None`: nothing.
    pub(super) fn left_out(&mut self) -> Option<String> {
        match self {
            Self::Server(_) => None,
            Self::Target(target) => target.left_out(),
        }
    }

    /// The memory cgroup that it is in.
    pub(super) fn cgroup(&self) -> Option<cgroup::Cgroup> {
        match self {
            Self::Server(_) => cgroup::own(),
            Self::Target(target) => target.cgroup(),
        }
    }
}

fn of_server(plan: &Plan, connections: u64, nofile: Option<u64>) -> Bounds {
    let most = nofile.map(|nofile| nofile.saturating_mul(plan.workers as u64));
    Bounds {
        nofile,
        // What is no connection's: each table's own descriptors.
        descriptors: most
            .map(|most| connections.saturating_add(most.saturating_sub(plan.capacity()))),
        descriptors_max: most,
        backlog: Some(plan.backlog.into()),
        epoll_watches: Some(connections),
        ..Bounds::default()
    }
}

#[cfg(test)]
mod tests {
    use c1m_host::{target::Processes, task};

    use super::*;

    #[test]
    fn descriptors_of_a_server_are_those_of_all_tables() {
        let plan = Plan { workers: 3, window: 2, table: 93, margin: 10, backlog: 128 };
        let of = |connections, nofile| {
            let bounds = of_server(&plan, connections, nofile);
            (bounds.descriptors, bounds.descriptors_max)
        };
        assert_eq!(of(0, Some(100)), (Some(21), Some(300)));
        assert_eq!(of(279, Some(100)), (Some(300), Some(300)), "full");
        assert_eq!(of(1, None), (None, None));
    }

    #[test]
    fn nobody_in_particular_has_no_bounds_of_its_own() {
        let mut subject = Subject::Target(Target::of(Processes::None));
        let bounds = subject.bounds(7);
        assert_eq!((bounds.nofile, bounds.descriptors, bounds.epoll_watches), (None, None, None));
        assert_eq!(subject.cgroup(), None);
    }

    #[test]
    fn a_process_has_its_own() {
        let own = std::process::id();
        let mut subject = Subject::Target(Target::of(Processes::Tree(own)));
        let bounds = subject.bounds(0);
        assert!(bounds.nofile.is_some());
        // Other tests of this process open and close some meanwhile.
        let near = |count: u64| bounds.descriptors.is_some_and(|it| it.abs_diff(count) < 1_000);
        assert!(task::descriptors(own).is_none_or(near), "{bounds:?}");
    }
}
