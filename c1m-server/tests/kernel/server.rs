//! c1m-server with `--trace --json`, as a program, and the records that it prints.

use std::{
    env,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::PathBuf,
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use c1m_probe::{plan::Probe, probes::PROBES};
use c1m_record::{Hook, Record, Summary};
use c1m_testkit::{Outcome, Program, Skip, schema};

/// The server: what was built with this test, or what is beside it in a guest.
pub(crate) fn binary() -> PathBuf {
    env::var_os("C1M_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_c1m-server").into()).into()
}

/// The refusal when it is one of the host's. A server that fails by itself is not a reason to skip.
fn refusal(Outcome { code, stderr, .. }: &Outcome) -> Skip {
    let host = ["tracing needs ", "EPERM", "Operation not permitted"];
    let is_hosts = *code == Some(3) && host.iter().any(|part| stderr.contains(part));
    assert!(is_hosts, "exit {code:?}: {stderr}");
    Skip(stderr.trim().into())
}

/// A running server, and the records that it has printed since it listens.
pub(crate) struct Server {
    program: Program<Record>,
    hooks: Vec<Hook>,
    pub(crate) address: SocketAddr,
}

impl Deref for Server {
    type Target = Program<Record>;

    fn deref(&self) -> &Self::Target {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.program
    }
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
        let mut command = Command::new(binary());
        command.args(["--trace", "--json", "--listen", listen]).args(without).args(arguments);
        let mut program = Program::start(&mut command, &schema::SERVER).unwrap();
        let hooks = match program.record() {
            Some(Record::Hooks(hooks)) => hooks.hooks,
            Some(other) => panic!("no hooks, but {other:?}"),
            None => return Err(refusal(&program.end())),
        };
        let Some(Record::Listening(listening)) = program.record() else {
            panic!("it does not listen: {:?}", program.end());
        };
        assert_eq!(listening.pid, program.pid());
        program.lines.clear();
        check(&hooks);
        Ok(Self { program, hooks, address: listening.address.parse().unwrap() })
    }

    /// How this signal is got here.
    pub(crate) fn hook(&self, signal: &str) -> &Hook {
        let hook = self.hooks.iter().find(|hook| hook.probe == signal);
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

    /// Skips the test unless it comes from a hook on a kernel function.
    pub(crate) fn needs_function(&self, signal: &str) -> Result<String, Skip> {
        let name = self.needs(signal)?;
        if name.starts_with("tp_btf/") {
            let reason = self.hook(signal).reason.as_deref();
            return Err(Skip(format!("{signal}: {}", reason.unwrap_or("a tracepoint is better"))));
        }
        Ok(name)
    }

    /// Ends it by SIGTERM, and returns its last record.
    pub(crate) fn finish(&mut self) -> Summary {
        let Outcome { code, stderr, .. } = self.program.finish();
        assert_eq!(code, Some(0), "{stderr}");
        match self.records().next_back() {
            Some(Record::Summary(summary)) => summary.clone(),
            other => panic!("the last record is {other:?}: {stderr}"),
        }
    }
}

/// What holds on every host.
pub(crate) fn check(hooks: &[Hook]) {
    let ids: Vec<&str> = hooks.iter().map(|hook| hook.probe.as_str()).collect();
    let known: Vec<&str> = PROBES.iter().map(|probe| probe.id).collect();
    assert_eq!(ids, known);
    for hook in hooks {
        // One that the verifier refuses is a failure of ours, and no reason to skip anything.
        let reason = hook.reason.as_deref().unwrap_or_default();
        assert!(!reason.contains("verifier"), "{hook:?}");
        assert_eq!(hook.reason.is_some(), !hook.refused.is_empty(), "{hook:?}");
        assert_eq!(
            hook.hook.is_some(),
            hook.resolution.is_some() && hook.says.is_some(),
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
