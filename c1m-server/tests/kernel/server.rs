//! c1m-server with `--trace --json`, as a program, and the records that it prints.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use c1m_probe::{plan::Probe, probes::PROBES};
use c1m_record::{Hook, Line, Record, SCHEMA_VERSION, Summary};
use c1m_sys::process::terminate;

use crate::schema::Schema;

/// The server: what was built with this test, or what stands beside it in a guest.
pub(crate) fn binary() -> PathBuf {
    env::var_os("C1M_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_c1m-server").into()).into()
}

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::read("c1m-server"));

/// What this host does not give, and why.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl Skip {
    /// The refusal in `output` when it is one of the host's. A server that fails by itself is not a reason to skip.
    fn of(code: Option<i32>, stderr: &str) -> Option<Self> {
        let host = ["tracing needs ", "EPERM", "Operation not permitted"];
        (code == Some(3) && host.iter().any(|part| stderr.contains(part)))
            .then(|| Self(stderr.trim().into()))
    }
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    hooks: Vec<Hook>,
    pub(crate) address: SocketAddr,
    /// Everything that was taken so far but `hooks` and `listening`.
    pub(crate) records: Vec<Record>,
}

impl Server {
    /// Starts it on a port of the kernel's choice.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Skip> {
        Self::start_on("127.0.0.1:0", arguments)
    }

    pub(crate) fn start_on(listen: &str, arguments: &[&str]) -> Result<Self, Skip> {
        let without = if BY_KPROBES.load(Relaxed) {
            &["--without-hook", "fentry", "--without-hook", "fexit"][..]
        } else {
            &[]
        };
        let mut child = Command::new(binary())
            .args(["--trace", "--json", "--listen", listen])
            .args(without)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // Ends with the pipe, or with the test.
            out.lines().map_while(Result::ok).take_while(|l| sender.send(l.clone()).is_ok()).count()
        });
        let mut err = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let mut server = Self {
            child,
            lines,
            stderr: Some(stderr),
            hooks: Vec::new(),
            address: SocketAddr::from(([0; 4], 0)),
            records: Vec::new(),
        };
        match server.next(PATIENCE) {
            Some(Record::Hooks(hooks)) => server.hooks = hooks.hooks,
            Some(other) => panic!("no hooks, but {other:?}"),
            None => return Err(server.refusal()),
        }
        match server.next(PATIENCE) {
            Some(Record::Listening(listening)) => {
                server.address = listening.address.parse().unwrap();
                assert_eq!(listening.pid, server.pid());
            }
            other => panic!("it does not listen, but says {other:?}: {}", server.end().1),
        }
        server.records.clear();
        check(&server.hooks);
        Ok(server)
    }

    fn refusal(&mut self) -> Skip {
        let (code, stderr) = self.end();
        Skip::of(code, &stderr).unwrap_or_else(|| panic!("exit {code:?}: {stderr}"))
    }

    /// How this signal is got here.
    pub(crate) fn hook(&self, signal: &str) -> &Hook {
        let hook = self.hooks.iter().find(|hook| hook.signal == signal);
        hook.unwrap_or_else(|| panic!("no {signal} among {:?}", self.hooks))
    }

    /// Skips the test unless a program tells this signal. With its name.
    pub(crate) fn needs(&self, signal: &str) -> Result<String, Skip> {
        let hook = self.hook(signal);
        match &hook.hook {
            Some(name) if hook.attached => Ok(name.clone()),
            _ => Err(Skip(format!("{signal}: {}", hook.reason.as_deref().unwrap_or("no reason")))),
        }
    }

    /// Skips the test unless it is told by a hook on a kernel function.
    pub(crate) fn needs_function(&self, signal: &str) -> Result<String, Skip> {
        let name = self.needs(signal)?;
        if name.starts_with("tp_btf/") {
            let reason = self.hook(signal).reason.as_deref();
            return Err(Skip(format!("{signal}: {}", reason.unwrap_or("a tracepoint is better"))));
        }
        Ok(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next record, held against the schema. `None`: nothing came in time, or nothing comes any more.
    fn next(&mut self, patience: Duration) -> Option<Record> {
        let line = self.lines.recv_timeout(patience).ok()?;
        Some(self.take(&line))
    }

    fn take(&mut self, line: &str) -> Record {
        SCHEMA.check(line);
        let parsed: Line<Record> =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(parsed.v, SCHEMA_VERSION);
        self.records.push(parsed.record.clone());
        parsed.record
    }

    /// The first record from now on for which `choose` has an answer; `None` when it does not come within `patience`.
    pub(crate) fn wait_for<T>(
        &mut self,
        patience: Duration,
        mut choose: impl FnMut(&Record) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + patience;
        loop {
            let record = self.next(end.saturating_duration_since(Instant::now()))?;
            if let Some(chosen) = choose(&record) {
                return Some(chosen);
            }
        }
    }

    /// Ends it by SIGTERM, and returns its last record.
    pub(crate) fn finish(&mut self) -> Summary {
        terminate(&mut self.child).unwrap();
        let summary = self.wait_for(PATIENCE, |record| match record {
            Record::Summary(summary) => Some(summary.clone()),
            _ => None,
        });
        let behind = self.lines.recv_timeout(PATIENCE);
        assert_eq!(behind, Err(RecvTimeoutError::Disconnected), "behind the summary");
        let (code, stderr) = self.end();
        assert_eq!(code, Some(0), "{stderr}");
        summary.unwrap_or_else(|| panic!("no summary: {stderr}"))
    }

    /// Waits for its end: exit code and what it wrote to standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let end = Instant::now() + PATIENCE;
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if Instant::now() > end => {
                    self.child.kill().unwrap();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        (code, self.stderr.take().map(|thread| thread.join().unwrap()).unwrap_or_default())
    }
}

/// What holds on every host.
pub(crate) fn check(hooks: &[Hook]) {
    let ids: Vec<&str> = hooks.iter().map(|hook| hook.signal.as_str()).collect();
    let known: Vec<&str> = PROBES.iter().map(|probe| probe.id).collect();
    assert_eq!(ids, known);
    for hook in hooks {
        // One that the verifier refuses is a failure of ours, and no reason to skip anything.
        let reason = hook.reason.as_deref().unwrap_or_default();
        assert!(!reason.contains("verifier"), "{hook:?}");
        assert_eq!(hook.reason.is_some(), !hook.refused.is_empty(), "{hook:?}");
        assert_eq!(
            hook.hook.is_some(),
            hook.precision.is_some() && hook.says.is_some(),
            "{hook:?}"
        );
        assert!(hook.hook.is_some() || !hook.attached && hook.reason.is_some(), "{hook:?}");
    }
}

/// The ring buffer was large enough, and everything in it was understood. That the kernel skips a program which an interrupt finds running is
/// rare, and nothing that a test can rule out; what it would have changed fails by itself.
pub(crate) fn nothing_lost_by_us(summary: &Summary) {
    let is_skip = |by: &String| PROBES.iter().any(|probe| tells_of(probe, by));
    assert!(summary.dropped_by.keys().all(is_skip), "{summary:?}");
    assert_eq!(summary.dropped, Some(summary.dropped_by.values().sum()), "{summary:?}");
}

/// Has this probe an attach method by that hook?
fn tells_of(probe: &Probe, hook: &str) -> bool {
    probe.methods.iter().any(|method| method.name().split(" + ").any(|name| name == hook))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of a test that failed nothing stays behind. One that has ended is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Servers that are started now hook functions by kprobe alone. Tests run one after the other.
static BY_KPROBES: AtomicBool = AtomicBool::new(false);

/// Runs a test with kprobes, where it would run with trampolines.
pub(crate) fn by_kprobes(test: fn() -> Result<(), Skip>) -> Result<(), Skip> {
    /// A test may end by a panic.
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            BY_KPROBES.store(false, Relaxed);
        }
    }
    /// Why there are none: asked once, with a server of its own.
    static REFUSAL: LazyLock<Option<String>> = LazyLock::new(|| {
        let server = Server::start(&[]).unwrap_or_else(|Skip(reason)| panic!("{reason}"));
        match server.needs_function("orphans_given_up") {
            Ok(name) => {
                assert_eq!(name, "kretprobe/tcp_check_oom");
                None
            }
            Err(Skip(reason)) => Some(reason),
        }
    });
    needs_ebpf()?;
    let _until = Until;
    BY_KPROBES.store(true, Relaxed);
    REFUSAL.clone().map_or(Ok(()), |reason| Err(Skip(reason)))?;
    test()
}

/// Skips the test where eBPF can't be loaded, before it waits for anything.
pub(crate) fn needs_ebpf() -> Result<(), Skip> {
    static REFUSAL: LazyLock<Option<String>> = LazyLock::new(|| match Server::start(&[]) {
        Ok(mut server) => {
            server.finish();
            None
        }
        Err(Skip(reason)) => Some(reason),
    });
    REFUSAL.clone().map_or(Ok(()), |reason| Err(Skip(reason)))
}

/// Runs the binary to its end: what it said before it listened.
pub(crate) fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.wait_with_output().unwrap()
}
