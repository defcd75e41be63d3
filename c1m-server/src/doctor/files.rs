//! Configured settings: in the running kernel, in the files that are read at boot and at log-in, and in those that were named.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use c1m_host::sysctl::normalized;
use c1m_limits::configured::{
    NOW,
    known::{self, canonical},
    lines::{self, Line, Statement, is_pattern},
};
use c1m_program::EnvironmentRefused;

/// Those whose present value can be wrong by itself.
const PRESENT: [&str; 6] = [
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_recycle",
];
/// Of a file in several of them, the first one's counts: sysctl.d(5).
const SYSCTL: [&str; 4] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
/// `sysctl --system` reads it last; systemd-sysctl reads it where a link in /etc/sysctl.d names it.
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
/// limits.conf(5), systemd-system.conf(5): first the file, then the folder.
const OTHERS: [(&str, &str); 2] = [
    ("/etc/security/limits.conf", "/etc/security/limits.d"),
    ("/etc/systemd/system.conf", "/etc/systemd/system.conf.d"),
];
/// A longer file is no file of settings.
const BYTES_MAX: u64 = 1 << 20;
/// Of a folder that is named.
const ENDS: [&str; 4] = ["conf", "service", "socket", "slice"];
const KERNEL: &str = "/proc/sys";

/// A file, and the one of the same name that is read instead.
struct Found {
    path: PathBuf,
    masked_by: Option<PathBuf>,
}

impl Found {
    fn lines(&self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = lines_of(&self.path.display().to_string(), bytes);
        let by = self.masked_by.as_ref().map(|by| by.display().to_string());
        lines.iter_mut().for_each(|line| line.masked_by.clone_from(&by));
        lines
    }
}

/// All lines of all of them, in the order in which they are read. `named`: what has to be there; `-` is standard input.
pub(super) fn lines(named: &[PathBuf]) -> Result<Vec<Line>, EnvironmentRefused> {
    let mut asked = read_named(named)?;
    let mut all = present_lines();
    for found in installed() {
        // One that was named keeps its place among the others, which may override it.
        let position = asked.iter().position(|(it, _)| is_same(&it.path, &found.path));
        let bytes = match position {
            Some(position) => asked.remove(position).1,
            // What may not be read is not ours to assess.
            None if found.masked_by.is_some() => continue,
            None => fs::read(&found.path).unwrap_or_default(),
        };
        let mut lines = found.lines(&bytes);
        for line in &mut lines {
            (line.installed, line.asked) = (true, position.is_some());
        }
        all.extend(lines);
    }
    for (found, bytes) in asked {
        let mut lines = found.lines(&bytes);
        lines.iter_mut().for_each(|line| line.asked = true);
        all.extend(lines);
    }
    Ok(all)
}

/// What this host reads by itself.
fn installed() -> Vec<Found> {
    let mut all = merged(&SYSCTL.map(PathBuf::from));
    let own = Path::new(SYSCTL_CONF);
    let file = |path: &Path| Found { path: path.into(), masked_by: None };
    // Linked into the folder, it was read in its place there.
    if !all.iter().any(|found| is_same(&found.path, own)) {
        all.push(file(own));
    }
    for (path, folder) in OTHERS {
        all.push(file(path.as_ref()));
        all.extend(merged(&[folder.into()]));
    }
    all
}

/// The host's own settings, by their names: of every setting that a line has, and of those that an assessment needs besides.
pub(super) fn present(lines: &[Line]) -> BTreeMap<String, Option<String>> {
    let of_line = |line: &Line| match &line.statement {
        Statement::Sysctl { name, .. } | Statement::NotRead { name, .. } if !is_pattern(name) => {
            Some(canonical(name).to_owned())
        }
        _ => None,
    };
    let known = known::all().map(|known| known.name.to_owned());
    known
        .chain(lines.iter().filter_map(of_line))
        .filter_map(|name| Some((name.clone(), value(&name)?)))
        .collect()
}

/// `None`: it can't be read, or is no name. `Some(None)`: there is no such setting.
fn value(name: &str) -> Option<Option<String>> {
    // The opposite of what a name with dots was made by: slashes inside of a part are dots.
    let path: String = name
        .chars()
        .map(|it| {
            if it == '.' {
                '/'
            } else if it == '/' {
                '.'
            } else {
                it
            }
        })
        .collect();
    let leads_out =
        path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0');
    if leads_out {
        return Some(None);
    }
    match fs::read_to_string(Path::new(KERNEL).join(path)) {
        Ok(text) => Some(Some(normalized(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        Err(_) => None,
    }
}

fn present_lines() -> Vec<Line> {
    let line = |name: &str| {
        let statement = Statement::Sysctl { name: name.into(), value: value(name)?? };
        Some(Line::new(NOW, None, statement))
    };
    PRESENT.into_iter().filter_map(line).collect()
}

fn lines_of(name: &str, bytes: &[u8]) -> Vec<Line> {
    lines::lines(name, &String::from_utf8_lossy(bytes))
}

/// The files that were named, and what is in them. Folders are merged, in the order of precedence that systemd gives them, and come first.
fn read_named(named: &[PathBuf]) -> Result<Vec<(Found, Vec<u8>)>, EnvironmentRefused> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for path in named {
        match fs::metadata(path) {
            _ if path.as_os_str() == "-" => files.push(path.clone()),
            Err(error) => return Err(refused(path, &error)),
            Ok(found) if found.is_dir() => folders.push(path.clone()),
            Ok(found) if found.is_file() => files.push(path.clone()),
            Ok(_) => return Err(refused(path, &"it is neither a file nor a folder")),
        }
    }
    folders.sort_by_key(|folder| rank(folder));
    for folder in &folders {
        fs::read_dir(folder).map_err(|error| refused(folder, &error))?;
        if merged(std::slice::from_ref(folder)).is_empty() {
            let why = format!("the folder has no file that ends in .{}", ENDS.join(", ."));
            return Err(refused(folder, &why));
        }
    }
    let files = files.into_iter().map(|path| Found { path, masked_by: None });
    let all = merged(&folders).into_iter().chain(files);
    all.map(|found| read(&found.path).map(|bytes| (found, bytes))).collect()
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> EnvironmentRefused {
    EnvironmentRefused(format!("cannot read {}, which --judge names: {error}", path.display()))
}

/// All of a file, or of standard input.
fn read(path: &Path) -> Result<Vec<u8>, EnvironmentRefused> {
    let mut bytes = Vec::new();
    let done = match path.as_os_str() == "-" {
        true => io::stdin().take(BYTES_MAX + 1).read_to_end(&mut bytes),
        false => {
            fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        }
    };
    done.map_err(|error| refused(path, &error))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(refused(path, &"it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// Where a folder stands in the order of precedence, also below the root of another system.
fn rank(folder: &Path) -> usize {
    let place = SYSCTL.iter().position(|place| folder.ends_with(place.trim_start_matches('/')));
    place.unwrap_or(SYSCTL.len())
}

/// The files of all folders by their names; of files of one name, the one in the first folder is read, and the others stand behind it as masked.
/// An empty file, or a link to /dev/null, masks as well.
fn merged(folders: &[PathBuf]) -> Vec<Found> {
    let mut by_name: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|it| ENDS.iter().any(|end| it == *end)) {
                by_name.entry(entry.file_name()).or_default().push(path);
            }
        }
    }
    let found = by_name.into_values().flat_map(|paths| {
        let first = paths[0].clone();
        let masked_by = move |path: &PathBuf| (*path != first).then(|| first.clone());
        paths.into_iter().map(move |path| Found { masked_by: masked_by(&path), path })
    });
    found.filter(|found| found.path.is_file()).collect()
}

fn is_same(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(named: &[PathBuf]) -> Vec<(String, Statement)> {
        let all = lines(named).unwrap().into_iter().filter(|line| line.asked);
        all.map(|line| (line.file, line.statement)).collect()
    }

    #[test]
    fn a_file_that_is_named_has_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.conf");
        let refused = |path: &Path| lines(&[path.into()]).unwrap_err().0;
        assert!(refused(&path).contains("--judge"));
        assert!(refused(folder.path()).contains("no file that ends in .conf"));
        assert!(refused(Path::new("/dev/null")).contains("neither"));
        fs::write(&path, vec![b'#'; 1 << 21]).unwrap();
        assert!(refused(&path).contains("1 MiB"));
        fs::write(&path, b"fs.file-max = 7\n\xff\xfe garbage = \xff\n").unwrap();
        assert_eq!(asked(&[path]).len(), 2);
    }

    #[test]
    fn folders_are_merged_as_systemd_does() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, name: &str, value: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), format!("a.b = {value}\n")).unwrap();
            folder
        };
        let library = write("usr/lib/sysctl.d", "10-a.conf", "masked");
        write("usr/lib/sysctl.d", "20-b.conf", "second");
        write("usr/lib/sysctl.d", "30-c.txt", "no settings");
        let own = write("etc/sysctl.d", "10-a.conf", "first");
        let run = write("run/sysctl.d", "15-r.conf", "between");
        let found = lines(&[library, run, own]).unwrap();
        let told: Vec<_> = found
            .iter()
            .filter(|line| line.asked)
            .map(|line| match &line.statement {
                Statement::Sysctl { value, .. } => (value.as_str(), line.masked_by.is_some()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [("first", false), ("masked", true), ("between", false), ("second", false)]
        );
    }

    #[test]
    fn names_do_not_lead_out_of_the_tree() {
        assert!(value("net.core.somaxconn").unwrap().is_some());
        assert_eq!(value("net.core.no_such_thing"), Some(None));
        for name in ["//.//.etc.passwd", "...etc", "", "a\0b"] {
            assert_eq!(value(name), Some(None), "{name}");
        }
    }
}
