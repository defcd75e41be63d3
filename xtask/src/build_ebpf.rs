//! `build-ebpf`: from the sources in c1m-ebpf to the object in c1m-ebpf/prebuilt, and the proof that they belong together.
//!
//! - [`compiler`]: finds a rustc that has the sources of core.
//! - [`linker`]: finds or installs a bpf-linker of the same LLVM.
//! - [`toolchain`]: a compiler and a linker that fit, installed where that is allowed.
//! - [`compile`]: from sources to an object without debug information.
//! - [`object`] and [`disassembly`]: what stands in an object.
//! - [`manifest`]: what the committed object was made of, and the check that needs no toolchain.
//! - [`compare`]: two objects, program by program.
//! - [`machine_paths`]: no path of the machine that built it.

mod compare;
mod compile;
mod compiler;
mod disassembly;
mod linker;
pub(crate) mod machine_paths;
mod manifest;
mod object;
mod toolchain;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use self::{compile::Built, manifest::Manifest, toolchain::Toolchain};
pub(crate) use self::{manifest::hex, toolchain::Install};
use crate::{exit, place, process};

/// Build the eBPF object and write it to c1m-ebpf/prebuilt, with its manifest
///
/// Takes a nightly of rustup with rust-src, or any rustc that has the sources of core, and a bpf-linker of the same LLVM.
/// What is missing is installed: bpf-linker into the target folder; compiler and LLVM on Debian, as root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing: fail if the committed object is not that of the sources
    ///
    /// By the hashes in the manifest, and where a toolchain is installed also by building anew and comparing.
    #[arg(long, conflicts_with_all = ["log", "output"])]
    check: bool,

    /// With --check: install the toolchain if it is missing
    #[arg(long, requires = "check")]
    install: bool,

    /// With aya-log in the programs, for debugging; such an object is never committed
    #[arg(long, requires = "output")]
    log: bool,

    /// Write the object here, and nothing to c1m-ebpf/prebuilt
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check(if args.install { Install::Missing } else { Install::Nothing });
    }
    let toolchain = toolchain::find(Install::Missing, None)?;
    let built = compile::build(&toolchain, args.log)?;
    match &args.output {
        Some(file) => fs::write(file, &built.object)
            .with_context(|| format!("cannot write {}", file.display()))?,
        None => write_prebuilt(built)?,
    }
    Ok(())
}

fn write_prebuilt(built: Built) -> Result<()> {
    let manifest = Manifest::of(&place::ebpf(), &built.object, built.tools)?;
    manifest::write(&place::ebpf(), &built.object, &manifest)?;
    process::say(format_args!("{} {} bytes", manifest::OBJECT, built.object.len()))?;
    for (program, instructions) in &manifest.instructions {
        process::say(format_args!("{program} {instructions} instructions"))?;
    }
    Ok(())
}

/// Fails when the committed object is not that of the sources: by hash without any toolchain, by disassembly with one.
pub(crate) fn check(install: Install) -> Result<()> {
    let (manifest, committed) = manifest::verify(&place::ebpf())?;
    found("hashes of sources and object are those of the manifest")?;
    // The compiler of the manifest gives the same bytes; another one may have grounds to differ.
    let toolchain = match toolchain::find(install, Some(&manifest.tools.rustc)) {
        Ok(toolchain) => toolchain,
        // The hashes have decided already. Rebuilding is the stronger proof, for where it can be had.
        Err(error) if exit::code_of(&error) == 3 => {
            eprintln!("not built anew, because there is no toolchain for it: {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    rebuilt_is_the_same(&toolchain, &manifest, &committed)
}

fn rebuilt_is_the_same(toolchain: &Toolchain, manifest: &Manifest, committed: &[u8]) -> Result<()> {
    let built = compile::build(toolchain, false)?;
    if built.object == committed {
        return found("built anew, byte for byte the same");
    }
    let Some(difference) = compare::difference(committed, &built.object)? else {
        return found("built anew, the same programs and data; only symbols or BTF differ");
    };
    if built.tools == manifest.tools {
        return Err(exit::failed(format!(
            "{} is not what its sources give (- committed, + built anew):\n{difference}\n\
             run `cargo xtask build-ebpf` and commit the result",
            manifest::OBJECT
        )));
    }
    eprintln!("(- committed, + built anew)\n{difference}");
    found(&format!(
        "built anew with other tools, which gives other code; the hashes decide\nin the manifest: {}\nhere: {}",
        manifest.tools, built.tools
    ))
}

fn found(what: &str) -> Result<()> {
    process::say(format_args!("{}: {what}", manifest::OBJECT))
}
