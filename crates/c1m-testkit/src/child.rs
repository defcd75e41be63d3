//! Programs that are started and waited for.

use std::{
    fs::{self, Permissions},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{self, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use c1m_sys::confine;
use tempfile::TempDir;

use crate::wait::{CEILING, LOOK, PATIENCE, Patience, STEP, check_interrupted, left, tried};

/// A line of standard output, and when it was read.
#[derive(Debug, Clone)]
pub struct Printed {
    pub text: String,
    pub at: SystemTime,
}

/// How a program ended, and what nobody had read until then.
#[derive(Debug)]
pub struct Outcome {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub status: ExitStatus,
    pub lines: Vec<Printed>,
    /// Standard error, where that is a pipe.
    pub stderr: String,
}

impl Outcome {
    /// What was left of standard output.
    pub fn stdout(&self) -> String {
        self.lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect()
    }
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub struct Child {
    name: String,
    child: process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<Printed>,
    stderr: Option<JoinHandle<()>>,
    said: Arc<Mutex<Vec<u8>>>,
    /// For how long it may do nothing while it is waited for.
    patience: Duration,
}

impl Child {
    /// Starts a program without input, whose output is read.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Ok(Self::of(piped(command).spawn()?, name(command)))
    }

    /// The same in folder `/`. The kernel ends it with the calling thread, and its hard and soft
    /// limit of open files is `nofile`, if given.
    pub fn confined(command: &mut Command, nofile: Option<u64>) -> io::Result<Self> {
        Ok(Self::of(confine::spawn(piped(command).current_dir("/"), nofile)?, name(command)))
    }

    /// The same with a pipe for its input.
    pub fn with_input(command: &mut Command) -> io::Result<Self> {
        let child = confine::spawn(piped(command).stdin(Stdio::piped()).current_dir("/"), None)?;
        Ok(Self::of(child, name(command)))
    }

    /// Starts a program whose streams are as `command` has them; what is a pipe is read.
    pub fn as_is(command: &mut Command) -> io::Result<Self> {
        Ok(Self::of(command.spawn()?, name(command)))
    }

    fn of(mut child: process::Child, name: String) -> Self {
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                for text in BufReader::new(out).lines().map_while(Result::ok) {
                    if sender.send(Printed { text, at: SystemTime::now() }).is_err() {
                        break;
                    }
                }
            });
        }
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let stderr = child.stderr.take().map(|errors| {
            let said = said.clone();
            thread::spawn(move || keep(errors, &said))
        });
        let input = child.stdin.take();
        Self { name, child, input, lines, stderr, said, patience: PATIENCE }
    }

    /// It may do nothing for so long while it is waited for.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None`: it has closed its output.
    ///
    /// # Errors
    /// A signal has come, or nothing within `patience`.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Printed>> {
        let end = Instant::now() + patience;
        loop {
            check_interrupted()?;
            match self.lines.recv_timeout(LOOK.min(left(end))) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if !left(end).is_zero() => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.is_silent()),
            }
        }
    }

    /// The next line, however long it uses its CPU before; `None`: it has closed its output.
    ///
    /// # Errors
    /// A signal has come, it does nothing any more, or `end` is over.
    pub(crate) fn line(&mut self, end: Instant) -> io::Result<Option<Printed>> {
        let (mut patience, mut used) = (Patience::new(self.patience), None);
        loop {
            check_interrupted()?;
            let left = patience.left().min(left(end));
            match self.lines.recv_timeout(LOOK.min(left)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = cpu_ticks(self.pid());
            if now != used {
                used = now;
                patience.step();
            } else if left.is_zero() {
                return Err(self.is_silent());
            }
        }
    }

    /// Waits until `done`, however long it uses its CPU before.
    ///
    /// # Errors
    /// A signal has come, or it has ended or does nothing any more, without `what`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) -> io::Result<()> {
        let (mut patience, mut used) = (Patience::new(self.patience), None);
        while !done(self) {
            check_interrupted()?;
            let now = cpu_ticks(self.pid());
            if now != used {
                used = now;
                patience.step();
            }
            let is_over = self.child.try_wait()?.is_some() && !done(self);
            if is_over || patience.left().is_zero() {
                let text = format!("{}: no {what}: {}", self.name, self.said().trim());
                return Err(io::Error::other(text));
            }
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// What it has written to standard error so far, where that is a pipe.
    pub fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).into_owned()
    }

    fn is_silent(&self) -> io::Error {
        let text = format!("{} has printed nothing for {:?}", self.name, self.patience);
        io::Error::new(io::ErrorKind::TimedOut, text)
    }

    /// The first answer of `choose` to a line from now on.
    ///
    /// # Errors
    /// That of `choose`; the program ended before `what`, with what it wrote to standard error; a signal has come; it prints nothing any more.
    pub fn wait_for<T, E: From<io::Error>>(
        &mut self,
        what: &str,
        mut choose: impl FnMut(&Printed) -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let end = Instant::now() + CEILING;
        while let Some(line) = self.line(end)? {
            if let Some(answer) = choose(&line)? {
                return Ok(answer);
            }
        }
        let Outcome { status, stderr, .. } = self.end()?;
        let text = format!("{} ended ({status}) before {what}: {}", self.name, stderr.trim());
        Err(io::Error::other(text).into())
    }

    /// All lines that have come by now.
    pub fn drain(&mut self) -> Vec<Printed> {
        self.lines.try_iter().collect()
    }

    /// Writes to its standard input.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        let ended = || io::Error::other(format!("{} has no input", self.name));
        let input = self.input.as_mut().ok_or_else(ended)?;
        input.write_all(text.as_bytes())?;
        input.flush()
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.input.take();
    }

    /// Sends it a signal. That it has ended is no error.
    pub fn signal(&mut self, signal: libc::c_int) -> io::Result<()> {
        confine::signal(&mut self.child, signal)
    }

    /// Stops it as a debugger would, and waits until each of its threads has stopped.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(libc::SIGSTOP)?;
        let tasks = format!("/proc/{}/task", self.pid());
        tried("a program does not stop", || {
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

    pub fn kill(&mut self) {
        // One that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, however long it prints something or uses its CPU.
    ///
    /// # Errors
    /// A signal has come, or it does nothing any more; then it is killed.
    pub fn end(&mut self) -> io::Result<Outcome> {
        let mut patience = Patience::new(self.patience);
        let (mut lines, mut used) = (Vec::new(), None);
        let status = loop {
            check_interrupted()?;
            let read = self.lines.recv_timeout(STEP);
            if let Ok(line) = read {
                lines.push(line);
                patience.step();
                continue;
            }
            let is_closed = read.is_err_and(|error| error == RecvTimeoutError::Disconnected);
            // What it has started may hold its output open, and outlive it.
            let ended = self.child.try_wait()?;
            if let Some(status) = ended.filter(|_| is_closed || patience.left().is_zero()) {
                break status;
            }
            let now = cpu_ticks(self.pid());
            if now != used {
                used = now;
                patience.step();
            }
            if patience.left().is_zero() {
                self.kill();
                return Err(self.is_silent());
            }
            if is_closed {
                thread::sleep(STEP / 5);
            }
        };
        if let Some(thread) = self.stderr.take() {
            // It has no reason to panic; what it has read is there.
            let _ = thread.join();
        }
        Ok(Outcome { code: status.code(), status, lines, stderr: self.said() })
    }

    /// Ends it by SIGTERM.
    pub fn finish(&mut self) -> io::Result<Outcome> {
        self.signal(libc::SIGTERM)?;
        self.end()
    }
}

/// One that runs; what is a pipe is read from here on.
impl From<process::Child> for Child {
    fn from(child: process::Child) -> Self {
        let name = format!("process {}", child.id());
        Self::of(child, name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads to the end, or to an error: what was read until then is all that there is.
fn keep(mut from: impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
    }
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string()
}

fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Runs a command to its end.
///
/// # Panics
/// It can't be started, or comes to no end.
#[track_caller]
pub fn outcome(command: &mut Command) -> Outcome {
    let started = Child::start(command);
    let ended = started.and_then(|mut child| child.end());
    ended.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command, whose standard output is as it has it, to its end: the exit code and standard error.
///
/// # Panics
/// It can't be started, or comes to no end.
#[track_caller]
pub fn errors(command: &mut Command) -> (Option<i32>, String) {
    let started = Child::as_is(command.stdin(Stdio::null()).stderr(Stdio::piped()));
    let ended = started.and_then(|mut child| child.end());
    let outcome = ended.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (outcome.code, outcome.stderr)
}

/// Sends signals by name to a process, in this order.
///
/// # Panics
/// There is no such process.
#[track_caller]
pub fn signal(pid: u32, names: &[&str]) {
    for name in names {
        let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -s {name} {pid}");
    }
}

/// User and system time of a process so far, in ticks of 10 ms; `None`: there is none.
pub fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // man 5 proc: utime and stime are fields 14 and 15, and the first one here is field 3.
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// A copy of a program in a place where anybody may run it: the folder of a build may be closed to others. It goes with this value.
#[derive(Debug)]
pub struct Copy {
    pub path: PathBuf,
    _folder: TempDir,
}

impl Copy {
    pub fn of(program: &Path) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(program.file_name().unwrap_or_default());
        fs::copy(program, &path)?;
        for path in [folder.path(), &path] {
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
        }
        Ok(Self { path, _folder: folder })
    }
}

/// Is this root?
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Is there such a process, and has it not ended?
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The child of `parent` whose command line has `part` in it.
pub fn child_of(parent: u32, part: &str) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(part))
    })
}

/// A pipe whose reader has closed it, as that of `| true`.
pub fn closed_pipe() -> io::PipeWriter {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    writer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_too_early_says_why() {
        let mut shell = Command::new("sh");
        let mut child =
            Child::start(shell.args(["-c", "echo one; echo broken >&2; exit 3"])).unwrap();
        let mut read = Vec::new();
        let waited = child.wait_for("two came", |line| {
            read.push(line.text.clone());
            io::Result::Ok(None::<()>)
        });
        let error = waited.unwrap_err().to_string();
        assert_eq!(read, ["one"]);
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[test]
    fn input_arrives_and_the_rest_is_read() {
        let mut child = Child::with_input(&mut Command::new("cat")).unwrap();
        child.write("x\n").unwrap();
        child.close_input();
        let outcome = child.end().unwrap();
        assert_eq!((outcome.lines.len(), outcome.status.success()), (1, true));
    }

    #[test]
    fn a_program_that_does_nothing_is_killed_and_one_that_works_is_waited_for() {
        let short = Duration::from_millis(300);
        let start = |script: &str| {
            Child::start(Command::new("sh").args(["-c", script])).unwrap().patience(short)
        };
        let mut idle = start("exec sleep 600");
        assert_eq!(idle.end().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!is_running(idle.pid()));
        // Each line comes in time, and all of them do not.
        let lines = start("for i in 1 2 3 4 5 6; do sleep 0.1; echo $i; done").end().unwrap();
        assert_eq!((lines.code, lines.stdout().as_str()), (Some(0), "1\n2\n3\n4\n5\n6\n"));
    }
}
