//! Which limit was it, and which comes next: reads the host, keeps the readings, and asks `limits`
//! what they mean.
//!
//! Nothing here costs anything per connection. A sample is some thirty small files, once an interval
//! at most, and only when something has happened or tracing takes a sample anyway.

pub(crate) mod measure;
mod queues;
pub(crate) mod subject;
pub(crate) mod tracing;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use c1m_host::{cgroup, conntrack, netstat, target::Bounds, vmstat};
use c1m_limits::{
    evidence::{Evidence, Growth},
    forecast::History,
    limits::of,
    verdict::{followed_by, judge},
};
use c1m_preflight::readings::{Layout, read};
use c1m_record::{LimitName, Limits, Verdict, Warning};

use crate::{
    diagnose::{
        queues::{Queues, Usage},
        subject::Subject,
        tracing::Tracing,
    },
    serve::Snapshot,
};

/// Counters that only their growth makes sense of.
#[derive(Debug, Clone, Default)]
struct Counted {
    tcp_ext: Option<netstat::TcpExt>,
    conntrack: Option<conntrack::Conntrack>,
    cgroup: Option<cgroup::Cgroup>,
    vmstat: Option<vmstat::Vmstat>,
}

impl Counted {
    fn now(subject: &Subject) -> Self {
        Self {
            tcp_ext: netstat::tcp_ext().ok(),
            conntrack: conntrack::counters(),
            cgroup: subject.cgroup(),
            vmstat: vmstat::read(),
        }
    }

    /// By how much they have grown since `before`.
    fn since(&self, before: &Self) -> (BTreeMap<String, u64>, Growth) {
        let tcp_ext = match (&before.tcp_ext, &self.tcp_ext) {
            (Some(before), Some(now)) => netstat::growth(before, now),
            _ => BTreeMap::new(),
        };
        let of_conntrack = |counter: fn(&conntrack::Conntrack) -> u64| {
            grown(before.conntrack.as_ref().map(counter), self.conntrack.as_ref().map(counter))
        };
        let of_cgroup = |counter: fn(&cgroup::Cgroup) -> Option<u64>| {
            grown(before.cgroup.as_ref().and_then(counter), self.cgroup.as_ref().and_then(counter))
        };
        let of_vmstat = |counter: fn(&vmstat::Vmstat) -> Option<u64>| {
            grown(before.vmstat.as_ref().and_then(counter), self.vmstat.as_ref().and_then(counter))
        };
        let growth = Growth {
            conntrack_drop: of_conntrack(|counters| counters.drop),
            conntrack_insert_failed: of_conntrack(|counters| counters.insert_failed),
            conntrack_early_drop: of_conntrack(|counters| counters.early_drop),
            cgroup_oom: of_cgroup(|cgroup| cgroup.oom),
            cgroup_oom_kill: of_cgroup(|cgroup| cgroup.oom_kill),
            cgroup_tcp_failed: of_cgroup(|cgroup| cgroup.tcp_failed),
            cgroup_sock_throttled: of_cgroup(|cgroup| cgroup.sock_throttled),
            oom_kill: of_vmstat(|vmstat| vmstat.oom_kill),
            allocstall: of_vmstat(|vmstat| Some(vmstat.allocstall)),
        };
        (tcp_ext, growth)
    }
}

/// Unknown unless it was known at both times.
fn grown(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

/// The readings and counters of this run.
pub(super) struct Diagnosis {
    start: Instant,
    layout: Layout,
    subject: Subject,
    queues: Queues,
    /// The limits of tcp_mem as a hook read them, where a network namespace does not show them.
    tcp_mem: Option<[u64; 3]>,
    at_start: Counted,
    history: History,
    /// What was new at the last sample: connections, errors.
    last: Option<(u64, BTreeMap<String, u64>)>,
    sampled: Option<Instant>,
    /// Also while nothing happens.
    always: bool,
    /// The first cause of the last printed verdict.
    told: Option<LimitName>,
    /// Warnings that were said.
    said: BTreeSet<&'static str>,
    /// As it was before the server closed anything itself.
    before_closing: Option<Verdict>,
}

impl Diagnosis {
    /// Takes the counters as they are: what comes from here on is this run's.
    /// `connections` are there already, and `tcp_mem` is what a hook has read, if any did.
    pub(super) fn begin(subject: Subject, connections: u64, tcp_mem: Option<[u64; 3]>) -> Self {
        let mut diagnosis = Self {
            start: Instant::now(),
            layout: Layout::now(),
            tcp_mem,
            at_start: Counted::now(&subject),
            queues: subject.queues(),
            subject,
            history: History::default(),
            last: None,
            sampled: None,
            always: false,
            said: BTreeSet::new(),
            told: None,
            before_closing: None,
        };
        diagnosis.sample(connections);
        diagnosis
    }

    /// The server listens now, by sockets with these inodes.
    pub(super) fn listens(&mut self, inodes: BTreeSet<u64>) {
        self.queues.listens(inodes);
    }

    /// The command of a watch starts now.
    pub(super) fn command_starts(&mut self) {
        self.subject.refresh();
        self.queues.process_starts();
    }

    /// Whether each tick is to be a sample: somebody scrapes what it sees.
    pub(super) fn sample_always(&mut self, always: bool) {
        self.always = always;
    }

    /// Every limit as it was at the last sample.
    pub(super) fn limits(&self) -> Limits {
        let mut limits = self.history.limits();
        if let Subject::Target(_) = self.subject {
            for line in &mut limits.limits {
                if let Some(source) = of(line.limit).source_of_others() {
                    line.source = source.into();
                }
            }
        }
        limits
    }

    /// At a tick or a notice: the verdict, if its first cause is another one than was told last.
    /// Without tracing nothing is read unless connections or errors are new, and never twice in
    /// `interval`.
    pub(super) fn tick(
        &mut self,
        now: &Snapshot,
        tracing: Option<&Tracing>,
        interval: Duration,
    ) -> Option<Verdict> {
        let is_new = self
            .last
            .as_ref()
            .is_none_or(|(held, errors)| *held != now.held || *errors != now.errors);
        // A tick may come a little early.
        let recent = self.sampled.is_some_and(|time| time.elapsed() < interval / 2);
        if recent || !is_new && tracing.is_none() && !self.always {
            return None;
        }
        self.last = Some((now.held, now.errors.clone()));
        self.sample(now.held);
        let verdict = self.judge(&now.errors, tracing);
        let first = verdict.causes.first()?.limit;
        (self.told.replace(first) != Some(first)).then_some(verdict)
    }

    /// The server is about to close its connections.
    pub(super) fn closing(&mut self, now: &Snapshot, tracing: Option<&Tracing>) {
        self.sample(now.held);
        self.before_closing = Some(self.judge(&now.errors, tracing));
    }

    /// The last verdict: what limited the run first, what came while closing after it.
    pub(super) fn end(&self, errors: &BTreeMap<String, u64>, tracing: Option<&Tracing>) -> Verdict {
        let after = self.judge(errors, tracing);
        match &self.before_closing {
            Some(before) => followed_by(before.clone(), after),
            None => after,
        }
    }

    fn judge(&self, errors: &BTreeMap<String, u64>, tracing: Option<&Tracing>) -> Verdict {
        let mut seen = Evidence::default();
        if let Some(tracing) = tracing {
            seen = tracing.evidence();
            tracing.add_crossings(&mut seen);
        }
        seen.own_errors.clone_from(errors);
        seen.listeners = self.queues.listeners();
        (seen.tcp_ext, seen.host) = Counted::now(&self.subject).since(&self.at_start);
        judge(&seen, &self.history)
    }

    fn sample(&mut self, connections: u64) {
        self.sampled = Some(Instant::now());
        let Usage { fullest, longest } = self.queues.sample(self.subject.pids());
        let (cgroup, bounds) = (self.subject.cgroup(), self.subject.bounds(connections));
        let bounds = Bounds { accept_queue: fullest, longest_backlog: longest, ..bounds };
        let mut readings = read(self.start.elapsed(), connections, &self.layout, cgroup, bounds);
        readings.tcp_mem = readings.tcp_mem.or(self.tcp_mem);
        self.history.add(&readings);
    }

    /// What is not sampled, and what could not be read, each said once.
    pub(super) fn warnings(&mut self) -> Vec<Warning> {
        let all = [("left_out", self.subject.left_out()), ("listeners", self.queues.unread())];
        let new = |(name, text): (&'static str, Option<String>)| {
            let text = text.filter(|_| self.said.insert(name))?;
            Some(Warning { name: name.into(), text })
        };
        all.into_iter().filter_map(new).collect()
    }

    /// What a hook has read, for the samples to come.
    pub(super) fn told_tcp_mem(&mut self, limits: Option<[u64; 3]>) {
        self.tcp_mem = limits.or(self.tcp_mem);
    }
}

#[cfg(test)]
mod tests {
    use c1m_preflight::plan::Plan;

    use super::*;

    const PLAN: Plan = Plan { workers: 3, window: 2, table: 93, margin: 10, backlog: 128 };

    fn subject() -> Subject {
        Subject::Server(PLAN)
    }

    #[test]
    fn growth_is_unknown_unless_both_are_known() {
        let vmstat = |oom_kill| vmstat::Vmstat { oom_kill, allocstall: 7 };
        let before = Counted { vmstat: Some(vmstat(Some(1))), ..Counted::default() };
        let now = Counted { vmstat: Some(vmstat(Some(3))), ..Counted::now(&subject()) };
        let (tcp_ext, growth) = now.since(&before);
        assert_eq!((growth.oom_kill, growth.allocstall), (Some(2), Some(0)));
        assert_eq!((growth.conntrack_drop, growth.cgroup_oom_kill), (None, None));
        assert!(tcp_ext.is_empty(), "nothing was known before");
    }

    #[test]
    fn this_host_is_read() {
        let layout = Layout::now();
        let bounds = subject().bounds(5);
        let readings = read(Duration::ZERO, 5, &layout, cgroup::own(), bounds);
        assert!(readings.sockstat.is_some() && readings.file_nr.is_some());
        assert!(readings.memory_total_bytes > readings.memory_available_bytes);
        assert!(readings.descriptors >= Some(5) && readings.descriptors < readings.descriptors_max);
        assert_eq!(readings.epoll_watches, Some(5));
        assert!(readings.backlog.is_some_and(|backlog| backlog <= 128));
    }

    #[test]
    fn what_a_hook_read_stands_in_for_what_is_not_shown() {
        let mut diagnosis = Diagnosis::begin(subject(), 7, Some([1, 2, 3]));
        let shown = c1m_host::settings::read().tcp_mem;
        assert_eq!(diagnosis.history.now().tcp_mem, shown.or(Some([1, 2, 3])));
        assert_eq!(diagnosis.history.now().connections, 7);
        diagnosis.told_tcp_mem(Some([4, 5, 6]));
        diagnosis.told_tcp_mem(None);
        diagnosis.sample(0);
        assert_eq!(diagnosis.history.now().tcp_mem, shown.or(Some([4, 5, 6])));
    }

    #[test]
    fn a_cause_is_told_once() {
        let mut diagnosis = Diagnosis::begin(subject(), 0, None);
        let errors = BTreeMap::from([("epoll ENOSPC".to_owned(), 1)]);
        let snapshot = Snapshot { held: 1, errors, ..Snapshot::default() };
        let told = diagnosis.tick(&snapshot, None, Duration::ZERO).unwrap();
        assert!(told.causes.iter().any(|cause| cause.limit == LimitName::EpollWatches));
        assert_eq!(diagnosis.tick(&snapshot, None, Duration::ZERO), None);
        let last = diagnosis.end(&snapshot.errors, None);
        assert!(!last.quiet);
    }

    #[test]
    fn nothing_is_read_again_while_nothing_happens() {
        let mut diagnosis = Diagnosis::begin(subject(), 0, None);
        let snapshot = Snapshot::default();
        diagnosis.tick(&snapshot, None, Duration::ZERO);
        let sampled = diagnosis.sampled;
        assert_eq!(diagnosis.tick(&snapshot, None, Duration::ZERO), None);
        assert_eq!(diagnosis.sampled, sampled);
    }
}
