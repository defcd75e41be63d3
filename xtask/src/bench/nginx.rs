//! nginx from Debian's package, as a peer: the same port, the same body, as many processes as it needs.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::child::{Child, pause, start};
use crate::debian;

/// What one process of it may hold: below the hard limit of open files of most hosts, with room for its own.
pub(crate) const WORKER_CONNECTIONS: u64 = 19_900;
/// The body that is asked for, of the same length as c1m-server's /bytes/64.
pub(crate) const PATH: &str = "/64";
const BODY_BYTES: usize = 64;
const START_LIMIT: Duration = Duration::from_secs(10);

/// Some processes of nginx that accept on one port, each with a listener of its own. Killed when dropped, and their folder goes with
/// them.
pub(crate) struct Nginx {
    children: Vec<Child>,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// Starts so many of them. Without a master, so that none is left behind when this process is killed.
    pub(crate) fn start(workers: usize) -> Result<Self> {
        let program = debian::program("nginx", &["nginx"])?;
        let folder = env::temp_dir().join(format!("c1m-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut nginx = Self { children: Vec::new(), folder, address };
        for worker in 0..workers {
            let own = nginx.folder.join(worker.to_string());
            fs::create_dir_all(&own)?;
            let file = own.join("settings");
            fs::write(&file, settings(&own.display().to_string(), address))?;
            let mut command = debian::command(&program);
            nginx.children.push(start(command.arg("-c").arg(&file))?);
            wait_until_it_listens(&own)?;
        }
        Ok(nginx)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::pid).collect()
    }
}

/// It writes its number when it listens.
fn wait_until_it_listens(folder: &Path) -> Result<()> {
    let end = Instant::now() + START_LIMIT;
    while !folder.join("pid").exists() {
        if Instant::now() > end {
            let said = fs::read_to_string(folder.join("errors")).unwrap_or_default();
            bail!("nginx does not start: {}", said.trim());
        }
        pause(Duration::from_millis(20))?;
    }
    Ok(())
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.children.clear();
        // One that is gone is no error.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One that is quiet and fast: no log, no file behind the answer, and connections that send nothing are kept.
fn settings(folder: &str, address: SocketAddr) -> String {
    let body = "x".repeat(BODY_BYTES);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {folder}/{what};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nerror_log {folder}/errors notice;\npid {folder}/pid;\n\
         events {{ worker_connections {WORKER_CONNECTIONS}; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  client_header_timeout 1h;\n\
         {temporary}  server {{ listen {address} reuseport backlog=4096;\n\
         location = {PATH} {{ default_type text/plain; return 200 {body}; }}\n  }}\n}}\n"
    )
}
