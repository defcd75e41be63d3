//! Settings that somebody made: in the running kernel, in the files that are read at boot and at log-in, and in those that were named.

use std::{fs, path::PathBuf};

use crate::{
    command::EnvironmentRefused,
    host::sysctl::{Name, Tree},
    limits::found::{Found, NOW, limits_lines, sysctl_lines},
};

/// Those whose present value can be wrong by itself.
const PRESENT: [&str; 6] = [
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_recycle",
];
/// See sysctl.d(5) and limits.conf(5).
const SYSCTL: (&str, &str) = ("/etc/sysctl.conf", "/etc/sysctl.d");
const LIMITS: (&str, &str) = ("/etc/security/limits.conf", "/etc/security/limits.d");
/// A longer file is no file of settings.
const BYTES_MAX: u64 = 1 << 20;

/// All that are found. `named`: files that have to be there.
pub(super) fn found(named: &[PathBuf]) -> Result<Vec<Found>, EnvironmentRefused> {
    let tree = Tree::at(Tree::KERNEL);
    let present = |name: &str| {
        let value = tree.read(&Name::new(name).ok()?).ok()?;
        Some(Found { place: NOW.into(), name: name.into(), value, asked: false })
    };
    let mut found: Vec<Found> = PRESENT.into_iter().filter_map(present).collect();
    for ((file, folder), lines) in
        [(SYSCTL, sysctl_lines as fn(&str, &str) -> Vec<Found>), (LIMITS, limits_lines)]
    {
        for path in with_folder(file, folder) {
            // What may not be read is not ours to judge.
            let text = fs::read(&path).unwrap_or_default();
            found.extend(lines(&path.display().to_string(), &String::from_utf8_lossy(&text)));
        }
    }
    for path in named {
        let refused = |error: &dyn std::fmt::Display| {
            EnvironmentRefused(format!(
                "cannot read {}, which --judge names: {error}",
                path.display()
            ))
        };
        match fs::metadata(path) {
            Err(error) => return Err(refused(&error)),
            Ok(file) if !file.is_file() => return Err(refused(&"it is no file")),
            Ok(file) if file.len() > BYTES_MAX => return Err(refused(&"it is longer than 1 MiB")),
            Ok(_) => {}
        }
        let bytes = fs::read(path).map_err(|error| refused(&error))?;
        let (place, text) = (path.display().to_string(), String::from_utf8_lossy(&bytes));
        let named = sysctl_lines(&place, &text).into_iter().chain(limits_lines(&place, &text));
        found.extend(named.map(|found| Found { asked: true, ..found }));
    }
    Ok(found)
}

fn with_folder(file: &str, folder: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from(file)];
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_settings = |path: &PathBuf| path.extension().is_some_and(|it| it == "conf");
    let mut inside: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_settings).collect();
    inside.sort();
    paths.append(&mut inside);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_has_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.conf");
        assert!(found(std::slice::from_ref(&path)).unwrap_err().0.contains("--judge"));
        assert!(found(&[folder.path().into()]).unwrap_err().0.contains("no file"));
        fs::write(&path, b"fs.file-max = 7\n* hard nofile 9\n\xff\xfe garbage = \xff\n").unwrap();
        let all = found(&[path]).unwrap();
        let asked: Vec<_> = all
            .iter()
            .filter(|it| it.asked)
            .map(|it| (it.name.as_str(), it.value.as_str()))
            .collect();
        assert!(
            asked.contains(&("fs.file-max", "7")) && asked.contains(&("nofile", "9")),
            "{asked:?}"
        );
    }
}
