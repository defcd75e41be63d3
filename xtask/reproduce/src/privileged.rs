//! The privileged half of `reproduce`: this same program, started again as root.
//!
//! It does what is asked of it on standard input, and no more than a run needs: it starts one program only, c1m-server beside it, with arguments that it makes itself and without
//! the caller's environment; it changes the settings of a run, and reads one file. It lives until its input ends. The kernel closes the pipe when the other half
//! dies, in whatever way; then the server is ended and the settings are put back at once. Signals of the terminal do
//! nothing here: the other half decides when it is over.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use c1m_host::guard::{Change, Guard, GuardError, Outcome};
use c1m_sys::process;
use c1m_text::escape;

use super::{
    Places,
    host::Host,
    patience::Patience,
    protocol::{Reply, Request, SETTINGS, address},
    signals,
};

/// The name under which xtask starts itself again.
pub const COMMAND: &str = "__privileged";

/// How long the privileged half of a run that was just killed may take to put its settings back, from when the last socket of its server was closed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried for.
const LOCK_STEP: Duration = Duration::from_millis(200);
/// How often an ended server is looked for: `wait` would keep SIGTERM from being sent.
const REAP: Duration = Duration::from_millis(20);

/// Runs until standard input ends.
pub fn main(places: &Places) -> ExitCode {
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
    // Before anything is changed: what it would not start it says at once.
    if places.server_program.is_some() {
        places.server()?;
    }
    let (guard, stale) = take(places)?;
    let (_, nofile_hard) = process::nofile().context("cannot read the limit of open files")?;
    let mut half =
        Half { guard, places: places.clone(), server: Server::default(), replies: replies.clone() };
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

/// Takes the lock on the settings. A run that was killed has it until the kernel has closed its server's sockets.
fn take(places: &Places) -> Result<(Guard, Vec<Outcome>), GuardError> {
    let host = Host::at(&places.proc_dir);
    let mut patience = Patience::new(PATIENCE, Instant::now());
    loop {
        let taken = Guard::take(places.tree(), &places.state_dir, LOCK_STEP);
        patience.left(host.sockstat().ok().map(|now| now.alloc), Instant::now());
        if !matches!(taken, Err(GuardError::Busy { .. })) || patience.is_over(Instant::now()) {
            return taken;
        }
        thread::sleep(LOCK_STEP);
    }
}

/// Dropping it, for instance by a panic, puts the settings back; the kernel then ends the server with this process.
struct Half {
    guard: Guard,
    places: Places,
    server: Server,
    replies: Replies,
}

impl Half {
    fn answer(&mut self, line: &str) -> anyhow::Result<Reply> {
        match serde_json::from_str(line).context("this request is not understood")? {
            Request::Set { changes } => {
                check(&changes)?;
                self.guard.set(&changes).map(|()| Reply::Done).map_err(Into::into)
            }
            Request::Restore => Ok(Reply::Restored { outcomes: self.guard.restore() }),
            Request::Start { port, connections } => {
                let pid = self.start(port, connections).context("cannot start the server")?;
                Ok(Reply::Started { pid })
            }
            Request::Terminate => {
                if let Some(server) = self.server.child().as_mut() {
                    process::terminate(server).context("cannot end the server")?;
                }
                Ok(Reply::Done)
            }
            Request::Slabinfo => {
                let path = self.places.proc_dir.join("slabinfo");
                let text = fs::read_to_string(&path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Reply::Text { text })
            }
        }
    }

    fn start(&mut self, port: u16, connections: u64) -> anyhow::Result<u32> {
        let mut command = Command::new(self.places.server()?);
        // Server and client name the errors of their own calls, so that nobody's system calls have to be looked at.
        command.args(["--trace", "--without-hook", "sys_exit", "--json"]);
        command.args(["--listen", &address(port).to_string()]);
        command.args(["--max-connections", &connections.to_string()]);
        // Nothing of the caller's reaches a program that is root: what its loader or its library would read, and where it stands.
        command.env_clear().current_dir("/");
        self.server.start(&mut command, &self.replies)
    }

    fn end(&mut self) {
        if let Some(server) = self.server.child().as_mut() {
            // It may have ended by itself just now.
            let _ = server.kill();
        }
        let outcomes = self.guard.restore();
        for outcome in outcomes.iter().filter(|outcome| !outcome.is_back()) {
            let _ = writeln!(io::stderr(), "{}", escape::line(&outcome.to_string()));
        }
        self.replies.send(&Reply::Restored { outcomes });
        self.server.wait();
    }
}

/// Settings of a run, with whole numbers: some others name a program that the kernel starts.
fn check(changes: &[Change]) -> anyhow::Result<()> {
    for Change { name, value } in changes {
        if !SETTINGS.contains(&name.as_str()) {
            bail!("{name} is not changed: a run needs {} alone", SETTINGS.join(", "));
        }
        if value.is_empty() || value.split_whitespace().any(|word| word.parse::<u64>().is_err()) {
            bail!("`{value}` is no value of {name}: it has whole numbers");
        }
    }
    Ok(())
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
