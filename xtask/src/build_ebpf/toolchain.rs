//! A compiler and a linker that fit together: the first pair that is installed, else the one that is easiest to complete.

use anyhow::Result;

use super::{
    compiler::{self, Compiler},
    linker::{self, LLVM_MAJORS, Linker},
};
use crate::{debian, exit};

/// The packages of Debian that keep up with Rust: browsers are built with them.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Whether to install what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    Nothing,
    /// bpf-linker into the target folder; packages where [`debian::can_install`] allows it.
    Missing,
}

/// What builds the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// Finds a toolchain, or installs what is missing to one. A compiler that calls itself `preferred` goes before others.
///
/// The error says what to install; its exit code is 3 when nothing but that is wrong.
pub(crate) fn find(install: Install, preferred: Option<&str>) -> Result<Toolchain> {
    let (mut compilers, mut passed_over) = usable();
    compilers.sort_by_key(|compiler| Some(compiler.version.as_str()) != preferred);
    if let Some(toolchain) = ready(&compilers) {
        return Ok(toolchain);
    }
    if install == Install::Missing {
        // A mirror that does not answer is as good a reason to do without as none at all.
        let installed = with_installed(&compilers)
            .map_err(|error| exit::refused(format!("cannot install a toolchain: {error:#}")))?;
        if let Some(toolchain) = installed {
            return Ok(toolchain);
        }
    }
    passed_over.extend(compilers.iter().map(|compiler| {
        format!(
            "{}: has the sources of core, but there is no bpf-linker {} for its LLVM {}",
            compiler.rustc.display(),
            linker::VERSION,
            compiler.llvm_major
        )
    }));
    Err(exit::refused(remedy(&passed_over)))
}

/// The compilers whose LLVM the linker can be built with.
fn usable() -> (Vec<Compiler>, Vec<String>) {
    let (compilers, mut passed_over) = compiler::candidates();
    let (usable, others): (Vec<_>, Vec<_>) =
        compilers.into_iter().partition(|compiler| LLVM_MAJORS.contains(&compiler.llvm_major));
    passed_over.extend(others.iter().map(|compiler| {
        format!(
            "{}: is of LLVM {}, which bpf-linker {} does not know",
            compiler.rustc.display(),
            compiler.llvm_major,
            linker::VERSION
        )
    }));
    (usable, passed_over)
}

fn ready(compilers: &[Compiler]) -> Option<Toolchain> {
    compilers.iter().find_map(|compiler| {
        let linker = linker::find(compiler.llvm_major)?;
        Some(Toolchain { compiler: compiler.clone(), linker })
    })
}

/// From what costs least: a linker for a compiler that is here, its LLVM too, and at last a compiler.
fn with_installed(compilers: &[Compiler]) -> Result<Option<Toolchain>> {
    if let Some(toolchain) = with_new_linker(compilers)? {
        return Ok(Some(toolchain));
    }
    if !debian::can_install() {
        return Ok(None);
    }
    debian::update();
    if let Some(toolchain) = with_debian_llvm(compilers)? {
        return Ok(Some(toolchain));
    }
    let packages = DEBIAN_COMPILER.map(str::to_owned);
    if !debian::offers(&packages) {
        return Ok(None);
    }
    debian::install(&packages)?;
    let (compilers, _) = usable();
    match with_new_linker(&compilers)? {
        Some(toolchain) => Ok(Some(toolchain)),
        None => with_debian_llvm(&compilers),
    }
}

fn with_new_linker(compilers: &[Compiler]) -> Result<Option<Toolchain>> {
    for compiler in compilers {
        if let Some(llvm) = linker::find_llvm(compiler.llvm_major) {
            let linker = linker::install(&llvm)?;
            return Ok(Some(Toolchain { compiler: compiler.clone(), linker }));
        }
    }
    Ok(None)
}

fn with_debian_llvm(compilers: &[Compiler]) -> Result<Option<Toolchain>> {
    for compiler in compilers {
        let packages = [format!("llvm-{}-dev", compiler.llvm_major)];
        if debian::offers(&packages) {
            debian::install(&packages)?;
            return with_new_linker(std::slice::from_ref(compiler));
        }
    }
    Ok(None)
}

/// One message: what is needed, how to get it, and what was found instead.
fn remedy(passed_over: &[String]) -> String {
    let majors = LLVM_MAJORS.map(|major| major.to_string()).join(", ");
    let mut text = format!(
        "the eBPF programs need a Rust compiler with the sources of core and LLVM {majors}. On Debian run as root:\n  \
         apt-get update && apt-get install --no-install-recommends {} llvm-22-dev\n\
         elsewhere: rustup toolchain install nightly --component rust-src, and the development files of the LLVM \
         that `rustc +nightly -vV` names;\n\
         then run `cargo xtask build-ebpf`, which builds bpf-linker itself",
        DEBIAN_COMPILER.join(" "),
    );
    for reason in passed_over {
        text.push_str("\n  ");
        text.push_str(reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_packages_and_what_was_passed_over() {
        let text = remedy(&["/opt/rustc: has no sources of core".to_owned()]);
        for part in ["rust-web-src", "llvm-22-dev", "nightly --component rust-src", "/opt/rustc"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
}
