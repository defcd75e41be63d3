//! c1m-server as a program, and the records that it prints.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{self, JoinHandle},
    time::Instant,
};

use c1m_record::{Line, Record};
use c1m_sys::confine;

use super::stand::{PATIENCE, Stop, eventually};

/// What the program may have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Confined {
    /// Hard and soft limit of open files.
    pub(crate) nofile: Option<u64>,
    /// User and group by number, without a privilege.
    pub(crate) user: Option<u32>,
}

/// Of a program that does not listen.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running c1m-server. It is killed when dropped, and by the kernel when the thread that started it ends.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    pub(crate) address: SocketAddr,
    /// Everything that was taken so far.
    pub(crate) records: Vec<Record>,
}

impl Program {
    /// Starts the server on a port of the kernel's choice, and waits until it listens.
    ///
    /// A refusal of the environment (exit code 3) is a reason to skip the fault.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        confined: Confined,
    ) -> Result<Self, Stop> {
        let listen = ["--listen", "127.0.0.1:0"];
        Self::ready(program, &[&listen, arguments].concat(), confined, |record| match record {
            Record::Listening(listening) => listening.address.parse().ok(),
            _ => None,
        })
    }

    /// Starts a watch of a process, and waits until its probes are attached.
    pub(crate) fn watch(program: &Path, pid: u32, arguments: &[&str]) -> Result<Self, Stop> {
        let pid = pid.to_string();
        let watch = ["watch", "--pid", pid.as_str()];
        Self::ready(program, &[&watch, arguments].concat(), Confined::default(), |record| {
            matches!(record, Record::Watching(_)).then_some(NO_ADDRESS)
        })
    }

    /// Starts it, and waits for the record that says it is ready, and where it listens.
    fn ready(
        program: &Path,
        arguments: &[&str],
        confined: Confined,
        address: impl FnMut(&Record) -> Option<SocketAddr>,
    ) -> Result<Self, Stop> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["--json", "--interval", "100ms"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = confined.user {
            command.uid(user).gid(user);
        }
        let mut child = confine::spawn(&mut command, confined.nofile)
            .map_err(|error| Stop::wrong(format!("cannot start {}: {error}", program.display())))?;
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            // Ends with the pipe, or when nobody listens any more.
            thread::spawn(move || lines.take_while(|l| sender.send(l.clone()).is_ok()).count());
        }
        let stderr = child.stderr.take().map(|mut err| {
            thread::spawn(move || {
                let mut text = String::new();
                // What is no text says nothing either.
                let _ = err.read_to_string(&mut text);
                text
            })
        });
        let mut program = Self { child, lines, stderr, address: NO_ADDRESS, records: Vec::new() };
        let Some(address) = program.wait_for(address)? else {
            let (status, said) = program.end();
            return Err(match status.and_then(|status| status.code()) {
                Some(3) => Stop::Skip(said),
                _ => Stop::wrong(format!("the program does not start ({status:?}): {said}")),
            });
        };
        program.address = address;
        Ok(program)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first record from now on for which `choose` has an answer; `None`: it did not come.
    pub(crate) fn wait_for<T>(
        &mut self,
        mut choose: impl FnMut(&Record) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { return Ok(None) };
            let record = self.take(&line)?;
            if let Some(chosen) = choose(&record) {
                return Ok(Some(chosen));
            }
        }
    }

    fn take(&mut self, line: &str) -> Result<Record, Stop> {
        let line: Line<Record> = serde_json::from_str(line)
            .map_err(|error| Stop::wrong(format!("{error} in the server's line {line}")))?;
        self.records.push(line.record.clone());
        Ok(line.record)
    }

    pub(crate) fn signal(&mut self, signal: i32) -> Result<(), Stop> {
        confine::signal(&mut self.child, signal)
            .map_err(|error| Stop::wrong(format!("cannot send a signal: {error}")))
    }

    /// See [`stop`].
    pub(crate) fn stop(&mut self) -> Result<(), Stop> {
        stop(&mut self.child)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it by SIGTERM, and takes the rest of its records.
    pub(crate) fn finish(&mut self) -> Result<(), Stop> {
        self.signal(libc::SIGTERM)?;
        self.wait_for(|_| None::<()>)?;
        match self.end() {
            (Some(status), _) if status.success() => Ok(()),
            (status, said) => {
                Err(Stop::wrong(format!("the server ended badly ({status:?}): {said}")))
            }
        }
    }

    /// Waits for its end: the status, and what it wrote to standard error.
    fn end(&mut self) -> (Option<ExitStatus>, String) {
        let end = Instant::now() + PATIENCE;
        let mut status = self.ended();
        while status.is_none() && Instant::now() < end {
            thread::sleep(std::time::Duration::from_millis(5));
            status = self.ended();
        }
        if status.is_none() {
            // It may have ended just now.
            let _ = self.child.kill();
        }
        // It can't panic.
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        (status, said.trim().to_owned())
    }
}

/// Stops a program as a debugger would, and waits until each of its threads has stopped.
pub(crate) fn stop(child: &mut Child) -> Result<(), Stop> {
    confine::signal(child, libc::SIGSTOP)?;
    let tasks = format!("/proc/{}/task", child.id());
    eventually("the server does not stop", || {
        for task in fs::read_dir(&tasks)? {
            let stat = fs::read_to_string(task?.path().join("stat"))?;
            // The state follows the name in parentheses.
            if !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
