//! What the committed object was made of, and the proof by hash that it is that of the sources.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{machine_paths, object::Contents};
use crate::exit;

/// The object, as people name it: from the repository's root.
pub(crate) const OBJECT: &str = "c1m-ebpf/prebuilt/c1m.bpf.o";

const OBJECT_FILE: &str = "prebuilt/c1m.bpf.o";
const MANIFEST_FILE: &str = "prebuilt/manifest.json";

/// The versions that decide which code the sources give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tools {
    pub(crate) rustc: String,
    pub(crate) rustc_llvm: String,
    pub(crate) bpf_linker: String,
    pub(crate) bpf_linker_llvm: String,
    pub(crate) aya_ebpf: String,
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, rustc_llvm, bpf_linker, bpf_linker_llvm, aya_ebpf } = self;
        write!(
            f,
            "{rustc}, LLVM {rustc_llvm}, bpf-linker {bpf_linker} of LLVM {bpf_linker_llvm}, aya-ebpf {aya_ebpf}"
        )
    }
}

/// The file beside the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Of Cargo.toml, Cargo.lock and src/, see [`sources_sha256`].
    pub(crate) sources_sha256: String,
    pub(crate) object_sha256: String,
    pub(crate) tools: Tools,
    /// By program; as the kernel counts them.
    pub(crate) instructions: BTreeMap<String, usize>,
}

impl Manifest {
    /// Describes an object that was just built from the sources in `folder`.
    pub(crate) fn of(folder: &Path, object: &[u8], tools: Tools) -> Result<Self> {
        Ok(Self {
            sources_sha256: sources_sha256(folder)?,
            object_sha256: hex(&Sha256::digest(object)),
            tools,
            instructions: instructions(object)?,
        })
    }
}

/// Writes the object and its manifest. Each file is complete or untouched, at whatever point this is interrupted.
pub(crate) fn write(folder: &Path, object: &[u8], manifest: &Manifest) -> Result<()> {
    let mut text = serde_json::to_string_pretty(manifest)?;
    text.push('\n');
    fs::create_dir_all(folder.join("prebuilt"))?;
    for (file, bytes) in [(OBJECT_FILE, object), (MANIFEST_FILE, text.as_bytes())] {
        let (file, new) = (folder.join(file), folder.join(format!("{file}.new")));
        fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Proves without any toolchain that the object in `folder` is that of the sources beside it, and returns both it and its
/// manifest. Exit code 1 when it is not.
pub(crate) fn verify(folder: &Path) -> Result<(Manifest, Vec<u8>)> {
    const REMEDY: &str = "run `cargo xtask build-ebpf` and commit the result";
    let read = |file: &str| {
        fs::read(folder.join(file)).map_err(|error| {
            exit::failed(format!("cannot read c1m-ebpf/{file} ({error}): {REMEDY}"))
        })
    };
    let object = read(OBJECT_FILE)?;
    let manifest: Manifest = serde_json::from_slice(&read(MANIFEST_FILE)?)
        .map_err(|error| exit::failed(format!("c1m-ebpf/{MANIFEST_FILE}: {error}: {REMEDY}")))?;
    if manifest.object_sha256 != hex(&Sha256::digest(&object)) {
        return Err(exit::failed(format!(
            "{OBJECT} is not the one that the manifest describes: {REMEDY}"
        )));
    }
    if manifest.sources_sha256 != sources_sha256(folder)? {
        return Err(exit::failed(format!("c1m-ebpf changed since {OBJECT} was built: {REMEDY}")));
    }
    if manifest.instructions != instructions(&object)? {
        return Err(exit::failed(format!(
            "the manifest counts other instructions than {OBJECT}: {REMEDY}"
        )));
    }
    let paths = machine_paths::find(&object, &[]);
    if !paths.is_empty() {
        return Err(exit::failed(format!(
            "{OBJECT} names paths of the machine that built it: {}",
            paths.join(", ")
        )));
    }
    Ok((manifest, object))
}

fn instructions(object: &[u8]) -> Result<BTreeMap<String, usize>> {
    let programs = Contents::parse(object)?.programs;
    Ok(programs.into_iter().map(|(name, program)| (name, program.instructions)).collect())
}

/// One hash over everything that decides what the object is: Cargo.toml, Cargo.lock and every file in src/, sorted by path,
/// each as path, zero byte, length (8 bytes, little-endian) and contents.
fn sources_sha256(folder: &Path) -> Result<String> {
    let mut files = vec![folder.join("Cargo.toml"), folder.join("Cargo.lock")];
    collect(&folder.join("src"), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(folder).unwrap_or(&file);
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    Ok(hex(&hash.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build_ebpf::object::tests::sample, place};

    fn tools() -> Tools {
        Tools {
            rustc: "rustc 1.96.0".into(),
            rustc_llvm: "22.1.8".into(),
            bpf_linker: "0.13.0".into(),
            bpf_linker_llvm: "22.1".into(),
            aya_ebpf: "0.2.1".into(),
        }
    }

    /// A crate with a prebuilt object that belongs to its sources.
    fn crate_with_object(object: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("src/deep")).unwrap();
        for file in ["Cargo.toml", "Cargo.lock", "src/main.rs", "src/deep/hook.rs"] {
            fs::write(folder.path().join(file), file).unwrap();
        }
        let manifest = Manifest::of(folder.path(), object, tools()).unwrap();
        write(folder.path(), object, &manifest).unwrap();
        folder
    }

    fn refusal(folder: &Path) -> String {
        let error = verify(folder).unwrap_err();
        assert_eq!(exit::code_of(&error), 1, "{error:#}");
        error.to_string()
    }

    #[test]
    fn the_committed_object_is_that_of_the_sources() {
        verify(&place::ebpf()).unwrap();
    }

    #[test]
    fn an_object_that_was_just_written_is_accepted() {
        let folder = crate_with_object(&sample("maps"));
        let (manifest, object) = verify(folder.path()).unwrap();
        assert_eq!(object, sample("maps"));
        assert_eq!(manifest.instructions, BTreeMap::from([("tp_btf/hook state".to_owned(), 4)]));
    }

    #[test]
    fn any_change_of_the_sources_is_noticed() {
        for file in ["Cargo.toml", "Cargo.lock", "src/main.rs", "src/deep/hook.rs", "src/new.rs"] {
            let folder = crate_with_object(&sample("maps"));
            fs::write(folder.path().join(file), "changed").unwrap();
            assert!(refusal(folder.path()).contains("changed since"), "{file}");
        }
        let folder = crate_with_object(&sample("maps"));
        fs::rename(folder.path().join("src/deep"), folder.path().join("src/other")).unwrap();
        assert!(refusal(folder.path()).contains("changed since"));
    }

    #[test]
    fn another_object_and_an_absent_one_are_noticed() {
        let folder = crate_with_object(&sample("maps"));
        fs::write(folder.path().join(OBJECT_FILE), sample("spam")).unwrap();
        assert!(refusal(folder.path()).contains("not the one that the manifest describes"));
        fs::remove_file(folder.path().join(OBJECT_FILE)).unwrap();
        assert!(refusal(folder.path()).contains("cannot read c1m-ebpf/prebuilt/c1m.bpf.o"));
    }

    #[test]
    fn a_machine_path_in_the_object_is_noticed() {
        let folder = crate_with_object(&sample("/srv/build/c1m/src/main.rs"));
        assert!(refusal(folder.path()).contains("/srv/build/c1m/src/main.rs"));
    }
}
