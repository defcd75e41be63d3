//! Server and client: those that were built together with this program, and stand beside it.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

pub(super) const SERVER: &str = "c1m-server";
pub(super) const CLIENT: &str = "c1m-client";

/// May be written by the group, and by others.
const OTHERS_WRITE: u32 = 0o022;

/// The program of this name beside this one. An error says what is wrong with it.
pub(super) fn own(name: &str) -> anyhow::Result<PathBuf> {
    // Of the running program, with no link in it: not of how it was called.
    let own = env::current_exe().context("cannot find this program")?;
    beside(&own, name)
}

/// Whoever can put another program there can put one into this one's place as well: it is the same folder, and the file is no more open to others.
fn beside(own: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let program = own.with_file_name(name);
    let told = program.display();
    let Ok(file) = fs::symlink_metadata(&program) else {
        bail!("{told} is not built: run `cargo xtask reproduce`, which builds it");
    };
    if !file.is_file() {
        bail!("{told} is no program but a link or a folder: build it again");
    }
    let this = fs::metadata(own).with_context(|| format!("cannot look at {}", own.display()))?;
    if file.uid() != this.uid() {
        bail!("{told} belongs to another user than {}: build it again", own.display());
    }
    let is_open = |file: &fs::Metadata| file.mode() & OTHERS_WRITE;
    let is_of_another_group = is_open(&file) != 0 && file.gid() != this.gid();
    if is_open(&file) & !is_open(&this) != 0 || is_of_another_group {
        bail!("{told} can be changed by users who can't change {}: chmod go-w it", own.display());
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn file(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_a_program_beside_this_one_that_nobody_else_can_change_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("xtask");
        let server = folder.path().join(SERVER);
        file(&own, 0o755);
        let refused = || beside(&own, SERVER).unwrap_err().to_string();
        assert!(refused().contains("is not built"), "{}", refused());
        symlink("/bin/sh", &server).unwrap();
        assert!(refused().contains("a link"), "{}", refused());
        fs::remove_file(&server).unwrap();
        for mode in [0o775, 0o757, 0o777] {
            file(&server, mode);
            assert!(refused().contains("chmod"), "{}", refused());
        }
        file(&server, 0o755);
        assert_eq!(beside(&own, SERVER).unwrap(), server);
        // As with umask 002: who can change one can change the other.
        file(&own, 0o775);
        file(&server, 0o775);
        assert_eq!(beside(&own, SERVER).unwrap(), server);
    }
}
