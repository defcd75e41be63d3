//! Builds server and client as the user, with the toolchain that runs this.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use c1m_server::sys::process;

use super::{End, stage::Event};

const SERVER: &str = "c1m-server";
const CLIENT: &str = "c1m-client";

/// What is run.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
}

/// Starts the build; its result arrives as an event. Call it from the main thread: the build ends with it.
pub(super) fn start(events: Sender<Event>) -> Result<(), End> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command
        .args(["build", "--release", "-p", SERVER, "-p", CLIENT])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = process::spawn_dying_with_parent(&mut command, libc::SIGTERM).map_err(|error| {
        End::Refused(format!("cannot start {}: {error}", command.get_program().display()))
    })?;
    thread::spawn(move || drop(events.send(Event::Built(finish(child)))));
    Ok(())
}

/// The workspace that this program was built from; `cargo run` says where it is now.
fn workspace() -> PathBuf {
    let own =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut workspace = PathBuf::from(own);
    workspace.pop();
    workspace
}

fn finish(mut child: Child) -> Result<Programs, End> {
    let failed = |error| End::Failed(format!("cannot read what cargo says: {error}"));
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(End::Failed("the build failed: cargo says why above".into()));
    }
    let mut executables = executables(&text);
    match (executables.remove(SERVER), executables.remove(CLIENT)) {
        (Some(server), Some(client)) => Ok(Programs { server, client }),
        _ => Err(End::Failed("cargo did not say where it put the programs".into())),
    }
}

/// Where cargo put the programs, from its messages: the target folder can be anywhere.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    #[derive(serde::Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(serde::Deserialize)]
    struct Target {
        name: String,
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"libc","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"c1m-server","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"c1m-server","kind":["bin"]},"executable":"/t/release/c1m-server"}
not json
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["c1m-server"], PathBuf::from("/t/release/c1m-server"));
    }
}
