//! The commit that a program is built from.
//!
//! A macro and not a build script: a script that runs again builds its whole package anew, tests included, and all that depend on it, with every
//! commit. This is expanded in the program's `main.rs`, which alone names the files of git that it was read from.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use proc_macro::TokenStream;

/// What is told where there is no git, or no repository.
const UNKNOWN: &str = "unknown";

/// The hash of the commit as a string literal, `-dirty` behind it where a file that git keeps is another one; `unknown` without git.
///
/// Expanded anew when the program's library or the commit has changed.
#[proc_macro]
pub fn commit(_: TokenStream) -> TokenStream {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let folder = Path::new(&folder);
    let mut code = String::from("{");
    for file in moving(folder) {
        // The compiler notes it among what the program depends on. Nobody reads the constant, so it is not in the program.
        let _ = write!(code, "const _: &[u8] = include_bytes!({:?});", file.display().to_string());
    }
    let _ = write!(code, "{:?}}}", of(folder).unwrap_or_else(|| UNKNOWN.into()));
    code.parse().unwrap_or_default()
}

fn of(folder: &Path) -> Option<String> {
    let hash = git(folder, &["rev-parse", "--verify", "HEAD"])?;
    // A source archive that somebody unpacked inside of another repository is not that one's commit.
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let changed = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash}-dirty") })
}

/// The files that change when another commit is checked out or made.
fn moving(folder: &Path) -> Vec<PathBuf> {
    ["HEAD", "logs/HEAD"]
        .iter()
        .filter_map(|name| git(folder, &["rev-parse", "--git-path", name]))
        .map(|path| folder.join(path))
        .filter(|path| path.is_file())
        .collect()
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    // It would refresh the index, which somebody else may be writing.
    let output = Command::new("git")
        .arg("--no-optional-locks")
        .args(arguments)
        .current_dir(folder)
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
