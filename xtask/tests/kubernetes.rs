//! The manifests in dist/kubernetes: compared with the published schemas, their command lines against our own definitions, and their
//! capabilities against what the programs need, as they say and as the kernel has it.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use c1m_probe::CAPABILITIES;
use c1m_server::watch::OF_OTHER_NAMESPACES;
use c1m_sys::process::effective_capabilities;
use c1m_testkit::{Child, until};
use clap::Parser as _;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

/// What is in the place of a variable that a container gets.
const SAMPLES: [(&str, &str); 3] = [
    ("JOB_COMPLETION_INDEX", "7"),
    ("C1M_TARGET", "10.1.2.3:8000"),
    ("C1M_START_AT", "2026-01-31T12:00:00Z"),
];
/// The first version whose schema knows all that the manifests use: appArmorProfile.
const FIRST_MINOR: u32 = 30;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let here = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let if_there = |name: &str, missing: fn() -> Option<String>, run: fn()| {
        Trial::ignorable_test(name, move || {
            if let Some(missing) = missing() {
                return Ok::<_, Failed>(Completion::ignored_with(missing));
            }
            run();
            Ok(Completion::Completed)
        })
    };
    let tests = vec![
        if_there("manifests_are_those_of_the_published_schemas", no_schemas, schemas),
        here("every_command_line_is_one_of_ours", command_lines),
        here("parts_of_the_job_are_those_of_its_flags", job),
        here("capabilities_are_those_that_the_programs_name", capabilities),
        if_there("with_these_capabilities_and_no_less_it_works", cannot_trace, in_practice),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// File name and document, each of which has a kind.
fn manifests() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for file in fs::read_dir(root().join("dist/kubernetes")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        for document in serde_norway::Deserializer::from_str(&text) {
            let document = Value::deserialize(document).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(document["kind"].is_string(), "{name}");
            all.push((name.clone(), document));
        }
    }
    let kinds: BTreeSet<&str> = all.iter().filter_map(|(_, it)| it["kind"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["DaemonSet", "Deployment", "Job"]));
    all
}

fn manifest(file: &str) -> Value {
    manifests().into_iter().find(|(name, _)| name == file).unwrap().1
}

/// The only container.
fn container(manifest: &Value) -> &Value {
    let containers = manifest["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

// ---- schemas

fn schemas_folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    target.join("packages/kubernetes-validate/kubernetes_validate/kubernetes-json-schema")
}

fn no_schemas() -> Option<String> {
    (!schemas_folder().is_dir()).then(|| "no schemas of Kubernetes: run `cargo xtask test`".into())
}

/// Each version that there is, from the first one that knows all members; a member that a version does not know is an error.
fn schemas() {
    let mut versions = 0;
    for entry in fs::read_dir(schemas_folder()).unwrap() {
        let folder = entry.unwrap();
        let name = folder.file_name().to_string_lossy().into_owned();
        let minor = name.strip_prefix("v1.").and_then(|it| it.strip_suffix(".0-local-strict"));
        let Some(minor) = minor.and_then(|minor| minor.parse::<u32>().ok()) else { continue };
        if minor < FIRST_MINOR {
            continue;
        }
        let text = fs::read(folder.path().join("_definitions.json")).unwrap();
        let definitions: Value = serde_json::from_slice(&text).unwrap();
        for (file, manifest) in manifests() {
            let schema = schema_of(&definitions["$defs"], &manifest);
            let schema = jsonschema::draft202012::new(&schema).unwrap();
            let errors: Vec<_> = schema
                .iter_errors(&manifest)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{file}, {name}: {errors:#?}");
            // It can fail: in the depth, by a member that is not known and by one of a wrong type.
            for (pointer, wrong) in [
                (
                    "/spec/template/spec/containers/0/securityContext/capabilities",
                    json!({"adds": []}),
                ),
                ("/spec/template/spec/containers/0/args", json!("--json")),
                ("/spec/template/spec/hostPid", json!(true)),
            ] {
                let mut manifest = manifest.clone();
                let (parent, member) = pointer.rsplit_once('/').unwrap();
                manifest.pointer_mut(parent).unwrap()[member] = wrong;
                assert!(!schema.is_valid(&manifest), "{file}, {name}: {pointer}");
            }
        }
        versions += 1;
    }
    assert!(versions >= 3, "{versions} versions");
}

/// The definition of this kind, with those that it refers to alone: all of them are a megabyte.
fn schema_of(all: &Value, manifest: &Value) -> Value {
    let (group, version) = manifest["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let kind = manifest["kind"].as_str().unwrap();
    let name = format!("io.k8s.api.{group}.{version}.{kind}");
    let mut needed = Map::new();
    let mut queue = vec![name.clone()];
    while let Some(name) = queue.pop() {
        if !needed.contains_key(&name) {
            let definition = all.get(&name).unwrap_or_else(|| panic!("no definition {name}"));
            references(definition, &mut queue);
            needed.insert(name, definition.clone());
        }
    }
    json!({ "$ref": format!("#/$defs/{name}"), "$defs": needed })
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.push(reference.strip_prefix("#/$defs/").unwrap().to_owned());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

// ---- command lines

/// `command` and `args`, with each variable that the container defines, and no other one.
fn command_line(container: &Value) -> Vec<String> {
    let texts = |name: &str| {
        container[name].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned())
    };
    let defined: Vec<&str> = container["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str())
        .collect();
    let filled = |text: String| {
        let mut text = text;
        for (name, sample) in SAMPLES.iter().filter(|(name, _)| defined.contains(name)) {
            text = text.replace(&format!("$({name})"), sample);
        }
        assert!(!text.contains("$("), "a variable that the container does not have: {text}");
        text
    };
    texts("command").chain(texts("args")).map(filled).collect()
}

/// What the comment at the head of a file has people type.
fn typed(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("dist/kubernetes").join(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let ours = lines.filter(|line| line.starts_with("c1m-"));
    // One quoted word has no blank.
    ours.map(|line| line.split(' ').map(|word| word.replace('\'', "")).collect()).collect()
}

fn command_lines() {
    let parse = |line: &[String]| match line[0].as_str() {
        "c1m-server" => c1m_server::cli::Cli::try_parse_from(line).map(drop),
        "c1m-client" => c1m_client::cli::Cli::try_parse_from(line).map(drop),
        other => panic!("{other} is none of our programs"),
    };
    for (file, manifest) in manifests() {
        let lines = [vec![command_line(container(&manifest))], typed(&file)].concat();
        for line in lines {
            parse(&line).unwrap_or_else(|error| panic!("{file}: {line:?}: {error}"));
            let wrong = [line.as_slice(), &["--no-such-flag".into()]].concat();
            assert!(parse(&wrong).is_err(), "{file}: {wrong:?}");
        }
    }
    assert_eq!(typed("client.yaml").len(), 1);
}

fn job() {
    let manifest = manifest("client.yaml");
    let container = container(&manifest);
    let load = c1m_client::cli::Cli::parse_from(command_line(container)).load.unwrap();
    assert_eq!(
        (load.shard.index().to_string().as_str(), load.start_at.is_some()),
        (SAMPLES[0].1, true)
    );
    let spec = &manifest["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    assert_eq!(
        (&spec["completions"], &spec["parallelism"]),
        (&json!(load.shard.of()), &json!(load.shard.of()))
    );
    // Each pod has one address of its own.
    let sysctls = spec["template"]["spec"]["securityContext"]["sysctls"].as_array().unwrap();
    assert_eq!(sysctls[0]["name"], "net.ipv4.ip_local_port_range");
    let ports = c1m_host::ports::Ports::parse(sysctls[0]["value"].as_str().unwrap(), "").unwrap();
    let a_pod = load.connections.div_ceil(load.shard.of());
    assert!(a_pod < load.per_source.min(ports.usable.len() as u64), "{a_pod} connections");
}

// ---- capabilities

/// As the manifest adds them, in the kernel's names.
fn added(file: &str) -> BTreeSet<String> {
    let manifest = manifest(file);
    let capabilities = &container(&manifest)["securityContext"]["capabilities"];
    assert_eq!(capabilities["drop"], json!(["ALL"]), "{file}");
    let add = capabilities["add"].as_array().into_iter().flatten();
    add.map(|it| format!("CAP_{}", it.as_str().unwrap())).collect()
}

fn capabilities() {
    let names = |capabilities: &[(u32, &str)]| {
        capabilities.iter().map(|(_, name)| (*name).to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(added("server.yaml"), names(&CAPABILITIES));
    assert_eq!(added("watch.yaml"), names(&[CAPABILITIES, OF_OTHER_NAMESPACES].concat()));
    assert_eq!(added("client.yaml"), names(&[]));
}

fn server() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("c1m-server")
}

fn cannot_trace() -> Option<String> {
    let all = [CAPABILITIES, OF_OTHER_NAMESPACES].concat();
    if !effective_capabilities().is_ok_and(|own| all.iter().all(|(bit, _)| own & (1 << bit) != 0)) {
        return Some("it takes capabilities away from what it starts: needs root".into());
    }
    if !server().is_file() {
        return Some("c1m-server is not built: run `cargo xtask test`".into());
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        return Some("no setpriv".into());
    }
    let output = Command::new(server()).args(["--trace", "--dry-run"]).output().unwrap();
    (!output.status.success())
        .then(|| format!("no tracing here: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs c1m-server as root with these capabilities, as a container would.
fn run_with(capabilities: &BTreeSet<String>, arguments: &[&str]) -> Output {
    let short = |name: &String| name.trim_start_matches("CAP_").to_lowercase();
    let set: String = capabilities.iter().map(|name| format!(",+{}", short(name))).collect();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", &format!("-all{set}"), "--inh-caps=-all"]).arg(server());
    command.args(arguments).output().unwrap()
}

/// A process in a network namespace of its own, as in a pod.
fn pod() -> Child {
    let mut command = Command::new("unshare");
    let pod = Child::start(command.args(["--net", "sleep", "600"])).unwrap();
    let netns = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    until("a namespace of its own", || netns(&pod.pid().to_string()) != netns("self"));
    pod
}

fn in_practice() {
    let _pod = pod();
    let serve = added("server.yaml");
    let trace = |set: &BTreeSet<String>| run_with(set, &["--trace", "--dry-run"]);
    assert_eq!(trace(&serve).status.code(), Some(0));
    // Of connections that were there before: how many, or that nobody knows.
    let counted = |set: &BTreeSet<String>| {
        let output = run_with(set, &["watch", "--json", "--duration", "200ms"]);
        let lines = String::from_utf8_lossy(&output.stdout);
        let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["kind"] == "watching").unwrap_or_else(|| panic!("{output:?}"))["connections"].is_u64()
    };
    let seen_whole = |set: &BTreeSet<String>| {
        let output = run_with(set, &["holders", "--json"]);
        let holders: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        holders["scope"] == "host"
    };
    let watch = added("watch.yaml");
    // A process that ends meanwhile may leave something unseen.
    assert!(counted(&watch) && (0..5).any(|_| seen_whole(&watch)));
    for name in &watch {
        let mut less = watch.clone();
        less.remove(name);
        if OF_OTHER_NAMESPACES.iter().any(|(_, it)| it == name) {
            assert!(!counted(&less) && !seen_whole(&less), "{name} is not needed");
            continue;
        }
        // CAP_SYS_ADMIN contains those that tracing needs.
        let mut less = serve.clone();
        less.remove(name);
        let output = trace(&less);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && error.contains(name), "{output:?}");
    }
}
