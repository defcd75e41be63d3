//! Servers of others, which know nothing of c1m: nginx and haproxy, from Debian's packages.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use c1m_sys::confine;
use c1m_testkit::{
    Child, PATIENCE,
    net::reset,
    trip::{Step, Stop},
    wait::tried,
};

use crate::debian;

/// Bodies that drivers ask for.
const BODIES: [usize; 3] = [64, 5_000, 1 << 20];
const BACKLOG: usize = 8;

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// The packages of the program itself, and of libraries that are not on every Debian.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => &["nginx"],
            Self::Haproxy => {
                &["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"]
            }
        }
    }

    fn settings(self, folder: &Path, address: SocketAddr) -> String {
        let folder = folder.display();
        match self {
            Self::Nginx => format!(
                "daemon off;\nmaster_process off;\nerror_log stderr notice;\npid {folder}/pid;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{\n  access_log off;\n  keepalive_requests 100000;\n  client_body_temp_path {folder}/body;\n\
                 proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n\
                 scgi_temp_path {folder}/scgi;\n\
                 server {{ listen {address} backlog={BACKLOG_OF_NGINX}; root {folder}; }}\n}}\n"
            ),
            Self::Haproxy => format!(
                "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode http\n  timeout client 60s\n  timeout http-keep-alive 60s\n\
                 frontend f\n  bind {address} backlog {BACKLOG}\n\
                 http-request return status 200 content-type text/plain string {}\n",
                "x".repeat(BODIES[0])
            ),
        }
    }

    fn arguments(self, settings: &Path) -> Vec<String> {
        let settings = settings.display().to_string();
        match self {
            Self::Nginx => vec!["-c".into(), settings],
            Self::Haproxy => vec!["-db".into(), "-f".into(), settings],
        }
    }
}

/// Long enough for all that drivers open at once.
const BACKLOG_OF_NGINX: usize = 4096;

/// A running server of somebody else. Killed when dropped, and its folder goes with it.
pub(crate) struct Other {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Other {
    /// Starts it in the thread's network namespace; where it can't be had the fault is skipped.
    pub(crate) fn start(kind: Kind, nofile: Option<u64>) -> Step<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let program = provide(kind)?;
        let name = format!("c1m-faults-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(folder.join("bytes"))?;
        for bytes in BODIES {
            fs::write(folder.join("bytes").join(bytes.to_string()), vec![b'x'; bytes])?;
        }
        // Free at this instant; nobody else is in a namespace of its own, and few are in the host's.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let settings = folder.join("settings");
        fs::write(&settings, kind.settings(&folder, address))?;
        let mut command = debian::command(&program);
        command
            .args(kind.arguments(&settings))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr"))?);
        let child = confine::spawn(&mut command, nofile)
            .map_err(|error| Stop::skip(format!("{} can't be run: {error}", program.display())))?;
        let mut other = Self { child: child.into(), folder, address };
        other.wait_until_it_listens(kind)?;
        Ok(other)
    }

    fn wait_until_it_listens(&mut self, kind: Kind) -> Step {
        let end = Instant::now() + PATIENCE;
        loop {
            // A probe, which leaves nothing behind.
            if let Ok(probe) = TcpStream::connect(self.address) {
                return Ok(reset(probe)?);
            }
            if self.child.ended()?.is_some() || Instant::now() > end {
                return Err(Stop::skip(format!(
                    "{} does not start: {}",
                    kind.name(),
                    self.said()?
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it wrote to standard error.
    pub(crate) fn said(&self) -> Step<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.folder.join("stderr"))?).into_owned())
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Is it alive to the end? Then it is ended.
    pub(crate) fn finish(mut self) -> Step {
        if let Some(status) = self.child.ended()? {
            return Err(Stop::wrong(format!("the server ended by itself ({status})")));
        }
        self.child.signal(libc::SIGTERM)?;
        tried("the server does not end", || Ok(self.child.ended()?.is_some()))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.child.kill();
        // It may be gone already.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The program: an installed one, or that of Debian's package.
pub(crate) fn provide(kind: Kind) -> Step<PathBuf> {
    debian::program(kind.name(), kind.packages()).map_err(|error| Stop::skip(format!("{error:#}")))
}

/// nginx for tests of the server. Where it can't be had they are ignored, and the reason is printed here.
pub(crate) fn nginx(install: bool) -> Option<PathBuf> {
    if !install {
        return debian::found(Kind::Nginx.name());
    }
    match provide(Kind::Nginx) {
        Ok(program) => Some(program),
        Err(Stop::Skip(reason) | Stop::Wrong(reason)) => {
            eprintln!("warning: tests without nginx: {reason}");
            None
        }
    }
}
