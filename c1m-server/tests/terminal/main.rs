//! The live view of `c1m-server watch` and the pages of other commands on a pseudo-terminal, which script(1) makes: a shell asks the terminal for its
//! settings before and after.
//!
//! Needs script and stty, and the view root and a kernel that takes the probes; where one of them is not there the tests are ignored, with the reason.

mod pages;

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use c1m_host::task;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

const PATIENCE: Duration = Duration::from_secs(30);
/// Of xterm and all that follow it: the other screen, and back.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let test = |name: &str, reason: fn() -> Option<String>, run: fn()| {
        Trial::ignorable_test(name, move || match reason() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => {
                std::panic::catch_unwind(run).map_err(|_| Failed::from("see above"))?;
                Ok(Completion::Completed)
            }
        })
    };
    let tests = vec![
        test("q_leaves_the_view_with_a_summary", no_view, by_key),
        test("a_signal_leaves_it_in_order_too", no_view, by_signal),
        test("no_color_gives_plain_lines", no_view, plain),
        test("pages_are_as_wide_as_the_terminal", no_terminal, pages::width),
        test("colours_are_for_terminals_that_want_them", no_terminal, pages::colors),
        test("what_is_no_terminal_gets_a_line_for_each_row", no_terminal, pages::pipe),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn server() -> &'static str {
    env!("CARGO_BIN_EXE_c1m-server")
}

/// What the host lacks for a terminal, in words.
fn no_terminal() -> Option<String> {
    let lacks = |tool: &&str| Command::new(tool).arg("--version").output().is_err();
    ["script", "stty"].iter().find(|tool| lacks(tool)).map(|tool| format!("no {tool} on this host"))
}

/// What the host lacks for the view, in words.
fn no_view() -> Option<String> {
    if let Some(reason) = no_terminal() {
        return Some(reason);
    }
    let watch = Command::new(server()).args(["watch", "--json", "--duration", "1ms"]).output();
    let watch = watch.expect("the server");
    (watch.status.code() == Some(3)).then(|| String::from_utf8_lossy(&watch.stderr).into_owned())
}

/// A terminal of 100 columns and 30 lines with a watch on it, whose shell says the terminal's settings before and after.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// All that came so far.
    seen: String,
}

impl Terminal {
    fn start(before: &str) -> Self {
        let shell = format!(
            "stty rows 50 cols 100; echo settings $(stty -g); {before} {} watch --interval 100ms; echo code $?; echo settings $(stty -g)",
            server()
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &shell, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, output) = channel();
        let mut out = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let keys = child.stdin.take();
        Self { child, keys, output, seen: String::new() }
    }

    /// Waits until `text` has been written.
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no {text:?} in {:?}", self.seen),
            }
        }
    }

    fn press(&mut self, key: &str) {
        let keys = self.keys.as_mut().unwrap();
        keys.write_all(key.as_bytes()).unwrap();
        keys.flush().unwrap();
    }

    /// To its end: all that was written.
    fn finish(mut self) -> String {
        let end = Instant::now() + PATIENCE;
        while let Ok(bytes) =
            self.output.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        assert!(Instant::now() < end, "no end: {:?}", self.seen);
        self.child.wait().unwrap();
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Of a test that failed nothing stays behind: with the terminal goes what is on it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The view was there and is gone, the summary stands behind it, and the terminal is as it was.
fn check(seen: &str) {
    let (_, behind) =
        seen.rsplit_once(LEAVE).unwrap_or_else(|| panic!("it did not leave: {seen:?}"));
    for text in ["summary  elapsed=", "under pressure  now=", "ended  limit=", "code 0"] {
        assert!(behind.contains(text), "no {text:?} in {behind:?}");
    }
    let settings: Vec<&str> =
        seen.lines().filter_map(|line| line.trim().strip_prefix("settings ")).collect();
    assert_eq!(settings.len(), 2, "{seen:?}");
    assert_eq!(settings[0], settings[1], "the terminal is not as it was");
    assert!(seen.contains("\x1b[?25h"), "the cursor stays hidden: {seen:?}");
}

fn by_key() {
    let mut terminal = Terminal::start("");
    terminal.wait_for(ENTER);
    // Words: only what differs from what stands there is written, and a space does not.
    for text in ["tcp_mem", "limits", "usage,", "verdict:", "found,"] {
        terminal.wait_for(text);
    }
    terminal.press("s");
    terminal.wait_for("time,");
    // It belongs to the filter, and ends nothing.
    terminal.press("/q");
    terminal.wait_for("q_");
    terminal.press("\r");
    terminal.wait_for("only");
    terminal.press("q");
    check(&terminal.finish());
}

fn by_signal() {
    let mut terminal = Terminal::start("");
    terminal.wait_for("verdict:");
    let family = task::family(terminal.child.id());
    let watch = family.iter().find(|pid| task::comm(**pid).as_deref() == Some("c1m-server"));
    let watch = watch.unwrap_or_else(|| panic!("no watch among {family:?}"));
    let kill = Command::new("sh").args(["-c", &format!("kill -TERM {watch}")]).status().unwrap();
    assert!(kill.success(), "{kill}");
    check(&terminal.finish());
}

fn plain() {
    let mut terminal = Terminal::start("NO_COLOR=1");
    terminal.wait_for("watching  ports=all");
    terminal.wait_for("usage  connections=");
    // Ctrl-C, which on such a terminal is a signal.
    terminal.press("\x03");
    let seen = terminal.finish();
    assert!(!seen.contains(ENTER) && seen.contains("ended  limit="), "{seen:?}");
}
