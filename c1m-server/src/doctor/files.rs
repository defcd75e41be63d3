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
/// Where systemd's programs look for files; of a file in several of them, the first one's counts: sysctl.d(5), systemd-system.conf(5), systemd.unit(5).
const PLACES: [&str; 4] = ["etc", "run", "usr/local/lib", "usr/lib"];
const SYSCTL: &str = "sysctl.d";
/// `sysctl --system` reads it last; systemd-sysctl reads it where a link in /etc/sysctl.d names it.
const SYSCTL_CONF: &str = "etc/sysctl.conf";
/// limits.conf(5): first the file, then the folder, and both in /etc alone.
const LIMITS: (&str, &str) = ("etc/security/limits.conf", "etc/security/limits.d");
/// systemd-system.conf(5): the first file that is found, then the folders.
const MANAGER: (&str, &str) = ("systemd/system.conf", "systemd/system.conf.d");
/// Units, and folders `NAME.d` of drop-ins.
const UNITS: &str = "systemd/system";
/// A longer file is no file of settings.
const BYTES_MAX: u64 = 1 << 20;
/// Of the folders that this host reads by itself.
const CONF: [&str; 1] = ["conf"];
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
    let mut all = present_lines();
    all.extend(lines_below(Path::new("/"), named)?);
    Ok(all)
}

/// Those of the files alone. `root`: of the system whose files are read by themselves.
fn lines_below(root: &Path, named: &[PathBuf]) -> Result<Vec<Line>, EnvironmentRefused> {
    let mut asked = read_named(named)?;
    let mut all = Vec::new();
    for found in installed(root) {
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

/// What the system below `root` reads by itself.
fn installed(root: &Path) -> Vec<Found> {
    let everywhere = |name: &str| PLACES.map(|place| root.join(place).join(name));
    let mut all = merged(&everywhere(SYSCTL), &CONF);
    let own = root.join(SYSCTL_CONF);
    // Linked into the folder, it was read in its place there.
    if !all.iter().any(|found| is_same(&found.path, &own)) {
        all.push(Found { path: own, masked_by: None });
    }
    all.push(Found { path: root.join(LIMITS.0), masked_by: None });
    all.extend(merged(&[root.join(LIMITS.1)], &CONF));
    all.extend(first_counts(everywhere(MANAGER.0).into()));
    all.extend(merged(&everywhere(MANAGER.1), &CONF));
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
    folders.sort_by_key(|folder| place(folder).1);
    for folder in &folders {
        fs::read_dir(folder).map_err(|error| refused(folder, &error))?;
        if merged(std::slice::from_ref(folder), &ENDS).is_empty() {
            let why = format!("the folder has no file that ends in .{}", ENDS.join(", ."));
            return Err(refused(folder, &why));
        }
    }
    let files = files.into_iter().map(|path| Found { path, masked_by: None });
    let all = by_kind(folders).into_iter().flat_map(|folders| merged(&folders, &ENDS)).chain(files);
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

/// Of which kind the files of a folder are, and where it stands in the order of precedence, also below the root of another system. Of one kind
/// are the folders whose files can stand for each other, such as those of the drop-ins of one unit.
fn place(folder: &Path) -> (Option<PathBuf>, usize) {
    let kinds = PLACES.iter().enumerate().flat_map(|(rank, place)| {
        let kind = |name: &str| (folder.ends_with(Path::new(place).join(name)), name.into(), rank);
        let drop_ins = folder.file_name().filter(|_| {
            folder.extension().is_some_and(|it| it == "d")
                && folder.parent().is_some_and(|it| it.ends_with(Path::new(place).join(UNITS)))
        });
        [kind(SYSCTL), kind(MANAGER.1), kind(UNITS)]
            .into_iter()
            .chain(drop_ins.map(|name| (true, PathBuf::from(name), rank)))
    });
    let found = kinds.into_iter().find(|(is_it, ..)| *is_it);
    found.map_or((None, PLACES.len()), |(_, kind, rank)| (Some(kind), rank))
}

/// The folders of each kind, in the order in which they come.
fn by_kind(folders: Vec<PathBuf>) -> Vec<Vec<PathBuf>> {
    let mut groups: Vec<(Option<PathBuf>, Vec<PathBuf>)> = Vec::new();
    for folder in folders {
        let (kind, _) = place(&folder);
        match groups.iter_mut().find(|(it, _)| *it == kind) {
            Some((_, group)) => group.push(folder),
            None => groups.push((kind, vec![folder])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The files of all folders by their names, those with one of these endings; of files of one name, the one in the first folder counts.
fn merged(folders: &[PathBuf], ends: &[&str]) -> Vec<Found> {
    let mut by_name: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|it| ends.iter().any(|end| it == *end)) {
                by_name.entry(entry.file_name()).or_default().push(path);
            }
        }
    }
    by_name.into_values().flat_map(first_counts).collect()
}

/// The first of these paths that is there is read, and the others stand behind it as masked. An empty file, or a link to /dev/null, masks as well.
fn first_counts(paths: Vec<PathBuf>) -> Vec<Found> {
    let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let mut first: Option<PathBuf> = None;
    let found = paths.into_iter().filter(is_there).map(|path| {
        let masked_by = first.clone();
        first.get_or_insert_with(|| path.clone());
        Found { path, masked_by }
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

    /// A system whose files set DefaultLimitNOFILE, or a kernel setting, to the text of each.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = match name.contains("sysctl") {
                true => format!("a.b = {value}\n"),
                false => format!("[Manager]\nDefaultLimitNOFILE={value}\n"),
            };
            fs::write(path, text).unwrap();
        }
        root
    }

    /// The values in the order in which they are read; those of masked files in brackets.
    fn values(lines: &[Line]) -> Vec<String> {
        let value = |line: &Line| match &line.statement {
            Statement::Sysctl { value, .. } | Statement::Unit { value, .. } => match line.masked_by
            {
                Some(_) => format!("({value})"),
                None => value.clone(),
            },
            other => panic!("{other:?}"),
        };
        lines.iter().map(value).collect()
    }

    #[test]
    fn the_files_of_systemd_are_read_from_all_places() {
        let everywhere: Vec<(String, String)> = PLACES
            .iter()
            .rev()
            .flat_map(|place| {
                let file = |name: &str| (format!("{place}/{name}"), format!("{place} {name}"));
                let own = format!("systemd/system.conf.d/50-{}.conf", place.replace('/', "-"));
                [file("systemd/system.conf"), file("systemd/system.conf.d/20-a.conf"), file(&own)]
            })
            .collect();
        let files: Vec<_> =
            everywhere.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let root = system(&files);
        let read = |named: &[PathBuf]| values(&lines_below(root.path(), named).unwrap());
        let last = [
            "etc systemd/system.conf.d/50-etc.conf",
            "run systemd/system.conf.d/50-run.conf",
            "usr/lib systemd/system.conf.d/50-usr-lib.conf",
            "usr/local/lib systemd/system.conf.d/50-usr-local-lib.conf",
        ];
        for (place, next) in PLACES.iter().zip(PLACES.iter().skip(1).map(Some).chain([None])) {
            let [main, drop_in] = ["systemd/system.conf", "systemd/system.conf.d/20-a.conf"];
            let expected = [
                vec![format!("{place} {main}"), format!("{place} {drop_in}")],
                last.map(Into::into).into(),
            ];
            assert_eq!(read(&[]), expected.concat());
            // A masked file is read only when it is named.
            if let Some(next) = next {
                let named = read(&[root.path().join(next).join(main)]);
                assert_eq!(named[..2], [format!("{place} {main}"), format!("({next} {main})")]);
            }
            fs::remove_file(root.path().join(place).join(main)).unwrap();
            fs::remove_file(root.path().join(place).join(drop_in)).unwrap();
        }
        assert_eq!(read(&[]), last);
    }

    #[test]
    fn an_empty_file_of_the_manager_masks_those_behind_it() {
        let root = system(&[
            ("usr/lib/systemd/system.conf", "1"),
            ("usr/lib/systemd/system.conf.d/a.conf", "2"),
        ]);
        let read = || values(&lines_below(root.path(), &[]).unwrap());
        assert_eq!(read(), ["1", "2"]);
        fs::create_dir_all(root.path().join("run/systemd/system.conf.d")).unwrap();
        fs::write(root.path().join("run/systemd/system.conf"), "").unwrap();
        assert_eq!(read(), ["2"]);
        let null = root.path().join("run/systemd/system.conf.d/a.conf");
        std::os::unix::fs::symlink("/dev/null", null).unwrap();
        assert_eq!(read(), [""; 0]);
    }

    #[test]
    fn sysctl_d_is_read_from_all_places() {
        let root = system(&[
            ("usr/lib/sysctl.d/10-a.conf", "masked"),
            ("usr/lib/sysctl.d/40-d.conf", "library"),
            ("usr/local/lib/sysctl.d/10-a.conf", "first"),
            ("usr/local/lib/sysctl.d/20-b.conf", "masked"),
            ("run/sysctl.d/20-b.conf", "second"),
            ("usr/local/lib/sysctl.d/30-c.conf", "local"),
            ("etc/sysctl.d/50-e.conf", "own"),
            // Nobody reads it.
            ("etc/sysctl.d/60-f.service", "no settings"),
            ("etc/sysctl.conf", "last"),
        ]);
        let read = values(&lines_below(root.path(), &[]).unwrap());
        assert_eq!(read, ["first", "second", "local", "library", "own", "last"]);
    }

    #[test]
    fn drop_ins_of_a_unit_mask_each_other_and_none_of_another_unit() {
        let root = system(&[
            ("etc/systemd/system/a.service.d/override.conf", "a of etc"),
            ("usr/local/lib/systemd/system/a.service.d/override.conf", "a of local"),
            ("usr/lib/systemd/system/a.service.d/override.conf", "a of lib"),
            ("usr/local/lib/systemd/system/b.service.d/override.conf", "b of local"),
            ("usr/lib/systemd/system/b.service.d/override.conf", "b of lib"),
            ("etc/systemd/system.conf.d/override.conf", "of the manager"),
            ("usr/local/lib/systemd/system/c.service", "c of local"),
            ("usr/lib/systemd/system/c.service", "c of lib"),
        ]);
        // In whatever order they are named.
        let folders = [
            "usr/lib/systemd/system/a.service.d",
            "usr/lib/systemd/system/b.service.d",
            "usr/lib/systemd/system",
            "usr/local/lib/systemd/system",
            "usr/local/lib/systemd/system/a.service.d",
            "usr/local/lib/systemd/system/b.service.d",
            "etc/systemd/system.conf.d",
            "etc/systemd/system/a.service.d",
        ]
        .map(|folder| root.path().join(folder));
        let other = tempfile::tempdir().unwrap();
        let mut read = values(&lines_below(other.path(), &folders).unwrap());
        read.sort();
        assert_eq!(
            read,
            [
                "(a of lib)",
                "(a of local)",
                "(b of lib)",
                "(c of lib)",
                "a of etc",
                "b of local",
                "c of local",
                "of the manager"
            ]
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
