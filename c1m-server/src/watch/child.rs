//! The command of `--cmd`: started, told every signal that comes here, waited for, and never left
//! behind.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use c1m_program::UsageRefused;
use c1m_record::CommandEnd;
use c1m_sys::{
    confine,
    inherited::{self, Inherited},
};
use tokio::time::{Instant, sleep_until};

/// A command that does not end by SIGTERM is killed after this.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running command. Killed when dropped.
pub(super) struct Running {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts it with this process's own standard streams, and with the limits and signals that
    /// this process was started with: what a watch raises or blocks for itself is not the
    /// command's. The kernel ends it when the calling thread ends, in whatever way.
    ///
    /// # Errors
    /// There is no such program, or it can't be run.
    pub(super) fn start(command: &[String]) -> anyhow::Result<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| UsageRefused("--cmd needs a command behind it".into()))?;
        let mut command = Command::new(program);
        let child = inherited::spawn(command.args(arguments), Inherited::at_start());
        let child = child.map_err(|error| {
            UsageRefused(format!(
                "cannot run `{program}` ({error}): check the command behind --cmd"
            ))
        })?;
        Ok(Self { child, ended: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands a signal on.
    pub(super) fn signal(&mut self, number: i32) -> io::Result<()> {
        confine::signal(&mut self.child, number)
    }

    /// Has it ended?
    pub(super) fn has_ended(&mut self) -> io::Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended.is_some())
    }

    /// Asks it to end, and ends it if it does not.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        if self.has_ended()? {
            return Ok(());
        }
        self.signal(libc::SIGTERM)?;
        let patience = Instant::now() + PATIENCE;
        while !self.has_ended()? {
            if Instant::now() > patience {
                self.child.kill()?;
                self.ended = Some(self.child.wait()?);
                break;
            }
            sleep_until(Instant::now() + LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// How it ended; to be asked when it has.
    pub(super) fn how(&self) -> CommandEnd {
        let code = self.ended.and_then(|status| status.code());
        let signal = self.ended.and_then(|status| status.signal());
        CommandEnd { pid: self.pid(), code, signal }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // One that has ended is no error.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
