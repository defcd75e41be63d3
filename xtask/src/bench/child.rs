//! A program that runs beside the bench, and the lines that it prints, each with the time at which it was read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{self, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use c1m_record::Line;
use c1m_sys::confine;
use serde::de::DeserializeOwned;

use crate::exit;

/// Set by a signal: whatever waits ends with an error.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// How often a wait looks for a signal.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than anything takes that moves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// An error when a signal has come.
pub(crate) fn check_interrupted() -> Result<()> {
    match INTERRUPTED.load(Relaxed) {
        true => Err(exit::step(130, "interrupted")),
        false => Ok(()),
    }
}

/// Lets time pass; a signal ends it.
pub(crate) fn pause(time: Duration) -> Result<()> {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        check_interrupted()?;
        thread::sleep(left.min(LOOK));
    }
    check_interrupted()
}

/// A line, and when it was read.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) text: String,
    pub(crate) at: SystemTime,
}

impl Read {
    /// The record of a line of c1m-server or c1m-client.
    pub(crate) fn record<R: DeserializeOwned>(&self) -> Result<R> {
        let line: Line<R> = serde_json::from_str(&self.text)
            .with_context(|| format!("`{}` is not understood", self.text))?;
        Ok(line.record)
    }
}

/// A running program. It is killed when dropped, and by the kernel when the thread that started it ends.
pub(crate) struct Child {
    name: &'static str,
    child: process::Child,
    orders: Option<ChildStdin>,
    lines: Receiver<Read>,
    said: Option<JoinHandle<String>>,
}

impl Child {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        command.current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = confine::spawn(command, None)
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                for text in BufReader::new(out).lines().map_while(std::result::Result::ok) {
                    // Nobody may listen any more.
                    let _ = sender.send(Read { text, at: SystemTime::now() });
                }
            });
        }
        let said = child.stderr.take().map(|mut errors| {
            thread::spawn(move || {
                let mut text = String::new();
                // What is no text says nothing either.
                let _ = errors.read_to_string(&mut text);
                text
            })
        });
        let orders = child.stdin.take();
        Ok(Self { name, child, orders, lines, said })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None`: the program has closed its output.
    fn next(&mut self, end: Instant) -> Result<Option<Read>> {
        loop {
            check_interrupted()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} said nothing for {PATIENCE:?}", self.name)
                }
            }
        }
    }

    /// The first answer of `choose` to a line from now on. That the program ends before is an error, with what it said.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut choose: impl FnMut(&Read) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        while let Some(line) = self.next(end)? {
            if let Some(answer) = choose(&line)? {
                return Ok(answer);
            }
        }
        let (status, said) = self.end()?;
        bail!("{} ended ({status}) before {what}: {said}", self.name)
    }

    /// All lines that have come by now.
    pub(crate) fn drain(&mut self) -> Vec<Read> {
        self.lines.try_iter().collect()
    }

    /// Writes an order to its standard input.
    pub(crate) fn order(&mut self) -> Result<()> {
        let orders = self.orders.as_mut().with_context(|| format!("{} ended", self.name))?;
        writeln!(orders).with_context(|| format!("{} takes no orders", self.name))
    }

    /// Closes its standard input.
    pub(crate) fn close_orders(&mut self) {
        self.orders.take();
    }

    pub(crate) fn terminate(&mut self) -> Result<()> {
        confine::signal(&mut self.child, libc::SIGTERM)
            .with_context(|| format!("cannot end {}", self.name))
    }

    /// Waits for its end: all lines that are left, its status, and what it wrote to standard error.
    pub(crate) fn rest(&mut self) -> Result<(Vec<Read>, ExitStatus, String)> {
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while let Some(line) = self.next(end)? {
            lines.push(line);
        }
        let (status, said) = self.end()?;
        Ok((lines, status, said))
    }

    fn end(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        // It can't panic.
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status, said.trim().to_owned()))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_too_early_says_why() {
        let mut shell = Command::new("sh");
        let mut child =
            Child::start("sh", shell.args(["-c", "echo one; echo broken >&2; exit 3"])).unwrap();
        let mut seen = Vec::new();
        let error = child
            .wait_for("two came", |line| {
                seen.push(line.text.clone());
                Ok(None::<()>)
            })
            .unwrap_err()
            .to_string();
        assert_eq!(seen, ["one"]);
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[test]
    fn orders_arrive_and_the_rest_is_read() {
        let mut child = Child::start("cat", &mut Command::new("cat")).unwrap();
        child.order().unwrap();
        child.close_orders();
        let (lines, status, _) = child.rest().unwrap();
        assert_eq!((lines.len(), status.success()), (1, true));
    }
}
