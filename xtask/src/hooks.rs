//! `cargo xtask hooks`: docs/hooks.md, made of the table of probes that the loader goes by.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use c1m_probe::{
    plan::{AttachMethod, Attachment, PROGRAMS, Probe, Source},
    probes::PROBES,
};

use crate::place;

/// Write docs/hooks.md from the table of probes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when docs/hooks.md is not that of the table
    #[arg(long)]
    check: bool,
}

const FILE: &str = "docs/hooks.md";

const HEAD: &str = "\
# Probes: what is observed in the kernel, and how

Which attach methods does each probe have, and which kernels allow them? The loader tries the
methods of a probe best first, each probe by itself: what a kernel refuses lowers the resolution,
and does not stop the run. This prints which method each probe uses on this host, and why a better
one is not available:

```
c1m-server doctor --hooks
sudo c1m-server --trace --dry-run
```

With `--json` it is the `hooks` record. Exit code 3: nothing could be attached. What is available is
found in the kernel's own types (BTF), and then by loading and attaching; never by its version.
Arguments are found by their names there, reasons by the names of their enumerators.

Made by `cargo xtask hooks` from the table that the loader uses
(`crates/c1m-probe/src/probes.rs`); a test fails when this file is older.

## Attach methods

| attach method | what it is | where it works |
|---|---|---|
| `fentry/`, `fexit/` | the entry or the return of a kernel function | kernels from 5.10 on, unless the host forbids it, or the compiler has inlined the function |
| `kprobe/`, `kretprobe/` | the same by registers | kernels built with kprobes, on x86_64 and aarch64, where the compiler has not inlined the function |
| `tp_btf/` | a tracepoint with typed arguments | kernels from 5.10 on |
| `TcpExt`, `/proc` | what the kernel counts itself, read once per interval; `TcpExt` is of one network namespace | everywhere |

Kprobes are for kernels that have no BTF trampolines (aarch64 before 6.4), and for functions with
more arguments than a trampoline hands on (six on 5.15 and 6.1). Which register holds an argument
follows from the architecture's calling convention, and its place in struct pt_regs from BTF. The
program on the entry keeps the arguments that the program on the return needs. A return whose entry
was missed is counted in `dropped`.

The kernel skips a program that is running on the CPU already. So a hook that is reached in system
calls and in the softirqs that interrupt them has a second program, the backup program (`…_backup`
below), which takes what the first one missed: [architecture.md](architecture.md). Kprobes
have none: while the program of one runs, the kernel skips those of all others on that CPU too.

| resolution | meaning |
|---|---|
| `exact` | each one, at the instant at which it happens |
| `connection` | per connection: known between two readings |
| `interval` | per interval of `--interval` |

## The probes

";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    write_or_compare(&place::root().join(FILE), &text(), args.check, "cargo xtask hooks")
}

/// Writes a page that `command` makes, or fails when the present one is another.
pub(crate) fn write_or_compare(
    path: &Path,
    text: &str,
    check: bool,
    command: &str,
) -> anyhow::Result<()> {
    if !check {
        return fs::write(path, text).with_context(|| format!("cannot write {}", path.display()));
    }
    let present = fs::read_to_string(path).unwrap_or_default();
    anyhow::ensure!(
        present == text,
        "{} is not that of the tables: run `{command}`",
        path.display()
    );
    Ok(())
}

fn text() -> String {
    let mut text = HEAD.to_owned();
    for probe in PROBES {
        section(&mut text, probe);
    }
    programs(&mut text);
    text
}

fn section(text: &mut String, probe: &Probe) {
    let Probe { id, proves, makes, reads, methods } = probe;
    line(text, &format!("### {id}\n"));
    for (what, is) in [("Proves", proves), ("Makes", makes), ("Reads", reads)] {
        item(text, &format!("- {what}: {is}."));
    }
    line(text, "");
    line(
        text,
        "| | attach method | resolution | what that means here | kernels |\n|---|---|---|---|---|",
    );
    for (rank, method) in (1..).zip(*methods) {
        line(text, &row(rank, method));
    }
    line(text, "");
}

fn row(rank: usize, method: &AttachMethod) -> String {
    let name = match method.source {
        Source::Programs { .. } => method
            .name()
            .split(" + ")
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Source::Read(name) => name.into(),
    };
    let resolution = method.resolution.name();
    format!("| {rank} | {name} | {resolution} | {} | {} |", method.says, method.versions)
}

fn programs(text: &mut String) {
    line(text, "## Programs\n");
    line(text, "Each is loaded and attached once, for all probes that use it.\n");
    line(text, "| program | attached to | arguments, by name |\n|---|---|---|");
    for program in &PROGRAMS {
        let is_exit = matches!(program.attachment, Attachment::Exit | Attachment::Kretprobe);
        let result = is_exit.then_some("the result");
        let arguments: Vec<String> = [program.object, program.value]
            .into_iter()
            .flatten()
            .map(|name| format!("`{name}`"))
            .chain(result.map(Into::into))
            .collect();
        let arguments =
            if arguments.is_empty() { "by position".into() } else { arguments.join(", ") };
        let hook = format!("{}/{}", program.attachment.name(), program.target);
        let others: String = program
            .entry_program
            .into_iter()
            .chain(program.backup)
            .map(|name| format!(", `{name}`"))
            .collect();
        line(text, &format!("| `{}`{others} | `{hook}` | {arguments} |", program.name));
    }
}

/// An item of a list, in lines that the other pages have as well.
fn item(text: &mut String, item: &str) {
    const COLUMNS: usize = 100;
    let mut width = 0;
    for word in item.split(' ') {
        let columns = word.chars().count();
        let gap = match width {
            0 => "",
            _ if width + 1 + columns <= COLUMNS => " ",
            _ => {
                width = 1;
                "\n  "
            }
        };
        text.push_str(gap);
        text.push_str(word);
        width += gap.len().min(1) + columns;
    }
    text.push('\n');
}

fn line(text: &mut String, line: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_that_of_the_table() {
        run(&Args { check: true }).unwrap();
    }

    #[test]
    fn every_probe_and_program_is_on_the_page() {
        let text = text();
        for probe in PROBES {
            assert!(text.contains(&format!("### {}\n", probe.id)), "{}", probe.id);
        }
        for program in &PROGRAMS {
            assert!(text.contains(&format!("| `{}`", program.name)), "{}", program.name);
        }
        assert!(!text.contains("||"), "an empty cell");
    }

    #[test]
    fn a_stale_page_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hooks.md");
        assert!(write_or_compare(&path, "new", true, "x").is_err());
        write_or_compare(&path, "new", false, "x").unwrap();
        write_or_compare(&path, "new", true, "x").unwrap();
        assert!(write_or_compare(&path, "newer", true, "x").is_err());
    }
}
