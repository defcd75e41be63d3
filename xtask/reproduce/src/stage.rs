//! The one place where everything arrives: what the privileged half answers, what server and client print, signals, and time.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use c1m_host::guard::Outcome;
use c1m_record::{Line, Online, Record};
use c1m_sys::process;

use super::{
    End, Places,
    helper::Helper,
    host::Host,
    log::Log,
    patience::Patience,
    privileged::forward,
    progress::Progress,
    protocol::{ClientRecord, Ended, Event, Reply, Request},
    seen::Seen,
    signals,
};

/// How long the privileged half may take to tell of the death of a server, from when the last socket of the two was closed: a client that died of it is heard of
/// first.
const CAUSE_LIMIT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(500);
/// How often an ended client is looked for.
const REAP_STEP: Duration = Duration::from_millis(20);

/// Everything that runs for a reproduction. [`Stage::end`] ends all of it, and so does dropping it.
pub(super) struct Stage {
    pub(crate) progress: Progress,
    /// Everything that was said.
    pub(crate) log: Log,
    /// What server and client of the present act have said.
    pub(crate) seen: Seen,
    places: Places,
    host: Host,
    helper: Option<Helper>,
    client: Option<Child>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    replies: VecDeque<Reply>,
    answer: Option<String>,
    /// Without a step forward for so long something is stuck.
    stall: Duration,
    /// Of the present wait.
    patience: Patience,
}

impl Stage {
    /// Handles signals from here on: the first one is an error where it arrives, the second one ends this process.
    pub(super) fn new(places: Places, stall: Duration, log: Log) -> Result<Self, End> {
        let (sender, events) = mpsc::channel();
        let signals = sender.clone();
        let mut is_second = false;
        signals::watch(move || {
            if std::mem::replace(&mut is_second, true) {
                // The privileged half goes on by itself, and puts everything back.
                std::process::exit(130);
            }
            let _ = signals.send(Event::Signal);
        })
        .map_err(|error| End::Failed(format!("cannot handle signals: {error}")))?;
        Ok(Self {
            progress: Progress::new(),
            log,
            seen: Seen::default(),
            host: Host::at(&places.proc_dir),
            places,
            helper: None,
            client: None,
            events,
            sender,
            replies: VecDeque::new(),
            answer: None,
            stall,
            patience: Patience::new(stall, Instant::now()),
        })
    }

    /// Starts the privileged half. The answer: the hard limit of open files there, and what an earlier run had left behind.
    pub(super) fn open_helper(&mut self) -> Result<(u64, Vec<Outcome>), End> {
        self.helper = Some(Helper::start(&self.places, &self.sender)?);
        // Without a limit: somebody may be looking for a password.
        while self.replies.is_empty() {
            self.wait(TICK)?;
        }
        match self.replies.pop_front() {
            Some(Reply::Ready { nofile_hard, stale }) => Ok((nofile_hard, stale)),
            Some(Reply::Failed { message }) => Err(End::Refused(message)),
            other => Err(End::Failed(format!("the privileged half began with {other:?}"))),
        }
    }

    /// Asks the privileged half, and waits for its answer.
    pub(super) fn request(&mut self, request: &Request) -> Result<Reply, End> {
        let helper = self.helper.as_mut().ok_or_else(helper_gone)?;
        // When it can't be written to it is gone; the wait below says so.
        let _ = helper.send(request);
        self.patience = self.patience();
        while self.replies.is_empty() {
            self.wait(TICK)?;
            self.check_stall("waiting for the privileged half")?;
        }
        match self.replies.pop_front() {
            Some(Reply::Failed { message }) => Err(End::Failed(message)),
            Some(reply) => Ok(reply),
            None => Err(helper_gone()),
        }
    }

    /// Starts the client, as the user that runs this. Call it from the main thread: the client dies with it.
    pub(super) fn start_client(
        &mut self,
        program: &OsStr,
        arguments: &[String],
    ) -> Result<(), End> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group of its own: Ctrl-C on the terminal reaches this process alone, which then ends the client in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = process::spawn_dying_with_parent(&mut command, libc::SIGKILL)
            .map_err(|error| End::Failed(format!("cannot start {}: {error}", program.display())))?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        self.client = Some(child);
        let sender = self.sender.clone();
        let errors = errors.map(|errors| {
            let sender = sender.clone();
            thread::spawn(move || {
                forward(errors, |line| drop(sender.send(Event::ClientError(line))))
            })
        });
        thread::spawn(move || {
            if let Some(output) = output {
                forward(output, |line| drop(sender.send(Event::ClientLine(line))));
            }
            if let Some(errors) = errors {
                let _ = errors.join();
            }
            let _ = sender.send(Event::ClientGone);
        });
        Ok(())
    }

    /// SIGTERM to the client, after which it may end.
    pub(super) fn terminate_client(&mut self) -> Result<(), End> {
        self.seen.client_may_end = true;
        self.client
            .as_mut()
            .map_or(Ok(()), process::terminate)
            .map_err(|error| End::Failed(format!("cannot end the client: {error}")))
    }

    /// SIGTERM to the server, after which it may end.
    pub(super) fn terminate_server(&mut self) -> Result<(), End> {
        self.seen.server_may_end = true;
        self.request(&Request::Terminate).map(drop)
    }

    /// Lets things arrive until `done`; an error when nothing moves for too long. `what` completes "nothing moved while ...".
    pub(super) fn until(&mut self, what: &str, done: impl Fn(&Seen) -> bool) -> Result<(), End> {
        self.patience = self.patience();
        while !done(&self.seen) {
            self.wait(TICK)?;
            self.check_stall(what)?;
        }
        Ok(())
    }

    /// Lets things arrive for so long.
    pub(super) fn pause(&mut self, time: Duration) -> Result<(), End> {
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()) {
            self.wait(left.min(TICK))?;
        }
        Ok(())
    }

    /// Waits for a line on standard input, without a limit.
    pub(super) fn ask(&mut self, question: &str) -> Result<String, End> {
        self.progress.ask(question);
        let sender = self.sender.clone();
        thread::spawn(move || {
            let mut line = String::new();
            // An error is no consent.
            let _ = std::io::stdin().read_line(&mut line);
            let _ = sender.send(Event::Answer(line));
        });
        loop {
            if let Some(answer) = self.answer.take() {
                return Ok(answer);
            }
            self.wait(TICK)?;
        }
    }

    /// How long anything may take without a step forward.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// Ends whatever runs, and puts the settings back. The answer: what became of them, if any were changed; `None` when
    /// the privileged half did not say.
    pub(super) fn end(&mut self) -> Option<Vec<Outcome>> {
        self.kill_client();
        let mut told = None;
        if let Some(mut helper) = self.helper.take() {
            helper.close();
            let mut patience = self.patience();
            while !patience.is_over(Instant::now()) {
                match self.events.recv_timeout(TICK) {
                    Ok(Event::Reply(line)) => {
                        patience.step(Instant::now());
                        if let Ok(Reply::Restored { outcomes }) = serde_json::from_str(&line) {
                            told = Some(outcomes);
                        }
                    }
                    Ok(Event::HelperGone) | Err(RecvTimeoutError::Disconnected) => break,
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                }
                patience.left(self.sockets(), Instant::now());
            }
        }
        told
    }

    fn kill_client(&mut self) {
        if let Some(mut client) = self.client.take() {
            // It may have ended by itself just now.
            let _ = client.kill();
            let _ = client.wait();
        }
    }

    /// Takes one event, or lets the time pass.
    fn wait(&mut self, limit: Duration) -> Result<(), End> {
        match self.events.recv_timeout(limit) {
            Ok(event) => self.apply(event),
            // The stage holds a sender itself.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Signal => return Err(End::Interrupted),
            Event::HelperGone => {
                self.helper = None;
                return Err(helper_gone());
            }
            Event::Reply(line) => return self.reply(&line),
            Event::ClientLine(line) => {
                let line: Line<ClientRecord> = serde_json::from_str(&line).map_err(|error| {
                    End::Failed(format!("the client printed `{line}`, which is no record: {error}"))
                })?;
                if self.seen.client(line.record) {
                    self.patience.step(Instant::now());
                }
            }
            Event::ClientError(line) => {
                self.progress.say(&format!("client: {line}"));
                self.seen.client_error = line;
            }
            // It was killed, and waited for.
            Event::ClientGone if self.client.is_none() => {}
            Event::ClientGone => {
                let ended = self.reap_client()?;
                self.seen.client_ended = Some(ended);
                let Err(death) = self.seen.check_client(ended) else { return Ok(()) };
                // A client dies of a server's death, and can be heard of first: the server's is what has to be told.
                let mut patience = Patience::new(CAUSE_LIMIT, Instant::now());
                while !patience.is_over(Instant::now()) {
                    self.wait(TICK)?;
                    patience.left(self.sockets(), Instant::now());
                }
                return Err(death);
            }
            Event::Answer(answer) => self.answer = Some(answer),
        }
        Ok(())
    }

    fn reply(&mut self, line: &str) -> Result<(), End> {
        let reply = serde_json::from_str(line).map_err(|error| {
            End::Failed(format!(
                "the privileged half said `{line}`, which is not understood: {error}"
            ))
        })?;
        match reply {
            Reply::ServerLine { line } => {
                self.log.server(&line)?;
                self.tell_changes();
                let line: Line<Record> = serde_json::from_str(&line).map_err(|error| {
                    End::Failed(format!("the server printed `{line}`, which is no record: {error}"))
                })?;
                if let Some(text) = self.seen.news(&line.record) {
                    self.progress.say(&text);
                }
                if self.seen.server(line.record) {
                    self.patience.step(Instant::now());
                }
                self.show();
            }
            Reply::ServerError { line } => {
                self.progress.say(&format!("server: {line}"));
                self.seen.server_error = line;
            }
            Reply::ServerEnded { ended } => {
                self.seen.server_ended = Some(ended);
                self.patience.step(Instant::now());
                self.seen.check_server(ended)?;
            }
            reply => self.replies.push_back(reply),
        }
        Ok(())
    }

    /// Says that the file of `--output` can't be written, and that it can again.
    pub(super) fn tell_changes(&mut self) {
        for text in self.log.changes() {
            self.progress.say(&text);
        }
    }

    fn show(&mut self) {
        if let Some(Online { .. }) = self.seen.online {
            let text = self.seen.live();
            self.progress.live(&text);
        }
    }

    fn reap_client(&mut self) -> Result<Ended, End> {
        let Some(mut client) = self.client.take() else {
            return Err(End::Failed("the client ended twice".into()));
        };
        let failed = |error| End::Failed(format!("cannot wait for the client: {error}"));
        let mut patience = self.patience();
        loop {
            if let Some(status) = client.try_wait().map_err(failed)? {
                return Ok(status.into());
            }
            if patience.is_over(Instant::now()) {
                // It closed its output, and then nothing.
                let _ = client.kill();
                return client.wait().map(Into::into).map_err(failed);
            }
            thread::sleep(REAP_STEP);
            patience.left(self.sockets(), Instant::now());
        }
    }

    /// How long anything may stand still from now on.
    fn patience(&self) -> Patience {
        Patience::new(self.stall, Instant::now())
    }

    /// Sockets that are left. That they go is a step: a process with a million of them says nothing while the kernel closes them.
    fn sockets(&self) -> Option<u64> {
        self.host.sockstat().ok().map(|now| now.alloc + now.orphan)
    }

    fn check_stall(&mut self, what: &str) -> Result<(), End> {
        self.patience.left(self.sockets(), Instant::now());
        if self.patience.is_over(Instant::now()) { Err(self.stalled(what)) } else { Ok(()) }
    }

    /// Nothing moved for too long. `what` completes "nothing moved while ...".
    fn stalled(&self, what: &str) -> End {
        End::Failed(format!("nothing moved for {}s while {what}", self.stall.as_secs_f64()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_client();
    }
}

fn helper_gone() -> End {
    End::HelperGone
}
