//! What is said of the hooks themselves.

use std::{net::TcpListener, process::Command};

use c1m_record::{Line, Record};
use c1m_testkit::{Skip, child::outcome};

use crate::server::{Server, binary, check, needs_ebpf};

/// It attaches as a real run does, and ends without a look at the port.
pub(crate) fn dry_run() -> Result<(), Skip> {
    needs_ebpf()?;
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let arguments = ["--trace", "--dry-run", "--listen", &address];
    let output = outcome(Command::new(binary()).args(arguments).arg("--json"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let text = output.stdout();
    let line: Line<Record> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let Record::Hooks(said) = line.record else { panic!("{text}") };
    check(&said.hooks);
    let server = Server::start(&[])?;
    for hook in &said.hooks {
        assert_eq!(hook, server.hook(&hook.probe));
    }
    // For people: a row for each, with all that is said of it.
    let text = outcome(Command::new(binary()).args(arguments)).stdout();
    let attached = said.hooks.iter().filter(|hook| hook.attached).count();
    let sum = format!("probes: {attached} of {} attached, ", said.hooks.len());
    assert!(text.starts_with(&sum), "{text}");
    for hook in &said.hooks {
        let row = text.split('\n').skip_while(|line| line.split(' ').next() != Some(&hook.probe));
        let row: Vec<&str> = row
            .enumerate()
            .take_while(|(at, line)| *at == 0 || line.starts_with("  "))
            .map(|(_, line)| line.trim_start())
            .collect();
        let row = row.join("\n");
        let parts = [&hook.hook, &hook.says, &hook.reason];
        assert!(parts.into_iter().flatten().all(|part| row.contains(part)), "{row}, {hook:?}");
    }
    Ok(())
}

/// What is left out is said to be, and costs its signals alone.
pub(crate) fn left_out() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut server = Server::start(&["--without-hook", "sys_exit"])?;
    let Err(Skip(reason)) = server.needs("call_errors") else { panic!("it is attached") };
    assert!(reason.contains("left out by --without-hook"), "{reason}");
    server.needs("connections")?;
    let summary = server.finish();
    assert_eq!(summary.refused.unwrap().call_errors, None);
    let wrong = outcome(Command::new(binary()).args(["--trace", "--without-hook", "sys_exit_"]));
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    Ok(())
}

/// A kernel that lets one function be hooked lets all be that every kernel from 5.10 on has whole.
pub(crate) fn functions() -> Result<(), Skip> {
    needs_ebpf()?;
    let server = Server::start(&[])?;
    server.needs_function("orphans_given_up")?;
    for signal in [
        "usage_rises",
        "allowed_above_high",
        "forced_above_high",
        "memory_pressure",
        "pruned_segments",
        "orphans_in_timers",
        "orphan_count",
        "accept_queue_syn",
        "ports",
        "oom_scope",
    ] {
        server.needs_function(signal).unwrap_or_else(|Skip(reason)| panic!("{reason}"));
    }
    Ok(())
}
