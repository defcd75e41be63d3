//! What is left of the privilege when tracing runs.

use std::fs;

use c1m_testkit::Skip;

use crate::server::{Server, nothing_lost_by_us};

const WORKERS: usize = 3;

pub(crate) fn no_thread_keeps_a_capability() -> Result<(), Skip> {
    let mut server = Server::start(&["--workers", &WORKERS.to_string()])?;
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let threads: Vec<String> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .collect();
    let named = |name: &str| threads.iter().filter(|s| field(s, "Name").starts_with(name)).count();
    assert_eq!((named("c1m-server"), named("worker-")), (1, WORKERS), "{threads:?}");
    for status in &threads {
        let name = field(status, "Name");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(field(status, set), 16), Ok(0), "{set} of {name}");
        }
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
    }
    // What tracing needs at the end works without them.
    let summary = server.finish();
    nothing_lost_by_us(&summary);
    Ok(())
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}
