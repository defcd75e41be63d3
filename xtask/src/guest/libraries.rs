//! What a program of the host needs of it to run elsewhere: its loader, and the libraries that the loader finds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness,
    elf::{FileHeader64, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::process;

/// Where glibc's loader remembers what it found outside of its own folders.
const CACHE: &str = "/etc/ld.so.cache";

/// The files without which these programs do not start, each at its own path. Nothing for what is static, or no program.
pub(super) fn of<'a>(programs: impl IntoIterator<Item = &'a Path>) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for program in programs {
        let Some(loader) = loader(program)? else { continue };
        // The loader of glibc and that of musl both know it.
        let told = process::ask(Command::new(&loader).arg("--list").arg(program))
            .with_context(|| format!("{} can't load {}", loader.display(), program.display()))?;
        files.extend(found(&told)?);
        files.insert(loader);
    }
    if !files.is_empty() && Path::new(CACHE).exists() {
        files.insert(CACHE.into());
    }
    Ok(files)
}

/// What the program's own header names.
fn loader(program: &Path) -> Result<Option<PathBuf>> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let Ok(header) = FileHeader64::<Endianness>::parse(&*bytes) else { return Ok(None) };
    let endian = header.endian()?;
    for segment in header.program_headers(endian, &*bytes)? {
        if segment.p_type(endian) != PT_INTERP {
            continue;
        }
        let path = segment.data(endian, &*bytes).ok().context("a program header without data")?;
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(str::from_utf8(path)?.into()));
    }
    Ok(None)
}

/// The paths in what a loader tells: `NAME => PATH (ADDRESS)`, or a path alone; what the kernel itself provides has none.
fn found(told: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in told.lines() {
        let file = line.split_once(" => ").map_or(line, |(_, file)| file).trim();
        if file.starts_with("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        if file.starts_with('/') {
            files.push(file.split(" (").next().unwrap_or(file).into());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_names() {
        let told = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f1)\n\t/lib64/ld-linux.so.2 (0x7f2)\n";
        assert_eq!(
            found(told).unwrap(),
            [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld-linux.so.2")]
        );
        let missing = found("\tlibabsent.so.1 => not found\n").unwrap_err().to_string();
        assert!(missing.contains("libabsent.so.1"), "{missing}");
    }

    #[test]
    fn this_program_names_its_loader_and_what_it_finds() {
        let own = std::env::current_exe().unwrap();
        let files = of([&*own]).unwrap();
        match loader(&own).unwrap() {
            None => assert_eq!(files, BTreeSet::new()),
            Some(loader) => {
                assert!(files.contains(&loader), "{files:?}");
                assert!(files.len() > 1 && files.iter().all(|file| file.exists()), "{files:?}");
            }
        }
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert_eq!(of([&*manifest]).unwrap(), BTreeSet::new());
    }
}
