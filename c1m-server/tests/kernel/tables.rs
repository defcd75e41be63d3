//! TCP's tables, read without an iterator: compared with the iterator, and while they change.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use c1m_probe::snapshot::Snapshots;
use c1m_record::TcpState;
use c1m_sys::{confine, netns};

use c1m_testkit::Skip;

use crate::{
    held::{apart, in_many_states},
    host::{connect, reset},
};

/// Snapshots among sockets that come and go.
const TIMES: usize = 20;

type Rows = BTreeMap<(TcpState, u16), u64>;

/// Of the namespace that the calling thread is in, without looking for what is closed.
fn count(snapshots: &mut Snapshots) -> Rows {
    let own = [netns::Namespace::open(Path::new(netns::OWN)).unwrap()];
    let counts = snapshots.count_states(&own, false, true).unwrap();
    assert_eq!(counts.unseen, [""; 0]);
    counts.rows.iter().map(|row| ((row.state, row.port), row.count)).collect()
}

/// Both ways, where this kernel has both. What they found.
fn by_both() -> Result<Rows, Skip> {
    let mut snapshots = Snapshots::load().unwrap();
    if !snapshots.reads_tables() {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        assert!(version < (6, 1), "{release}: the verifier refuses the programs");
        return Err(Skip("this kernel's tables are not built as they are since 6.1".into()));
    }
    let read = count(&mut snapshots);
    let mut iterated = Snapshots::load().unwrap().by_iterators();
    assert!(!iterated.reads_tables());
    assert_eq!(read, count(&mut iterated));
    Ok(read)
}

pub(crate) fn as_the_iterator() -> Result<(), Skip> {
    apart(|| {
        let _sockets = in_many_states();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let _pair = v6.as_ref().map(|it| (connect(it.local_addr().unwrap()), it.accept()));
        let states: Vec<TcpState> = by_both()?.into_keys().map(|(state, _)| state).collect();
        for state in [TcpState::Listen, TcpState::FinWait2, TcpState::TimeWait] {
            assert!(states.contains(&state), "{state:?}: {states:?}");
        }
        Ok(())
    })
}

/// A namespace made after this setting has a table of connections of its own.
pub(crate) fn own_tables() -> Result<(), Skip> {
    apart(|| {
        fs::write("/proc/sys/net/ipv4/tcp_child_ehash_entries", "64")
            .map_err(|error| Skip(format!("tcp_child_ehash_entries: {error}")))?;
        let child = thread::spawn(|| {
            confine::unshare_network().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let pairs: Vec<_> = (0..200).map(|_| (connect(address), listener.accept())).collect();
            let rows = by_both()?;
            assert_eq!(rows[&(TcpState::Established, address.port())], pairs.len() as u64);
            assert_eq!(rows.values().sum::<u64>(), 2 * pairs.len() as u64 + 1);
            Ok(())
        });
        // None of it is in the table that the others share.
        let child = child.join().unwrap();
        assert_eq!(by_both()?, Rows::new());
        child
    })
}

/// What does not change is counted right while others come and go in the same chains: in the table that namespaces share, and in one of a
/// few long chains, where a socket is often put back into the chain that it was taken from.
pub(crate) fn while_they_change() -> Result<(), Skip> {
    apart(|| {
        stay_among_others();
        if fs::write("/proc/sys/net/ipv4/tcp_child_ehash_entries", "64").is_ok() {
            let few_chains = thread::spawn(|| {
                confine::unshare_network().unwrap();
                stay_among_others();
            });
            few_chains.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(())
    })
}

fn stay_among_others() {
    /// Ends the other thread even where an assertion fails: the scope waits for it.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let still = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = still.local_addr().unwrap();
    let pairs: Vec<_> = (0..500).map(|_| (connect(address), still.accept())).collect();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let own = netns::Namespace::open(Path::new(netns::OWN)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            own.within(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let streams: Vec<TcpStream> =
                        (0..20).map(|_| connect_from_another_port(&busy, address.port())).collect();
                    let accepted: Vec<_> = streams.iter().map(|_| busy.accept()).collect();
                    streams.into_iter().for_each(reset);
                    drop(accepted);
                    made.fetch_add(20, Ordering::Relaxed);
                }
            })
            .unwrap();
        });
        let _over = Over(&is_over);
        let mut snapshots = Snapshots::load().unwrap();
        let mut times = 0;
        // Until as many have come and gone as stay.
        while times < TIMES || made.load(Ordering::Relaxed) < pairs.len() as u64 {
            let rows = count(&mut snapshots);
            let of_port = |state| rows.get(&(state, address.port())).copied();
            assert_eq!(of_port(TcpState::Established), Some(pairs.len() as u64), "{times}");
            assert_eq!(of_port(TcpState::Listen), Some(1), "{times}");
            times += 1;
        }
    });
}

/// A client has any free port of an address of its own, that of a listener elsewhere as well.
fn connect_from_another_port(listener: &TcpListener, port: u16) -> TcpStream {
    loop {
        let stream = connect(listener.local_addr().unwrap());
        if stream.local_addr().unwrap().port() != port {
            return stream;
        }
        reset(stream);
        drop(listener.accept());
    }
}
