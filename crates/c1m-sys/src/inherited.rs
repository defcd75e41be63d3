//! What a program inherits: limits, blocked signals, ignored signals. Recorded before `main`, so
//! that a child can be given the same.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::OnceLock,
};

use super::{check, process::die_with_parent};

/// _NSIG, include/uapi/asm-generic/signal.h
const SIGNALS: libc::c_int = 64;

static AT_START: OnceLock<Inherited> = OnceLock::new();

/// Rust's runtime ignores SIGPIPE before it calls `main` (std, `rt::init`), so only a constructor
/// sees what the caller left.
#[used]
// SAFETY: an array of function pointers is what the section holds. The function makes system calls
// and stores their results; it uses no part of std that the runtime has to set up first.
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    // Nobody else has set it: constructors run once.
    let _ = AT_START.set(Inherited::now());
}

/// What is inherited through fork and exec, as far as this program changes it for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// Soft and hard limit of open files. `None`: not readable.
    pub nofile: Option<(u64, u64)>,
    /// Signals that the calling thread blocks: bit N - 1 is signal N.
    pub blocked: u64,
    /// Signals that are ignored. One with a handler has its default action after exec.
    pub ignored: u64,
}

impl Inherited {
    /// As this process was started.
    #[must_use]
    pub fn at_start() -> Self {
        *AT_START.get_or_init(Self::now)
    }

    /// As it is now, for the calling thread.
    #[must_use]
    pub fn now() -> Self {
        let mut inherited = Self { nofile: super::process::nofile().ok(), blocked: 0, ignored: 0 };
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, the second call replaces it by the thread's own
        // mask and changes nothing.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), set.as_mut_ptr());
            set.assume_init()
        };
        for signal in 1..=SIGNALS {
            let bit = Self::bit(signal);
            // SAFETY: reads an initialised set.
            if unsafe { libc::sigismember(&raw const set, signal) } == 1 {
                inherited.blocked |= bit;
            }
            if action(signal).is_some_and(|it| it.sa_sigaction == libc::SIG_IGN) {
                inherited.ignored |= bit;
            }
        }
        inherited
    }

    /// The bit of a signal.
    #[must_use]
    pub fn bit(signal: libc::c_int) -> u64 {
        1 << (signal - 1)
    }

    /// Makes it so for the calling thread and its process. Safe between fork and exec: system calls
    /// only.
    fn restore(&self) -> io::Result<()> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: initialises a local.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in 1..=SIGNALS {
            if self.blocked & Self::bit(signal) != 0 {
                // SAFETY: the set is initialised; a number that is none of a signal is refused.
                unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
            }
            let wanted = match self.ignored & Self::bit(signal) {
                0 => libc::SIG_DFL,
                _ => libc::SIG_IGN,
            };
            // `None`: SIGKILL, SIGSTOP and those of the C library have no action that can be set.
            if action(signal).is_some_and(|it| it.sa_sigaction != wanted) {
                // SAFETY: neither default nor ignored is a function that could be called.
                unsafe { libc::signal(signal, wanted) };
            }
        }
        // SAFETY: reads an initialised set.
        match unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
        } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        match self.nofile {
            Some((soft, hard)) if super::process::nofile()? != (soft, hard) => {
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                // SAFETY: reads a local of the right type.
                check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// `None`: the C library does not tell it.
fn action(signal: libc::c_int) -> Option<libc::sigaction> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no new action, and the kernel fills the old one; all zeros are a valid value of it.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: as above.
    (result == 0).then(|| unsafe { action.assume_init() })
}

/// Starts a program that inherits this, whatever the calling process made of its own limits and
/// signals since, and that the kernel ends by SIGKILL when the calling *thread* ends.
///
/// # Errors
/// There is no such program, it can't be run, or a limit can't be set: ESRCH when the parent is
/// gone already.
pub fn spawn(command: &mut Command, inherited: Inherited) -> io::Result<Child> {
    let parent = std::process::id();
    let set_up = move || {
        inherited.restore()?;
        die_with_parent(parent, libc::SIGKILL)
    };
    // SAFETY: the closure makes system calls that are safe between fork and exec, and allocates
    // nothing.
    unsafe { command.pre_exec(set_up) }.spawn()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// `SigBlk:\t0000000000000200` of a child's /proc/self/status, without the signals 32 to 34,
    /// which a C library keeps for itself: nobody can set them, and they pass from the caller to
    /// the child as they are.
    fn field(status: &str, name: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap() & !(0b111 << 31)
    }

    #[test]
    fn a_child_inherits_what_it_is_given() {
        let now = Inherited::now();
        let (soft, hard) = now.nofile.unwrap();
        for (blocked, ignored) in [
            (0, 0),
            (
                Inherited::bit(libc::SIGUSR1),
                Inherited::bit(libc::SIGPIPE) | Inherited::bit(libc::SIGHUP),
            ),
        ] {
            let given = Inherited { nofile: Some((soft - 1, hard)), blocked, ignored };
            let mut command = Command::new("cat");
            command.args(["/proc/self/status", "/proc/self/limits"]).stdout(Stdio::piped());
            let text = spawn(&mut command, given).unwrap().wait_with_output().unwrap().stdout;
            let text = String::from_utf8(text).unwrap();
            assert_eq!(field(&text, "SigBlk:"), blocked, "{text}");
            assert_eq!(field(&text, "SigIgn:"), ignored, "{text}");
            let nofile = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
            let nofile: Vec<u64> = nofile.split(' ').filter_map(|word| word.parse().ok()).collect();
            assert_eq!(nofile, [soft - 1, hard], "{text}");
        }
        assert_eq!(Inherited::now(), now, "the caller keeps its own");
    }

    /// Cargo and a shell start programs with SIGPIPE as it is by default, and Rust's runtime
    /// ignores it.
    #[test]
    fn the_start_is_recorded_before_the_runtime_changes_it() {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let pipe = Inherited::bit(libc::SIGPIPE);
        assert_eq!(field(&text, "SigIgn:") & pipe, pipe);
        assert_eq!(Inherited::at_start().ignored & !pipe, field(&text, "SigIgn:") & !pipe);
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.env("C1M_TEST_SIGPIPE", "1").args([
            "--exact",
            "--nocapture",
            "inherited::tests::told",
        ]);
        for ignored in [0, pipe] {
            let given = Inherited { ignored, ..Inherited::at_start() };
            let output =
                spawn(again.stdout(Stdio::piped()), given).unwrap().wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(&format!("sigpipe={ignored}\n")), "{text}");
        }
    }

    /// The other half of the test above, in a process of its own.
    #[test]
    fn told() {
        if std::env::var_os("C1M_TEST_SIGPIPE").is_some() {
            println!("sigpipe={}", Inherited::at_start().ignored & Inherited::bit(libc::SIGPIPE));
        }
    }
}
