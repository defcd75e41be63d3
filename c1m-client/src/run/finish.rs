//! The end of a run: its verdict, and its result.

use anyhow::anyhow;
use c1m_limits::client::judge;
use c1m_sys::process;

use super::Run;
use crate::{
    prepare::Failure,
    ramp::reached_per_s,
    record::{ClientRecord, Summary},
    require,
    summary::{AllTimes, Beats},
    verdict,
    worker::{Broken, Outcome},
};

impl Run<'_> {
    /// Waits for the threads, and says what came of it. All connections are closed when they are
    /// joined.
    pub(super) fn finish(self) -> Result<bool, Failure> {
        for member in self.members {
            // A panic of a worker was reported by itself.
            let _ = member.thread.join();
        }
        let (cpu_user_s, cpu_system_s) = process::cpu_seconds()?;
        let Outcome { tally, beats } = self.outcome;
        let times = AllTimes {
            connect: tally.connect,
            first_byte: tally.first_byte,
            sample: self.sampled.and_then(|_| self.sample.times()),
            heartbeat: beats.as_ref().map(|beats| beats.times.clone()),
        };
        let errors = tally.errors.into_inner();
        let mut outcome = verdict::outcome(&self.shared, &errors);
        self.before.complete(&mut outcome, self.shared.plan.target().first.ip().is_loopback());
        self.show.record(&ClientRecord::Verdict(judge(&outcome)))?;
        let last_established_s = self.shared.last_established().map(|last| last.as_secs_f64());
        let connected = self.shared.sum(|counters| &counters.established);
        let mut result = Summary {
            plan: self.plan,
            started_at: humantime::format_rfc3339_micros(self.started).to_string(),
            merged: None,
            connected,
            held_at_end: self.held_at_end,
            lost: self.lost_at_end,
            ended_by: self.ended_by,
            answered: self.shared.sum(|counters| &counters.answered),
            failed: self.shared.sum(|counters| &counters.failed),
            errors,
            sample: self.sampled,
            heartbeats: beats.as_ref().map(Beats::record),
            connect_us: times.connect.latency(),
            first_byte_us: times.first_byte.latency(),
            ramp_s: self.ramp_s,
            last_established_s,
            rate_per_s: reached_per_s(connected, last_established_s),
            elapsed_s: self.shared.start.elapsed().as_secs_f64(),
            cpu_user_s,
            cpu_system_s,
            histograms: times.record(),
            requirements: Vec::new(),
            lines_dropped: self.show.lines_dropped(),
        };
        let reached = require::judge_all(&self.cli.require, &mut result, &times);
        self.show.record(&ClientRecord::Summary(Box::new(result)))?;
        match self.broken {
            Some(Broken::Panicked) => {
                Err(Failure::Internal(anyhow!("a worker panicked, see above")))
            }
            Some(Broken::Refused(error)) => {
                Err(Failure::Environment(anyhow!(error).context("a worker could not go on")))
            }
            None => Ok(reached),
        }
    }
}
