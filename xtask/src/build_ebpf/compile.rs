//! From the sources to an object that is the same on every machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, SectionData};

use super::{compiler::Compiler, linker, machine_paths, manifest::Tools, toolchain::Toolchain};
use crate::{place, process};

const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "c1m-ebpf";

/// An object and what made it.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) object: Vec<u8>,
    pub(crate) tools: Tools,
}

/// Builds the programs, `log` with aya-log in them. Fails when a path of this machine got into the object.
pub(crate) fn build(toolchain: &Toolchain, log: bool) -> Result<Built> {
    let Toolchain { compiler, linker } = toolchain;
    eprintln!(
        "building the eBPF programs with {} and bpf-linker {} of LLVM {}",
        compiler.version,
        linker::VERSION,
        linker.llvm
    );
    let folder = place::ebpf();
    // Unpacked before their folders are listed for remapping.
    process::run("fetch the crates", cargo(compiler, "fetch").args(["--target", TARGET]))?;
    let target = place::target().join("ebpf");
    process::run(
        "build the eBPF programs",
        cargo(compiler, "build")
            .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain)?.join("\x1f"))
            // Without it the build script of aya's bindings takes the host's. The programs use no pt_regs, the only
            // thing that differs, so one object serves every host, and must be the same wherever it is built.
            .env("AYA_BPF_TARGET_ARCH", "x86_64")
            .args(["--release", "-Zbuild-std=core", "--target", TARGET, "--bin", BINARY])
            .args(["--features", if log { "log" } else { "programs" }])
            .arg("--target-dir")
            .arg(&target),
    )?;
    let linked = target.join(TARGET).join("release").join(BINARY);
    let linked = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let object = without_debug_sections(&linked)?;
    let paths = machine_paths::find(&object, &folders_of_this_machine(compiler));
    if !paths.is_empty() {
        bail!("paths of this machine are in the object: {}", paths.join(", "));
    }
    let tools = Tools {
        rustc: compiler.version.clone(),
        rustc_llvm: compiler.llvm.clone(),
        bpf_linker: linker::VERSION.to_owned(),
        bpf_linker_llvm: linker.llvm.clone(),
        aya_ebpf: locked_version(&fs::read_to_string(folder.join("Cargo.lock"))?, "aya-ebpf")
            .context("c1m-ebpf/Cargo.lock names no aya-ebpf")?,
    };
    Ok(Built { object, tools })
}

/// The compiler's own cargo in the folder of the programs, with nothing of this xtask's toolchain around it.
fn cargo(compiler: &Compiler, subcommand: &str) -> Command {
    let folder = place::ebpf();
    let mut command = process::foreign(&compiler.cargo);
    command
        .current_dir(&folder)
        .env("RUSTC", &compiler.rustc)
        // An empty one overrules a wrapper in the user's configuration.
        .env("RUSTC_WRAPPER", "")
        // Opens -Z flags on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .arg(subcommand);
    if folder.join("Cargo.lock").is_file() {
        command.arg("--locked");
    }
    command
}

fn flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", text(&toolchain.linker.file)?),
        // The source lines then stand in BTF, and the verifier shows them, without the files being looked for.
        "-Zembed-source=yes".to_owned(),
        "-Zdwarf-version=5".to_owned(),
    ];
    for (from, to) in remapped(&toolchain.compiler)? {
        flags.push(format!("--remap-path-prefix={}={to}", text(&from)?));
    }
    Ok(flags)
}

/// The folders of this machine and what stands for them. Where several fit, the compiler takes the last.
fn remapped(compiler: &Compiler) -> Result<Vec<(PathBuf, String)>> {
    let mut pairs = vec![
        (place::root(), "c1m".to_owned()),
        (place::ebpf(), "c1m-ebpf".to_owned()),
        (cargo_home(), "cargo".to_owned()),
    ];
    let registries = cargo_home().join("registry/src");
    if registries.is_dir() {
        // The name of a registry's folder depends on the version of cargo.
        for entry in fs::read_dir(&registries)? {
            pairs.push((entry?.path(), "registry".to_owned()));
        }
    }
    pairs.push((compiler.sysroot.clone(), "sysroot".to_owned()));
    pairs.extend(compiler.source_folders().into_iter().map(|folder| (folder, "rust".to_owned())));
    Ok(pairs)
}

/// What must not be in the object, beside the folders that every machine has.
fn folders_of_this_machine(compiler: &Compiler) -> Vec<PathBuf> {
    let mut folders = vec![
        place::root(),
        place::target(),
        cargo_home(),
        compiler.sysroot.clone(),
        env::temp_dir(),
    ];
    folders.extend(env::home_dir());
    folders.extend(compiler.source_folders());
    folders
}

fn cargo_home() -> PathBuf {
    match env::var_os("CARGO_HOME") {
        Some(folder) => folder.into(),
        None => env::home_dir().unwrap_or_default().join(".cargo"),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))
}

/// The object without DWARF, which no kernel reads. BTF, relocations and symbols stay.
fn without_debug_sections(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's output is no ELF object")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete =
            [b".debug_".as_slice(), b".rel.debug_"].iter().any(|prefix| name.starts_with(prefix));
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and symbols in one table, the writer in two.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the object without debug sections")?;
    Ok(stripped)
}

/// The version of a crate in the text of a Cargo.lock.
fn locked_version(lock: &str, name: &str) -> Option<String> {
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    let version = lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_version_is_that_of_the_very_crate() {
        let lock = "[[package]]\nname = \"aya-ebpf-cty\"\nversion = \"0.3.0\"\n\n\
                    [[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n";
        assert_eq!(locked_version(lock, "aya-ebpf").as_deref(), Some("0.2.1"));
        assert_eq!(locked_version(lock, "aya"), None);
    }
}
