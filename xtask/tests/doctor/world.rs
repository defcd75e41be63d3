//! What a case has in its hands: limits that it lowers, the doctor, and the two programs.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use c1m_host::{
    files,
    guard::{Change, Guard, STATE_FOLDER},
    sockstat,
    sysctl::{Name, Tree},
};
use c1m_record::{Doctor, LimitName, Line, Record};
use c1m_sys::{confine, process::terminate};
use tempfile::TempDir;

use crate::schema::Schema;

/// Connections of every run.
pub(crate) const N: u64 = 20_000;
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A run that has not come further for so long has come to its end.
const STANDSTILL: Duration = Duration::from_millis(1_500);
/// Somebody may be in the middle of a reproduction, which changes the same settings.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::read("c1m-server"));

/// What this host does not give, and why.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Server,
    Client,
}

/// Built as this test was, and beside it.
static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    // As a whole, so that nothing is built with other features than it is already.
    let status = Command::new(cargo)
        .args(["build", "--workspace"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the programs can't be built");
    PathBuf::from(env!("CARGO_BIN_EXE_xtask")).parent().expect("a folder").into()
});

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "c1m-server",
            Self::Client => "c1m-client",
        }
    }
}

/// Somebody who may not look into every folder, such as one in which somebody else builds; so there are copies of the programs.
struct User {
    id: u32,
    programs: TempDir,
}

impl User {
    fn new(id: u32) -> Self {
        let programs = tempfile::tempdir().expect("a folder of one's own");
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        for which in [Which::Server, Which::Client] {
            fs::copy(PROGRAMS.join(which.name()), programs.path().join(which.name()))
                .expect("a copy");
        }
        Self { id, programs }
    }
}

/// What the doctor said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) record: Doctor,
}

pub(crate) struct World {
    /// Puts back what the host's limits were, whatever happens.
    guard: Guard,
    state: TempDir,
    /// Of the doctor that says, of server and client. It is root that applies.
    user: Option<User>,
    /// Of the doctor and the server.
    pub(crate) nofile: Option<u64>,
    pub(crate) connections: u64,
    cgroup: Option<Cgroup>,
    /// That of the host's settings.
    first_network: fs::File,
}

impl World {
    pub(crate) fn new() -> Result<Self, Skip> {
        LazyLock::force(&PROGRAMS);
        let (guard, _) = Guard::take(Tree::at(Tree::KERNEL), STATE_FOLDER.as_ref(), LOCK_PATIENCE)
            .map_err(|error| Skip(error.to_string()))?;
        let state = tempfile::tempdir().expect("a folder of one's own");
        let first_network = fs::File::open("/proc/thread-self/ns/net").expect("this thread");
        Ok(Self {
            guard,
            state,
            user: None,
            nofile: None,
            connections: N,
            cgroup: None,
            first_network,
        })
    }

    /// From now on doctor, server and client are somebody else's than root's.
    pub(crate) fn become_user(&mut self, id: u32) {
        self.user = Some(User::new(id));
    }

    /// Everything is as it was before.
    pub(crate) fn end(mut self) {
        confine::enter_network(&self.first_network).expect("root may");
        for outcome in self.guard.restore() {
            assert!(outcome.is_back(), "{outcome}");
        }
    }

    /// A limit of the host, put back at the end.
    pub(crate) fn lower(&mut self, name: &str, value: u64) -> Result<(), Skip> {
        self.lower_to(name, &value.to_string())
    }

    pub(crate) fn lower_to(&mut self, name: &str, value: &str) -> Result<(), Skip> {
        let name = Name::new(name).expect("a name");
        // Absent, or read-only in a container.
        self.guard
            .set(&[Change { name, value: value.into() }])
            .map_err(|error| Skip(error.to_string()))
    }

    /// A limit of the host that was lowered, as somebody sets it who heard the doctor.
    pub(crate) fn set_host(&mut self, name: &str, value: &str) {
        let own = fs::File::open("/proc/thread-self/ns/net").expect("this thread");
        confine::enter_network(&self.first_network).expect("root may");
        self.lower_to(name, value).expect("it was set before");
        confine::enter_network(&own).expect("root may");
    }

    pub(crate) fn unshare_network(&self) -> Result<(), Skip> {
        confine::unshare_network()
            .map_err(|error| Skip(format!("no network namespace of its own: {error}")))
    }

    pub(crate) fn back_to_first_network(&self) {
        confine::enter_network(&self.first_network).expect("root may");
    }

    /// Another one, with nothing left over in it.
    pub(crate) fn fresh_network(&self) -> Result<(), Skip> {
        self.unshare_network()
    }

    /// A setting of the thread's own network namespace, which ends with it.
    pub(crate) fn set_own(&self, name: &str, value: &str) -> Result<(), Skip> {
        let name = Name::new(name).expect("a name");
        Tree::at(Tree::KERNEL).write(&name, value).map_err(|error| Skip(error.to_string()))
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        Tree::at(Tree::KERNEL).read(&Name::new(name).expect("a name")).expect("it is there")
    }

    /// A memory cgroup for the doctor and the programs.
    pub(crate) fn confine_memory(&mut self) -> Result<(), Skip> {
        self.cgroup = Some(Cgroup::new()?);
        Ok(())
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup(self.cgroup.as_ref().expect("it was made").0.clone())
    }

    fn command(&self, which: Which) -> Command {
        let mut command = Command::new("/bin/sh");
        let folder = self.user.as_ref().map_or(PROGRAMS.as_path(), |user| user.programs.path());
        let enter = self.cgroup.as_ref().map_or(String::new(), |cgroup| {
            format!("echo $$ > {}/cgroup.procs && ", cgroup.0.display())
        });
        command
            .args(["-c", &format!("{enter}exec \"$0\" \"$@\"")])
            .arg(folder.join(which.name()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn as_user(&self, mut command: Command) -> Command {
        if let Some(user) = &self.user {
            command.uid(user.id).gid(user.id);
        }
        command
    }

    /// What the program says that ends by itself: exit code and standard error.
    pub(crate) fn program_says(&self, which: Which, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.as_user(self.command(which));
        command.args(arguments);
        let output = confine::spawn(&mut command, None).and_then(Child::wait_with_output);
        let output = output.expect("it starts and ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().into())
    }

    fn doctor_arguments(&self, arguments: &[&str]) -> Vec<String> {
        let connections = self.connections.to_string();
        let state = self.state.path().display().to_string();
        ["doctor", "--json", "--connections", &connections, "--state-dir", &state]
            .iter()
            .chain(arguments)
            .map(|it| (*it).to_owned())
            .collect()
    }

    pub(crate) fn doctor(&self, arguments: &[&str]) -> Said {
        let mut command = self.as_user(self.command(Which::Server));
        command.args(self.doctor_arguments(arguments));
        let child = confine::spawn(&mut command, self.nofile).expect("the doctor starts");
        let output = child.wait_with_output().expect("the doctor ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_else(|| panic!("{output:?}"));
        SCHEMA.check(last);
        let line: Line<Record> = serde_json::from_str(last).expect("a record");
        let Record::Doctor(record) = line.record else { panic!("{last}") };
        Said { code: output.status.code(), record }
    }

    /// The doctor names this limit first, and gives the number of the connection.
    pub(crate) fn first_wall(&self, limit: LimitName, arguments: &[&str]) -> u64 {
        let said = self.doctor(arguments);
        let first = &said.record.walls[0];
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(
            (said.record.first, first.limit, first.hit),
            (Some(limit), limit, true),
            "{said:?}"
        );
        assert_eq!(said.record.fits, Some(false));
        assert!(first.fix.is_some() && !first.danger.is_empty(), "{first:?}");
        let at = first.stops_at.expect("a number");
        assert!(at <= self.connections);
        at
    }

    /// `reached` is the last connection before the wall, within 2 %.
    pub(crate) fn near(&self, at: u64, reached: u64) {
        eprintln!("said: stops at {at}; the run reached {reached}");
        assert!(
            (at - 1).abs_diff(reached) * 50 <= at,
            "said to stop at {at}, and {reached} were reached"
        );
    }

    /// Runs `then` with what the doctor changes.
    pub(crate) fn applied(&mut self, arguments: &[&str], then: impl FnOnce(&mut Self)) {
        let mut doctor = self.apply(arguments);
        then(self);
        doctor.finish();
    }

    /// Starts a doctor that has changed what is needed when this returns.
    pub(crate) fn apply(&self, arguments: &[&str]) -> Program {
        let mut command = self.command(Which::Server);
        command.args(self.doctor_arguments(arguments)).args(["--apply", "--yes"]);
        let mut program = Program::start(command, None);
        let changes = program.wait_for(|record| match record {
            Record::Applied(applied) => Some(applied.changes.clone()),
            _ => None,
        });
        let changes = changes.unwrap_or_else(|| panic!("nothing applied: {}", program.stderr()));
        assert!(!changes.is_empty());
        program
    }

    /// `--apply --keep`
    pub(crate) fn keep(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut all = self.doctor_arguments(arguments);
        all.extend(["--apply", "--yes", "--keep"].map(str::to_owned));
        self.program_says(Which::Server, &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn restore(&self) -> (Option<i32>, String) {
        let state = self.state.path().display().to_string();
        self.program_says(Which::Server, &["doctor", "--restore", "--state-dir", &state])
    }

    pub(crate) fn serve(&self, arguments: &[&str]) -> (Program, String) {
        let mut command = self.as_user(self.command(Which::Server));
        command.args(["--json", "--listen", "127.0.0.1:0"]);
        if !arguments.contains(&"--interval") {
            command.args(["--interval", "50ms"]);
        }
        command.args(arguments);
        let mut server = Program::start(command, self.nofile);
        let address = server.wait_for(|record| match record {
            Record::Listening(listening) => Some(listening.address.clone()),
            _ => None,
        });
        let address = address.unwrap_or_else(|| panic!("no server: {}", server.stderr()));
        (server, address)
    }

    pub(crate) fn connect(&self, address: &str, arguments: &[&str]) -> Child {
        let mut command = self.as_user(self.command(Which::Client));
        command
            .args(["--connect", address, "--connections", &self.connections.to_string()])
            .args(["--quiet", "--timeout", "5s"])
            .args(arguments)
            .stdout(Stdio::null());
        // What it says is for people who look for the reason.
        command.stderr(Stdio::inherit());
        confine::spawn(&mut command, None).expect("the client starts")
    }

    /// A run: how many connections the server held when it came no further.
    pub(crate) fn run(&self, server: &[&str], client: &[&str]) -> u64 {
        let (mut server, address) = self.serve(server);
        let _client = Killed(self.connect(&address, client));
        let held = server.held_at_standstill(self.connections);
        server.kill();
        held
    }
}

/// A program of c1m-server whose records are read. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Program {
    fn start(mut command: Command, nofile: Option<u64>) -> Self {
        let mut child = confine::spawn(&mut command, nofile).expect("it starts");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).take_while(|l| sender.send(l.clone()).is_ok()).count()
        });
        let mut err = child.stderr.take().expect("a pipe");
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            // What is no text says nothing either.
            let _ = err.read_to_string(&mut text);
            text
        });
        Self { child, lines, stderr: Some(stderr) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&mut self, signal: i32) {
        confine::signal(&mut self.child, signal).expect("it is ours");
    }

    /// The first record from now on for which `choose` has an answer. `None`: it has ended, or it does not come.
    pub(crate) fn wait_for<T>(
        &mut self,
        mut choose: impl FnMut(&Record) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let line =
                self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
            SCHEMA.check(&line);
            let line: Line<Record> = serde_json::from_str(&line).expect("a record");
            if let Some(chosen) = choose(&line.record) {
                return Some(chosen);
            }
        }
    }

    /// The most connections that it held, until it holds `all`, comes no further, or ends.
    pub(crate) fn held_at_standstill(&mut self, all: u64) -> u64 {
        let (mut held, mut moved) = (0, Instant::now());
        // The first connection may be long in coming.
        while held < all
            && (held == 0 && moved.elapsed() < PATIENCE || moved.elapsed() < STANDSTILL)
        {
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let line: Line<Record> = serde_json::from_str(&line).expect("a record");
                    if let Record::Online(now) = line.record
                        && now.online > held
                    {
                        (held, moved) = (now.online, Instant::now());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        held
    }

    /// Ends it by SIGTERM; it has to end well, or with the exit code of a wall that is left.
    pub(crate) fn finish(&mut self) {
        terminate(&mut self.child).expect("it is ours");
        let back = self.wait_for(|record| match record {
            Record::Restored(restored) => Some(restored.clone()),
            _ => None,
        });
        let stderr = self.stderr();
        assert!(back.is_some_and(|it| it.back), "{stderr}");
        self.child.wait().expect("it is ours");
    }

    pub(crate) fn kill(&mut self) {
        // One that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn stderr(&mut self) -> String {
        let _ = terminate(&mut self.child);
        self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child that does not outlive this.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A memory cgroup, version 1 or 2.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self, Skip> {
        let (v1, v2) = (PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup"));
        let root = if v1.join("memory.usage_in_bytes").exists() {
            v1
        } else {
            fs::write(v2.join("cgroup.subtree_control"), "+memory")
                .map_err(|error| Skip(format!("no memory cgroups for children: {error}")))?;
            v2
        };
        let folder = root.join(format!("c1m-doctor-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| Skip(format!("no memory cgroup: {error}")))?;
        Ok(Self(folder))
    }

    pub(crate) fn limit(&self, bytes: u64) -> Result<(), Skip> {
        let files = ["memory.limit_in_bytes", "memory.max"];
        let file = files.into_iter().find(|file| self.0.join(file).exists());
        let file = file.ok_or_else(|| Skip("the memory cgroup has no limit".into()))?;
        fs::write(self.0.join(file), bytes.to_string())
            .map_err(|error| Skip(format!("cannot write {file}: {error}")))
    }
}

impl Drop for World {
    /// The guard goes after this, and has to be where it changed something, also when a case panics.
    fn drop(&mut self) {
        confine::enter_network(&self.first_network).expect("root may");
        let Some(cgroup) = &self.cgroup else { return };
        let end = Instant::now() + Duration::from_secs(5);
        // Who was in it may still be on the way out.
        while fs::remove_dir(&cgroup.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn file_nr() -> u64 {
    files::file_nr().expect("every kernel has it").allocated
}

pub(crate) fn tcp_mem_pages() -> u64 {
    sockstat::sockstat().expect("every kernel has it").tcp_mem_pages
}
