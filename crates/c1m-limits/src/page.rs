//! The limits as documentation has them: docs/limits.md, and the table of README.md.

use crate::limits::shown;

/// docs/limits.md
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for about in shown().map(|limit| limit.about()) {
        text += &format!(
            "\n## {}\n\n| | |\n|---|---|\n| limit of | {} |\n| unit | {} |\n| knob | {} |\n| read from | {} |\n| symptom | {} |\n\
             | distinguished by | {} |\n| kernel | {} |\n",
            about.name.name(),
            about.scope.name(),
            about.unit,
            about.setting,
            about.source,
            about.symptom,
            about.distinguished_by,
            about.kernel
        );
    }
    text
}

/// The table below "What it names" in README.md.
#[must_use]
pub fn summary() -> String {
    let mut text = String::from("| limit | what you see | setting |\n|---|---|---|\n");
    for about in shown().map(|limit| limit.about()) {
        let [symptom, setting] = about.summary;
        text += &format!("| `{}` | {symptom} | {setting} |\n", about.name.name());
    }
    text
}

const HEAD: &str = r#"# Limits

What can stop a connection on Linux? Each limit has a section: its scope, where its usage is read,
which setting moves it, how it shows itself, and how c1m distinguishes it from limits that look the
same. A verdict names one of them:

```text
verdict  1. nofile (certain, process): a descriptor table was full 20 times: connections waited in the accept queue, or could not be opened
```

This page is made from the files of `crates/c1m-limits/src/limits/`, one for each limit. `cargo test
-p c1m-limits --test limits_page -- --ignored` writes it, and a test fails when it is stale.

- `limits` records have usage, ceiling and headroom of each, at the start and at the end. What can't
  be seen from here is `null`, not 0: tcp_mem and tcp_max_orphans are settings of the host, and no
  other network namespace has them.
- `verdict` records say which of them it was. The root cause is first, and what follows from it is
  after it: descriptors that ran out come before the accept queue that filled behind them. A limit
  that refused or lost something comes before one that was only reached, and a certain cause before
  a possible one.
- c1m never changes a setting by itself: the `remedy` names the setting, a number that
  would do, and its risk.

## What moves on a healthy host

None of these names a limit by itself: EAGAIN; zero windows that open again; orphans while
connections close; SYN cookies with tcp_syncookies=2; an skb that could not be allocated once (the
kernel enters its memory pressure for a moment); EADDRNOTAVAIL of `bind`, or of `connect` with
hardly a socket open; EADDRINUSE; EMFILE of other calls than accept and socket; ENOBUFS of `send`;
ListenDrops that no queue explains; ECONNREFUSED; connections that the peer resets; TCPRcvQDrop, as
a sign of tcp_mem.
"#;
