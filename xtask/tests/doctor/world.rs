//! What a case has in its hands: limits that it lowers, the doctor, and the two programs.

use std::{
    env, fs,
    ops::{Deref, DerefMut},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use c1m_host::files;
use c1m_record::{Doctor, LimitName, Record};
use c1m_sys::confine;
use c1m_testkit::{
    Child, Outcome, PATIENCE, Settings, Skip, cgroup::Cgroup, child::Copy, host, only, schema,
};
use tempfile::TempDir;

/// Connections of every run.
pub(crate) const N: u64 = 20_000;
/// A run that has not come further for so long has come to its end.
const STANDSTILL: Duration = Duration::from_millis(1_500);
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

/// Somebody without a privilege.
struct User {
    id: u32,
    server: Copy,
    client: Copy,
}

impl User {
    fn new(id: u32) -> Self {
        let copy = |which: Which| Copy::of(&PROGRAMS.join(which.name())).expect("a copy");
        Self { id, server: copy(Which::Server), client: copy(Which::Client) }
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
    settings: Settings,
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
        let settings = Settings::take()?;
        let state = tempfile::tempdir().expect("a folder of one's own");
        let first_network = fs::File::open("/proc/thread-self/ns/net").expect("this thread");
        Ok(Self {
            settings,
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
        self.settings.put_back();
    }

    /// A limit of the host, put back at the end.
    pub(crate) fn lower(&mut self, name: &str, value: u64) -> Result<(), Skip> {
        self.lower_to(name, &value.to_string())
    }

    pub(crate) fn lower_to(&mut self, name: &str, value: &str) -> Result<(), Skip> {
        self.settings.set(&[(name, value.into())])
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

    /// A memory cgroup for the doctor and the programs.
    pub(crate) fn confine_memory(&mut self) -> Result<(), Skip> {
        self.cgroup = Some(Cgroup::new("doctor")?);
        Ok(())
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().expect("it was made")
    }

    fn command(&self, which: Which) -> Command {
        let mut command = Command::new("/bin/sh");
        let program = match (&self.user, which) {
            (None, _) => PROGRAMS.join(which.name()),
            (Some(user), Which::Server) => user.server.path.clone(),
            (Some(user), Which::Client) => user.client.path.clone(),
        };
        let enter = self.cgroup.as_ref().map_or(String::new(), |cgroup| {
            format!("echo $$ > {}/cgroup.procs && ", cgroup.folder.display())
        });
        command.args(["-c", &format!("{enter}exec \"$0\" \"$@\"")]).arg(program);
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
        let Outcome { code, stderr, .. } = self.outcome(command.args(arguments), None);
        (code, stderr.trim().into())
    }

    fn outcome(&self, command: &mut Command, nofile: Option<u64>) -> Outcome {
        let ended = Child::confined(command, nofile).and_then(|mut child| child.end());
        ended.expect("it starts and ends")
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
        let outcome = self.outcome(&mut command, self.nofile);
        let Some(Record::Doctor(record)) = outcome.records(&schema::SERVER).pop() else {
            panic!("{outcome:?}")
        };
        Said { code: outcome.code, record }
    }

    /// The doctor names this limit first, and gives the number of the connection.
    pub(crate) fn first_wall(&self, limit: LimitName, arguments: &[&str]) -> u64 {
        let said = self.doctor(arguments);
        let first = &said.record.limits[0];
        assert_eq!(said.code, Some(1), "{said:?}");
        assert_eq!(
            (said.record.first, first.limit, first.hit),
            (Some(limit), limit, true),
            "{said:?}"
        );
        assert_eq!(said.record.fits, Some(false));
        assert!(first.fix.is_some() && !first.risk.is_empty(), "{first:?}");
        let at = first.stops_at.expect("a number");
        assert!(at <= self.connections);
        at
    }

    /// `reached` is the last connection before the limit, within 2 %.
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
        let applied = program.wait_for("changes", only!(Record::Applied));
        assert!(!applied.changes.is_empty());
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
        let address = server.wait_for("server", only!(Record::Listening)).address;
        (server, address)
    }

    pub(crate) fn connect(&self, address: &str, arguments: &[&str]) -> Child {
        let mut command = self.as_user(self.command(Which::Client));
        command
            .args(["--connect", address, "--connections", &self.connections.to_string()])
            .args(["--quiet", "--timeout", "5s"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // Its standard error is for people who look for the reason.
        confine::spawn(&mut command, None).expect("the client starts").into()
    }

    /// A run: how many connections the server held when it came no further.
    pub(crate) fn run(&self, server: &[&str], client: &[&str]) -> u64 {
        let (mut server, address) = self.serve(server);
        let _client = self.connect(&address, client);
        let held = server.held_at_standstill(self.connections);
        server.child().kill();
        held
    }
}

/// A running c1m-server.
pub(crate) struct Program(c1m_testkit::Program<Record>);

impl Deref for Program {
    type Target = c1m_testkit::Program<Record>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Program {
    fn start(mut command: Command, nofile: Option<u64>) -> Self {
        let child = Child::confined(&mut command, nofile).expect("it starts");
        Self(c1m_testkit::Program::of(child, Some(&schema::SERVER)))
    }

    /// The most connections that it held, until it holds `all`, comes no further, or ends.
    pub(crate) fn held_at_standstill(&mut self, all: u64) -> u64 {
        let (mut held, mut moved) = (0, Instant::now());
        // The first connection may be long in coming.
        while held < all
            && (held == 0 && moved.elapsed() < PATIENCE || moved.elapsed() < STANDSTILL)
        {
            match self.next(Duration::from_millis(50)) {
                Some(Record::Online(now)) if now.online > held => {
                    (held, moved) = (now.online, Instant::now());
                }
                None if self.child().ended().expect("it is ours").is_some() => break,
                _ => {}
            }
        }
        held
    }

    /// Ends it by SIGTERM; it has to put back what it changed.
    pub(crate) fn finish(&mut self) {
        let outcome = self.0.finish();
        let restored = self.last(only!(Record::Restored));
        assert!(restored.is_some_and(|it| it.back), "{outcome:?}");
    }
}

impl Drop for World {
    /// The guard goes after this, and has to be where it changed something, also when a case panics.
    fn drop(&mut self) {
        confine::enter_network(&self.first_network).expect("root may");
    }
}

pub(crate) fn file_nr() -> u64 {
    files::file_nr().expect("every kernel has it").allocated
}

pub(crate) fn tcp_mem_pages() -> u64 {
    host::sockets().expect("every kernel has it").tcp_mem_pages
}
