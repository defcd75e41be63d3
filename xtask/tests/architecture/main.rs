//! The architecture's invariants, held against the source text. docs/architecture.md says why each of them.
//!
//! Every rule stands here twice: against the tree, and against a few lines that break it, so that it can be seen to fail.

mod rules;
mod source;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use rules::{PRINTING_TRACE, UNSAFE_ELSEWHERE};

/// The text files of the repository, as `path from the root` and contents, sorted. What is built is not among them.
fn tree() -> Vec<(String, String)> {
    fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_ours =
                !name.starts_with('.') || [".ci", ".cargo", ".github"].contains(&name.as_str());
            if path.is_dir() {
                if is_ours && name != "target" {
                    collect(root, &path, files);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.push((name, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    collect(root, root, &mut files);
    files.sort();
    assert!(
        files.iter().any(|(name, _)| name == "c1m-server/src/lib.rs"),
        "the tree was not found"
    );
    files
}

/// Fails with every breach of `rule` in the files that end in `suffix`.
fn holds(suffix: &str, rule: impl Fn(&str, &str) -> Vec<String>) {
    let broken: Vec<String> = tree()
        .iter()
        .filter(|(file, _)| file.ends_with(suffix))
        .flat_map(|(file, text)| rule(file, text))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Fails unless `rule` refuses every one of `sources` and accepts `innocent`.
fn can_fail(rule: impl Fn(&str) -> Vec<String>, sources: &[&str], innocent: &str) {
    for source in sources {
        assert_eq!(rule(source).len(), 1, "{source}: {:?}", rule(source));
    }
    assert!(rule(innocent).is_empty(), "{innocent}: {:?}", rule(innocent));
}

#[test]
fn serve_knows_nothing_of_ebpf() {
    let rule = rules::serve_knows_nothing_of_ebpf;
    holds(".rs", rule);
    can_fail(
        |source| rule("c1m-server/src/serve/worker.rs", source),
        &[
            "use c1m_probe::Tracer;",
            "use c1m_limits::verdict;",
            "fn f() { c1m_probe::count() }",
            "use aya::Ebpf;",
        ],
        "// use c1m_probe;\nuse c1m_sys::epoll;\nuse c1m_record::Record;\n\
         #[cfg(test)] mod tests { use c1m_probe; }",
    );
    assert_eq!(rule("c1m-server/src/serve.rs", "use c1m_probe::Tracer;").len(), 1);
    assert!(rule("c1m-server/src/watch.rs", "use c1m_probe::Tracer;").is_empty());
}

#[test]
fn limits_is_pure() {
    let rule = rules::limits_is_pure;
    holds(".rs", rule);
    can_fail(
        |source| rule("crates/c1m-limits/src/forecast.rs", source),
        &[
            "use std::fs;",
            "use std::{fmt, time::Instant};",
            "fn f() -> bool { std::time::SystemTime::now() > T }",
            "use std::net::TcpStream;",
            "use c1m_text::units;",
            "use c1m_host::sockstat;",
            "use c1m_sys::clock;",
            "use libc::c_int;",
            "use tokio::time;",
            "fn f() { libc::getpid() }",
            "fn f() { println!(\"x\") }",
            "fn f() { let _ = env!(\"HOME\"); }",
            "fn f() { unsafe { g() } }",
        ],
        "use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};\n\
         use c1m_record::{Level, Crossing};\nuse super::{case::{self, Case}, verdict::Verdict};\n\
         fn f() -> u64 { self::helper(); verdict::of(); case::of(); Level::High; u64::MAX }\n\
         mod verdict;",
    );
}

#[test]
fn limits_are_named_in_their_files() {
    let rule = rules::limits_are_named_in_their_files;
    holds(".rs", rule);
    can_fail(
        |source| rule("c1m-client/src/run.rs", source),
        &[
            "fn f(limit: LimitName) -> bool { limit == LimitName::Nofile }",
            "fn f(limit: LimitName) -> u8 { match limit { c1m_record::LimitName::Ports => 1, _ => 0 } }",
        ],
        "fn f() { LimitName::ALL.map(LimitName::name); }\n\
         #[cfg(test)] mod tests { fn f() { LimitName::Nofile } }",
    );
    let code = "fn f() { LimitName::Nofile }";
    assert!(rule("crates/c1m-limits/src/limits/nofile.rs", code).is_empty());
    assert!(rule("c1m-server/tests/view.rs", code).is_empty());
    assert_eq!(rule("crates/c1m-limits/src/forecast.rs", code).len(), 1);
}

#[test]
fn output_asks_nothing_of_the_kernel() {
    let rule = rules::output_asks_nothing_of_the_kernel;
    holds(".rs", rule);
    can_fail(
        |source| rule("c1m-server/src/output/text.rs", source),
        &[
            "use std::fs::File;",
            "use c1m_host::sockstat;",
            "use c1m_probe::attach;",
            "use crate::{serve::Server, output};",
            "const FILE: &str = \"/proc/net/sockstat\";",
            "const FILE: &str = r\"/sys/kernel/btf/vmlinux\";",
        ],
        "//! /proc/net/sockstat says it\nuse std::io::Write;\nuse c1m_record::Record;\n\
         const HEAD: &str = \"pages (/proc/net/sockstat)\";",
    );
}

#[test]
fn rooms_meet_in_commands_only() {
    let rule = rules::rooms_meet_in_commands_only;
    holds(".rs", rule);
    for (file, source) in [
        ("c1m-server/src/serve/worker.rs", "use c1m_host::sockstat;"),
        ("c1m-server/src/serve.rs", "use c1m_host::sockstat;"),
        ("c1m-server/src/serve/worker.rs", "use super::super::output::lines;"),
        ("c1m-server/src/output/lines.rs", "fn f() { crate::serve::g() }"),
    ] {
        assert_eq!(rule(file, source).len(), 1, "{file}: {source}");
    }
    for (file, source) in [
        ("c1m-server/src/run.rs", "use crate::serve; use c1m_host::sockstat;"),
        ("c1m-server/src/output/lines.rs", "use crate::output::text; use c1m_record::Record;"),
    ] {
        assert!(rule(file, source).is_empty(), "{file}: {source}");
    }
}

/// The dependencies of the crates of this project on each other, as `(crate, what it depends on)`. Those of tests alone are left out: a test
/// may use what it likes.
fn dependencies_inside() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    let graph: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let mut found = Vec::new();
    for package in graph["packages"].as_array().unwrap() {
        let of_tree = package["dependencies"].as_array().unwrap().iter();
        let of_tree = of_tree.filter(|it| it["path"].is_string() && it["kind"] != "dev");
        found.extend(of_tree.map(|dependency| (name(package), name(dependency))));
    }
    found
}

#[test]
fn no_crate_depends_on_one_above_it() {
    let found = dependencies_inside();
    assert!(found.len() > 30, "{found:?}");
    let broken = rules::upward(&found);
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));

    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    for wrong in [
        pair("c1m-limits", "c1m-preflight"),
        pair("c1m-limits", "c1m-probe"),
        pair("c1m-client", "c1m-server"),
        pair("c1m-server", "c1m-testkit"),
        pair("c1m-new", "c1m-sys"),
    ] {
        assert_eq!(
            rules::upward(&[pair("c1m-host", "c1m-sys"), wrong.clone()]).len(),
            1,
            "{wrong:?}"
        );
    }
}

#[test]
fn trace_prints_nothing() {
    let rule = rules::trace_prints_nothing;
    holds(".rs", |file, text| rule(file, text, &PRINTING_TRACE));
    can_fail(
        |source| rule("crates/c1m-probe/src/ring.rs", source, &[]),
        &["fn f() { println!(\"lost\") }", "fn f() { eprintln!() }", "fn f() { dbg!(1); }"],
        "//! println!\nfn f() { writeln!(to, \"x\"); }",
    );
}

#[test]
fn unsafe_has_two_places() {
    holds(".rs", |file, text| rules::unsafe_has_two_places(file, text, &UNSAFE_ELSEWHERE));

    let code = "fn f() { unsafe { g() } }";
    let rule = |file: &str, text: &str| rules::unsafe_has_two_places(file, text, &[]);
    assert_eq!(rule("c1m-server/src/serve/worker.rs", code).len(), 1);
    assert_eq!(rule("c1m-client/tests/ramp.rs", code).len(), 1);
    assert!(rule("crates/c1m-sys/src/epoll.rs", code).is_empty());
    assert!(rule("c1m-ebpf/src/main.rs", code).is_empty());
    assert!(rule("xtask/src/main.rs", "// unsafe\n#![deny(unsafe_code)]").is_empty());
}

#[test]
fn exceptions_have_a_reason_and_are_needed() {
    let files = tree();
    for (exempt, _) in PRINTING_TRACE.iter().chain(&UNSAFE_ELSEWHERE) {
        assert!(
            files.iter().any(|(file, _)| file == exempt),
            "{exempt} is exempt and is not there"
        );
    }
    let file = "xtask/src/main.rs";
    let rule = |text: &str, reason| rules::unsafe_has_two_places(file, text, &[(file, reason)]);
    assert!(rule("fn f() { unsafe { g() } }", "because").is_empty());
    assert_eq!(rule("fn f() { unsafe { g() } }", "").len(), 1);
    assert_eq!(rule("fn f() {}", "because").len(), 1);
}

#[test]
fn modules_have_one_form() {
    let rule = |file: &str, _: &str| rules::modules_have_one_form(file);
    holds(".rs", rule);
    assert_eq!(rule("xtask/src/bench/mod.rs", "").len(), 1);
    assert!(rule("xtask/src/bench.rs", "").is_empty());
    assert!(rule("xtask/tests/support/mod.rs", "").is_empty(), "else cargo takes it for a test");
}

#[test]
fn nothing_is_left_undone() {
    let rule = rules::nothing_is_left_undone;
    holds("", rule);
    let mark = ["// FIX", "ME: later"].concat();
    let call = ["fn f() { to", "do!() }"].concat();
    let other = ["fn f() { unimpl", "emented!(\"x\") }"].concat();
    can_fail(
        |source| rule("xtask/src/main.rs", source),
        &[&mark, &call, &other],
        "todo = \"warn\"; let autodo = 1; clippy::todo",
    );
    assert_eq!(rule("README.md", &mark).len(), 1);
}

/// Else cargo resolves other features for `cargo xtask` than for the tests, and builds nearly everything twice.
#[test]
fn xtask_depends_on_what_tests_depend_on() {
    let files = tree();
    let manifests = || files.iter().filter(|(file, _)| file.ends_with("Cargo.toml"));
    let xtask = manifests().find(|(file, _)| file == "xtask/Cargo.toml").unwrap().1.as_str();
    assert_eq!(rules::of_tests_alone(xtask), [""; 0]);
    let of_tests = manifests().map(|(file, text)| (file, rules::of_tests_alone(text)));
    assert!(of_tests.clone().filter(|(_, names)| !names.is_empty()).count() > 2);
    for (member, names) in of_tests {
        for name in names {
            let line = format!("\n{name}.workspace = true\n");
            // What a program needs in any case, it brings to xtask.
            let is_brought = manifests().any(|(_, text)| {
                text.split("\n[dev-").next().is_some_and(|text| text.contains(&line))
            });
            assert!(xtask.contains(&line) || is_brought, "{name} of {member}");
        }
    }
}

/// What two modules need of each other is a third one, or they are one.
#[test]
fn modules_do_not_import_each_other_in_circles() {
    let files = tree();
    let crates: BTreeSet<&str> = files
        .iter()
        .filter(|(file, _)| !file.starts_with("c1m-ebpf/"))
        .filter_map(|(file, _)| file.strip_suffix("/Cargo.toml"))
        .collect();
    assert!(crates.len() > 12, "{crates:?}");
    let mut found = Vec::new();
    for folder in crates {
        let inside = files.iter().filter(|(file, _)| {
            file.ends_with(".rs")
                && file.strip_prefix(folder).is_some_and(|rest| rest.starts_with("/src/"))
                && !file.ends_with("/src/main.rs")
        });
        let inside: Vec<_> = inside.map(|(file, text)| (file.as_str(), text.as_str())).collect();
        found.extend(rules::circles(&inside).into_iter().map(|circle| (folder, circle)));
    }
    assert_eq!(found, Vec::new());

    let circle = |a: &str, b: &str| {
        rules::circles(&[
            ("x/src/lib.rs", ""),
            ("x/src/a.rs", a),
            ("x/src/b.rs", b),
            ("x/src/b/c.rs", "use super::D;"),
        ])
    };
    assert_eq!(circle("use crate::b::c;", "use super::a;").len(), 0, "it is c that a needs");
    assert_eq!(
        circle("use crate::b::D;", "fn f() { super::a::g() }"),
        BTreeSet::from([vec!["a".to_owned(), "b".to_owned()]])
    );
}

/// The crates that `package` is built of, itself among them; those that only tests need are not.
fn crates(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", package, "--edges", "normal,build"])
        .args(["--prefix", "none", "--format", "{p}"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.is_empty(), "{package}: {output:?}");
    text.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// Those of `unwanted` that `package` is built of, sorted.
fn built_of(package: &str, unwanted: &[&str]) -> Vec<String> {
    let all = crates(package).into_iter().filter(|name| unwanted.contains(&name.as_str()));
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A load client neither traces nor draws, and writes no page.
#[test]
fn the_client_is_built_without_what_only_the_server_needs() {
    let heavy = ["aya", "aya-log", "c1m-probe", "c1m-report", "c1m-server", "maud", "ratatui"];
    assert_eq!(built_of("c1m-client", &heavy), [""; 0]);
    assert_eq!(built_of("c1m-server", &heavy), heavy, "one of them is no longer a crate at all");
}

#[test]
fn aya_has_one_crate() {
    let names = |manifest: &str| rules::names_dependency(manifest, "aya");
    let is_probe = |file: &str| file == "crates/c1m-probe/Cargo.toml";
    let files = tree();
    let manifests = files.iter().filter(|(file, _)| file.ends_with("/Cargo.toml"));
    let naming: Vec<&str> =
        manifests.filter(|(_, text)| names(text)).map(|(file, _)| file.as_str()).collect();
    assert!(naming.len() == 1 && is_probe(naming[0]), "{naming:?}");
    assert!(names("[dependencies]\naya.workspace = true\n"));
    assert!(!names("[dependencies]\naya-log = \"1\"\n[dev-dependencies]\naya.workspace = true\n"));
}

/// Somebody waits for all of it who has just cloned the repository.
#[test]
fn reproduce_is_built_of_nothing_that_only_other_commands_need() {
    let xtasks = crates("xtask");
    let programs = [crates("c1m-server"), crates("c1m-client")].concat();
    for heavy in ["cargo-deb", "jsonschema", "proptest", "schemars", "serde_norway", "similar"] {
        assert!(xtasks.iter().any(|name| name == heavy), "{heavy} is no dependency of xtask");
    }
    // But for the programs' own crates, which are built in any case, it is itself.
    let own = |package: &str| -> Vec<String> {
        crates(package).into_iter().filter(|name| !programs.contains(name)).collect()
    };
    assert_eq!(own("xtask-reproduce"), ["xtask-reproduce"]);
    assert_eq!(built_of("xtask-reproduce", &["aya", "c1m-server", "ratatui"]), [""; 0]);
    assert_eq!(crates("xtask-launcher"), ["xtask-launcher"]);
}

#[test]
fn no_machine_path_in_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_str().unwrap();
    holds("", |file, text| rules::no_machine_path(file, text, root));

    let rule = |text: &str| rules::no_machine_path("README.md", text, "/srv/checkout");
    let below = |folder: &str| format!("see {folder}somebody/c1m");
    for folder in ["/home/", "/root/", "/Users/", "/srv/checkout/"] {
        assert_eq!(rule(&below(folder)).len(), 1, "{folder}");
    }
    assert!(rule("https://example.org/home/page `/home/` not/srv/checkout/x /usr/lib").is_empty());
    assert!(rules::no_machine_path("README.md", "see /c1m/src", "/c1m").is_empty());
}
