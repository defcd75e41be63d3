//! How cost grows: the same with 64,000, 128,000, … connections, as data and as a picture.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use c1m_report::panels::{self, Panel, Series};
use c1m_text::units;

use super::{
    Args,
    ends::{Held, Programs},
    host::{self, Settings},
    look,
    rounds::Quiet,
};
use crate::{bench::board::per, place, process};

const FIRST: u64 = 64_000;
const LAST: u64 = 2_048_000;
const HEAD: &str = "connections,floor_us_per_connection,ramp_us_per_connection,floor_teardown_us_per_connection,teardown_us_per_connection,\
    states_us_per_socket,holders_us_per_socket,server_user_bytes_per_connection,used_bytes_per_connection";

/// What was measured with so many connections, one run.
#[derive(Debug, Clone, Copy)]
struct Point {
    connections: u64,
    /// In the order of [`HEAD`].
    values: [f64; 8],
}

/// Measures it, as far as the memory reaches.
pub(crate) fn run(args: &Args, programs: &Programs) -> Result<()> {
    let last = args.scale.unwrap_or(LAST);
    let _settings = Settings::raise(last)?;
    let quiet = Quiet::look()?;
    let mut points = Vec::new();
    let mut connections = FIRST.min(last);
    while connections <= last {
        host::check_memory(connections)?;
        eprintln!("bench: {connections} connections");
        points.push(point(programs, connections, &quiet)?);
        connections *= 2;
    }
    let machine = format!("{}; Linux {}", host::machine()?, host::kernel()?);
    publish(args, &points, &machine)
}

fn point(programs: &Programs, connections: u64, quiet: &Quiet) -> Result<Point> {
    let each = |seconds: f64| 1e6 * seconds / per(connections, 1);
    let floor = Held::floor(programs, connections, &[])?;
    let floor_ramp = each(floor.ramp_s);
    let floor_teardown = each(floor.end()?.seconds);
    host::settle()?;
    let ours = Held::ours(programs, connections, &["--trace"], &[])?;
    let ramp = each(ours.ramp_s);
    let sockets = per(host::sockets()?.alloc, 1);
    let states = 1e6 * look::ours(programs, "states")? / sockets;
    let holders = 1e6 * look::ours(programs, "holders")? / sockets;
    let user = per(host::pss_bytes(ours.server.pid())?, connections);
    let used = per(quiet.growth()?, connections);
    let teardown = each(ours.end()?.seconds);
    host::settle()?;
    let values = [floor_ramp, ramp, floor_teardown, teardown, states, holders, user, used];
    Ok(Point { connections, values })
}

fn publish(args: &Args, points: &[Point], machine: &str) -> Result<()> {
    let folder = match args.write_docs {
        true => place::root().join("docs"),
        false => place::target().join("bench"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let data = write("benchmarks-curve.csv", csv(points, machine))?;
    let picture = write("benchmarks-curve.svg", picture(points, machine))?;
    for line in csv(points, machine).lines() {
        process::say(line)?;
    }
    eprintln!("kept in {} and {}", data.display(), picture.display());
    Ok(())
}

fn csv(points: &[Point], machine: &str) -> String {
    let mut text = format!("# {machine}\n{HEAD}\n");
    for Point { connections, values } in points {
        let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
        text += &format!("{connections},{}\n", values.join(","));
    }
    text
}

fn picture(points: &[Point], machine: &str) -> String {
    let series = |name: &'static str, index: usize| Series {
        name,
        values: points.iter().map(|point| point.values[index]).collect(),
    };
    let ticks: Vec<String> = points.iter().map(|point| units::grouped(point.connections)).collect();
    let panels = [
        Panel {
            title: "ramp and tear-down, µs a connection",
            series: vec![
                series("ramp", 1),
                series("floor", 0),
                series("tear-down", 3),
                series("floor's tear-down", 2),
            ],
        },
        Panel {
            title: "looking at all sockets, µs a socket",
            series: vec![series("states", 4), series("holders", 5)],
        },
        Panel { title: "server's user memory, bytes a connection", series: vec![series("PSS", 6)] },
        Panel {
            title: "all memory, both ends, bytes a connection",
            series: vec![series("used", 7)],
        },
    ];
    panels::svg(machine, &ticks, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Point> {
        [64_000, 128_000]
            .map(|connections| Point {
                connections,
                values: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5],
            })
            .into()
    }

    #[test]
    fn each_value_has_its_column() {
        let text = csv(&points(), "a machine");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# a machine");
        assert_eq!(lines[1].split(',').count(), lines[2].split(',').count());
        assert_eq!(lines[3], "128000,1.000,2.000,3.000,4.000,5.000,6.000,7.000,8.500");
    }

    #[test]
    fn the_picture_has_every_series() {
        let text = picture(&points(), "a machine");
        for name in ["ramp", "floor", "states", "holders", "PSS", "used", "128,000"] {
            assert!(text.contains(name), "{name}");
        }
    }
}
