//! nginx from Debian's package, as a peer: the same port, the same body, as many processes as it needs.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::child::{Child, pause};
use crate::debian;

/// What one process of it may hold: below the hard limit of open files of most hosts, with room for its own.
pub(crate) const WORKER_CONNECTIONS: u64 = 19_900;
/// The body that is asked for, of the same length as c1m-server's /bytes/64.
pub(crate) const PATH: &str = "/64";
const BODY_BYTES: usize = 64;
const START_LIMIT: Duration = Duration::from_secs(10);

/// A running nginx. Killed when dropped, and its folder goes with it.
pub(crate) struct Nginx {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    pub(crate) fn provide() -> Result<PathBuf> {
        debian::program("nginx", &["nginx"])
    }

    /// Starts it with so many processes that accept, each with a listener of its own.
    pub(crate) fn start(workers: usize) -> Result<Self> {
        let program = Self::provide()?;
        let folder = env::temp_dir().join(format!("c1m-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings = folder.join("settings");
        fs::write(&settings, self::settings(&folder.display().to_string(), workers, address))?;
        let mut command = debian::command(&program);
        command.arg("-c").arg(&settings);
        let child = Child::start("nginx", &mut command)?;
        let mut nginx = Self { child, folder, address };
        nginx.wait_until_it_listens()?;
        Ok(nginx)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > end {
                let said = fs::read_to_string(self.folder.join("errors")).unwrap_or_default();
                bail!("nginx does not start: {}", said.trim());
            }
            pause(Duration::from_millis(20))?;
        }
        Ok(())
    }

    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// Of its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // In order, so that its other processes end too.
        let _ = self.child.terminate();
        let _ = self.child.rest();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One that is quiet and fast: no log, no file behind the answer, and connections that send nothing are kept.
fn settings(folder: &str, workers: usize, address: SocketAddr) -> String {
    let body = "x".repeat(BODY_BYTES);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {folder}/{what};\n"))
        .collect();
    format!(
        "daemon off;\nuser root;\nworker_processes {workers};\nerror_log {folder}/errors notice;\npid {folder}/pid;\n\
         events {{ worker_connections {WORKER_CONNECTIONS}; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  client_header_timeout 1h;\n\
         reset_timedout_connection on;\n{temporary}  server {{ listen {address} reuseport backlog=4096;\n\
         location = {PATH} {{ default_type text/plain; return 200 {body}; }}\n  }}\n}}\n"
    )
}
