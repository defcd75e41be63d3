//! Starts the privileged half, through sudo only when this process is not root.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use super::{
    End, Places,
    privileged::{COMMAND, forward},
    protocol::{Event, Request},
};

/// The other end of the pipes. Dropping it closes them, on which the privileged half puts everything back and ends.
pub(super) struct Helper {
    child: Child,
    requests: Option<ChildStdin>,
}

impl Helper {
    /// Its replies arrive as events, `Ready` or `Failed` first.
    pub(super) fn start(places: &Places, events: &Sender<Event>) -> Result<Self, End> {
        let own = env::current_exe()
            .map_err(|error| End::Failed(format!("cannot find this program: {error}")))?;
        let mut command = match privilege(places)? {
            Privilege::Own => Command::new(&own),
            Privilege::Sudo { ask } => {
                let mut command = Command::new("sudo");
                command.args(if ask { &["--"][..] } else { &["-n", "--"] }).arg(&own);
                command
            }
        };
        command
            .arg(COMMAND)
            .arg("--state-dir")
            .arg(&places.state_dir)
            .arg("--proc-dir")
            .arg(&places.proc_dir)
            .args(
                places
                    .server_program
                    .iter()
                    .flat_map(|it| ["--server-program".as_ref(), it.as_os_str()]),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            End::Refused(format!("cannot start {}: {error}", command.get_program().display()))
        })?;
        let requests = child.stdin.take();
        if let Some(replies) = child.stdout.take() {
            let events = events.clone();
            thread::spawn(move || {
                // The receiver is gone only when this process is about to end.
                forward(replies, |line| drop(events.send(Event::Reply(line))));
                let _ = events.send(Event::HelperGone);
            });
        }
        Ok(Self { child, requests })
    }

    /// An error means that it is gone, which arrives as an event as well.
    pub(super) fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(text.as_bytes())
    }

    /// Tells it to put everything back and end.
    pub(super) fn close(&mut self) {
        self.requests.take();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.close();
        // It ends after its input has: the server is killed, not asked.
        let _ = self.child.wait();
    }
}

enum Privilege {
    Own,
    /// `ask`: on this terminal, for a password
    Sudo {
        ask: bool,
    },
}

fn privilege(places: &Places) -> Result<Privilege, End> {
    // The owner of a process's own folder is its effective user. Files that are not the kernel's need no privilege.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if is_root || !places.is_kernel() {
        return Ok(Privilege::Own);
    }
    let without_asking = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match without_asking {
        Ok(status) if status.success() => Ok(Privilege::Sudo { ask: false }),
        Ok(_) if io::stdin().is_terminal() && io::stderr().is_terminal() => {
            Ok(Privilege::Sudo { ask: true })
        }
        Ok(_) => Err(End::Refused(
            "changing tcp_mem and attaching eBPF need root, and sudo asks for a password: run `sudo -v` first, or run this as root".into(),
        )),
        Err(_) => Err(End::Refused(
            "changing tcp_mem and attaching eBPF need root, and there is no sudo: run this as root".into(),
        )),
    }
}
