//! Finds compilers that can build core for the BPF target, because nobody ships it ready-made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{place, process};

/// A rustc that has the sources of core, and the cargo that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) sysroot: PathBuf,
    /// As `rustc --version` says it.
    pub(crate) version: String,
    /// Such as `22.1.8`.
    pub(crate) llvm: String,
    pub(crate) llvm_major: u32,
}

impl Compiler {
    /// The folder with the sources that rustc ships, as its own files name it and as it really is.
    pub(crate) fn source_folders(&self) -> Vec<PathBuf> {
        let named = self.sysroot.join("lib/rustlib/src/rust");
        let real = fs::canonicalize(&named).unwrap_or_else(|_| named.clone());
        if real == named { vec![named] } else { vec![named, real] }
    }
}

/// Every compiler of this machine that can do it, best first, and why others were passed over.
pub(crate) fn candidates() -> (Vec<Compiler>, Vec<String>) {
    let mut found: Vec<Compiler> = Vec::new();
    let mut passed_over = Vec::new();
    let mut seen = Vec::new();
    for rustc in rustup_compilers().into_iter().chain(place::in_path("rustc")) {
        match examine(&rustc) {
            Ok(compiler) if !found.contains(&compiler) => found.push(compiler),
            Ok(_) => {}
            Err((sysroot, reason)) if !seen.contains(&sysroot) => {
                passed_over.push(format!("{}: {reason}", rustc.display()));
                seen.push(sysroot);
            }
            Err(_) => {}
        }
    }
    (found, passed_over)
}

/// The compilers of rustup's toolchains, nightlies first.
fn rustup_compilers() -> Vec<PathBuf> {
    let Some(list) = process::ask(process::foreign("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    let mut names: Vec<&str> =
        list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    names
        .into_iter()
        .filter_map(|name| {
            process::ask(process::foreign("rustup").args(["which", "--toolchain", name, "rustc"]))
        })
        .map(PathBuf::from)
        .collect()
}

/// What can be said of one rustc; otherwise its sysroot, as far as known, and what is missing.
fn examine(rustc: &Path) -> Result<Compiler, (PathBuf, String)> {
    let ask = |arguments: &[&str]| process::ask(process::foreign(rustc).args(arguments));
    let sysroot = ask(&["--print", "sysroot"])
        .map(PathBuf::from)
        .ok_or_else(|| (rustc.to_path_buf(), "does not run".to_owned()))?;
    let lacks = |what: &str| (sysroot.clone(), what.to_owned());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        return Err(lacks("has no sources of core (component rust-src)"));
    }
    // What stands in the sysroot itself rather than rustup's proxy, which looks at its folder to choose a toolchain.
    let own = |name: &str| Some(sysroot.join("bin").join(name)).filter(|file| file.is_file());
    let rustc = own("rustc").unwrap_or_else(|| rustc.to_path_buf());
    let cargo = own("cargo")
        .or_else(|| Some(rustc.with_file_name("cargo")).filter(|file| file.is_file()))
        .ok_or_else(|| lacks("has no cargo beside it"))?;
    let verbose = ask(&["-vV"]).ok_or_else(|| lacks("does not tell its version"))?;
    let (version, llvm, llvm_major) =
        versions(&verbose).ok_or_else(|| lacks("does not tell its LLVM version"))?;
    Ok(Compiler { rustc, cargo, sysroot, version, llvm, llvm_major })
}

/// From the answer to `rustc -vV`: the first line, the version of LLVM, and its major.
fn versions(verbose: &str) -> Option<(String, String, u32)> {
    let version = verbose.lines().next()?.to_owned();
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.to_owned();
    let major = llvm.split('.').next()?.parse().ok()?;
    Some((version, llvm, major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_rustc() {
        let verbose = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nLLVM version: 22.1.8";
        assert_eq!(
            versions(verbose),
            Some(("rustc 1.96.0 (ac68faa20 2026-05-25)".into(), "22.1.8".into(), 22))
        );
        assert_eq!(versions("rustc 1.0.0\nLLVM version: unknown"), None);
    }

    #[test]
    fn a_compiler_that_does_not_run_is_passed_over_with_a_reason() {
        let (_, reason) = examine(Path::new("/nonexistent/rustc")).unwrap_err();
        assert_eq!(reason, "does not run");
    }
}
