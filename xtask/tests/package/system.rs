//! The Debian package in a small system of its own: unpacked packages, and dpkg's record that they are installed.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::{Completion, Failed};
use serde_json::Value;

use crate::{Tried, succeeds, unpacked, without};

/// What is done in it, by its own programs. The mounts are gone with the script's namespace.
const SCRIPT: &str = r#"
set -e
cd "$1"
for folder in proc sys dev; do mount --rbind "/$folder" "$folder"; done
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
inside() { chroot . "$@"; }
inside dpkg --install /c1m.deb > out/install 2>&1
inside c1m-server --version > out/version
inside c1m-client --version >> out/version
code=0; inside c1m-server doctor --connections 20000 --json > out/doctor || code=$?
echo "$code" > out/doctor-code
chroot . c1m-server --listen "127.0.0.1:$2" --duration 60s --json --quiet > out/server &
server=$!
code=1
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    code=0
    inside c1m-client --connect "127.0.0.1:$2" --connections 500 --hold 0s --sample 100 --json > out/client 2> out/client-errors || code=$?
    [ "$code" = 0 ] && break
    sleep 0.3
done
echo "$code" > out/client-code
kill "$server" || true
wait "$server"
code=0; inside c1m-server watch --duration 2s --json > out/watch 2> out/watch-errors || code=$?
echo "$code" > out/watch-code
gzip -dc usr/share/man/man1/c1m-server-watch.1.gz > out/page
inside dpkg --listfiles c1m > out/files
inside dpkg --remove c1m > out/remove 2>&1
inside dpkg --purge c1m > out/purge 2>&1
"#;

pub(crate) fn installs(made: &Path) -> Tried {
    let folder = tempfile::tempdir()?;
    let Some(root) = small(folder.path())? else { return without(SMALL) };
    fs::copy(package(made)?, root.join("c1m.deb"))?;
    let before = files(&root)?;
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut script = Command::new("unshare");
    script.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    let ended = succeeds(script.arg(&root).arg(port));
    let out = |name: &str| fs::read_to_string(root.join("out").join(name)).unwrap_or_default();
    if let Err(error) = ended {
        return Err(format!(
            "{}\n{}{}",
            error.message().unwrap_or(""),
            out("install"),
            out("purge")
        )
        .into());
    }

    let version = out("version");
    assert!(version.contains("c1m-server 0") && version.contains("c1m-client 0"), "{version}");
    let code = |name: &str| out(&format!("{name}-code")).trim().to_owned();
    assert!(["0", "1"].contains(&code("doctor").as_str()), "{}", out("doctor"));
    assert!(out("doctor").contains("\"kind\":\"doctor\""), "{}", out("doctor"));
    assert_eq!(code("client"), "0", "{}", out("client-errors"));
    assert_eq!(last(&out("server"))["kind"], "summary");
    match code("watch").as_str() {
        "0" => assert_eq!(last(&out("watch"))["kind"], "ended"),
        // Where this test may not trace either.
        "3" => assert!(out("watch-errors").contains("c1m-server: "), "{}", out("watch-errors")),
        _ => return Err(out("watch-errors").into()),
    }
    assert!(out("page").contains("EXIT STATUS"));
    let installed = out("files");
    for file in [
        "/usr/bin/c1m-server",
        "/usr/share/man/man1/c1m-client.1.gz",
        "/usr/lib/systemd/system/c1m-watch.service",
        "/usr/share/bash-completion/completions/c1m-server",
        "/usr/share/zsh/vendor-completions/_c1m-server",
        "/usr/share/fish/vendor_completions.d/c1m-client.fish",
        "/usr/share/doc/c1m/copyright",
        "/usr/share/doc/c1m/changelog.Debian.gz",
        "/usr/share/doc/c1m/THIRD-PARTY-LICENCES.md",
        "/usr/share/doc/c1m/docs/install.md",
    ] {
        assert!(installed.lines().any(|line| line == file), "{file} is not in {installed}");
    }
    let left: Vec<_> = files(&root)?.difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:?}\n{}{}", out("remove"), out("purge"));
    Ok(Completion::Completed)
}

/// What is missing where [`small`] finds nothing.
pub(crate) const SMALL: &str = "a small system of Debian's packages";

/// A copy of the small system, in this folder.
pub(crate) fn small(folder: &Path) -> Result<Option<PathBuf>, Failed> {
    let Some(packages) = unpacked("small-system") else { return Ok(None) };
    let root = folder.join("root");
    succeeds(Command::new("cp").args(["--archive", "--"]).arg(&packages).arg(&root))?;
    record(&root)?;
    Ok(Some(root))
}

fn last(lines: &str) -> Value {
    lines.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

pub(crate) fn package(made: &Path) -> Result<PathBuf, Failed> {
    let files = fs::read_dir(made)?.filter_map(Result::ok).map(|entry| entry.path());
    let mut packages = files.filter(|file| file.extension().is_some_and(|it| it == "deb"));
    Ok(packages.next().ok_or("no package was made")?)
}

/// Tells dpkg what is there.
fn record(root: &Path) -> Result<(), Failed> {
    for folder in [
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "out",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/log",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    let mut status = String::new();
    for file in fs::read_dir(root)? {
        let file = file?.path();
        if file.extension().is_some_and(|it| it == "deb") {
            let control = succeeds(Command::new("dpkg-deb").arg("--field").arg(&file))?;
            status += &format!("{}\nStatus: install ok installed\n\n", control.trim());
        }
    }
    Ok(fs::write(root.join("var/lib/dpkg/status"), status)?)
}

/// All but what dpkg keeps for itself, what was mounted, and what the script wrote.
fn files(root: &Path) -> Result<BTreeSet<PathBuf>, Failed> {
    let not_ours = ["proc", "sys", "dev", "out", "var/lib/dpkg", "var/log", "var/cache"];
    let mut folders = vec![root.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.path().strip_prefix(root)?.to_owned();
            if not_ours.iter().any(|it| name == Path::new(it)) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
            found.insert(name);
        }
    }
    Ok(found)
}
