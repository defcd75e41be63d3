//! No program makes a reference to memory of a map: other CPUs, an interrupt on the same CPU and
//! user space write to it at any time, and the compiler takes a reference as a promise that they do
//! not. Counters change by the atomic add alone.

use std::{collections::BTreeMap, fs, path::Path};

/// References that programs make from pointers, with the reason why the memory is nobody else's.
const OWN_MEMORY: [(&str, &str); 2] = [
    // Reserved in the ring buffer, and not yet submitted.
    ("event.rs", "&mut *entry.as_mut_ptr()"),
    // On the stack of the program that runs the loop.
    ("tables.rs", "&mut *walk.cast::<Walk>()"),
];

/// The sources without comments.
fn sources() -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned());
            (path.file_name().unwrap().to_str().unwrap().to_owned(), code.collect())
        })
        .collect()
}

/// What a line has that breaks the rule.
fn broken(file: &str, line: &str) -> Option<&'static str> {
    let is_allowed = |(of, code): &(&str, &str)| *of == file && line.contains(code);
    if (line.contains("&mut *") || line.contains("&*")) && !OWN_MEMORY.iter().any(is_allowed) {
        return Some("a reference from a pointer");
    }
    if line.split_once(".get(").is_some_and(|(before, _)| is_static(before)) {
        return Some("a reference from a map: use get_ptr");
    }
    let places = line.match_indices("(*").filter(|(_, _)| line.contains(")."));
    for (at, _) in places {
        let before = line[..at].trim_end();
        if !before.ends_with("&raw mut") && !before.ends_with("&raw const") {
            return Some("a plain access through a pointer: read_volatile, write_volatile or add");
        }
    }
    None
}

/// Does the expression before a call end with the name of a static?
fn is_static(before: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = before.rsplit(|c| !is_name(c)).next().unwrap_or("");
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

#[test]
fn no_program_makes_a_reference_to_memory_of_a_map() {
    let sources = sources();
    assert!(sources.contains_key("event.rs") && sources.len() > 20, "{:?}", sources.keys());
    let mut found = Vec::new();
    for (file, lines) in &sources {
        for (number, line) in (1..).zip(lines) {
            found.extend(broken(file, line).map(|why| format!("{file}:{number}: {why}: {line}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    for (file, code) in OWN_MEMORY {
        assert!(sources[file].iter().any(|line| line.contains(code)), "{file} has no {code}");
    }
}

#[test]
fn what_breaks_the_rule_is_found() {
    let breaking = [
        "    Some(unsafe { &mut *slot })",
        "        let shared = &mut *shared;",
        "    let bucket = unsafe { BUCKETS.get(place) }.copied();",
        "        unsafe { (*shared).present += 1 };",
        "        (*shared).orphans = count;",
    ];
    for line in breaking {
        assert!(broken("memory.rs", line).is_some(), "{line}");
    }
    let keeping = [
        "        unsafe { event::add(&raw mut (*shared).present, 1) };",
        "    if unsafe { (&raw const (*shared).zone).read_volatile() } != now {",
        "    let kind = CALL_KINDS.get_ptr(number)",
        "    counters.taken_over.get(hook as usize)",
    ];
    for line in keeping {
        assert_eq!(broken("memory.rs", line), None, "{line}");
    }
    assert_eq!(broken("tables.rs", "    let walk = unsafe { &mut *walk.cast::<Walk>() };"), None);
}
