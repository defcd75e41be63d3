//! Runs `xtask reproduce` on a fixture: a folder with a tree of settings, a state folder, and fake programs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use c1m_testkit::{Child, child::is_running, eventually, schema::Schema};
use serde_json::Value;
use tempfile::TempDir;

use super::fake;

pub(crate) const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
pub(crate) const TCP_MEM: &str = "287898 383867 575796";

pub(crate) struct Fixture {
    folder: TempDir,
}

/// What a finished run has left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The last line of `--json`; all of them are checked against the schema.
    pub(crate) fn last_json(&self) -> Value {
        let schema = Schema::read("reproduce");
        self.stdout.lines().for_each(|line| schema.check(line));
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("no output: {self:?}"));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn expect_error(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "`{part}` is not in:\n{}", self.stderr);
        self
    }
}

impl Fixture {
    pub(crate) fn new(scenario: &str) -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        for (name, value) in [
            ("../net/sockstat", "sockets: used 14\nTCP: inuse 1 orphan 0 tw 1 alloc 1 mem 275\n"),
            ("../net/netstat", "TcpExt: TCPMemoryPressures\nTcpExt: 1\n"),
            (
                "../meminfo",
                "MemTotal: 25000000 kB\nMemFree: 24000000 kB\nMemAvailable: 24000000 kB\nBuffers: 0 kB\nCached: 0 kB\nSlab: 100000 kB\n",
            ),
            ("../stat", "cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 5\n"),
            ("kernel/osrelease", "6.18.0\n"),
            ("fs/file-nr", "900\t0\t9223372036854775807\n"),
            ("net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
            ("net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("net/ipv4/ip_local_reserved_ports", "\n"),
            ("net/core/mem_pcpu_rsv", "256\n"),
            ("fs/file-max", "9223372036854775807\n"),
            ("fs/epoll/max_user_watches", "5491511\n"),
        ] {
            let path = fixture.path("proc/sys").join(name);
            fs::create_dir_all(fixture.path("proc/sys")).unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        fake::install(fixture.folder.path());
        fixture.set_scenario(scenario);
        fixture
    }

    pub(crate) fn set_scenario(&self, scenario: &str) {
        fs::write(self.path("scenario"), scenario).unwrap();
        let _ = fs::remove_file(self.path("count"));
        let _ = fs::remove_file(self.path("pinned"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("proc/sys").join(name)).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn tcp_mem(&self) -> String {
        self.setting("net/ipv4/tcp_mem")
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.path("run/sysctl.json")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_with_stall("15s", arguments)
    }

    fn command_with_stall(&self, stall: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(XTASK);
        command
            .args(["reproduce", "--stall", stall, "--proc-dir"])
            .arg(self.path("proc"))
            .arg("--state-dir")
            .arg(self.path("run"))
            .arg("--server-program")
            .arg(self.path(fake::SERVER))
            .arg("--client-program")
            .arg(self.path(fake::CLIENT))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A run of 16,000 connections with JSON.
    pub(crate) fn start(&self) -> process::Child {
        self.command(&["--connections", "16000", "--yes", "--json"]).spawn().unwrap()
    }

    /// The same, ended when nothing moves for so long.
    pub(crate) fn start_with_stall(&self, stall: &str) -> process::Child {
        let arguments = ["--connections", "16000", "--yes", "--json"];
        self.command_with_stall(stall, &arguments).spawn().unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments).spawn().unwrap())
    }

    pub(crate) fn run_all(&self) -> Finished {
        finish(self.start())
    }

    /// Waits until the client stops halfway in act 1.
    pub(crate) fn wait_for_halfway(&self) {
        let half = || fs::read_to_string(self.path("count")).is_ok_and(|text| text == "8800");
        assert!(eventually(half), "the fake client never came to the half");
        assert_eq!(self.tcp_mem(), "14569 19426 29139");
    }

    pub(crate) fn pid(&self, program: &str) -> u32 {
        fs::read_to_string(self.path(program).with_extension("pid")).unwrap().parse().unwrap()
    }

    /// Everything is as it was: settings, state file, processes.
    #[track_caller]
    pub(crate) fn expect_untouched(&self) {
        let settings = || self.tcp_mem() == TCP_MEM && !self.state_file().exists();
        assert!(
            eventually(settings),
            "tcp_mem is {}, state file: {}",
            self.tcp_mem(),
            self.state_file().exists()
        );
        for program in [fake::SERVER, fake::CLIENT] {
            if self.path(program).with_extension("pid").exists() {
                let pid = self.pid(program);
                assert!(eventually(|| !is_running(pid)), "{program} ({pid}) is still there");
            }
        }
    }
}

/// Waits for the end.
pub(crate) fn finish(child: impl Into<Child>) -> Finished {
    let outcome = child.into().end().unwrap();
    Finished { code: outcome.code, stdout: outcome.stdout(), stderr: outcome.stderr }
}

/// The lines of a stream, each as JSON.
pub(crate) fn json_lines(stream: impl std::io::Read) -> impl Iterator<Item = Value> {
    BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
}
