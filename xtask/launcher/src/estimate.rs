//! How long a run of `reproduce` takes on this host, about: a few connections are opened over loopback, and the time that they take is held
//! against what a whole run took beside it.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Connections of a run to which nothing else is said, where memory holds them.
const CONNECTIONS: u64 = 1_024_000;
const BATCHES: u32 = 5;
const BATCH: u32 = 100;
/// A run takes so many times as long per connection as one of the sample: three acts, both ends, memory that nobody had before. Of 91 s for
/// 1,024,000 connections, and 55 µs a sample, on the same two CPUs.
const PER_SAMPLE: f64 = 1.6;
/// The sample uses one CPU, a run two.
const CPUS: usize = 2;

/// What is said before anything is built.
pub(crate) fn line(programs: &[&str], folder: &Path, arguments: &[OsString]) -> String {
    let connections = connections(arguments);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let time = sample().map(|sample| run(sample, connections.unwrap_or(CONNECTIONS), cpus));
    text(programs, folder, connections, time.ok())
}

fn text(
    programs: &[&str],
    folder: &Path,
    connections: Option<u64>,
    time: Option<Duration>,
) -> String {
    let built = if programs.iter().all(|name| folder.join(name).is_file()) {
        "checks that it has"
    } else {
        "builds"
    };
    let count = connections.unwrap_or(CONNECTIONS);
    let time =
        time.map_or_else(String::new, |time| format!(", about {} on this host", about(time)));
    let less =
        if connections.is_none() { " (fewer and shorter where less memory is free)" } else { "" };
    format!(
        "reproduce: {built} {} ({}), then plays three acts with {count} connections{time}{less}",
        programs.join(", "),
        folder.display()
    )
}

/// The number of `--connections`; `None` without one, or with one that this does not understand: the run says what is wrong with it.
fn connections(arguments: &[OsString]) -> Option<u64> {
    let mut arguments = arguments.iter().map(|argument| argument.to_str().unwrap_or_default());
    let value = arguments.find_map(|argument| match argument.strip_prefix("--connections") {
        Some("") => Some(None),
        Some(value) => value.strip_prefix('=').map(Some),
        None => None,
    })?;
    let text = value.or_else(|| arguments.next())?.to_ascii_lowercase();
    let (digits, factor) = match text.strip_suffix(['k', 'm']) {
        Some(digits) if text.ends_with('k') => (digits, 1_000),
        Some(digits) => (digits, 1_000_000),
        None => (text.as_str(), 1),
    };
    ungrouped(digits)?.parse::<u64>().ok()?.checked_mul(factor)
}

/// Digits, whole or in groups of three, as docs/units.md has them: this program depends on nothing, so it has no other program's parser.
fn ungrouped(text: &str) -> Option<String> {
    let separator = if text.contains(',') { ',' } else { '_' };
    let groups: Vec<&str> = text.split(separator).collect();
    let is_grouped = groups.len() == 1
        || ((1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|it| it.len() == 3));
    let digits = groups.concat();
    let are_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_grouped && are_digits).then_some(digits)
}

/// What one connection takes here. The shortest of several batches: other programs only make them longer.
fn sample() -> io::Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut shortest = Duration::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH {
            let mut client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            // Closed with this unread, the server's end resets the connection: no TIME_WAIT is left that the run would find.
            client.write_all(b"x")?;
            drop(server);
        }
        shortest = shortest.min(start.elapsed() / BATCH);
    }
    Ok(shortest)
}

fn run(sample: Duration, connections: u64, cpus: usize) -> Duration {
    let each = sample.as_secs_f64() * PER_SAMPLE;
    let shared = CPUS.div_ceil(cpus.max(1)) as f64;
    Duration::from_secs_f64(each * shared * connections as f64)
}

/// Rounded: it is no more than a guess.
fn about(time: Duration) -> String {
    match time.as_secs() {
        0..10 => "10 seconds".into(),
        seconds @ 10..100 => format!("{} seconds", seconds.div_ceil(10) * 10),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<u64> {
        connections(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn connections_are_those_of_the_command_line() {
        assert_eq!(asked("reproduce --yes --connections 16000"), Some(16_000));
        assert_eq!(asked("reproduce --connections=64k --yes"), Some(64_000));
        assert_eq!(asked("reproduce --connections 1M"), Some(1_000_000));
        assert_eq!(asked("reproduce --connections 1,024,000"), Some(1_024_000));
        assert_eq!(asked("reproduce --connections=1_024k"), Some(1_024_000));
        for other in ["reproduce", "reproduce --connections auto", "reproduce --connections"] {
            assert_eq!(asked(other), None, "{other}");
        }
        for wrong in ["+5", "1_", "1,,0", "1,24", ",024", "1,024_000", "k", "-1"] {
            assert_eq!(asked(&format!("reproduce --connections={wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn the_time_grows_with_the_connections_and_on_one_cpu() {
        let sample = Duration::from_micros(50);
        let (whole, half) = (run(sample, 1_000_000, 2), run(sample, 500_000, 8));
        assert_eq!(whole, 2 * half);
        assert_eq!(run(sample, 1_000_000, 1), 2 * whole);
        let told = [3, 21, 95, 130].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(told, ["10 seconds", "30 seconds", "100 seconds", "3 minutes"]);
    }

    #[test]
    fn the_line_says_what_is_built_and_how_long_the_run_takes() {
        let folder = Path::new("/no/such/reproduce");
        let time = Some(Duration::from_secs(85));
        let line = text(&["a", "b"], folder, Some(64_000), time);
        assert_eq!(
            line,
            "reproduce: builds a, b (/no/such/reproduce), then plays three acts with 64000 connections, about 90 seconds on this host"
        );
        assert!(text(&["a"], folder, None, None).contains("1024000 connections (fewer"));
    }

    #[test]
    fn a_sample_leaves_no_connection_behind() {
        assert!(sample().is_ok_and(|time| time > Duration::ZERO));
    }
}
