//! Orphans that the kernel resets for their number, compared with its own counter.

use std::net::{SocketAddr, TcpListener};

use c1m_record::{Aborted, Record, Refused};

use c1m_testkit::{
    Settings, Skip, only,
    trip::{ABORTED, MAX_ORPHANS, orphans_out_of_memory, reset_all, too_many_orphans},
    undisturbed,
};

use crate::server::{Server, needs_ebpf, nothing_lost_by_us};

pub(crate) fn aborted_orphans() -> Result<(), Skip> {
    needs_ebpf()?;
    // The setting is the host's, and so are orphans: those of other programs come and go between two readings.
    undisturbed(|| {
        let refused = attempt()?;
        let too_many = refused.orphans_aborted_too_many.unwrap();
        let sum = too_many + refused.orphans_aborted_out_of_memory.unwrap();
        assert!(too_many > 0, "{refused:?}");
        // Where the hook is on a function, what a timer gives up is reported too, and the sum that is compared.
        assert!(refused.orphans_max.is_none_or(|max| max > MAX_ORPHANS), "{refused:?}");
        assert!(refused.orphans_in_timers.is_none_or(|timers| timers <= sum), "{refused:?}");
        let is_right = sum == refused.kernel["TCPAbortOnMemory"] && sum >= ABORTED;
        Ok(if is_right { Ok(()) } else { Err(format!("not what the kernel counts: {refused:?}")) })
    })
}

fn attempt() -> Result<Refused, Skip> {
    let mut settings = Settings::take()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    let hook = server.needs("orphans_given_up")?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    reset_all(too_many_orphans(&listener, &mut settings)?).unwrap();
    settings.put_back();

    let summary = server.finish();
    check_events(&server, address, &hook);
    nothing_lost_by_us(&summary);
    Ok(*summary.refused.unwrap())
}

/// The first ones are reported, each with its socket; in a close or a timer the current process is an accident.
fn check_events(server: &Server, address: SocketAddr, hook: &str) {
    let mut of_number: Vec<Aborted> = server.records().filter_map(only!(Record::Aborted)).collect();
    of_number.retain(|aborted| aborted.limit == "too_many_orphans");
    assert!(!of_number.is_empty(), "an example is reported");
    let remote = Some(address.to_string());
    assert!(of_number.iter().any(|aborted| aborted.socket.remote == remote), "{of_number:?}");
    for aborted in of_number {
        assert_eq!((aborted.socket.pid, &aborted.socket.comm), (None, &None), "{aborted:?}");
        assert_eq!(aborted.hook, hook);
        // At close an orphan counts once, in a timer up to four times.
        assert_eq!(aborted.penalty.is_some(), hook.ends_with("/tcp_check_oom"), "{aborted:?}");
        assert!(aborted.penalty.is_none_or(|times| matches!(times, 1 | 2 | 4)), "{aborted:?}");
        assert!(aborted.socket.local.is_some() && aborted.socket.netns.is_some(), "{aborted:?}");
    }
}

/// Senders whose peer does not read, closed above high.
pub(crate) fn out_of_memory() -> Result<(), Skip> {
    needs_ebpf()?;
    undisturbed(|| {
        let refused = attempt_out_of_memory()?;
        let of_memory = refused.orphans_aborted_out_of_memory.unwrap();
        let sum = of_memory + refused.orphans_aborted_too_many.unwrap();
        let is_right = sum == refused.kernel["TCPAbortOnMemory"] && of_memory >= 1;
        Ok(if is_right { Ok(()) } else { Err(format!("not what the kernel counts: {refused:?}")) })
    })
}

fn attempt_out_of_memory() -> Result<Refused, Skip> {
    let mut settings = Settings::take()?;
    let mut server = Server::start(&["--interval", "50ms"])?;
    server.needs("orphans_given_up")?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let readers = orphans_out_of_memory(&listener, &mut settings)?;
    settings.put_back();
    reset_all(readers).unwrap();
    let summary = server.finish();
    let is_of_memory = |record: &Record| matches!(record, Record::Aborted(aborted) if aborted.limit == "out_of_memory" && aborted.pages > aborted.tcp_mem[2]);
    assert!(server.records().any(is_of_memory), "{:?}", server.lines);
    Ok(*summary.refused.unwrap())
}
