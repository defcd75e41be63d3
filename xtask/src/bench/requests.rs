//! Requests a second over busy connections, while idle ones stand by: c1m-server, and nginx beside it, under the load of wrk.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::{
    board::Board,
    child::{rest, start},
    cli::Args,
    ends::{Programs, ramped},
    host,
    nginx::{self, Nginx, WORKER_CONNECTIONS},
};
use crate::debian;

/// How long wrk asks.
const SECONDS: u32 = 5;
const SECONDS_QUICK: u32 = 2;
/// Busy connections of a smoke test, at most.
const BUSY_QUICK: u64 = 500;
/// Of the idle client: where every port is bound from some address, the kernel finds none for wrk (net/ipv4/inet_hashtables.c,
/// __inet_hash_connect, 6.18). The default range has 28,232.
pub(crate) const LEAVE_PORTS: [&str; 2] = ["--per-source", "15000"];
/// Busy connections, and the figure that is about them.
const BUSY: [(u64, &str); 2] = [(64, "requests_64"), (10_000, "requests_10k")];
/// As long as what nginx is asked for.
const PATH: &str = "/bytes/64";
/// Processes of nginx that accept: more would only take the cores from each other.
const NGINX_WORKERS: usize = 2;
/// What a process of nginx may open besides, and how unevenly the kernel may spread connections over both of them.
const NGINX_SPARE: u64 = 1_000;

/// Where wrk is, whatever it takes to have it.
fn wrk() -> Result<PathBuf> {
    debian::program("wrk", &["wrk", "libluajit-5.1-2", "libluajit-5.1-common"])
}

/// What wrk and the server came to.
pub(crate) struct Load {
    /// Requests by second of CPU of the server, user and system.
    pub(crate) by_cpu_s: f64,
    pub(crate) by_s: f64,
}

/// CPU seconds of all processes of a server.
fn usage(server: &[u32]) -> Result<f64> {
    server.iter().map(|pid| Ok(host::usage(*pid)?.cpu_s)).sum()
}

/// Asks a server, which is these processes, over so many connections for a while.
pub(crate) fn load(args: &Args, server: &[u32], url: &str, busy: u64) -> Result<Load> {
    let (seconds, busy) = match args.quick {
        true => (SECONDS_QUICK, busy.min(BUSY_QUICK)),
        false => (SECONDS, busy),
    };
    let mut command = debian::command(&wrk()?);
    command.args(["-t", "1", "-c", &busy.to_string(), "-d", &seconds.to_string()]);
    let before = usage(server)?;
    let mut wrk = start(command.args(["--timeout", "30s", url]))?;
    let lines = rest(&mut wrk)?;
    let after = usage(server)?;
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let (requests, took_s) =
        parse(&text).with_context(|| format!("wrk said: {}", text.join(" ")))?;
    ensure!(requests > 0.0, "wrk got no answer");
    Ok(Load { by_cpu_s: requests / (after - before), by_s: requests / took_s })
}

/// Requests and seconds, if all were answered well: `  12345 requests in 5.01s, 2.34MB read`.
fn parse(lines: &[&str]) -> Result<(f64, f64)> {
    let wrong = ["Socket errors", "Non-2xx"];
    if let Some(line) = lines.iter().find(|line| wrong.iter().any(|it| line.contains(it))) {
        anyhow::bail!("not all were answered: {}", line.trim());
    }
    let found = lines.iter().find_map(|line| {
        let (requests, rest) = line.trim().split_once(" requests in ")?;
        let (seconds, _) = rest.split_once(',')?;
        let seconds = humantime::parse_duration(&whole_units(seconds)?).ok()?;
        Some((requests.parse().ok()?, seconds.as_secs_f64()))
    });
    found.context("no number of requests")
}

/// `5.01s` or `1.00m` as something without a fraction.
fn whole_units(text: &str) -> Option<String> {
    let unit_s = match text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.') {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let value: f64 = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().ok()?;
    Some(format!("{:.0}us", value * unit_s * 1e6))
}

fn idle_flags() -> Vec<&'static str> {
    ["--idle"].into_iter().chain(LEAVE_PORTS).collect()
}

/// Both servers in turn, over few and over many busy connections.
pub(crate) fn measure(args: &Args, programs: &Programs, board: &mut Board) -> Result<()> {
    let idle = args.scale() / 2;
    for run in 0..args.runs() {
        let busiest = BUSY.iter().map(|(busy, _)| busy).max().copied().unwrap_or(0);
        let (ours, address) = programs.listen(idle + busiest + NGINX_SPARE, &["--quiet"])?;
        let mut client = programs.open(&address, idle, &idle_flags())?;
        ramped(&mut client, idle)?;
        for (busy, name) in BUSY {
            let load = load(args, &[ours.pid()], &format!("http://{address}{PATH}"), busy)?;
            board.value(name, load.by_cpu_s);
            board.note(name, format!("run {}: ours {:.0} requests/s in all", run + 1, load.by_s));
        }
        drop((client, ours));
        host::settle()?;
        against_nginx(args, programs, board, run, idle, busiest)?;
        host::settle()?;
    }
    Ok(())
}

fn against_nginx(
    args: &Args,
    programs: &Programs,
    board: &mut Board,
    run: u32,
    idle: u64,
    busiest: u64,
) -> Result<()> {
    let nginx = Nginx::start(NGINX_WORKERS)?;
    let room = NGINX_WORKERS as u64 * (WORKER_CONNECTIONS - NGINX_SPARE) - busiest;
    let idle = idle.min(room);
    let mut client = programs.open(&nginx.address.to_string(), idle, &idle_flags())?;
    ramped(&mut client, idle)?;
    for (busy, name) in BUSY {
        let url = format!("http://{}{}", nginx.address, nginx::PATH);
        let load = load(args, &nginx.pids(), &url, busy)?;
        board.against(name, load.by_cpu_s);
        board.note(name, format!("run {}: nginx {:.0} requests/s in all", run + 1, load.by_s));
        board.note(
            name,
            format!("nginx: {NGINX_WORKERS} processes, {idle} idle connections, as many as their descriptor tables hold"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: [&str; 3] = [
        "Running 5s test @ http://127.0.0.1:1/64",
        "  358512 requests in 5.01s, 50.26MB read",
        "Requests/sec:  71544.76",
    ];

    #[test]
    fn what_wrk_says_is_understood() {
        assert_eq!(parse(&WELL).unwrap(), (358_512.0, 5.01));
        assert_eq!(parse(&["1 requests in 1.50m, 1MB read"]).unwrap().1, 90.0);
        assert!(parse(&WELL[..1]).is_err());
    }

    #[test]
    fn errors_are_no_requests() {
        let errors = "  Socket errors: connect 0, read 3, write 0, timeout 0";
        assert!(parse(&[WELL[1], errors]).is_err());
        assert!(parse(&[WELL[1], "  Non-2xx or 3xx responses: 1"]).is_err());
    }
}
