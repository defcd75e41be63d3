//! What xtask and its privileged half say to each other, one JSON value a line; and what the client says.

use std::net::{Ipv4Addr, SocketAddr};

use c1m_host::guard::{Change, Outcome};
use serde::{Deserialize, Serialize};

/// All that a run changes. The privileged half changes nothing else.
pub(super) const SETTINGS: [&str; 3] =
    ["net.ipv4.tcp_mem", "fs.file-max", "fs.epoll.max_user_watches"];

/// From xtask. Each gets exactly one answer, in order.
///
/// No request names a program, an argument, or a file: whoever gets hold of the pipe gets no more of root than a run needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Of [`SETTINGS`]. Answered by `Done`.
    Set { changes: Vec<Change> },
    /// Answered by `Restored`.
    Restore,
    /// Starts the one server, for so many connections to this port of the loopback address. Answered by `Started`.
    Start { port: u16, connections: u64 },
    /// SIGTERM to the server, if there is one. Answered by `Done`.
    Terminate,
    /// What /proc/slabinfo says. Answered by `Text`.
    Slabinfo,
}

/// What arrives in the unprivileged half.
pub(super) enum Event {
    /// A line of the privileged half.
    Reply(String),
    HelperGone,
    ClientLine(String),
    ClientError(String),
    /// The client closed its output.
    ClientGone,
    /// What was typed after a question.
    Answer(String),
    Signal,
}

/// Where the server listens.
pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// From the privileged half: `Ready` or `Failed` first, then the answers, and in between what the server does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum Reply {
    Ready {
        /// Hard limit of open files that the server will have.
        nofile_hard: u64,
        /// What an earlier run had left behind.
        stale: Vec<Outcome>,
    },
    Done,
    Restored {
        outcomes: Vec<Outcome>,
    },
    Started {
        pid: u32,
    },
    Text {
        text: String,
    },
    /// The request failed, with the whole message.
    Failed {
        message: String,
    },
    /// A line of the server's standard output.
    ServerLine {
        line: String,
    },
    /// A line of the server's standard error.
    ServerError {
        line: String,
    },
    ServerEnded {
        ended: Ended,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
}

impl From<std::process::ExitStatus> for Ended {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The lines of `c1m-client --json`, as far as they are used here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum ClientRecord {
    Plan {
        pin: Option<Pin>,
    },
    Progress {
        established: u64,
        answered: u64,
    },
    Ramped {
        established: u64,
        ramp_s: f64,
    },
    Sample {
        asked: u64,
        answered: u64,
    },
    Summary {},
    #[serde(other)]
    Other,
}

/// How the client spreads the pages that it pins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Pin {
    pub(crate) planned_pages: u64,
    /// truesize beyond the payload of one skb, measured by a probe connection
    pub(crate) overhead_bytes: u64,
    pub(crate) plan: Vec<PinShare>,
}

/// Connections that hold the same number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct PinShare {
    pub(crate) pages: u64,
    pub(crate) connections: u64,
}

impl Pin {
    /// Connections and pages of the whole plan, or why its sums are wrong.
    pub(super) fn totals(&self) -> Result<(u64, u64), String> {
        let sum = |f: fn(&PinShare) -> Option<u64>| {
            self.plan.iter().try_fold(0u64, |sum, share| sum.checked_add(f(share)?))
        };
        let connections = sum(|share| Some(share.connections));
        let pages = sum(|share| share.pages.checked_mul(share.connections));
        match (connections, pages) {
            (Some(connections), Some(pages)) if pages == self.planned_pages => {
                Ok((connections, pages))
            }
            (_, Some(pages)) => Err(format!(
                "the client's plan says {} pages, but its parts are {pages}",
                self.planned_pages
            )),
            _ => Err("the client's plan is too large".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::Line;

    use super::*;

    fn client(text: &str) -> ClientRecord {
        serde_json::from_str::<Line<ClientRecord>>(text).unwrap().record
    }

    #[test]
    fn client_lines_are_understood() {
        let plan = client(
            r#"{"v":1,"ts":"x","kind":"plan","connections":16,"capacity":99,"workers":2,"pin":{"bytes_per_connection":7711,
            "overhead_bytes":832,"planned_pages":30,"plan":[{"pages":2,"response_bytes":7000,"connections":14},{"pages":1,"response_bytes":3000,"connections":2}]}}"#,
        );
        let ClientRecord::Plan { pin: Some(pin) } = plan else { panic!("{plan:?}") };
        assert_eq!(pin.totals(), Ok((16, 30)));
        assert_eq!(
            client(r#"{"v":1,"ts":"x","kind":"plan","pin":null}"#),
            ClientRecord::Plan { pin: None }
        );
        assert_eq!(
            client(r#"{"v":1,"ts":"x","kind":"sample","asked":1000,"answered":999}"#),
            ClientRecord::Sample { asked: 1000, answered: 999 }
        );
        assert_eq!(
            client(r#"{"v":1,"ts":"x","kind":"summary","connected":3}"#),
            ClientRecord::Summary {}
        );
        assert_eq!(client(r#"{"v":1,"ts":"x","kind":"heartbeat","sent":3}"#), ClientRecord::Other);
    }

    #[test]
    fn a_plan_that_does_not_add_up_is_refused() {
        let pin = |planned_pages, plan| Pin { planned_pages, overhead_bytes: 832, plan };
        assert!(pin(3, vec![PinShare { pages: 2, connections: 1 }]).totals().is_err());
        assert!(pin(0, vec![PinShare { pages: u64::MAX, connections: 2 }]).totals().is_err());
    }

    #[test]
    fn requests_and_replies_survive_the_pipe() {
        let request = Request::Start { port: 8000, connections: 16_000 };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let unheard_of = r#"{"do":"start","port":8000,"connections":1,"program":"/bin/true"}"#;
        assert!(serde_json::from_str::<Request>(unheard_of).is_err());
        let reply = Reply::ServerEnded { ended: Ended::Signal(9) };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
