//! The first section of the README, as somebody plays it who has the package and a failing nginx, and nothing else of c1m.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use libtest_mimic::{Completion, Failed};

use crate::{
    Tried, succeeds,
    system::{SMALL, package, small},
    tool, without,
};

const SECTION: &str = "## Five minutes\n";
/// Where the README finds the package: `cargo xtask dist`, which begins the section, has made
/// it there.
const MADE: &str = "target/dist";
const MAKES_IT: &str = "cargo xtask dist";
/// How long the README watches, and how long this does.
const SHORTER: (&str, &str) = ("--duration 1m", "--duration 6s");
/// What a worker of nginx may open; two workers, and more clients than both and the accept queue (511) hold.
const NOFILE: &str = "128";
const CLIENTS: &str = "1000";

/// nginx and its clients on a loopback interface and with process numbers of their own, all gone with the script, and the commands, one file each.
const SCRIPT: &str = r#"
set -e
cd "$1"; nginx=$2
ip link set lo up
"$nginx" -c "$PWD/nginx.conf" > out/nginx 2>&1 &
for folder in sys dev; do mount --rbind "/$folder" "$folder"; done
mount -t proc proc proc
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
for attempt in 1 2 3 4 5 6 7 8 9 10; do [ -s run/nginx.pid ] && break; sleep 0.3; done
for number in 0 1 2 3 4 5 6 7 8 9; do
    [ -f "command-$number" ] || break
    # It fails already when somebody comes to watch.
    case $(cat "command-$number") in
        *" watch "*)
            chroot . c1m-client --connect 127.0.0.1:80 --connections "$3" --idle --hold 60s > out/clients 2>&1 &
            sleep 1 ;;
    esac
    code=0; chroot . sh "/command-$number" > "out/$number" 2> "out/$number-errors" || code=$?
    echo "$code" > "out/$number-code"
done
master=$(cat run/nginx.pid)
set -- $(cat "proc/$master/task/$master/children")
chroot . c1m-server watch --pid "$1" --duration 100ms > out/worker 2>&1 || true
"#;

pub(crate) fn leads_to_the_verdict(made: &Path) -> Tried {
    let (commands, transcript) = section()?;
    let folder = tempfile::tempdir()?;
    let Some(root) = small(folder.path())? else { return without(SMALL) };
    let Some(nginx) = tool("nginx") else { return without("nginx") };
    let package = package(made)?;
    let name = package.file_name().and_then(|it| it.to_str()).ok_or("no name")?;
    fs::create_dir_all(root.join(MADE))?;
    fs::copy(&package, root.join(MADE).join(name))?;
    let sudo = root.join("usr/bin/sudo");
    fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("nginx.conf"), settings(&root))?;
    for (number, command) in commands.iter().enumerate() {
        fs::write(root.join(format!("command-{number}")), command.replace(SHORTER.0, SHORTER.1))?;
    }
    let mut script = Command::new("unshare");
    script.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation"]);
    script.args(["private", "sh", "-c", SCRIPT, "sh"]).arg(&root).arg(&nginx).arg(CLIENTS);
    let ended = succeeds(&mut script);
    let out = |name: &str| fs::read_to_string(root.join("out").join(name)).unwrap_or_default();
    if ended.is_err() {
        return Err(format!("{ended:?}: {}{}", out("nginx"), out("nginx-errors")).into());
    }

    assert!(commands.last().is_some_and(|it| it.contains(SHORTER.0)), "{commands:?}");
    for (number, command) in commands.iter().enumerate() {
        let errors = out(&format!("{number}-errors"));
        match out(&format!("{number}-code")).trim() {
            "0" => {}
            // Where this test may not trace either.
            "3" if errors.contains("c1m-server: ") => {
                return Ok(Completion::ignored_with(errors));
            }
            code => return Err(format!("`{command}` ended with {code}: {errors}").into()),
        }
    }
    let said = out(&(commands.len() - 1).to_string());
    let lines: Vec<Vec<String>> = said.lines().map(shape).collect();
    let mut rest = lines.as_slice();
    for told in &transcript {
        // Shortened, it says: words of it are left out.
        let is_it = |line: &Vec<String>| {
            let mut words = line.iter();
            shape(told).iter().all(|told| words.any(|word| word == told))
        };
        let Some(at) = rest.iter().position(is_it) else {
            return Err(format!("the README tells {told:?}, and this was said:\n{said}").into());
        };
        rest = &rest[at + 1..];
    }
    // Who takes a worker's number all the same is told the master's.
    let master = fs::read_to_string(root.join("run/nginx.pid"))?;
    let told = format!("--pid {} watches the one that started it", master.trim());
    assert!(out("worker").contains(&told) && !said.contains(&told), "{}", out("worker"));
    assert!(rest.is_empty(), "the README's last line is not the last one: {rest:?}");
    assert!(said.ends_with("ended  limit=nofile\n"), "{said}");

    let report = fs::read_to_string(root.join("run.html"))?;
    let remedy = transcript.iter().find_map(|line| line.trim().strip_prefix("remedy  "));
    let remedy = remedy.ok_or("the README tells no remedy")?;
    let remedy = remedy.split('…').map(str::trim);
    for told in ["class=\"answer hit\"", "(RLIMIT_NOFILE) (certain)"].into_iter().chain(remedy) {
        assert!(report.contains(told), "{told} is not in {report}");
    }
    Ok(Completion::Completed)
}

/// The words of a line without what is another one in each run: the time before it and the figures.
fn shape(line: &str) -> Vec<String> {
    let is_time =
        |word: &str| word.starts_with(|it: char| it.is_ascii_digit()) && word.contains(':');
    let words = line.split_whitespace().filter(|word| *word != "…" && !is_time(word));
    let figures = |word: &str| word.replace(|it: char| it.is_ascii_digit(), "#");
    let of_any_width =
        |word: String| word.split_inclusive('#').filter(|part| *part != "#").collect::<String>();
    words.map(figures).map(of_any_width).collect()
}

fn settings(root: &Path) -> String {
    let root = root.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {root}/tmp/{what};\n"))
        .collect();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\nworker_rlimit_nofile {NOFILE};\nerror_log {root}/out/nginx-errors;\npid {root}/run/nginx.pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n{temporary}  server {{ listen 80; return 204; }}\n}}\n"
    )
}

/// The commands of the section, and what it says that the last of them prints.
fn section() -> Result<(Vec<String>, Vec<String>), Failed> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(readme)?;
    let (_, section) = text.split_once(SECTION).ok_or("the section is gone")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let mut blocks = section.split("```").skip(1).step_by(2);
    let mut block = |name: &str| {
        let body = blocks.next().and_then(|it| it.strip_prefix(name)?.strip_prefix('\n'));
        let lines = |it: &str| it.lines().map(str::to_owned).collect::<Vec<_>>();
        body.map(lines).ok_or_else(|| Failed::from(format!("no block {name:?}")))
    };
    let (mut commands, transcript) = (block("")?, block("text")?);
    assert_eq!((commands.len(), transcript.len()), (4, 8), "four commands, and eight lines");
    assert_eq!(commands.remove(0), MAKES_IT);
    Ok((commands, transcript))
}
