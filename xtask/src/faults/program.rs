//! c1m-server as a program, and the records that it prints.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
};

use c1m_record::Record;
use c1m_testkit::{
    Child,
    trip::{Step, Stop},
};

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
    program: c1m_testkit::Program<Record>,
    pub(crate) address: SocketAddr,
}

impl Deref for Program {
    type Target = c1m_testkit::Program<Record>;

    fn deref(&self) -> &Self::Target {
        &self.program
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.program
    }
}

impl Program {
    /// Starts the server on a port of the kernel's choice, and waits until it listens.
    ///
    /// A refusal of the environment (exit code 3) is a reason to skip the fault.
    pub(crate) fn start(program: &Path, arguments: &[&str], confined: Confined) -> Step<Self> {
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        Self::ready(program, &arguments, confined, |record| match record {
            Record::Listening(listening) => listening.address.parse().ok(),
            _ => None,
        })
    }

    /// Starts a watch of a process, and waits until its probes are attached.
    pub(crate) fn watch(program: &Path, pid: u32, arguments: &[&str]) -> Step<Self> {
        let pid = pid.to_string();
        let arguments = [&["watch", "--pid", &pid], arguments].concat();
        Self::ready(program, &arguments, Confined::default(), |record| {
            matches!(record, Record::Watching(_)).then_some(NO_ADDRESS)
        })
    }

    /// Starts it, and waits for the record that says it is ready, and where it listens.
    fn ready(
        program: &Path,
        arguments: &[&str],
        confined: Confined,
        address: impl FnMut(&Record) -> Option<SocketAddr>,
    ) -> Step<Self> {
        let mut command = Command::new(program);
        command.args(arguments).args(["--json", "--interval", "100ms"]);
        if let Some(user) = confined.user {
            command.uid(user).gid(user);
        }
        let child = Child::confined(&mut command, confined.nofile)
            .map_err(|error| Stop::wrong(format!("cannot start {}: {error}", program.display())))?;
        let mut program = c1m_testkit::Program::of(child, None);
        let Some(address) = program.find(address) else {
            let outcome = program.try_end()?;
            let said = outcome.stderr.trim();
            return Err(match outcome.code {
                Some(3) => Stop::skip(said),
                _ => {
                    Stop::wrong(format!("the program does not start ({}): {said}", outcome.status))
                }
            });
        };
        Ok(Self { program, address })
    }

    /// Ends it by SIGTERM, and takes the rest of its records.
    pub(crate) fn finish(&mut self) -> Step {
        self.child().signal(libc::SIGTERM)?;
        let outcome = self.try_end()?;
        match outcome.status.success() {
            true => Ok(()),
            false => Err(Stop::wrong(format!(
                "the server ended badly ({}): {}",
                outcome.status,
                outcome.stderr.trim()
            ))),
        }
    }
}
