//! TCP's tables, read without an iterator: held against the iterator, and while they change.

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

use crate::{
    held::{apart, in_many_states},
    host::{connect, reset},
    server::Skip,
};

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

/// What stands still is counted right while others come and go in the same chains.
pub(crate) fn while_they_change() -> Result<(), Skip> {
    apart(|| {
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
                            (0..20).map(|_| connect(busy.local_addr().unwrap())).collect();
                        let accepted: Vec<_> = streams.iter().map(|_| busy.accept()).collect();
                        streams.into_iter().for_each(reset);
                        drop(accepted);
                        made.fetch_add(20, Ordering::Relaxed);
                    }
                })
                .unwrap();
            });
            let mut snapshots = Snapshots::load().unwrap();
            let mut times = 0;
            // Until as many have come and gone as stand still.
            while times < 20 || made.load(Ordering::Relaxed) < pairs.len() as u64 {
                let rows = count(&mut snapshots);
                let of_port = |state| rows.get(&(state, address.port())).copied();
                assert_eq!(of_port(TcpState::Established), Some(pairs.len() as u64), "{times}");
                assert_eq!(of_port(TcpState::Listen), Some(1), "{times}");
                times += 1;
            }
            is_over.store(true, Ordering::Relaxed);
        });
        Ok(())
    })
}
