//! What a driver has in its hands: the observer, settings, connections, and the kernel's own counters.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
};

use c1m_host::netstat::TcpExt;
use c1m_testkit::{
    Settings, host, net,
    trip::{Step, Stop},
    wait::tried,
};

use super::{
    judge::Counted,
    other::{Kind, Other},
    program::{Confined, Program},
};

/// One run of a fault, in the thread and network namespace in which it is tripped.
pub(crate) struct Fixture<'a> {
    settings: &'a mut Settings,
    server: PathBuf,
    without_hook: &'a [String],
    before: TcpExt,
    observer: Option<Program>,
    counted: Vec<Counted>,
    subject: Option<Kind>,
    other: Option<Other>,
}

impl<'a> Fixture<'a> {
    /// `server`: the program c1m-server; `without_hook`: what it leaves out as the observer; `subject`: whose server is under test, if not
    /// that one.
    pub(crate) fn new(
        settings: &'a mut Settings,
        server: PathBuf,
        without_hook: &'a [String],
        subject: Option<Kind>,
    ) -> Step<Self> {
        Ok(Self {
            settings,
            server,
            without_hook,
            before: host::tcp_ext()?,
            observer: None,
            counted: Vec::new(),
            subject,
            other: None,
        })
    }

    pub(crate) fn server_program(&self) -> &PathBuf {
        &self.server
    }

    /// Starts a server that observes itself, and may be the one under test.
    pub(crate) fn observe(&mut self, arguments: &[&str], confined: Confined) -> Step<SocketAddr> {
        let arguments = [&["--trace"], self.without_hooks().as_slice(), arguments].concat();
        let observer = Program::start(&self.server, &arguments, confined)?;
        let address = observer.address;
        self.observer = Some(observer);
        Ok(address)
    }

    /// Starts a watch of a process: its accept queues are judged as its own.
    pub(crate) fn watch(&mut self, pid: u32) -> Step {
        self.observer = Some(Program::watch(&self.server, pid, &self.without_hooks())?);
        Ok(())
    }

    fn without_hooks(&self) -> Vec<&'a str> {
        self.without_hook.iter().flat_map(|hook| ["--without-hook", hook.as_str()]).collect()
    }

    pub(crate) fn observer(&mut self) -> Step<&mut Program> {
        self.observer.as_mut().ok_or_else(|| Stop::wrong("there is no observer"))
    }

    /// What the driver counted itself, and where the observer's own count of it is.
    pub(crate) fn count(&mut self, name: &'static str, value: u64, ebpf: &'static str) {
        self.counted.push(Counted { name, value, ebpf });
    }

    /// The observer, for its end, and what the driver counted.
    pub(crate) fn end(self) -> (Option<Program>, Vec<Counted>) {
        (self.observer, self.counted)
    }

    /// Starts the server under test: the observer itself, or somebody else's, which a watch observes.
    pub(crate) fn serve(&mut self) -> Step<SocketAddr> {
        if self.subject.is_none() {
            return self.observe(&[], Confined::default());
        }
        let other = self.watched(None)?;
        let address = other.address;
        self.other = Some(other);
        Ok(address)
    }

    /// Somebody else's server, and a watch of it.
    pub(crate) fn watched(&mut self, nofile: Option<u64>) -> Step<Other> {
        let kind = self.subject.ok_or_else(|| Stop::wrong("there is nobody else's server"))?;
        let other = Other::start(kind, nofile)?;
        self.watch(other.pid())?;
        Ok(other)
    }

    /// A second server, without eBPF.
    pub(crate) fn start(&self, arguments: &[&str], confined: Confined) -> Step<Program> {
        Program::start(&self.server, arguments, confined)
    }

    /// Settings of the whole host, put back after the run.
    pub(crate) fn settings(&mut self) -> &mut Settings {
        self.settings
    }

    /// See [`Settings::set`].
    pub(crate) fn set(&mut self, settings: &[(&str, String)]) -> Step {
        Ok(self.settings.set(settings)?)
    }

    /// Puts back what was changed so far.
    pub(crate) fn put_back(&mut self) -> Step {
        match self.settings.restore().iter().find(|outcome| !outcome.is_back()) {
            None => Ok(()),
            Some(outcome) => Err(Stop::wrong(outcome.to_string())),
        }
    }

    /// How far a counter of TcpExt has moved since the run began, in this network namespace.
    pub(crate) fn moved(&self, counter: &str) -> Step<u64> {
        let now = host::tcp_ext()?;
        let value = |of: &TcpExt| of.get(counter).copied().unwrap_or(0);
        Ok(value(&now).saturating_sub(value(&self.before)))
    }

    /// Waits until a counter of TcpExt has moved by so much: the kernel's own word that the fault is there.
    pub(crate) fn until_moved(&self, counter: &str, by: u64) -> Step {
        eventually(&format!("{counter} did not move by {by}"), || Ok(self.moved(counter)? >= by))
    }
}

/// Waits until `done`. That this does not come is an error.
pub(crate) fn eventually(problem: &str, done: impl FnMut() -> Step<bool>) -> Step {
    tried(&format!("not tripped: {problem}"), done)
}

/// Each of them answers, and so does a new one: the server is alive, and who was taken by no limit is served.
pub(crate) fn all_answer(address: SocketAddr, streams: &mut [TcpStream]) -> Step {
    Ok(net::all_answer(address, streams)?)
}
