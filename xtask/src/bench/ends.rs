//! Both ends of many connections on this host: c1m-server and c1m-client, or the floor.

use std::{
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use c1m_client::record::{ClientRecord, Ramped, Sample};
use c1m_record::{Record, Sockstat, Summary};

use super::{
    child::{Child, PATIENCE, Printed, check_interrupted, record, rest, start},
    floor, host,
};

/// How often it is looked whether the last socket is gone.
const LOOK: Duration = Duration::from_millis(2);
/// Connections that the server takes besides: load on some while the others are held.
const ROOM: u64 = 1_000;
/// Longer than the bench.
const HOLD: &str = "1h";

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
    /// xtask, built as the others are
    pub(crate) floor: PathBuf,
}

impl Programs {
    pub(crate) fn server(&self) -> Command {
        Command::new(&self.server)
    }

    /// Starts c1m-server on a port of the kernel's choice, and waits until it listens: its address.
    pub(crate) fn listen(&self, connections: u64, flags: &[&str]) -> Result<(Child, String)> {
        let mut command = self.server();
        command.args(["--json", "--listen", "127.0.0.1:0", "--max-connections"]);
        let mut server = start(command.arg(connections.to_string()).args(flags))?;
        let address = server.wait_for("it listened", |line| {
            anyhow::Ok(match record(line)? {
                Record::Listening(listening) => Some(listening.address),
                _ => None,
            })
        })?;
        Ok((server, address))
    }

    /// Starts c1m-client, whose connections are held until it is told to end.
    pub(crate) fn open(&self, address: &str, connections: u64, flags: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.client);
        command.args(["--json", "--connect", address, "--hold", HOLD, "--connections"]);
        start(command.arg(connections.to_string()).args(flags))
    }
}

/// Waits for the end of a ramp, in which every connection must have been opened.
pub(crate) fn ramped(client: &mut Child, connections: u64) -> Result<Ramped> {
    let ramped = client.wait_for("its ramp was over", |line| {
        anyhow::Ok(match record(line)? {
            ClientRecord::Ramped(ramped) => Some(ramped),
            _ => None,
        })
    })?;
    ensure!(
        ramped.established == connections,
        "{} of {connections} connections were established",
        ramped.established
    );
    Ok(ramped)
}

/// Both ends, with all connections open.
pub(crate) struct Held {
    pub(crate) connections: u64,
    pub(crate) server: Child,
    pub(crate) client: Child,
    pub(crate) ramp_s: f64,
    /// CPU time of both ends until the end of the ramp.
    pub(crate) ramp_cpu_s: f64,
    /// Where the server listens.
    pub(crate) address: String,
    /// With the server's listeners, without a connection.
    before: Sockstat,
    is_floor: bool,
}

/// When the ends of the floor close. c1m-server closes while its client does, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The server when all of the client's sockets are gone.
    InTurn,
    AtOnce,
}

/// What is left of both ends.
#[derive(Debug)]
pub(crate) struct Gone {
    /// From the order until the last socket was gone, but for a thousandth of them, which may be others'.
    pub(crate) seconds: f64,
    /// Orphans and TIME_WAIT that were not there before.
    pub(crate) left: u64,
    /// All lines of the server that nobody had asked for; none of the floor.
    pub(crate) lines: Vec<Printed>,
    /// `None` of the floor.
    pub(crate) summary: Option<Summary>,
}

impl Held {
    pub(crate) fn ours(
        programs: &Programs,
        connections: u64,
        server_flags: &[&str],
        client_flags: &[&str],
    ) -> Result<Self> {
        let (server, address) = programs.listen(connections + ROOM, server_flags)?;
        let before = host::sockets()?;
        let mut client = programs.open(&address, connections, client_flags)?;
        let Ramped { ramp_s, answered, .. } = ramped(&mut client, connections)?;
        let wanted = if client_flags.contains(&"--idle") { 0 } else { connections };
        ensure!(answered == wanted, "{answered} of {wanted} connections were answered");
        let ramp_cpu_s = cpu_s(&server, &client)?;
        let is_floor = false;
        Ok(Self { connections, server, client, ramp_s, ramp_cpu_s, address, before, is_floor })
    }

    pub(crate) fn floor(programs: &Programs, connections: u64, flags: &[&str]) -> Result<Self> {
        let end = |connect: Option<String>| {
            let mut command = Command::new(&programs.floor);
            command.args([floor::COMMAND, "--connections", &connections.to_string()]).args(flags);
            start(command.args(connect.iter().flat_map(|to| ["--connect", to])))
        };
        let said = |line: &Printed| -> Result<floor::Said> {
            serde_json::from_str(&line.text).with_context(|| format!("the floor: {}", line.text))
        };
        let mut server = end(None)?;
        let address = server.wait_for("it listened", |line| {
            anyhow::Ok(match said(line)? {
                floor::Said::Listening { address } => Some(address),
                _ => None,
            })
        })?;
        let before = host::sockets()?;
        let mut client = end(Some(address.to_string()))?;
        let ramp_s = client.wait_for("its ramp was over", |line| {
            anyhow::Ok(match said(line)? {
                floor::Said::Ramped { seconds } => Some(seconds),
                _ => None,
            })
        })?;
        // What the last of them are accepted in is not part of either ramp.
        let limit = Instant::now() + PATIENCE;
        loop {
            server.write("\n")?;
            let accepted = server.wait_for("it counted", |line| {
                anyhow::Ok(match said(line)? {
                    floor::Said::Accepted { connections } => Some(connections),
                    _ => None,
                })
            })?;
            if accepted == connections {
                break;
            }
            ensure!(Instant::now() < limit, "the floor accepted {accepted} of {connections}");
            thread::sleep(LOOK);
        }
        let address = address.to_string();
        let ramp_cpu_s = cpu_s(&server, &client)?;
        let is_floor = true;
        Ok(Self { connections, server, client, ramp_s, ramp_cpu_s, address, before, is_floor })
    }

    /// The answer to `--sample`.
    pub(crate) fn sampled(&mut self) -> Result<Sample> {
        self.client.wait_for("its sample was over", |line| {
            anyhow::Ok(match record(line)? {
                ClientRecord::Sample(sample) => Some(sample),
                _ => None,
            })
        })
    }

    /// Ends all connections, and then both ends.
    pub(crate) fn end(self) -> Result<Gone> {
        self.end_in(Order::InTurn)
    }

    pub(crate) fn end_in(mut self, order: Order) -> Result<Gone> {
        let start = Instant::now();
        if self.is_floor {
            self.client.close_input();
            if order == Order::InTurn {
                rest(&mut self.client)?;
            }
            self.server.close_input();
        } else {
            self.client.signal(libc::SIGTERM)?;
        }
        self.until_gone(start)?;
        let seconds = start.elapsed().as_secs_f64();
        let now = host::sockets()?;
        let left =
            now.orphan.saturating_sub(self.before.orphan) + now.tw.saturating_sub(self.before.tw);
        if self.is_floor {
            if order == Order::AtOnce {
                rest(&mut self.client)?;
            }
            rest(&mut self.server)?;
            return Ok(Gone { seconds, left, lines: Vec::new(), summary: None });
        }
        rest(&mut self.client)?;
        self.server.signal(libc::SIGTERM)?;
        let lines = rest(&mut self.server)?;
        let mut summary = None;
        for line in &lines {
            if let Record::Summary(found) = record(line)? {
                summary = Some(found);
            }
        }
        ensure!(summary.is_some(), "c1m-server ended without a summary");
        Ok(Gone { seconds, left, lines, summary })
    }

    fn until_gone(&self, start: Instant) -> Result<()> {
        loop {
            check_interrupted()?;
            let now = host::sockets()?;
            // The rest of the host opens some as well.
            if now.alloc <= self.before.alloc + self.connections / 1000 {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("{} sockets are left over", now.alloc - self.before.alloc);
            }
            thread::sleep(LOOK);
        }
    }
}

/// What both have used so far. Each of their threads lives until the end of the connections.
fn cpu_s(server: &Child, client: &Child) -> Result<f64> {
    Ok(host::usage(server.pid())?.cpu_s + host::usage(client.pid())?.cpu_s)
}
