//! c1m-server as a program, and the records that it prints.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
};

use c1m_record::Record;
use c1m_testkit::{
    Child, only,
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
    /// Starts it on a port of the kernel's choice, and waits until it listens.
    ///
    /// A refusal of the environment (exit code 3) is a reason to skip the fault.
    pub(crate) fn start(program: &Path, arguments: &[&str], confined: Confined) -> Step<Self> {
        let mut command = Command::new(program);
        command.args(["--json", "--listen", "127.0.0.1:0", "--interval", "100ms"]).args(arguments);
        if let Some(user) = confined.user {
            command.uid(user).gid(user);
        }
        let child = Child::confined(&mut command, confined.nofile)
            .map_err(|error| Stop::wrong(format!("cannot start {}: {error}", program.display())))?;
        let mut program = c1m_testkit::Program::of(child, None);
        let listening = program.find(only!(Record::Listening));
        let Some(address) = listening.and_then(|listening| listening.address.parse().ok()) else {
            let outcome = program.try_end()?;
            let said = outcome.stderr.trim();
            return Err(match outcome.code {
                Some(3) => Stop::skip(said),
                _ => {
                    Stop::wrong(format!("the server does not listen ({}): {said}", outcome.status))
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
