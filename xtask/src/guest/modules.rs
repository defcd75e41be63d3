//! Kernel modules for a guest, with those that they depend on, as the package has them: uncompressed or by xz.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use object::{Object as _, ObjectSection as _};

use super::kernel::Kernel;
use crate::{exit, place};

/// A module's name and its file, uncompressed.
pub(super) type Module = (String, Vec<u8>);

/// The modules called so, each behind those that it depends on. Those that are built into the kernel are not among them.
pub(super) fn find(kernel: &Kernel, names: &[String]) -> Result<Vec<Module>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut files = BTreeMap::new();
    collect(&kernel.modules, &mut files)
        .with_context(|| format!("cannot read {}", kernel.modules.display()))?;
    let builtin = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin.lines().filter_map(|it| name_of(Path::new(it))).collect();
    let mut found: Vec<Module> = Vec::new();
    let mut wanted: Vec<String> = names.iter().rev().map(|name| plain(name)).collect();
    // Depth first: a module stays on the stack until all that it needs is there.
    while let Some(name) = wanted.last().cloned() {
        if builtin.contains(&name) || found.iter().any(|(it, _)| *it == name) {
            wanted.pop();
            continue;
        }
        let file = files.get(&name).ok_or_else(|| {
            exit::refused(format!("kernel {} has no module {name}", kernel.release))
        })?;
        let contents = read(file)?;
        let missing: Vec<String> = depends(&contents)
            .with_context(|| format!("{} is no module", file.display()))?
            .into_iter()
            .filter(|it| !builtin.contains(it) && !found.iter().any(|(there, _)| there == it))
            .collect();
        if missing.is_empty() {
            found.push((name, contents));
            wanted.pop();
        } else {
            wanted.extend(missing);
        }
    }
    Ok(found)
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `net/xt-x.ko.xz` is the module `xt_x`.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".xz").unwrap_or(name).strip_suffix(".ko")?;
    Some(plain(stem))
}

/// A dash in a file's name is an underscore in the module's.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|it| it != "xz") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    if place::in_path("xz").is_empty() {
        return Err(exit::refused("the kernel's modules are compressed: install xz (xz-utils)"));
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("cannot run xz")?;
    if !output.status.success() {
        return Err(exit::failed(format!("xz cannot read {}", file.display())));
    }
    Ok(output.stdout)
}

/// What the module says itself, in its section of texts `name=value` (include/linux/module.h, MODULE_INFO).
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("it has no .modinfo")?;
    let data = section.data()?;
    let names = data
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty());
    Ok(names.map(plain).collect())
}

#[cfg(test)]
mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, SectionKind,
        write::{Object, StandardSegment},
    };

    use super::*;

    fn module(info: &str) -> Vec<u8> {
        let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let segment = file.segment_name(StandardSegment::Data).to_vec();
        let section = file.add_section(segment, b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        file.append_section_data(section, info.as_bytes(), 1);
        file.write().unwrap()
    }

    fn kernel(folder: &Path) -> Kernel {
        Kernel { image: "bzImage".into(), release: "6.12.0".into(), modules: folder.into() }
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn each_comes_behind_what_it_depends_on_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let net = folder.path().join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        for (name, depends) in
            [("top", "middle-one,base,inside"), ("middle-one", "base"), ("base", ""), ("other", "")]
        {
            let info = format!("license=GPL\0depends={depends}\0name={name}\0");
            fs::write(net.join(name).with_extension("ko"), module(&info)).unwrap();
        }
        fs::write(folder.path().join("modules.builtin"), "kernel/x/inside.ko\n").unwrap();
        let find = |wanted: &[&str]| {
            find(&kernel(folder.path()), &wanted.iter().map(|it| (*it).into()).collect::<Vec<_>>())
        };
        assert_eq!(names(&find(&["top"]).unwrap()), ["base", "middle_one", "top"]);
        assert_eq!(names(&find(&["other", "base"]).unwrap()), ["other", "base"]);
        assert_eq!(names(&find(&["inside"]).unwrap()), Vec::<&str>::new());
        let error = find(&["absent"]).unwrap_err();
        assert_eq!(exit::code_of(&error), 3);
        assert!(error.to_string().contains("no module absent"), "{error}");
    }
}
