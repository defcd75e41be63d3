//! The programs that are handed on: static, without a path of this machine, and with their debug symbols apart.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _};

use crate::{build_ebpf::machine_paths, exit, place, process};

/// What is handed on.
pub(super) const NAMES: [&str; 2] = ["c1m-server", "c1m-client"];

/// Glibc, linked statically: nothing in the programs resolves a name, which is what would load a library at run time.
pub(super) const TARGET: &str = match cfg!(target_arch = "aarch64") {
    true => "aarch64-unknown-linux-gnu",
    false => "x86_64-unknown-linux-gnu",
};

/// Builds them for release into `folder`, each with `NAME.debug` beside it.
pub(super) fn build(folder: &Path) -> Result<()> {
    let paths = Paths::of_this_machine()?;
    let mut cargo = process::cargo();
    cargo
        .current_dir(place::root())
        // With a target, the flags are not for what cargo runs while it builds: a macro of a compiler can't be static.
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(NAMES.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_ENCODED_RUSTFLAGS", paths.flags().join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    process::run("build the programs", &mut cargo)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in NAMES {
        let built = place::target().join(TARGET).join("release").join(name);
        let (program, symbols) = (folder.join(name), folder.join(format!("{name}.debug")));
        // The compiler's own libraries come with debug symbols that were not remapped; they go with the rest into the other file.
        objcopy(&["--only-keep-debug", "--compress-debug-sections"], &built, &symbols)?;
        let link = format!("--add-gnu-debuglink={}", symbols.display());
        objcopy(&["--strip-all", "--remove-section=.comment", &link], &built, &program)?;
        check(&fs::read(&program)?, &paths.known())
            .map_err(|why| exit::failed(format!("{}: {why}", program.display())))?;
    }
    Ok(())
}

/// Takes those of `from`, without their debug symbols.
pub(super) fn take(from: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in NAMES {
        objcopy(&["--strip-all"], &from.join(name), &folder.join(name))?;
    }
    Ok(())
}

fn objcopy(arguments: &[&str], from: &Path, to: &Path) -> Result<()> {
    process::run(
        "take debug symbols apart",
        Command::new("objcopy").args(arguments).arg(from).arg(to),
    )
}

/// Whether a program needs nothing of the machine that it runs on, and tells nothing of the one that built it; why not.
fn check(program: &[u8], known: &[PathBuf]) -> Result<(), String> {
    let file = object::File::parse(program).map_err(|error| error.to_string())?;
    // Without a loader nobody would look for a library.
    if file.section_by_name(".interp").is_some() {
        return Err("it asks for a loader, so it is not static".into());
    }
    for section in file.sections() {
        let bytes = section.uncompressed_data().map_err(|error| error.to_string())?;
        let mentioned = machine_paths::mentioned(&bytes, known);
        if !mentioned.is_empty() {
            let name = section.name().unwrap_or("?");
            return Err(format!("{name} names paths of this machine: {}", mentioned.join(", ")));
        }
    }
    Ok(())
}

/// What is on this machine alone.
struct Paths {
    root: PathBuf,
    cargo: PathBuf,
    compiler: PathBuf,
}

impl Paths {
    fn of_this_machine() -> Result<Self> {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let compiler = process::ask(Command::new(rustc).args(["--print", "sysroot"]));
        Ok(Self {
            root: place::root(),
            cargo: cargo.context("neither CARGO_HOME nor HOME is set")?,
            compiler: compiler.context("rustc does not say where it is")?.into(),
        })
    }

    fn flags(&self) -> Vec<String> {
        let remap = |from: &Path, to| format!("--remap-path-prefix={}={to}", from.display());
        vec![
            "-Ctarget-feature=+crt-static".into(),
            remap(&self.root, "c1m"),
            remap(&self.cargo, "cargo"),
            remap(&self.compiler, "rust"),
        ]
    }

    fn known(&self) -> Vec<PathBuf> {
        vec![self.root.clone(), self.cargo.clone(), self.compiler.clone(), place::target()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_tests_is_neither_static_nor_without_paths() {
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        let error = check(&own, &[]).unwrap_err();
        assert!(error.contains("loader"), "{error}");
    }
}
