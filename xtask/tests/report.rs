//! The page of a run in a real browser: it opens without an error, its figures are those of the JSON lines, and pictures of it are kept in
//! the target folder.
//!
//! Needs a Chromium; on Debian, as root, it is installed. Where it can't be had the tests are counted as ignored, with the reason.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use c1m_report::Report;
use c1m_testkit::figures;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const RUNS: [(&str, &str); 3] = [
    ("watch", include_str!("../../c1m-server/tests/fixtures/report/watch.jsonl")),
    ("reproduce", include_str!("../../c1m-server/tests/fixtures/report/reproduce.jsonl")),
    ("full-scale", include_str!("../../docs/reproduction/run.jsonl")),
];
/// As the README has it: an image, whose style is its own and whose scripts would not run.
const PICTURE: &str = include_str!("../../docs/reproduction/tcp_mem.svg");

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The browser is installed once, and has a machine to itself.
    arguments.test_threads = Some(1);
    let tests = vec![
        Trial::ignorable_test("the_page_opens_with_every_figure", pages),
        Trial::ignorable_test("the_plots_open_by_themselves", plots),
        Trial::ignorable_test("the_picture_in_the_readme_is_light_and_dark", picture),
        Trial::ignorable_test("an_error_of_a_page_is_told", errors),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn look(pages: &[PathBuf]) -> Result<Output, Failed> {
    Ok(Command::new(XTASK).arg("look").args(pages).stdin(Stdio::null()).output()?)
}

/// The environment's refusal, if this is one.
fn refusal(output: &Output) -> Option<Completion> {
    let said = String::from_utf8_lossy(&output.stderr);
    (output.status.code() == Some(3))
        .then(|| Completion::ignored_with(said.lines().last().unwrap_or_default()))
}

fn report(lines: &str) -> Result<Report, Failed> {
    let mut report = Report::new();
    report.read(lines.as_bytes())?;
    Ok(report)
}

/// The files that `look` wrote, by the end of their names.
fn written(output: &Output, end: &str) -> Vec<PathBuf> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().filter(|path| path.ends_with(end)).map(PathBuf::from).collect()
}

fn pages() -> Result<Completion, Failed> {
    let folder = tempfile::tempdir()?;
    let mut pages = Vec::new();
    for (name, lines) in RUNS {
        let page = folder.path().join(format!("{name}.html"));
        fs::write(&page, report(lines)?.html())?;
        pages.push(page);
    }
    let output = look(&pages)?;
    if let Some(ignored) = refusal(&output) {
        return Ok(ignored);
    }
    assert!(output.status.success(), "{output:?}");
    let documents = written(&output, "-document.html");
    assert_eq!(documents.len(), RUNS.len(), "{output:?}");
    for ((name, lines), document) in RUNS.iter().zip(documents) {
        let document = fs::read_to_string(document)?;
        let told = figures::check(&document, lines);
        assert!(told.len() > 4, "{name}: {told:?}");
        // What the browser understood has as many figures as were written.
        let figures = |page: &str| page.matches("<span class=\"figure\" ").count();
        assert_eq!(figures(&document), figures(&report(lines)?.html()), "{name}");
    }
    for (end, width) in [("-light.png", 1000), ("-dark.png", 1000), ("-phone.png", 390)] {
        let pictures = written(&output, end);
        assert_eq!(pictures.len(), RUNS.len(), "{output:?}");
        for picture in pictures {
            is_picture(&fs::read(&picture)?, width, &picture);
        }
    }
    has_light_and_dark(&output)?;
    for printed in written(&output, "-printed.pdf") {
        assert!(fs::read(&printed)?.starts_with(b"%PDF-"), "{}", printed.display());
    }
    Ok(Completion::Completed)
}

fn has_light_and_dark(output: &Output) -> Result<(), Failed> {
    for (light, dark) in written(output, "-light.png").iter().zip(written(output, "-dark.png")) {
        let (light, dark) = (fs::read(light)?, fs::read(dark)?);
        assert!(light != dark, "there is no dark page: {output:?}");
    }
    Ok(())
}

/// Of this width, and more than an empty page: PNG, 5.2 and 11.2.2.
fn is_picture(bytes: &[u8], width: u32, path: &Path) {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{}", path.display());
    assert_eq!(bytes[16..20], width.to_be_bytes(), "{}", path.display());
    assert!(bytes.len() > 40_000, "{}: {} bytes", path.display(), bytes.len());
}

/// As XML, in which a browser forgives nothing.
fn plots() -> Result<Completion, Failed> {
    let folder = tempfile::tempdir()?;
    let plots = folder.path().join("plots.svg");
    fs::write(&plots, report(RUNS[1].1)?.svg())?;
    let output = look(&[plots])?;
    if let Some(ignored) = refusal(&output) {
        return Ok(ignored);
    }
    assert!(output.status.success(), "{output:?}");
    let document = fs::read_to_string(&written(&output, "-document.html")[0])?;
    assert!(document.contains("tcp_mem pages over connections"), "{document}");
    assert!(!document.contains("parsererror"), "{document}");
    Ok(Completion::Completed)
}

/// Its paper covers the whole image, so that only its own style can make the difference.
fn picture() -> Result<Completion, Failed> {
    let folder = tempfile::tempdir()?;
    let (picture, page) = (folder.path().join("tcp_mem.svg"), folder.path().join("readme.html"));
    fs::write(&picture, PICTURE)?;
    fs::write(
        &page,
        "<!DOCTYPE html><img src=\"tcp_mem.svg\" alt=\"\" style=\"max-width: 100%\">",
    )?;
    let output = look(&[page])?;
    if let Some(ignored) = refusal(&output) {
        return Ok(ignored);
    }
    assert!(output.status.success(), "{output:?}");
    has_light_and_dark(&output)?;
    is_picture(&fs::read(&written(&output, "-light.png")[0])?, 1000, &folder.path().join("light"));
    Ok(Completion::Completed)
}

fn errors() -> Result<Completion, Failed> {
    let folder = tempfile::tempdir()?;
    let page = folder.path().join("wrong.html");
    // What the page itself forbids is an error that the browser tells.
    let policy = report("")?.html().replace("<main>", "<main><script>document.title = 1</script>");
    for wrong in ["<!DOCTYPE html><script>console.error('oops')</script>", &policy] {
        fs::write(&page, wrong)?;
        let output = look(std::slice::from_ref(&page))?;
        if let Some(ignored) = refusal(&output) {
            return Ok(ignored);
        }
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("CONSOLE"), "{said}");
    }
    Ok(Completion::Completed)
}
