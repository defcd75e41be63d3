//! The first process of a guest: mounts what a system has, runs the command, hands up its code, and switches the machine off.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    process::{Resource, Rlimit, WaitOptions, setrlimit, wait},
    system::{RebootCommand, finit_module, reboot},
    termios::tcdrain,
};

use super::channel::{self, Stream};

/// What the guest has to do. Its presence tells a guest from a container, whose first process may be xtask too.
pub(super) const ORDERS: &str = "/etc/c1m-guest.json";
/// The kernel's second serial port: the first one is its console.
const CHANNEL: &str = "/dev/ttyS1";
/// fs.nr_open, and the limit of open files that the command starts with: enough for all connections in one table.
const NR_OPEN: u64 = 1 << 21;
const NOFILE: u64 = 1 << 20;
/// Controllers that groups below the root may use, where the kernel has them.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// The exit code when the command could not be run at all.
const INTERNAL: i32 = 4;
/// How long output may come when the command has ended, from processes that it left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// File systems, in this order: kind, folder, options.
const MOUNTS: [(&str, &str, &CStr); 7] = [
    ("devtmpfs", "/dev", c""),
    ("proc", "/proc", c""),
    ("sysfs", "/sys", c""),
    ("tmpfs", "/run", c"mode=755"),
    ("cgroup2", "/sys/fs/cgroup", c""),
    ("tracefs", "/sys/kernel/tracing", c""),
    ("bpf", "/sys/fs/bpf", c""),
];

const TEMPORARY: &str = "/tmp";
/// Flags of the loopback interface, and IFF_UP among them (net/core/net-sysfs.c, flags_store, 6.18).
const LOOPBACK_FLAGS: &str = "/sys/class/net/lo/flags";
const IFF_UP: &str = "0x1";

/// What the guest has to do.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Orders {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Paths in the guest, each behind those that it depends on.
    pub(super) modules: Vec<String>,
}

/// Is this the first process of a guest?
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(ORDERS).exists()
}

/// Does everything. Returns only when the kernel does not switch off, after which it panics: its first process is gone.
pub(crate) fn main() -> ExitCode {
    let result = mount_all().and_then(|()| open_channel());
    match result {
        Ok(channel) => {
            let channel = Arc::new(Mutex::new(channel));
            let code = run(&channel).unwrap_or_else(|error| {
                tell(&channel, &format!("guest: {error:#}"));
                INTERNAL
            });
            if let Err(error) = end(channel, code) {
                eprintln!("guest: cannot hand the verdict up: {error}");
            }
        }
        Err(error) => eprintln!("guest: {error:#}"),
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("guest: cannot switch off: {error}");
    }
    ExitCode::FAILURE
}

type Channel = Arc<Mutex<File>>;

fn mount_all() -> Result<()> {
    for (kind, folder, options) in MOUNTS {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
        mount(kind, folder, kind, MountFlags::empty(), options)
            .with_context(|| format!("cannot mount {kind} on {folder}"))?;
    }
    // In memory as it is, and nothing may hide what was brought along there.
    fs::create_dir_all(TEMPORARY)
        .and_then(|()| fs::set_permissions(TEMPORARY, Permissions::from_mode(0o1777)))
        .with_context(|| format!("cannot make {TEMPORARY}"))?;
    Ok(())
}

fn open_channel() -> Result<File> {
    OpenOptions::new()
        .write(true)
        // It must not become anybody's terminal: a hang-up would end its processes.
        .custom_flags(libc::O_NOCTTY)
        .open(CHANNEL)
        .with_context(|| format!("cannot open {CHANNEL}"))
}

fn run(channel: &Channel) -> Result<i32> {
    let orders = fs::read(ORDERS).with_context(|| format!("cannot read {ORDERS}"))?;
    let orders: Orders = serde_json::from_slice(&orders).context("the orders are torn")?;
    for module in &orders.modules {
        let file = File::open(module).with_context(|| format!("cannot open {module}"))?;
        match finit_module(&file, c"", 0) {
            // One that is there already is no error.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(format!("the kernel refuses {module}")),
        }
    }
    prepare()?;
    let (program, arguments) = orders.command.split_first().context("there is no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", TEMPORARY)
        .envs(&orders.env)
        .current_dir(TEMPORARY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let (ended, relays) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        relay(Stream::Stdout, output, channel, ended.clone());
    }
    if let Some(output) = child.stderr.take() {
        relay(Stream::Stderr, output, channel, ended);
    }
    let code = code_of(child.id()).context("cannot wait for the command")?;
    // Both streams have ended, or somebody who was left behind holds one of them.
    for _ in 0..2 {
        if relays.recv_timeout(PATIENCE).is_err() {
            break;
        }
    }
    Ok(code)
}

/// Waits for the end of a child, and of every other process: the first process inherits those that
/// their parents left. The child's exit code, or 128 and the number of the signal that ended it.
fn code_of(child: u32) -> io::Result<i32> {
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty())?
            && pid.as_raw_nonzero().get().cast_unsigned() == child
        {
            let by_signal = || status.terminating_signal().map_or(INTERNAL, |it| 128 + it);
            return Ok(status.exit_status().unwrap_or_else(by_signal));
        }
    }
}

/// What a system's start would have done.
fn prepare() -> Result<()> {
    let set = |file: &str, value: &str| {
        fs::write(file, value).with_context(|| format!("cannot write {value} to {file}"))
    };
    set(LOOPBACK_FLAGS, IFF_UP)?;
    set("/proc/sys/fs/nr_open", &NR_OPEN.to_string())?;
    setrlimit(Resource::Nofile, Rlimit { current: Some(NOFILE), maximum: Some(NOFILE) })
        .context("cannot raise the limit of open files")?;
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("cannot read the controllers of cgroup2")?;
    for controller in controllers.split_whitespace().filter(|name| CONTROLLERS.contains(name)) {
        set("/sys/fs/cgroup/cgroup.subtree_control", &format!("+{controller}"))?;
    }
    Ok(())
}

fn relay(
    stream: Stream,
    from: impl io::Read + Send + 'static,
    channel: &Channel,
    ended: mpsc::Sender<()>,
) {
    let channel = Arc::clone(channel);
    thread::spawn(move || {
        let send = |line: &[u8]| lock(&channel).write_all(line);
        if let Err(error) = channel::relay(stream, BufReader::new(from), send) {
            eprintln!("guest: cannot hand output up: {error}");
        }
        // The receiver has gone when this came too late.
        let _ = ended.send(());
    });
}

fn lock(channel: &Channel) -> std::sync::MutexGuard<'_, File> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(channel: &Channel, text: &str) {
    let send = |line: &[u8]| lock(channel).write_all(line);
    if channel::relay(Stream::Stderr, text.as_bytes(), send).is_err() {
        eprintln!("{text}");
    }
}

/// The verdict, and all that is still in the port's buffer.
fn end(channel: Channel, code: i32) -> io::Result<()> {
    let mut port = lock(&channel);
    channel::verdict(&mut *port, code)?;
    Ok(tcdrain(&*port)?)
}
