//! Servers in this process and as a program, and clients for both.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    process::Command,
    time::Duration,
};

use c1m_preflight::plan::{Wish, plan};
use c1m_record::{Record, Summary};
use c1m_server::serve::{Config, Running, Server};
use c1m_sys::process::raise_nofile;
pub(crate) use c1m_testkit::{
    PATIENCE,
    child::{self, closed_pipe, outcome},
    only, schema, until,
};

/// A server in this process.
pub(crate) fn start(workers: usize, max_connections: Option<u64>) -> Running {
    start_on("127.0.0.1:0".parse().unwrap(), workers, max_connections)
}

pub(crate) fn start_on(
    listen: SocketAddr,
    workers: usize,
    max_connections: Option<u64>,
) -> Running {
    let plan = plan(&Wish {
        workers: Some(workers),
        max_connections,
        backlog: 1024,
        somaxconn: None,
        nofile: raise_nofile().unwrap(),
        cores: 2,
    })
    .unwrap();
    let header_timeout = 2 * PATIENCE;
    let config = Config { listen, plan, max_connections, keepalive: None, header_timeout };
    Server::bind(config).unwrap().start().unwrap()
}

/// A server as a program, with JSON output.
pub(crate) struct Program {
    program: c1m_testkit::Program<Record>,
    pub(crate) address: SocketAddr,
    pub(crate) listening: c1m_record::Listening,
}

impl Deref for Program {
    type Target = c1m_testkit::Program<Record>;

    fn deref(&self) -> &Self::Target {
        &self.program
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.program
    }
}

/// The program under a limit of open files, listening on a port of the kernel's choice, not yet started.
pub(crate) fn command(nofile: Option<u64>, arguments: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_c1m-server");
    let mut command = match nofile {
        Some(nofile) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -n {nofile} && exec \"$0\" \"$@\""), binary]);
            shell
        }
        None => Command::new(binary),
    };
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    command
}

impl Program {
    pub(crate) fn start(nofile: Option<u64>, arguments: &[&str]) -> Self {
        Self::spawn(command(nofile, arguments))
    }

    /// As [`Self::start`], of a command that may listen elsewhere.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut program =
            c1m_testkit::Program::start(command.arg("--json"), &schema::SERVER).unwrap();
        let listening = program.wait_for("listening server", only!(Record::Listening));
        Self { program, address: listening.address.parse().unwrap(), listening }
    }

    pub(crate) fn signal(&self, names: &[&str]) {
        child::signal(self.pid(), names);
    }

    /// Ends it by SIGTERM, and returns its last record.
    pub(crate) fn finish(mut self) -> Summary {
        self.signal(&["TERM"]);
        self.summary()
    }

    /// The last record of a server that ends well.
    pub(crate) fn summary(&mut self) -> Summary {
        let outcome = self.end();
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        match self.records().next_back() {
            Some(Record::Summary(summary)) => summary.clone(),
            other => panic!("the last record is {other:?}"),
        }
    }

    /// User and system time so far, in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        child::cpu_ticks(self.pid()).unwrap()
    }

    /// How often its threads went to sleep so far.
    pub(crate) fn sleeps(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks
            .map(|task| {
                let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let line = text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
                line.unwrap().trim().parse::<u64>().unwrap()
            })
            .sum()
    }
}

/// A connection that ends by reset, so that the tests leave no TIME_WAIT behind.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    stream
}

/// What tests expect in the place of the date, which is as long.
pub(crate) const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";

/// `text` with [`DATE`] in the place of each date in it.
pub(crate) fn undated(text: &str) -> String {
    let mut parts = text.split("\r\nDate: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.get(DATE.len() - "Date: ".len()..).unwrap_or_default();
        assert!(part.contains(" GMT\r\n"), "{part:?}");
        text + "\r\n" + DATE + rest
    })
}

/// Reads exactly `expected`, whatever the date is.
#[track_caller]
pub(crate) fn expect(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    let result = stream.read_exact(&mut bytes);
    assert!(result.is_ok(), "{result:?} instead of {expected:?}");
    assert_eq!(undated(&String::from_utf8_lossy(&bytes)), expected);
}

/// Asks for the open stream and gets it.
#[track_caller]
pub(crate) fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(stream, STREAM_HEAD);
}

/// Asks once more on a connection whose stream is open.
#[track_caller]
pub(crate) fn ask_again(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    expect(stream, "0\r\n\r\n");
    expect(stream, STREAM_HEAD);
}

/// Whether nothing, not even an end, comes for a moment.
pub(crate) fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let result = stream.read(&mut [0]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(result, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Everything until the peer's end of the stream, [`undated`].
#[track_caller]
pub(crate) fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let result = stream.read_to_end(&mut bytes);
    assert!(result.is_ok(), "{result:?} after {:?}", String::from_utf8_lossy(&bytes));
    undated(&String::from_utf8(bytes).unwrap())
}
