//! What the server and the client of one act have said so far.

use c1m_record::{Crossing, Direction, Hooks, Level, Listening, Online, Record, Refused, Summary};

use super::{
    End,
    progress::grouped,
    protocol::{ClientRecord, Ended, Pin},
};

/// Both programs of one act.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the live line begins with, such as `act 1`.
    pub(crate) title: String,
    /// Connections wanted.
    pub(crate) connections: u64,

    pub(crate) hooks: Option<Hooks>,
    pub(crate) listening: Option<Listening>,
    pub(crate) online: Option<Online>,
    /// How many `online` lines there were.
    pub(crate) online_count: u64,
    pub(crate) crossings: Vec<Crossing>,
    pub(crate) refused: Option<Refused>,
    pub(crate) server_summary: Option<Summary>,
    pub(crate) server_error: String,
    pub(crate) server_may_end: bool,
    pub(crate) server_ended: Option<Ended>,

    pub(crate) pin: Option<Pin>,
    /// Established, answered.
    pub(crate) progress: Option<(u64, u64)>,
    /// Established, seconds.
    pub(crate) ramped: Option<(u64, f64)>,
    /// Asked, answered.
    pub(crate) sample: Option<(u64, u64)>,
    pub(crate) client_summary: bool,
    pub(crate) client_error: String,
    pub(crate) client_may_end: bool,
    pub(crate) client_ended: Option<Ended>,
}

impl Seen {
    /// Takes a record of the server. Is it a step forward? An `online` line that repeats the last one is none.
    pub(super) fn server(&mut self, record: Record) -> bool {
        match record {
            Record::Hooks(hooks) => self.hooks = Some(hooks),
            Record::Listening(listening) => self.listening = Some(listening),
            Record::Online(online) => {
                self.online_count += 1;
                let before = self.online.replace(online).map(|online| online.online);
                return before != self.online.as_ref().map(|online| online.online);
            }
            Record::Crossing(crossing) => self.crossings.push(crossing),
            Record::Refused(refused) => {
                self.refused = Some(refused);
                return false;
            }
            Record::Summary(summary) => self.server_summary = Some(summary),
            Record::Refusal(_)
            | Record::Aborted(_)
            | Record::OomKill(_)
            | Record::Warning(_)
            | Record::Limits(_)
            | Record::Verdict(_)
            | Record::Pressure(_)
            | Record::Overflow(_)
            | Record::Ports(_)
            | Record::CallError(_)
            // Of other commands, which this is not.
            | Record::Holders(_)
            | Record::States(_)
            | Record::Watching(_)
            | Record::Usage(_)
            | Record::Doctor(_)
            | Record::Applied(_)
            | Record::Restored(_)
            | Record::Ended(_) => return false,
        }
        true
    }

    /// Takes a record of the client. Is it a step forward?
    pub(super) fn client(&mut self, record: ClientRecord) -> bool {
        match record {
            ClientRecord::Plan { pin } => self.pin = pin,
            ClientRecord::Progress { established, answered } => {
                let now = Some((established, answered));
                return std::mem::replace(&mut self.progress, now) != now;
            }
            ClientRecord::Ramped { established, ramp_s } => {
                self.ramped = Some((established, ramp_s))
            }
            ClientRecord::Sample { asked, answered } => self.sample = Some((asked, answered)),
            ClientRecord::Summary {} => self.client_summary = true,
            ClientRecord::Other => return false,
        }
        true
    }

    /// The first time that a level was crossed upwards.
    pub(super) fn first_up(&self, level: Level) -> Option<&Crossing> {
        self.crossings.iter().find(|crossing| {
            crossing.limit == "tcp_mem"
                && crossing.level == level
                && crossing.direction == Direction::Up
                && !crossing.limit_moved
        })
    }

    /// What is worth a line of its own when it arrives.
    pub(super) fn news(&self, record: &Record) -> Option<String> {
        let title = &self.title;
        match record {
            Record::Crossing(crossing)
                if crossing.direction == Direction::Up
                    && self.first_up(crossing.level).is_none() =>
            {
                Some(format!(
                    "{title}: tcp_mem {} crossed at connection {}: {} pages, limit {} ({})",
                    crossing.level.name(),
                    grouped(crossing.connections),
                    grouped(crossing.pages),
                    grouped(crossing.limit_pages),
                    crossing.hook,
                ))
            }
            Record::OomKill(kill) => {
                Some(format!("{title}: the OOM killer chose {} ({})", kill.comm, kill.pid))
            }
            Record::Warning(warning) => {
                Some(format!("{title}: {}: {}", warning.name, warning.text))
            }
            _ => None,
        }
    }

    /// The live line.
    pub(super) fn live(&self) -> String {
        let Some(online) = &self.online else { return self.title.clone() };
        let pages = online
            .tcp_mem_pages
            .map_or(String::new(), |pages| format!(", {} pages of tcp_mem", grouped(pages)));
        format!(
            "{}: {} of {} connections, {:.0}/s{pages}",
            self.title,
            grouped(online.online),
            grouped(self.connections),
            online.accepted_per_s,
        )
    }

    /// Was the server allowed to end, and that way?
    pub(super) fn check_server(&self, ended: Ended) -> Result<(), End> {
        match ended {
            Ended::Code(0) if self.server_may_end => Ok(()),
            Ended::Code(3) => Err(End::Refused(died("server", ended, &self.server_error))),
            _ => Err(End::Failed(died("server", ended, &self.server_error))),
        }
    }

    /// Was the client allowed to end, and that way? It ends with 1 when it could not open every connection.
    pub(super) fn check_client(&self, ended: Ended) -> Result<(), End> {
        match ended {
            Ended::Code(0 | 1) if self.client_may_end => Ok(()),
            Ended::Code(3) => Err(End::Refused(died("client", ended, &self.client_error))),
            _ => Err(End::Failed(died("client", ended, &self.client_error))),
        }
    }
}

fn died(who: &str, ended: Ended, last_words: &str) -> String {
    let last_words = if last_words.is_empty() { "it said nothing" } else { last_words };
    format!("the {who} ended before its time ({ended}): {last_words}")
}
