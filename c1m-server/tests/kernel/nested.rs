//! Hooks that are reached in a system call and in the softirq that interrupts it, at the same time on one CPU: the kernel skips the program that
//! is running, and the backup program takes what it missed.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use c1m_probe::{Options, Tracer, sample::Place};
use c1m_record::{Refused, Summary};

use c1m_testkit::{Settings, Skip, eventually, host::until_quiet};

use crate::{
    host::{connect, cpus, pair, reset},
    server::{Server, needs_ebpf},
    watch::Watch,
};

/// Until a program was skipped: how many times it is tried, each with as many writes of every thread.
const ROUNDS: usize = 20;
const LEAST_ROUNDS: usize = 2;
const WRITES: usize = 4_000;
/// Above high from the first allocation on.
const TCP_MEM: &str = "1 1 2";

/// Refusals and drops of many connections at once, while each packet is received in an interrupt, of whatever runs on another CPU.
pub(crate) fn refusals() -> Result<(), Skip> {
    needs_ebpf()?;
    let mut settings = Settings::take()?;
    until_quiet().unwrap();
    let spread = Spread::over_all_cpus();
    let mut server = Server::start(&["--interval", "100ms"])?;
    for signal in ["connections", "refusals", "dropped_segments"] {
        server.needs(signal)?;
    }
    // Another set of the same programs: it is skipped at other times, and has to come to the same.
    let mut second =
        Watch::start(&["--port", &server.address.port().to_string(), "--netns", "self"]);
    second.watching();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut pairs, mut opened) = (Vec::new(), 0);
    for _ in 0..2 * cpus() {
        let (writer, reader) = pair(&listener);
        writer.set_nonblocking(true).unwrap();
        reader.set_nonblocking(true).unwrap();
        pairs.push((writer, reader));
    }
    settings.set(&[("net.ipv4.tcp_mem", TCP_MEM.into())])?;
    // On one CPU nothing but a timer interrupts.
    let most = if cpus() > 1 { ROUNDS } else { LEAST_ROUNDS };
    let mut rounds = 0;
    while rounds < most && (rounds < LEAST_ROUNDS || skipped(server.pid()) == 0) {
        opened += round(&mut pairs, server.address);
        rounds += 1;
    }
    pairs.into_iter().for_each(|(writer, reader)| {
        reset(writer);
        reset(reader);
    });
    settings.put_back();
    let skips = skipped(server.pid());
    // Nobody refuses anything any more, and both see the end of it.
    until_quiet().unwrap();
    // The kernel runs no program for a few of the calls inside others, and does not count them.
    let is_near = |count: Option<u64>| {
        count.is_some_and(|count| (opened - opened / 100..=opened).contains(&count))
    };
    second.usage("connections, and their end", |usage| {
        is_near(usage.watched.opened) && is_near(usage.watched.closed)
    });
    // Their number is counted again where a program was skipped.
    let held = [(); 3].map(|()| connect(server.address));
    second.usage("connections that are there", |usage| usage.watched.connections == Some(3));
    held.into_iter().for_each(reset);
    second.usage("no connection", |usage| usage.watched.connections == Some(0));
    opened += 3;
    let of_second = second.finish();
    let summary = server.finish();
    drop(spread);
    check(&summary, opened);
    assert_eq!((of_second.dropped, &of_second.dropped_by.len()), (0, &0), "{of_second:?}");
    let refusals = summary.refused.map(|refused| of_refusals(&refused)).unwrap();
    assert_eq!(refusals, of_refusals(&of_second.refused), "{rounds} rounds");
    eprintln!("{rounds} rounds: {refusals:?} refused, programs skipped {skips} times, none lost");
    Ok(())
}

/// Writes from all threads at once, and connections that come and go meanwhile. How many came.
fn round(pairs: &mut [(TcpStream, TcpStream)], server: SocketAddr) -> u64 {
    let is_over = AtomicBool::new(false);
    let come_and_go = || {
        let mut opened = 0;
        while !is_over.load(Relaxed) {
            reset(connect(server));
            opened += 1;
        }
        opened
    };
    thread::scope(|scope| {
        let coming = [(); 2].map(|()| scope.spawn(come_and_go));
        let write = |(writer, reader): &mut (TcpStream, TcpStream)| {
            for _ in 0..WRITES {
                // What fits goes; the rest is refused, and so is the answer.
                let _ = writer.write(&[0; 3000]);
                let _ = reader.write(&[0; 3000]);
            }
        };
        let writers: Vec<_> =
            pairs.iter_mut().map(|pair| scope.spawn(move || write(pair))).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Relaxed);
        coming.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn of_refusals(refused: &Refused) -> [u64; 7] {
    [
        refused.high_send,
        refused.high_receive,
        refused.fair_share_send,
        refused.fair_share_receive,
        refused.memcg_send,
        refused.memcg_receive,
        refused.forced_first_skb,
    ]
}

fn check(summary: &Summary, opened: u64) {
    let refused = summary.refused.as_ref().unwrap();
    assert_eq!((summary.dropped, summary.dropped_by.len()), (Some(0), 0), "{summary:?}");
    assert_eq!((summary.accepted, summary.held), (opened, 0), "{summary:?}");
    assert!(refused.high_send > 0, "{refused:?}");
    if let Some(dropped) = refused.dropped_skb {
        let kernel = refused.kernel["TCPRcvQDrop"] + refused.kernel["TCPOFODrop"];
        assert_eq!(dropped, kernel, "{refused:?}");
    }
}

/// How often the kernel skipped a program of this process, first and backup programs together (`recursion_misses`, since 5.12).
fn skipped(pid: u32) -> u64 {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    files
        .filter_map(|file| fs::read_to_string(file.ok()?.path()).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok())
        })
        .sum()
}

/// Packets of the loopback interface are received by other CPUs than those that send them, in an interrupt that one CPU sends to the other (RPS,
/// Documentation/networking/scaling.rst). Put back when this is dropped; where the kernel has no RPS, nothing is changed.
struct Spread(Option<(PathBuf, String)>);

impl Spread {
    fn over_all_cpus() -> Self {
        let file = PathBuf::from("/sys/class/net/lo/queues/rx-0/rps_cpus");
        let Ok(before) = fs::read_to_string(&file) else { return Self(None) };
        let all = format!("{:x}", (1u64 << cpus().min(32)) - 1);
        match fs::write(&file, all) {
            Ok(()) => Self(Some((file, before.trim().to_owned()))),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        if let Some((file, before)) = self.0.take() {
            fs::write(file, before).expect("the CPUs of the loopback interface are put back");
        }
    }
}

/// A number of connections that is wrong is made right by a count of all; here it is wrong since nobody counted those that were there before.
pub(crate) fn recount() -> Result<(), Skip> {
    needs_ebpf()?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let before: Vec<_> = (0..20).map(|_| pair(&listener)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let options = Options {
        ports: vec![port],
        netns: None,
        present: Err("not asked for".into()),
        object: None,
        without: vec!["fentry".into(), "fexit".into(), "kprobe".into(), "kretprobe".into()],
        ring_bytes: None,
        verbosity: 0,
    };
    let (mut tracer, _) = Tracer::attach(&options).map_err(|error| Skip(error.to_string()))?;
    let after: Vec<_> = (0..5).map(|_| pair(&listener)).collect();
    assert_eq!(tracer.connections(), 5);
    // Nothing was missed, so nothing is counted by itself.
    assert_eq!(tracer.recount_if_needed(), Ok(None));
    assert_eq!(tracer.recount(&[Place::Own]), Ok(Some(20)));
    assert_eq!(tracer.connections(), 25);
    assert_eq!(tracer.recount(&[Place::Own]), Ok(Some(0)));
    after.into_iter().chain(before).for_each(|(client, server)| {
        reset(client);
        drop(server);
    });
    assert!(eventually(|| tracer.connections() == 0), "{}", tracer.connections());
    Ok(())
}
