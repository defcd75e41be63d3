//! What is handed to others, looked at as those who get it do: pages by linters, completions by their shells, the unit by systemd's own tools and in
//! a run with what it allows, and the Debian package in a system that never had c1m.
//!
//! All of it is made once, by `cargo xtask dist` with the programs of the tests. What a test needs and is not there is the reason why it is ignored.

#[path = "../book/pages.rs"]
mod pages;
mod readme;
mod system;
mod unit;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sha2::{Digest as _, Sha256};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const SHELLS: [(&str, &str, &[&str]); 3] = [
    ("bash", "bash-completion/completions/NAME", &["-n"]),
    ("zsh", "zsh/vendor-completions/_NAME", &["-n"]),
    ("fish", "fish/vendor_completions.d/NAME.fish", &["--no-execute"]),
];

type Tried = Result<Completion, Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let made = if arguments.list { Ok(PathBuf::new()) } else { made() };
    let test = |name: &str, test: fn(&Path) -> Tried| {
        let made = made.clone();
        Trial::ignorable_test(name, move || test(&made?))
    };
    let tests = vec![
        test("versions_say_commit_and_object", versions),
        test("pages_have_no_warnings", manual),
        test("shells_take_the_completions_and_every_flag_is_there", completions),
        test("systemd_takes_the_unit_and_finds_little_exposed", |_| unit::systemd_takes_it()),
        test("the_unit_allows_what_the_program_does", |_| unit::it_does()),
        test("links_of_the_pages_lead_to_files_of_the_package", links),
        test("the_package_installs_runs_and_leaves_nothing", system::installs),
        test("the_readme_leads_from_the_package_to_the_verdict", readme::leads_to_the_verdict),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// The folder with everything.
fn made() -> Result<PathBuf, Failed> {
    let programs = Path::new(XTASK).parent().ok_or("a program without a folder")?;
    let output = Command::new(XTASK).args(["dist", "--programs"]).arg(programs).output()?;
    let said = said(&output);
    if !output.status.success() {
        return Err(said.into());
    }
    assert!(!said.contains("warning"), "{said}");
    let package = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(package.parent().ok_or("no package")?.to_owned())
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).join("\n")
}

/// A program of this test run.
fn program(name: &str) -> PathBuf {
    let path = Path::new(XTASK).with_file_name(name);
    assert!(path.exists(), "{} is not built: test the whole workspace", path.display());
    path
}

/// What `cargo xtask test` has unpacked under this name.
fn unpacked(name: &str) -> Option<PathBuf> {
    let target = Path::new(XTASK).ancestors().nth(2)?;
    Some(target.join("packages").join(name)).filter(|folder| folder.is_dir())
}

/// An installed program, or an unpacked one.
fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked =
        unpacked(name).map(|root| ["usr/sbin", "usr/bin", "bin"].map(|folder| root.join(folder)));
    let mut folders = env::split_paths(&path).chain(unpacked.into_iter().flatten());
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

fn without(name: &str) -> Tried {
    Ok(Completion::ignored_with(format!("{name} is not there")))
}

/// Runs it to a success, with its output.
fn succeeds(command: &mut Command) -> Result<String, Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}: {}", output.status, said(&output)).into());
    }
    Ok(said(&output))
}

/// README.md and docs/, as the package has them.
fn links(made: &Path) -> Tried {
    let Some(dpkg) = tool("dpkg-deb") else { return without("dpkg-deb") };
    let folder = tempfile::tempdir()?;
    let package = system::package(made)?;
    succeeds(Command::new(dpkg).arg("--extract").arg(package).arg(folder.path()))?;
    let root = folder.path().join("usr/share/doc/c1m");
    let pages = pages::all(&root);
    let broken: Vec<String> =
        pages.iter().flat_map(|page| page.broken_links(&root, &pages)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    Ok(Completion::Completed)
}

fn versions(_: &Path) -> Tried {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let object = Sha256::digest(fs::read(root.join("c1m-ebpf/prebuilt/c1m.bpf.o"))?);
    let object: String = object.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut git = Command::new("git");
    let head = git.current_dir(root).args(["rev-parse", "HEAD"]).output();
    let head = head.ok().filter(|it| it.status.success()).map(|it| said(&it));
    for (name, has_object) in [("c1m-server", true), ("c1m-client", false)] {
        let say = |flag: &str| succeeds(Command::new(program(name)).arg(flag));
        let short = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(say("-V")?.trim_end(), short.trim_end());
        let long = say("--version")?;
        let lines: Vec<&str> = long.trim_end().lines().collect();
        assert_eq!(lines[0], short.trim_end());
        let commit = lines[1].strip_prefix("commit ").ok_or("no commit")?;
        match &head {
            Some(head) => assert_eq!(
                commit.trim_end_matches("-dirty"),
                head.trim(),
                "built before the last commit: test the whole workspace"
            ),
            None => assert_eq!(commit, "unknown"),
        }
        let told = lines.get(2).and_then(|line| line.strip_prefix("eBPF object sha256 "));
        assert_eq!(told, has_object.then_some(object.as_str()));
    }
    Ok(Completion::Completed)
}

fn manual(made: &Path) -> Tried {
    let readers: [(&str, &[&str]); 2] =
        [("man", &["--warnings", "-E", "UTF-8", "-l"]), ("mandoc", &["-Tlint", "-Wwarning"])];
    let mut missing = Vec::new();
    for (name, arguments) in readers {
        let Some(tool) = tool(name) else {
            missing.push(name);
            continue;
        };
        for page in fs::read_dir(made.join("share/man/man1"))? {
            let page = page?.path();
            let mut command = Command::new(&tool);
            command.args(arguments).arg(&page).env("MANPAGER", "cat").stdin(Stdio::null());
            let output = command.output()?;
            let (text, page) = (String::from_utf8_lossy(&output.stdout), page.display());
            assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:?}");
            // One prints the page, the other what is wrong with it.
            assert_eq!(text.contains("EXAMPLES"), name == "man", "{page}: {text}");
        }
    }
    if missing.is_empty() { Ok(Completion::Completed) } else { without(&missing.join(" and ")) }
}

fn completions(made: &Path) -> Tried {
    let mut tried = 0;
    for (shell, file, arguments) in SHELLS {
        for name in ["c1m-server", "c1m-client"] {
            let file = made.join("share").join(file.replace("NAME", name));
            let text = fs::read_to_string(&file)?;
            for flag in flags(name)? {
                let words = [format!("--{flag}"), format!("-l {flag} "), format!("-l {flag}\n")];
                assert!(
                    words.iter().any(|word| text.contains(word)),
                    "--{flag} of {name}, {shell}"
                );
            }
            let Some(tool) = tool(shell) else { continue };
            let told = succeeds(Command::new(tool).args(arguments).arg(&file))?;
            assert_eq!(told.trim(), "", "{shell}");
            tried += 1;
        }
    }
    assert!(tried >= 2, "not even bash is there");
    Ok(Completion::Completed)
}

/// All that the help of the program and of its subcommands names.
fn flags(name: &str) -> Result<Vec<String>, Failed> {
    let help = |words: &[&str]| succeeds(Command::new(program(name)).args(words).arg("-h"));
    let own = help(&[])?;
    let commands = own.split_once("Commands:\n").map_or("", |(_, rest)| rest);
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(!commands.is_empty(), "{own}");
    let mut all = own.clone();
    for command in commands {
        all += &help(&[command])?;
    }
    let flags = all.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = flags.filter_map(|line| line.split_once("--"));
    // A line of prose can begin with a flag as well.
    let is_of_name = |it: char| it.is_ascii_alphanumeric() || it == '-';
    let name = |rest: &str| rest.split(|it| !is_of_name(it)).next().unwrap_or(rest).to_owned();
    let names: Vec<String> = long.map(|(_, rest)| name(rest)).collect();
    assert!(names.len() > 15, "{names:?}");
    Ok(names)
}
