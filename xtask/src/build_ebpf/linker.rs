//! Finds or installs bpf-linker. It reads the compiler's bitcode, so both must be of one LLVM major.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use object::{
    Endianness,
    read::elf::{Dyn, ElfFile64, FileHeader},
};

use crate::{place, process};

/// The version that the programs are built with.
pub(crate) const VERSION: &str = "0.13.0";

/// The LLVM majors that this version has a feature for.
pub(crate) const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// A bpf-linker that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) file: PathBuf,
    /// Of the LLVM in it: `22.1`, or only the major when no more is known.
    pub(crate) llvm: String,
}

/// An LLVM with what is needed to build against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Llvm {
    pub(crate) prefix: PathBuf,
    pub(crate) major: u32,
}

/// A linker of this LLVM major that is already installed: the one that [`install`] made, else one in `PATH`.
pub(crate) fn find(llvm_major: u32) -> Option<Linker> {
    let own = folder(llvm_major).join("bin/bpf-linker");
    if is_wanted_version(&own) {
        let llvm = linked_llvm(&own).unwrap_or_else(|| llvm_major.to_string());
        return Some(Linker { file: own, llvm });
    }
    // bpf-linker does not say which LLVM is in it. One that links LLVM dynamically can be told; another is not trusted.
    place::in_path("bpf-linker").into_iter().filter(|file| is_wanted_version(file)).find_map(
        |file| {
            let llvm = linked_llvm(&file)?;
            (llvm.split('.').next() == Some(&llvm_major.to_string()))
                .then_some(Linker { file, llvm })
        },
    )
}

/// Builds and installs the linker into the target folder, with the cargo that runs this xtask. Takes a minute or two.
pub(crate) fn install(llvm: &Llvm) -> Result<Linker> {
    let root = folder(llvm.major);
    let build = root.join("build");
    eprintln!("installing bpf-linker {VERSION} for LLVM {} into {}", llvm.major, root.display());
    process::run(
        "install bpf-linker",
        process::cargo()
            .env("LLVM_PREFIX", &llvm.prefix)
            .env_remove("RUSTFLAGS")
            // It links one small object: LLVM does the work, and that is compiled already.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .arg("install")
            .arg(format!("bpf-linker@{VERSION}"))
            .args(["--no-default-features", "--features", &format!("llvm-{}", llvm.major)])
            .args(["--locked", "--force", "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(&build),
    )?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    find(llvm.major).context("the bpf-linker just installed does not run")
}

/// The LLVM of this major with headers and library, where distributions and `PATH` have it.
pub(crate) fn find_llvm(major: u32) -> Option<Llvm> {
    place::in_path(&format!("llvm-config-{major}"))
        .into_iter()
        .chain([PathBuf::from(format!("/usr/lib/llvm-{major}/bin/llvm-config"))])
        .chain(place::in_path("llvm-config"))
        .find_map(|config| {
            let ask = |question| process::ask(process::foreign(&config).arg(question));
            let version = ask("--version")?;
            let headers = PathBuf::from(ask("--includedir")?).join("llvm-c/Core.h");
            let fits = version.split('.').next() == Some(&major.to_string()) && headers.is_file();
            fits.then_some(Llvm { prefix: ask("--prefix")?.into(), major })
        })
}

fn folder(llvm_major: u32) -> PathBuf {
    place::target().join(format!("bpf-linker/{VERSION}-llvm-{llvm_major}"))
}

fn is_wanted_version(file: &Path) -> bool {
    process::ask(process::foreign(file).arg("--version"))
        .is_some_and(|text| text == format!("bpf-linker {VERSION}"))
}

/// The version of the LLVM library that an executable wants to be loaded with, such as `22.1`.
fn linked_llvm(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    needed_libraries(&bytes)?.iter().find_map(|library| llvm_version(library))
}

/// `libLLVM.so.22.1` is what LLVM calls its library, `libLLVM-22.so.1` what some distributions do.
fn llvm_version(library: &str) -> Option<String> {
    let rest = library.strip_prefix("libLLVM")?;
    let version = match rest.strip_prefix(".so.") {
        Some(version) => version,
        None => rest.strip_prefix('-')?.split(".so").next()?,
    };
    version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
}

/// The DT_NEEDED entries of a 64-bit ELF file.
fn needed_libraries(bytes: &[u8]) -> Option<Vec<String>> {
    let elf = ElfFile64::<Endianness>::parse(bytes).ok()?;
    let (endian, header) = (elf.endian(), elf.elf_header());
    let sections = header.sections(endian, bytes).ok()?;
    let (entries, strings) = sections.dynamic(endian, bytes).ok()??;
    let strings = sections.strings(endian, bytes, strings).ok()?;
    Some(
        entries
            .iter()
            .filter(|entry| entry.tag(endian) == object::elf::DT_NEEDED)
            .filter_map(|entry| entry.string(endian, strings).ok())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_libraries() {
        assert_eq!(llvm_version("libLLVM.so.22.1").as_deref(), Some("22.1"));
        assert_eq!(llvm_version("libLLVM-21.so.1").as_deref(), Some("21"));
        assert_eq!(llvm_version("libc.so.6"), None);
        assert_eq!(llvm_version("libLLVMSupport.so"), None);
    }

    #[test]
    fn needed_libraries_of_cargo_have_libc_and_no_llvm() {
        // This test itself may be static.
        let cargo = Path::new(env!("CARGO"));
        let needed = needed_libraries(&fs::read(cargo).unwrap()).unwrap();
        assert!(needed.iter().any(|name| name.starts_with("libc.so")), "{needed:?}");
        assert_eq!(linked_llvm(cargo), None);
    }
}
