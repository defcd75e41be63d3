//! The privileged half of `reproduce`: this same program, started again as root.
//!
//! It does what is asked of it on standard input, and lives until that ends. The kernel closes the pipe when the other half
//! dies, in whatever way; then the server is ended and the settings are put back at once. Signals of the terminal do
//! nothing here: the other half decides when it is over.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use c1m_server::{host::guard::Guard, sys::process};

use super::{
    Places,
    protocol::{Reply, Request},
    signals,
};

/// The name under which xtask starts itself again.
pub(crate) const COMMAND: &str = "__privileged";

/// How long the privileged half of a run that was just killed may take to put its settings back.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an ended server is looked for: `wait` would keep SIGTERM from being sent.
const REAP: Duration = Duration::from_millis(20);

/// Runs until standard input ends.
pub(crate) fn main(places: &Places) -> ExitCode {
    let replies = Replies(Arc::new(Mutex::new(io::stdout())));
    match serve(places, &replies) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            replies.send(&Reply::Failed { message: format!("{error:#}") });
            ExitCode::from(3)
        }
    }
}

fn serve(places: &Places, replies: &Replies) -> anyhow::Result<()> {
    signals::ignore().context("cannot handle signals")?;
    let (guard, stale) = Guard::take(places.tree(), &places.state_dir, PATIENCE)?;
    let (_, nofile_hard) = process::nofile().context("cannot read the limit of open files")?;
    let mut half = Half {
        guard,
        files: places.proc_dir.clone(),
        server: Server::default(),
        replies: replies.clone(),
    };
    replies.send(&Reply::Ready { nofile_hard, stale });
    for line in io::stdin().lock().lines() {
        // A line that is no text ends it like the end of the input: the other half is broken.
        let Ok(line) = line else { break };
        let reply = match half.answer(&line) {
            Ok(reply) => reply,
            Err(error) => Reply::Failed { message: format!("{error:#}") },
        };
        replies.send(&reply);
    }
    half.end();
    Ok(())
}

/// Dropping it, for instance by a panic, puts the settings back; the kernel then ends the server with this process.
struct Half {
    guard: Guard,
    /// Where the kernel's files are.
    files: PathBuf,
    server: Server,
    replies: Replies,
}

impl Half {
    fn answer(&mut self, line: &str) -> anyhow::Result<Reply> {
        match serde_json::from_str(line).context("this request is not understood")? {
            Request::Set { changes } => {
                self.guard.set(&changes).map(|()| Reply::Done).map_err(Into::into)
            }
            Request::Restore => Ok(Reply::Restored { outcomes: self.guard.restore() }),
            Request::Start { program, arguments } => {
                let mut command = Command::new(&program);
                command.args(arguments);
                let pid = self
                    .server
                    .start(&mut command, &self.replies)
                    .with_context(|| format!("cannot start {}", program.display()))?;
                Ok(Reply::Started { pid })
            }
            Request::Terminate => {
                if let Some(server) = self.server.child().as_mut() {
                    process::terminate(server).context("cannot end the server")?;
                }
                Ok(Reply::Done)
            }
            Request::Read { path } => read(&self.files, &path).map(|text| Reply::Text { text }),
        }
    }

    fn end(&mut self) {
        if let Some(server) = self.server.child().as_mut() {
            // It may have ended by itself just now.
            let _ = server.kill();
        }
        let outcomes = self.guard.restore();
        for outcome in outcomes.iter().filter(|outcome| !outcome.is_back()) {
            let _ = writeln!(io::stderr(), "{outcome}");
        }
        self.replies.send(&Reply::Restored { outcomes });
        self.server.wait();
    }
}

/// Files of the kernel only: nothing else is needed, so nothing else is given.
fn read(files: &Path, path: &Path) -> anyhow::Result<String> {
    if !path.starts_with(files) || path.components().any(|part| part.as_os_str() == "..") {
        bail!("{} is not below {}", path.display(), files.display());
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The one server. A child that has ended is taken out by the thread that reads its output.
#[derive(Default)]
struct Server {
    child: Arc<Mutex<Option<Child>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        locked(&self.child)
    }

    /// Runs in the main thread: the server dies with the thread that started it.
    fn start(&mut self, command: &mut Command, replies: &Replies) -> anyhow::Result<u32> {
        if self.child().is_some() {
            bail!("a server is running already");
        }
        self.wait();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn_dying_with_parent(command, libc::SIGKILL)?;
        let pid = child.id();
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        *self.child() = Some(child);
        let errors = errors.map(|errors| {
            let replies = replies.clone();
            thread::spawn(move || {
                forward(errors, |line| replies.send(&Reply::ServerError { line }))
            })
        });
        let (replies, child) = (replies.clone(), Arc::clone(&self.child));
        self.reader = Some(thread::spawn(move || {
            if let Some(output) = output {
                forward(output, |line| replies.send(&Reply::ServerLine { line }));
            }
            if let Some(errors) = errors {
                // It can't panic, and nothing depends on it.
                let _ = errors.join();
            }
            reap(&child, &replies);
        }));
        Ok(pid)
    }

    /// Waits until an ended server is reported.
    fn wait(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn reap(child: &Mutex<Option<Child>>, replies: &Replies) {
    loop {
        let ended = locked(child).as_mut().map(Child::try_wait);
        match ended {
            Some(Ok(None)) => thread::sleep(REAP),
            Some(Ok(Some(status))) => {
                locked(child).take();
                return replies.send(&Reply::ServerEnded { ended: status.into() });
            }
            // Nobody else waits for it, so there is no such error; and no use in trying again.
            None | Some(Err(_)) => return,
        }
    }
}

/// A panic elsewhere leaves nothing half-done behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands on lines until the end of the stream; what is no UTF-8 is replaced.
pub(crate) fn forward(stream: impl Read, mut line: impl FnMut(String)) {
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match stream.read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => line(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
        }
    }
}

/// Standard output, one whole line at a time.
#[derive(Clone)]
struct Replies(Arc<Mutex<io::Stdout>>);

impl Replies {
    fn send(&self, reply: &Reply) {
        // Plain data, which always has a JSON form. And nobody to tell when the other half is gone: standard input says so too.
        if let Ok(mut text) = serde_json::to_string(reply) {
            text.push('\n');
            let mut output = locked(&self.0);
            let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        }
    }
}
