//! `c1m-server doctor` compared with runs: each of ten limits is lowered below what 20,000 connections need. The doctor has to name it as the
//! first limit and give the number; a run has to stop within 2 % of that number; with the fix the run has to reach 20,000.
//!
//! Real limits of the running kernel: of a network namespace where they have one, of the host under the guard where they do not. Needs root;
//! what this host does not have is counted as ignored, with the reason.

mod runs;
mod world;

use std::process::ExitCode;

use c1m_preflight::{Ask, look};
use c1m_record::{Effect, LimitName, Record};
use c1m_sys::process::effective_capabilities;
use c1m_testkit::{
    Skip,
    host::{set_own, setting},
    nft, only,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use world::{N, World};

type Case = fn(&mut World) -> Result<(), Skip>;

/// The ten.
const LOWERED: [(LimitName, Case); 10] = [
    (LimitName::Nofile, nofile),
    (LimitName::NrOpen, nr_open),
    (LimitName::FileMax, file_max),
    (LimitName::EpollWatches, epoll_watches),
    (LimitName::Ports, ports),
    (LimitName::AcceptQueue, accept_queue),
    (LimitName::Conntrack, conntrack),
    (LimitName::TcpMemHigh, tcp_mem_high),
    (LimitName::Orphans, orphans),
    (LimitName::MemoryCgroup, memory_cgroup),
];

/// Those of the others that can stop a run, and why no run shows them doing so.
const NOT_LOWERED: [(LimitName, &str); 3] = [
    (
        LimitName::OrphanMemory,
        "the same sysctl and the same pages as tcp_mem_high, which is lowered",
    ),
    (
        LimitName::SynQueue,
        "on one host a handshake never waits, so its queue never fills; `xtask faults` fills it by SYNs without an end",
    ),
    (
        LimitName::Memory,
        "a host's memory can't be lowered for a test; memory_cgroup lowers it for the programs",
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host.
    arguments.test_threads = Some(1);
    let mut tests: Vec<Trial> = LOWERED
        .map(|(limit, case)| {
            let name = format!("the_wall_is_where_it_was_said_to_be_{}", limit.name());
            Trial::ignorable_test(name, move || run(case))
        })
        .into();
    tests.push(Trial::test("every_limit_is_lowered_or_has_a_reason", || {
        for row in look(&Ask::idle(1)).examination.rows {
            let limit = row.limit;
            let lowered = LOWERED.iter().filter(|(it, _)| *it == limit).count();
            let others = NOT_LOWERED.iter().filter(|(it, why)| *it == limit && !why.is_empty());
            // Refuses no connection and no data.
            let stops_nothing =
                matches!(row.effect, Effect::Slows | Effect::Bounds | Effect::Forgets);
            assert_eq!(lowered + others.count() + usize::from(stops_nothing), 1, "{limit:?}");
        }
        Ok(())
    }));
    tests.push(Trial::ignorable_test("what_a_namespace_hides_is_unknown", || run(hidden)));
    tests.push(Trial::ignorable_test("what_was_applied_comes_back", || run(comes_back)));
    tests.push(Trial::ignorable_test("strict_programs_do_not_start", || run(strict)));
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn run(case: Case) -> Result<Completion, Failed> {
    // CAP_SYS_ADMIN
    if !effective_capabilities().is_ok_and(|it| it & 1 << 21 != 0) {
        return Ok(Completion::ignored_with("settings of the kernel are root's to change"));
    }
    // Namespaces are a thread's.
    let done = std::thread::spawn(move || {
        let mut world = World::new()?;
        let done = case(&mut world);
        world.end();
        done
    });
    match done.join() {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(Skip(why))) => Ok(Completion::ignored_with(why)),
        Err(_) => Err("it panicked, see above".into()),
    }
}

/// Half of what is needed, in what is counted by connection.
const HALF: u64 = N / 2;

fn nofile(world: &mut World) -> Result<(), Skip> {
    let two = ["--role", "server", "--workers", "2"];
    world.nofile = Some(5_000);
    let at = world.first_wall(LimitName::Nofile, &two);
    assert_eq!(at, 2 * (5_000 - 7) + 1);
    let held = world.run(&["--workers", "2"], &[]);
    world.near(at, held);
    // No setting moves it. The fix that is named: more workers, each with a table of its own.
    let fit = world.doctor(&["--role", "server"]);
    assert_eq!((fit.code, fit.record.fits), (Some(0), Some(true)), "{fit:?}");
    assert_eq!(world.run(&["--max-connections", &N.to_string()], &[]), N);
    Ok(())
}

fn nr_open(world: &mut World) -> Result<(), Skip> {
    // A multiple of 64: fs/file.c, alloc_fdtable, 6.18.
    world.lower("fs.nr_open", 5_056)?;
    let two = ["--role", "server", "--workers", "2"];
    let at = world.first_wall(LimitName::NrOpen, &two);
    let held = world.run(&["--workers", "2"], &[]);
    world.near(at, held);
    world.applied(&two, |world| assert_eq!(world.run(&["--workers", "2"], &[]), N));
    Ok(())
}

fn file_max(world: &mut World) -> Result<(), Skip> {
    // Root is not refused.
    world.become_user(65_534);
    let open = world::file_nr();
    world.lower("fs.file-max", open + 2 * HALF)?;
    let at = world.first_wall(LimitName::FileMax, &[]);
    let held = world.run(&[], &[]);
    world.near(at, held);
    world.applied(&[], |world| assert_eq!(world.run(&[], &[]), N));
    Ok(())
}

fn epoll_watches(world: &mut World) -> Result<(), Skip> {
    // A user that nobody else is: watches are counted by user.
    world.become_user(64_017);
    world.lower("fs.epoll.max_user_watches", 2 * HALF)?;
    let at = world.first_wall(LimitName::EpollWatches, &[]);
    let held = world.run(&[], &[]);
    world.near(at, held);
    world.applied(&[], |world| assert_eq!(world.run(&[], &[]), N));
    Ok(())
}

fn ports(world: &mut World) -> Result<(), Skip> {
    world.unshare_network()?;
    set_own("net.ipv4.ip_local_port_range", "32768 37767")?;
    let two = ["--sources", "2"];
    let at = world.first_wall(LimitName::Ports, &two);
    let opened = runs::by_a_client_that_lets_the_kernel_choose(world, 2);
    world.near(at, opened);
    world.applied(&two, |world| {
        assert_eq!(world.run(&[], &["--source", "127.0.7.1-127.0.7.2"]), N);
    });
    Ok(())
}

fn accept_queue(world: &mut World) -> Result<(), Skip> {
    // One listener, and as many as its one table holds.
    const ONE: [&str; 4] = ["--workers", "1", "--rate", "15k"];
    // What is on its way is not there: few at a time.
    const CLIENT: [&str; 5] = ["--rate", "15k", "--idle", "--in-flight", "2"];
    world.unshare_network()?;
    world.connections = 19_900;
    set_own("net.core.somaxconn", "500")?;
    let at = world.first_wall(LimitName::AcceptQueue, &ONE);
    let opened = runs::while_nobody_accepts(world, &ONE[..2], &CLIENT, None);
    world.near(at, opened);
    world.applied(&ONE, |world| {
        let backlog = setting("net.core.somaxconn");
        let flags = ["--workers", "1", "--backlog", &backlog];
        let pause = Some(std::time::Duration::from_millis(100));
        let held = runs::while_nobody_accepts(world, &flags, &CLIENT, pause);
        assert_eq!(held, world.connections);
    });
    Ok(())
}

fn conntrack(world: &mut World) -> Result<(), Skip> {
    const MAX: &str = "net.netfilter.nf_conntrack_max";
    // Set in the first namespace, and compared with each one's own number.
    world.lower(MAX, HALF)?;
    world.unshare_network()?;
    nft::track_connections()
        .map_err(|error| Skip(format!("no nftables with connection tracking: {error}")))?;
    let at = world.first_wall(LimitName::Conntrack, &[]);
    let held = world.run(&[], &[]);
    world.near(at, held);
    // Only the first namespace may change it, and nothing is tracked there: what the doctor says is set by hand.
    let wanted = world.doctor(&[]).record.limits[0].settings[0].clone();
    assert_eq!(wanted.name, MAX);
    world.set_host(MAX, &wanted.value);
    world.fresh_network()?;
    nft::track_connections().map_err(|error| Skip(error.to_string()))?;
    assert_eq!(world.run(&[], &[]), N);
    Ok(())
}

fn tcp_mem_high(world: &mut World) -> Result<(), Skip> {
    let (pages, held) = (6, world::tcp_mem_pages());
    let high = held + pages * HALF;
    world.lower_to("net.ipv4.tcp_mem", &format!("{} {} {high}", high / 2, high - 1))?;
    let queued = ["--queued-bytes", "20000"];
    let at = world.first_wall(LimitName::TcpMemHigh, &queued);
    let Some(refused) = runs::first_refused(world, "/bytes/20000") else {
        return Err(Skip(
            "this kernel takes the first skb without a look at tcp_mem (before 6.6)".into(),
        ));
    };
    world.near(at, refused);
    world.applied(&queued, |world| assert_eq!(runs::first_refused(world, "/bytes/20000"), None));
    Ok(())
}

fn orphans(world: &mut World) -> Result<(), Skip> {
    world.lower_to("net.ipv4.tcp_fin_timeout", "120")?;
    world.lower("net.ipv4.tcp_max_orphans", HALF)?;
    let fin = ["--end", "fin"];
    let at = world.first_wall(LimitName::Orphans, &fin);
    let delivered = runs::cut_at_once(world, at);
    world.near(at, delivered);
    world.applied(&fin, |world| assert_eq!(runs::cut_at_once(world, N), N));
    Ok(())
}

fn memory_cgroup(world: &mut World) -> Result<(), Skip> {
    world.confine_memory()?;
    let cgroup = world.cgroup();
    // Far away, so that the need is reported.
    cgroup.limit(1 << 40)?;
    let limits = world.doctor(&[]).record.limits;
    let limit = limits.iter().find(|limit| limit.limit == LimitName::MemoryCgroup).unwrap();
    cgroup.limit(limit.needed.unwrap() / 5 * 4)?;
    let at = world.first_wall(LimitName::MemoryCgroup, &[]);
    let held = world.run(&["--interval", "10ms"], &["--rate", "8k"]);
    world.near(at, held);
    // No setting of the kernel moves it. The fix that is named:
    let fix = world.doctor(&[]).record.limits[0].fix.clone().unwrap();
    let bytes = fix.strip_prefix("memory.max=").and_then(|it| it.split(' ').next()).unwrap();
    cgroup.limit(bytes.parse().unwrap())?;
    assert_eq!(world.doctor(&[]).record.fits, Some(true));
    assert_eq!(world.run(&[], &[]), N);
    Ok(())
}

/// Settings of the host are not there in another network namespace.
fn hidden(world: &mut World) -> Result<(), Skip> {
    world.unshare_network()?;
    world.become_user(65_534);
    let idle = world.doctor(&[]);
    let names = |said: &world::Said| {
        said.record.unknown.iter().map(|it| (it.limit, it.decides)).collect::<Vec<_>>()
    };
    assert_eq!((idle.code, idle.record.fits), (Some(0), Some(true)), "{idle:?}");
    assert!(names(&idle).contains(&(LimitName::TcpMemHigh, false)), "{idle:?}");
    assert!(names(&idle).contains(&(LimitName::Orphans, false)), "{idle:?}");
    let high =
        idle.record.limits.iter().find(|limit| limit.limit == LimitName::TcpMemHigh).unwrap();
    assert_eq!((high.now, high.stops_at), (None, None));
    let queued = world.doctor(&["--queued-bytes", "1K"]);
    assert_eq!((queued.code, queued.record.fits), (Some(3), None), "{queued:?}");
    assert!(names(&queued).contains(&(LimitName::TcpMemHigh, true)), "{queued:?}");
    let many = world.doctor(&["--sources", "1"]);
    set_own("net.ipv4.ip_local_port_range", "32768 32800")?;
    let few = world.doctor(&["--sources", "1"]);
    assert_eq!((many.code, few.code), (Some(0), Some(1)));
    Ok(())
}

/// Whatever ends it.
fn comes_back(world: &mut World) -> Result<(), Skip> {
    let open = world::file_nr();
    world.lower("fs.file-max", open + HALF)?;
    let lowered = setting("fs.file-max");
    let mut killed = world.apply(&[]);
    assert_ne!(setting("fs.file-max"), lowered);
    killed.child().kill();
    assert_ne!(setting("fs.file-max"), lowered, "nobody was there to put it back");
    let (code, text) = world.restore();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(setting("fs.file-max"), lowered);
    // The next one puts back as well.
    world.apply(&[]).child().kill();
    world.applied(&[], |_| assert_ne!(setting("fs.file-max"), lowered));
    assert_eq!(setting("fs.file-max"), lowered);
    // Every signal that ends a program puts them back.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        let mut doctor = world.apply(&[]);
        assert_ne!(setting("fs.file-max"), lowered);
        doctor.child().signal(signal).unwrap();
        doctor.wait_for("settings put back", only!(Record::Restored));
        assert_eq!(setting("fs.file-max"), lowered, "{signal}");
    }
    // What is kept stays until it is asked for.
    let (code, text) = world.keep(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert_ne!(setting("fs.file-max"), lowered);
    assert_eq!(world.restore().0, Some(0));
    assert_eq!(setting("fs.file-max"), lowered);
    Ok(())
}

fn strict(world: &mut World) -> Result<(), Skip> {
    world.become_user(65_534);
    let open = world::file_nr();
    world.lower("fs.file-max", open + HALF)?;
    let connections = N.to_string();
    let server = ["--listen", "127.0.0.1:0", "--max-connections", &connections, "--strict"];
    let (code, text) = world.program_says(world::Which::Server, &server);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("file_max at connection") && text.lines().count() == 1, "{text}");
    let client = ["--connect", "127.0.0.1:1", "--connections", &connections, "--idle", "--strict"];
    let (code, text) = world.program_says(world::Which::Client, &client);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("file_max at connection") && text.lines().count() == 1, "{text}");
    Ok(())
}
