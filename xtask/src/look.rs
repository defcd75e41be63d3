//! `look`: pages in a real browser, as their readers will have them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{debian, exit, place, process};

/// Open pages in a headless Chromium: keep pictures of them in the target folder, and fail when one has an error
///
/// Light, dark, on a phone, and printed; and the document as the browser understood it. On Debian, as root, the package
/// chromium-headless-shell is installed where there is no Chromium. Prints what was written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// HTML or SVG files
    #[arg(required = true, value_name = "FILE")]
    pages: Vec<PathBuf>,

    /// Install nothing; say what is missing instead
    #[arg(long)]
    no_install: bool,
}

/// The programs that will do, the smallest first.
const PROGRAMS: [&str; 4] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
/// What has the first one of them: about 100 MB to download with what it needs.
const PACKAGE: &str = "chromium-headless-shell";
/// Longer than a page takes on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How it is looked at, and the flags for that.
const LOOKS: [(&str, &[&str]); 3] = [
    ("light.png", &["--window-size=1000,4000"]),
    ("dark.png", &["--window-size=1000,4000", "--blink-settings=preferredColorScheme=0"]),
    ("phone.png", &["--window-size=390,6000"]),
];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let browser = Browser::provide(!args.no_install)?;
    let folder = place::target().join("report");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for page in &args.pages {
        let page =
            page.canonicalize().with_context(|| format!("cannot open {}", page.display()))?;
        for written in browser.look(&page, &folder)? {
            process::say(written.display())?;
        }
    }
    Ok(())
}

struct Browser {
    program: PathBuf,
    /// Its own settings, thrown away afterwards.
    profile: PathBuf,
}

impl Browser {
    fn provide(install: bool) -> Result<Self> {
        let found = || PROGRAMS.iter().flat_map(|name| place::in_path(name)).next();
        let program = match found() {
            Some(program) => program,
            None if install && debian::can_install() => {
                let packages = [PACKAGE.to_owned()];
                if !debian::offers(&packages) {
                    debian::update();
                }
                debian::install(&packages)
                    .map_err(|error| exit::refused(format!("no Chromium can be had: {error:#}")))?;
                found().context("the package has no Chromium in it")?
            }
            None => {
                return Err(exit::refused(format!(
                    "there is no Chromium: install the package {PACKAGE}, or run this as root on Debian"
                )));
            }
        };
        let profile = std::env::temp_dir().join(format!("c1m-look-{}", std::process::id()));
        fs::create_dir_all(&profile)?;
        Ok(Self { program, profile })
    }

    /// All pictures of one page.
    fn look(&self, page: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
        let name = page.file_stem().unwrap_or_default().to_string_lossy();
        let file = |suffix: &str| folder.join(format!("{name}-{suffix}"));
        let document = file("document.html");
        let said = self.open(page, &["--dump-dom", "--enable-logging=stderr"], Some(&document))?;
        let errors: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
        if !errors.is_empty() {
            return Err(exit::failed(format!("{}: {}", page.display(), errors.join("\n"))));
        }
        let mut written = vec![document];
        for (suffix, flags) in LOOKS {
            let picture = file(suffix);
            let to = format!("--screenshot={}", picture.display());
            self.open(page, &[&[to.as_str()], flags].concat(), None)?;
            written.push(picture);
        }
        let printed = file("printed.pdf");
        let to = format!("--print-to-pdf={}", printed.display());
        self.open(page, &[to.as_str(), "--no-pdf-header-footer"], None)?;
        written.push(printed);
        for file in &written {
            let size = fs::metadata(file).map_or(0, |metadata| metadata.len());
            anyhow::ensure!(size > 0, "the browser did not write {}", file.display());
        }
        Ok(written)
    }

    /// Runs it once, and returns what it said on standard error.
    fn open(&self, page: &Path, flags: &[&str], output: Option<&Path>) -> Result<String> {
        let errors = self.profile.join("stderr");
        let mut command = Command::new(&self.program);
        command
            // What is opened are files of ours, and the sandbox can't be had as root.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
            .args(["--no-first-run", "--disable-extensions", "--force-device-scale-factor=1"])
            .arg(format!("--user-data-dir={}", self.profile.display()))
            .args(flags)
            .arg(format!("file://{}", page.display()))
            .stdin(Stdio::null())
            .stderr(File::create(&errors)?)
            .stdout(output.map_or(Ok(Stdio::null()), |path| File::create(path).map(Stdio::from))?);
        let mut child =
            command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end within {} s", self.program.display(), PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        };
        let said = String::from_utf8_lossy(&fs::read(&errors)?).into_owned();
        anyhow::ensure!(status.success(), "the browser ended with {status}: {said}");
        Ok(said)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_dir_all(&self.profile);
    }
}
