//! One guest, from its start under qemu to the verdict.
//!
//! Always `-accel tcg`: /dev/kvm can be there and hang, and what is measured in a guest is never a time.

use std::{
    env, fmt, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use c1m_sys::process::spawn_dying_with_parent;

use super::{
    channel::{self, Message, Stream},
    init::Orders,
    initramfs::{self, Brought},
    kernel::Kernel,
    modules,
};
use crate::{debian, exit, place};

const QEMU: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// The second serial port is the channel. `panic=-1` with `-no-reboot` ends qemu at once, and what a kernel survives somehow is a
/// failure too.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 oops=panic mitigations=off random.trust_cpu=on";
/// Lines of the console that a failure shows.
const TAIL: usize = 40;
/// Between the verdict and the end of qemu.
const SWITCH_OFF: Duration = Duration::from_secs(20);

/// How long a guest may take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// For everything, from the start of qemu.
    Whole(Duration),
    /// From one line of its command to the next: what moves may go on, however slow the machine is.
    Silence(Duration),
}

impl Limit {
    /// When a guest has had its time that was started then, and of which a line came last then.
    /// `None`: never, since the clock does not reach it.
    fn end(self, start: Instant, last_line: Instant) -> Option<Instant> {
        match self {
            Self::Whole(time) => start.checked_add(time),
            Self::Silence(time) => last_line.checked_add(time),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(time) => write!(f, "it did not end within {} s", time.as_secs()),
            Self::Silence(time) => write!(f, "its command said nothing for {} s", time.as_secs()),
        }
    }
}

/// What to boot, and what to run in it.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: u32,
    pub(crate) limit: Limit,
    /// Names, without what they depend on.
    pub(crate) modules: Vec<String>,
    /// With the static xtask at [`initramfs::XTASK`].
    pub(crate) files: Vec<Brought>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
    /// Added to the arguments of the kernel.
    pub(crate) append: String,
}

impl Guest {
    /// A small one, with nothing in it but the command's name.
    pub(crate) fn new(kernel: Kernel, command: Vec<String>) -> Self {
        Self {
            kernel,
            memory_bytes: 2 << 30,
            cpus: 1,
            limit: Limit::Whole(Duration::from_secs(120)),
            modules: Vec::new(),
            files: Vec::new(),
            env: Vec::new(),
            command,
            append: String::new(),
        }
    }
}

/// How a guest ended, when it came to its end by itself.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The command's exit code, or 128 and the signal that ended it.
    pub(crate) code: i32,
    /// From the start of qemu to its end.
    pub(crate) seconds: f64,
    /// All that the kernel wrote to its console.
    pub(crate) console: String,
}

/// Boots the guest, and hands each line that the command writes to `sink`, without its end.
///
/// A guest that hangs, panics or ends without a verdict is an error that shows the console's last lines.
pub(crate) fn run(guest: &Guest, mut sink: impl FnMut(Stream, &[u8])) -> Result<Ended> {
    let start = Instant::now();
    let folder = Scratch::new()?;
    let (initrd, console) = (folder.0.join("initramfs"), folder.0.join("console"));
    let orders = Orders {
        command: guest.command.clone(),
        env: guest.env.iter().cloned().collect(),
        modules: Vec::new(),
    };
    let modules = modules::find(&guest.kernel, &guest.modules)?;
    initramfs::write(&initrd, orders, &guest.files, &modules)?;
    let mut qemu = Qemu::start(guest, &initrd, &console)?;
    let verdict = qemu.verdict(start, guest.limit, &mut sink);
    let said = qemu.end();
    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    let seconds = start.elapsed().as_secs_f64();
    let why = match verdict {
        Verdict::Code(code) => return Ok(Ended { code, seconds, console }),
        Verdict::None if console.contains("Kernel panic") => "the kernel panicked".to_owned(),
        Verdict::None if !said.is_empty() => format!("{QEMU}: {said}"),
        Verdict::None => "it ended without a verdict".to_owned(),
        Verdict::TimedOut => guest.limit.to_string(),
    };
    Err(exit::failed(format!(
        "guest {}: {why}, after {seconds:.1} s; the last lines of its console:\n{}",
        guest.kernel.release,
        tail(&console)
    )))
}

/// Makes sure that there can be guests: installs qemu where that can be done.
pub(crate) fn provide(install: bool) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        return Err(exit::refused(format!(
            "guests are x86_64 machines, and their programs would be built for this one, {}",
            env::consts::ARCH
        )));
    }
    if !place::in_path(QEMU).is_empty() {
        return Ok(());
    }
    let refused = |why: &str| {
        exit::refused(format!(
            "guests need {QEMU}{why}: install it (on Debian: apt-get install {PACKAGE})"
        ))
    };
    if !install || !debian::can_install() {
        return Err(refused(""));
    }
    let packages = [PACKAGE.to_owned()];
    if !debian::offers(&packages) {
        debian::update();
    }
    debian::install(&packages).map_err(|error| refused(&format!(", and {error:#}")))
}

enum Verdict {
    Code(i32),
    None,
    TimedOut,
}

/// A running qemu. Killed when dropped.
struct Qemu {
    child: Child,
    lines: Receiver<Vec<u8>>,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Qemu {
    fn start(guest: &Guest, initrd: &Path, console: &Path) -> Result<Self> {
        let mebibytes = guest.memory_bytes.div_ceil(1 << 20).to_string();
        let mut command = Command::new(QEMU);
        command
            .args(["-accel", "tcg", "-cpu", "max", "-m", &mebibytes])
            .args(["-smp", &guest.cpus.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", doubled_commas(console)))
            .args(["-chardev", "stdio,id=channel,signal=off"])
            .args(["-serial", "chardev:console", "-serial", "chardev:channel"])
            .arg("-kernel")
            .arg(&guest.kernel.image)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &format!("{KERNEL_ARGUMENTS} {}", guest.append)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_dying_with_parent(&mut command, libc::SIGKILL)
            .with_context(|| format!("cannot start {QEMU}"))?;
        let (sender, lines) = channel();
        let output = child.stdout.take().context("qemu has no output")?;
        thread::spawn(move || forward(output, |line| sender.send(line).is_ok()));
        let mut stderr = child.stderr.take().context("qemu has no standard error")?;
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read of it is shown; an error here has no other use.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Self { child, lines, stderr: Some(stderr) })
    }

    /// Takes lines until the verdict.
    fn verdict(
        &self,
        start: Instant,
        limit: Limit,
        sink: &mut impl FnMut(Stream, &[u8]),
    ) -> Verdict {
        let mut last_line = start;
        loop {
            let left = limit
                .end(start, last_line)
                .map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    last_line = Instant::now();
                    match channel::parse(&line) {
                        Message::Line(stream, text) => sink(stream, &text),
                        Message::Verdict(code) => return Verdict::Code(code),
                        Message::Foreign(text) if text.is_empty() => {}
                        Message::Foreign(text) => sink(Stream::Stderr, &text),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Verdict::None,
                Err(RecvTimeoutError::Timeout) => return Verdict::TimedOut,
            }
        }
    }

    /// Lets it switch off, or kills it. What it wrote to standard error.
    fn end(&mut self) -> String {
        let end = Instant::now() + SWITCH_OFF;
        // The channel's other end is closed when qemu ends. A guest without a verdict has had its time.
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            drop(line);
        }
        self.kill();
        self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn kill(&mut self) {
        // One that has ended is not an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

fn forward(output: ChildStdout, mut send: impl FnMut(Vec<u8>) -> bool) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(output.read_until(b'\n', &mut line), Ok(1..)) {
        if !send(std::mem::take(&mut line)) {
            return;
        }
    }
}

/// A comma ends an option of qemu.
fn doubled_commas(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.get(lines.len().saturating_sub(TAIL)..) {
        None | Some([]) => "  (none)".into(),
        Some(last) => last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"),
    }
}

/// A folder of this run's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = place::target().join("guest").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It stands in the target folder, which may be thrown away at any time.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_says_something_now_and_then_has_no_end() {
        let (second, start) = (Duration::from_secs(1), Instant::now());
        let silence = Limit::Silence(10 * second);
        assert_eq!(silence.end(start, start), Some(start + 10 * second));
        assert_eq!(silence.end(start, start + 500 * second), Some(start + 510 * second));
        let whole = Limit::Whole(10 * second);
        assert_eq!(whole.end(start, start + 9 * second), Some(start + 10 * second));
        for never in [Limit::Whole(Duration::MAX), Limit::Silence(Duration::MAX)] {
            assert_eq!(never.end(start, start), None);
        }
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let console: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        let tail = tail(&console);
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.starts_with("  line 60\n") && tail.ends_with("  line 99"), "{tail}");
        assert_eq!(super::tail("\n"), "  (none)");
    }
}
