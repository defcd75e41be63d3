//! Who holds TCP memory, and connections by state, in words.

use c1m_record::*;

pub(super) fn holders_lines(holders: &Holders) -> Vec<String> {
    let total = &holders.total;
    let scope = match holders.scope {
        HoldersScope::Host => "the whole host",
        HoldersScope::Part => "a part of the host",
    };
    let mut lines = vec![format!(
        "holders  {} sockets hold {} pages, {}  by={} took={:.1}ms  (times are UTC)",
        total.sockets,
        total.pages,
        scope,
        holders.source.name(),
        holders.took_ms
    )];
    lines.extend(holders.rows.iter().map(row_line));
    if holders.rows_omitted > 0 {
        lines.push(format!(
            "further rows  {} with {} pages: --top shows more",
            holders.rows_omitted, holders.pages_omitted
        ));
    }
    if total.shared > 0 {
        lines.push(format!(
            "shared  {} sockets are held by several processes, and counted once, in the row of the one that was found first",
            total.shared
        ));
    }
    if total.closed_but_open.is_some_and(|count| count > 0) {
        lines.push(
            "closed_but_open  their connection is over, and what they have queued stays charged until the descriptor is closed; ss does not show them"
                .into(),
        );
    }
    lines.extend(unseen_lines(&holders.unseen));
    lines.extend(sockets_line(holders));
    lines.extend(account_lines(holders));
    lines
}

/// Sockets that are in no row, where it is known that there are any.
fn sockets_line(holders: &Holders) -> Option<String> {
    let unlisted = holders.unlisted_sockets.filter(|unlisted| *unlisted > 0)?;
    Some(format!(
        "unlisted  {unlisted} sockets that the kernel counts hold nothing, and no process that can be seen has a descriptor of them"
    ))
}

fn row_line(row: &HolderRow) -> String {
    let memory = &row.memory;
    let mut line = format!(
        "holder  {}  pages={} receive={} send={} backlog={} forward={}  sockets={} closed_but_open={}",
        of(row),
        memory.pages,
        bytes(memory.receive_bytes),
        bytes(memory.send_bytes),
        bytes(memory.backlog_bytes),
        signed_bytes(memory.forward_bytes),
        memory.sockets,
        memory.closed_but_open.map_or_else(|| "unknown".into(), |count| count.to_string()),
    );
    if memory.shared > 0 {
        line += &format!(" shared={}", memory.shared);
    }
    let states: Vec<_> =
        memory.states.iter().map(|(state, count)| format!("{}:{count}", state.name())).collect();
    line + "  states=" + &states.join(",")
}

/// What the row is of.
fn of(row: &HolderRow) -> String {
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
    match (row.holder, row.pid, row.port, row.netns) {
        (Some(_), Some(pid), ..) => {
            format!("pid={pid} comm={} cgroup={}", or_unknown(&row.comm), or_unknown(&row.cgroup))
        }
        (Some(holder), None, ..) => match holder {
            Holder::Orphan => "orphans (closed, of no process)".into(),
            Holder::AcceptQueue => "accept queues (of no process yet)".into(),
            Holder::Kernel => "the kernel itself".into(),
            Holder::Elsewhere => "a descriptor that no visible process has".into(),
            Holder::Process | Holder::Unknown => "a process that can't be seen from here".into(),
        },
        (None, _, Some(port), Some(netns)) => format!("port={port} netns={netns}"),
        // Listeners and what is not connected have no remote address.
        _ => match (&row.remote, &row.cgroup) {
            (Some(remote), _) => format!("remote={remote}"),
            (None, Some(cgroup)) => format!("cgroup={cgroup}"),
            (None, None) => "none or unknown".into(),
        },
    }
}

/// What the kernel counts beside what was found, and what the difference means.
fn account_lines(holders: &Holders) -> Vec<String> {
    let found = holders.found_pages;
    let Some(accounted) = holders.accounted_pages else {
        return vec![format!(
            "accounted  unknown from here, found={found} pages: /proc/net/sockstat does not say what the kernel counts"
        )];
    };
    let reserve =
        holders.reserve_pages.map_or_else(|| "unknown".into(), |pages| format!("±{pages}"));
    let lines = format!(
        "accounted  {accounted} pages that the kernel counts, found={found} in sockets, reserve={reserve} that CPUs may hold besides"
    );
    let meaning = match holders.unexplained_pages {
        None => "unexplained  unknown from here: not all sockets of the host were looked at".into(),
        Some(0) => {
            "unexplained  0 pages: the sockets account for what the kernel counts, up to the reserve of the CPUs".into()
        }
        Some(pages) if pages > 0 => format!(
            "unexplained  {pages} pages: charged, and in no socket that was found. Look again: if it stays, some socket is where nobody can \
             look (a network namespace that no process is in), or the kernel leaks; no row above is the cause"
        ),
        Some(pages) => format!(
            "unexplained  {pages} pages: the sockets hold more than the kernel counts. Traffic moved between the two readings, or an \
             old kernel charges less; look again"
        ),
    };
    vec![lines, meaning]
}

/// `top`: how many rows at most.
pub fn states_lines(states: &States, top: usize) -> Vec<String> {
    let sum: u64 = states.rows.iter().map(|row| row.count).sum();
    let mut lines = vec![format!(
        "states  {sum} sockets in {} rows  by={} took={:.1}ms  (times are UTC)",
        states.rows.len(),
        states.source.name(),
        states.took_ms
    )];
    lines.extend(states.rows.iter().take(top).map(|row| {
        format!(
            "state  {}  count={} port={} netns={}",
            row.state.name(),
            row.count,
            row.port,
            row.netns
        )
    }));
    let omitted = states.rows.get(top..).unwrap_or_default();
    if !omitted.is_empty() {
        let count: u64 = omitted.iter().map(|row| row.count).sum();
        lines.push(format!(
            "further rows  {} with {count} sockets: --top or --json shows more",
            omitted.len()
        ));
    }
    lines.extend(unseen_lines(&states.unseen));
    lines
}

fn unseen_lines(unseen: &[String]) -> impl Iterator<Item = String> {
    unseen.iter().map(|what| format!("not seen  {what}"))
}

/// `512B`, `96.0MiB`
#[expect(clippy::cast_precision_loss, reason = "rounded to a tenth for people")]
fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number}B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

fn signed_bytes(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    sign.to_owned() + &bytes(number.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(holder: Holder, pid: Option<u32>) -> HolderRow {
        let closed = TcpState::ClosedButOpen;
        HolderRow {
            holder: Some(holder),
            pid,
            comm: pid.map(|_| "nginx".into()),
            cgroup: None,
            port: None,
            netns: None,
            remote: None,
            memory: Memory {
                sockets: 2,
                closed_but_open: Some(1),
                pages: 25,
                receive_bytes: 100_000,
                forward_bytes: -12,
                states: [(TcpState::Established, 1), (closed, 1)].into(),
                ..Memory::default()
            },
        }
    }

    fn holders(unexplained_pages: Option<i64>) -> Holders {
        Holders {
            source: Source::Iterators,
            scope: HoldersScope::Host,
            rows: vec![row(Holder::Process, Some(7)), row(Holder::Orphan, None)],
            rows_omitted: 3,
            pages_omitted: 4,
            total: Memory { sockets: 9, shared: 1, pages: 54, ..Memory::default() },
            accounted_pages: Some(60),
            found_pages: 54,
            reserve_pages: Some(510),
            unexplained_pages,
            accounted_sockets: Some(11),
            unlisted_sockets: Some(2),
            unseen: vec!["what is not there".into()],
            took_ms: 1.25,
        }
    }

    #[test]
    fn a_row_says_who_and_what() {
        let lines = holders_lines(&holders(Some(0)));
        assert_eq!(
            lines[1],
            "holder  pid=7 comm=nginx cgroup=unknown  pages=25 receive=97.7KiB send=0B backlog=0B forward=-12B  sockets=2 \
             closed_but_open=1  states=established:1,closed_but_open:1"
        );
        assert!(lines[2].starts_with("holder  orphans"), "{}", lines[2]);
        for part in [
            "further rows  3 with 4 pages",
            "shared  1 sockets",
            "not seen  what is not there",
            "unlisted  2 sockets",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(part)), "{part}: {lines:?}");
        }
        for none in [Some(0), Some(-1), None] {
            let all = Holders { unlisted_sockets: none, ..holders(Some(0)) };
            assert!(!holders_lines(&all).iter().any(|line| line.starts_with("unlisted")));
        }
    }

    #[test]
    fn the_last_line_says_what_the_difference_means() {
        let last = |unexplained| holders_lines(&holders(unexplained)).pop().unwrap();
        assert!(last(Some(0)).starts_with("unexplained  0 pages: the sockets account"));
        assert!(last(Some(9)).contains("the kernel leaks"));
        assert!(last(Some(-9)).contains("hold more than the kernel counts"));
        assert!(last(None).starts_with("unexplained  unknown from here"));
        let mut blind = holders(None);
        (blind.accounted_pages, blind.rows[0].memory.closed_but_open) = (None, None);
        let lines = holders_lines(&blind);
        assert!(lines.last().unwrap().starts_with("accounted  unknown"));
        assert!(lines[1].contains("closed_but_open=unknown"));
    }

    #[test]
    fn states_beyond_the_top_are_summed_up() {
        let row = |port, count| StateRow { state: TcpState::Listen, port, netns: 1, count };
        let states = States {
            source: Source::SockDiag,
            rows: vec![row(80, 5), row(81, 2), row(82, 1)],
            unseen: Vec::new(),
            took_ms: 0.5,
        };
        let lines = states_lines(&states, 1);
        assert_eq!(lines[1], "state  listen  count=5 port=80 netns=1");
        assert!(lines[2].starts_with("further rows  2 with 3 sockets"), "{lines:?}");
        assert_eq!(states_lines(&states, 3).len(), 4);
    }

    #[test]
    fn bytes_have_the_unit_that_fits() {
        assert_eq!(
            [0, 1023, 1024, 1 << 20, 3 << 40].map(bytes),
            ["0B", "1023B", "1.0KiB", "1.0MiB", "3.0TiB"]
        );
    }
}
