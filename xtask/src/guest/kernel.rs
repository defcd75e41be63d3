//! Kernels to boot: Debian's packages, downloaded and unpacked into the target folder, never installed; or any image.

use std::{
    cmp::Ordering,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{debian, exit, place, process};

/// The flavour for virtual machines: everything that a guest needs is small in it, or built in.
const FLAVOUR: &str = "-cloud-amd64";
const PREFIX: &str = "linux-image-";
const IMAGE: &str = "vmlinuz-";

/// A kernel image, with its modules if they are beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// As `uname -r` will say, as far as the image's name tells.
    pub(crate) release: String,
    /// The folder `lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

/// Which kernel is wanted: a series such as `6.12`, or the file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Series(Version),
    File(PathBuf),
}

/// The first two numbers of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// Of a release such as `6.12.117+deb12-cloud-amd64`.
    pub(crate) fn of(release: &str) -> Option<Self> {
        let mut numbers = release.splitn(3, '.');
        let (major, minor) = (numbers.next()?, numbers.next()?);
        let minor = minor.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// Of a whole text such as `6.12`.
    fn parse(text: &str) -> Option<Self> {
        Self::of(text).filter(|version| version.to_string() == text)
    }
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Version::parse(text) {
            Some(version) => Ok(Self::Series(version)),
            None if Path::new(text).is_file() => Ok(Self::File(text.into())),
            None => Err("use a series such as 6.12, or the file of a kernel image".into()),
        }
    }
}

impl Kernel {
    /// The kernel's series, when its file is named after its release.
    pub(crate) fn version(&self) -> Option<Version> {
        Version::of(&self.release)
    }

    /// An image `…/boot/vmlinuz-RELEASE`, whose modules are in `…/lib/modules/RELEASE`.
    fn at(image: &Path) -> Self {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let release = name.strip_prefix(IMAGE).unwrap_or(&name).to_owned();
        let root = image.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        Self { image: image.into(), modules: root.join("lib/modules").join(&release), release }
    }

    /// The one in the folder of an unpacked package.
    fn in_package(folder: &Path) -> Option<Self> {
        let files = fs::read_dir(folder.join("boot")).ok()?;
        let mut images = files.filter_map(Result::ok).map(|file| file.path());
        images
            .find(|file| file.file_name().is_some_and(|n| n.to_string_lossy().starts_with(IMAGE)))
            .map(|image| Self::at(&image))
    }
}

/// Finds the kernel, or downloads the newest package of its series. One that is unpacked already is taken as it is.
pub(crate) fn find(wanted: &Wanted) -> Result<Kernel> {
    match wanted {
        Wanted::File(image) => Ok(Kernel::at(image)),
        Wanted::Series(series) => match unpacked(*series) {
            Some(kernel) => Ok(kernel),
            None => download(*series),
        },
    }
}

/// The series that the distribution offers, each with its newest package.
pub(crate) fn offered() -> Vec<(Version, String)> {
    let names = process::ask(Command::new("apt-cache").args(["pkgnames", PREFIX]));
    let names = names.unwrap_or_default();
    let mut packages: Vec<(Version, &str)> = names
        .lines()
        .filter(|name| name.ends_with(FLAVOUR))
        .filter_map(|name| Some((of_package(name)?, name)))
        .collect();
    packages.sort_by(|(a, a_name), (b, b_name)| a.cmp(b).then(by_numbers(b_name, a_name)));
    packages.dedup_by_key(|(version, _)| *version);
    packages.into_iter().map(|(version, name)| (version, name.to_owned())).collect()
}

/// The series of an image's package; `None` for one that only depends on the newest, such as `linux-image-6.12-cloud-amd64`.
fn of_package(name: &str) -> Option<Version> {
    let release = name.strip_prefix(PREFIX)?.strip_suffix(FLAVOUR)?;
    release.matches('.').nth(1)?;
    Version::of(release)
}

/// The series from `oldest` on that are here already, and, if they may be downloaded, those that the distribution offers.
pub(crate) fn series(oldest: Version, download: bool) -> Vec<Version> {
    let mut series = here();
    if download {
        // Also where there are some: a machine's first lists may offer fewer series than there are.
        if debian::can_install() {
            debian::update();
        }
        series.extend(offered().into_iter().map(|(version, _)| version));
    }
    series.sort_unstable();
    series.dedup();
    series.retain(|version| *version >= oldest);
    series
}

/// The series that are unpacked.
fn here() -> Vec<Version> {
    packages().iter().filter_map(|name| of_package(name)).collect()
}

/// The names of the packages that are unpacked.
fn packages() -> Vec<String> {
    let files = fs::read_dir(folder()).into_iter().flatten().filter_map(Result::ok);
    files.map(|package| package.file_name().to_string_lossy().into_owned()).collect()
}

fn folder() -> PathBuf {
    place::target().join("guest/kernels")
}

fn unpacked(series: Version) -> Option<Kernel> {
    let mut packages = packages();
    packages.retain(|name| of_package(name) == Some(series));
    packages.sort_by(|a, b| by_numbers(a, b));
    Kernel::in_package(&folder().join(packages.last()?))
}

fn download(series: Version) -> Result<Kernel> {
    if place::in_path("apt-get").is_empty() || place::in_path("dpkg").is_empty() {
        return Err(exit::refused(format!(
            "a guest of {series} needs Debian's kernel package, and there is no apt-get here: give --kernel the file of an image"
        )));
    }
    // The lists of a machine that was made some time ago name packages that are gone.
    if debian::can_install() {
        debian::update();
    }
    let package = offered().into_iter().find(|(version, _)| *version == series);
    let (_, package) = package.ok_or_else(|| exit::refused(absent(series)))?;
    fs::create_dir_all(folder()).context("cannot make the folder of kernels")?;
    // In its own folder until it is whole: another process may be at it.
    let draft = folder().join(format!(".{package}.{}", std::process::id()));
    let unpacked = fetch(&package, &draft).and_then(|()| {
        let place = folder().join(&package);
        if fs::rename(draft.join("root"), &place).is_err() && !place.is_dir() {
            return Err(exit::failed(format!("cannot put {package} into {}", place.display())));
        }
        Ok(place)
    });
    let _ = fs::remove_dir_all(&draft);
    Kernel::in_package(&unpacked?).ok_or_else(|| exit::failed(format!("{package} has no image")))
}

fn fetch(package: &str, draft: &Path) -> Result<()> {
    fs::create_dir_all(draft).with_context(|| format!("cannot make {}", draft.display()))?;
    eprintln!("downloading {package}");
    debian::download(&[package], draft)?;
    let mut files = fs::read_dir(draft)?.filter_map(Result::ok).map(|file| file.path());
    let archive = files
        .find(|file| file.extension().is_some_and(|it| it == "deb"))
        .with_context(|| format!("apt-get did not download {package}"))?;
    let mut dpkg = process::foreign("dpkg-deb");
    dpkg.arg("--extract").arg(archive).arg(draft.join("root"));
    process::run("unpack a kernel", &mut dpkg)
}

fn absent(series: Version) -> String {
    let offered: Vec<String> = offered().iter().map(|(version, _)| version.to_string()).collect();
    let remedy = match offered.as_slice() {
        [] => "run `apt-get update` as root".to_owned(),
        offered => format!("choose another ({})", offered.join(", ")),
    };
    format!(
        "this distribution offers no package {PREFIX}{series}.*{FLAVOUR}: {remedy}, or give --kernel the file of an image"
    )
}

/// By the numbers in them: `6.1.0-9` is older than `6.1.0-56`.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_a_series_are_told_from_others() {
        assert_eq!(of_package("linux-image-6.1.0-56-cloud-amd64"), Some(Version(6, 1)));
        assert_eq!(of_package("linux-image-6.12.117+deb12-cloud-amd64"), Some(Version(6, 12)));
        for other in [
            "linux-image-6.12-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-56-rt-amd64",
        ] {
            assert_eq!(of_package(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_is_found_by_numbers() {
        assert_eq!(by_numbers("linux-image-6.1.0-9-x", "linux-image-6.1.0-56-x"), Ordering::Less);
        assert_eq!(by_numbers("6.12.117+deb12", "6.12.99+deb12"), Ordering::Greater);
    }

    #[test]
    fn a_series_or_a_file_is_wanted() {
        assert_eq!("6.12".parse(), Ok(Wanted::Series(Version(6, 12))));
        assert_eq!("Cargo.toml".parse(), Ok(Wanted::File("Cargo.toml".into())));
        for wrong in ["6", "6.12.1", "6.12-rc1", "six", "/no/such/file"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn release_and_modules_follow_from_the_images_name() {
        let kernel = Kernel::at(Path::new("/k/boot/vmlinuz-6.12.117+deb12-cloud-amd64"));
        assert_eq!(kernel.version(), Some(Version(6, 12)));
        assert_eq!(kernel.modules, Path::new("/k/lib/modules/6.12.117+deb12-cloud-amd64"));
        assert_eq!(Kernel::at(Path::new("/k/bzImage")).version(), None);
    }
}
