//! Who holds TCP memory: what the sockets hold and whether that is all, then the holders.

use c1m_record::{Holder, HolderRow, Holders, HoldersScope, Memory};

use super::states::list;
use crate::{
    page::{Page, Side, Table, Text, Tone},
    pages::unseen,
    units::{counted, grouped, known, signed_size, size, span_ms},
};

/// `page_bytes`: bytes of a page of this kernel, in which tcp_mem counts.
#[must_use]
pub fn holders(holders: &Holders, page_bytes: u64) -> Page {
    let total = &holders.total;
    let scope = match holders.scope {
        HoldersScope::Host => "the whole host",
        HoldersScope::Part => "a part of the host",
    };
    let memory = |pages: u64| size(pages.saturating_mul(page_bytes));
    let mut page = Page::default();
    let sum = format!(
        "{}: {} of TCP memory ({}), {scope}",
        counted(total.sockets, "TCP socket"),
        memory(total.pages),
        counted(total.pages, "page")
    );
    page.line(Text::new(&sum, Tone::Strong));
    let (text, tone) = meaning(holders);
    page.line(Text::new(&text, tone));
    page.line(format!("read by {} in {}", holders.source.name(), span_ms(holders.took_ms)));
    if !holders.rows.is_empty() {
        page.section("Holders");
        page.table(table(&holders.rows, &memory));
    }
    if holders.rows_omitted > 0 {
        page.line(format!(
            "{} with {}: --top shows more",
            counted(holders.rows_omitted, "further row"),
            memory(holders.pages_omitted)
        ));
    }
    explain(&mut page, holders);
    unseen(&mut page, &holders.unseen);
    page
}

/// What stands in the table and needs a word.
fn explain(page: &mut Page, holders: &Holders) {
    let Holders { total, unlisted_sockets, .. } = holders;
    let mut texts = Vec::new();
    if total.shared > 0 {
        texts.push(format!(
            "shared: several processes hold {}; each is counted once, in the row of the process that was found first",
            counted(total.shared, "socket")
        ));
    }
    if total.closed_but_open.is_some_and(|count| count > 0) {
        texts.push(
            "closed_but_open: the connection is over, and what it has queued stays charged until the descriptor is closed; ss does not show these sockets"
                .into(),
        );
    }
    if let Some(unlisted @ 1..) = unlisted_sockets {
        texts.push(format!(
            "unlisted: {} that the kernel counts, without memory and without a descriptor of a visible process",
            counted(unlisted.unsigned_abs(), "socket")
        ));
    }
    if !texts.is_empty() {
        page.section("Notes");
        texts.iter().for_each(|text| page.item(text));
    }
}

fn table(rows: &[HolderRow], memory: &dyn Fn(u64) -> String) -> Table {
    let numbers = ["memory", "receive", "send", "sockets", "closed but open"];
    let columns = numbers.map(|name| (name, Side::Right));
    let mut table = Table::new(&[&[("holder", Side::Left)], &columns[..]].concat());
    for row in rows {
        let Memory { sockets, closed_but_open, pages, receive_bytes, send_bytes, .. } = row.memory;
        let closed = match closed_but_open {
            Some(0) => Tone::Plain,
            _ => Tone::Warning,
        };
        table.row([
            Text::new(&name(row), Tone::Strong),
            memory(pages).into(),
            size(receive_bytes).into(),
            size(send_bytes).into(),
            grouped(sockets).into(),
            Text::new(&known(closed_but_open), closed),
        ]);
        table.note(Text::new(&besides(row), Tone::Faint));
    }
    table
}

/// What the columns have no room for.
fn besides(row: &HolderRow) -> String {
    let Memory { shared, backlog_bytes, forward_bytes, states, .. } = &row.memory;
    let mut parts = vec![list(states)];
    if *shared > 0 {
        parts.push(format!("shared {}", grouped(*shared)));
    }
    if *backlog_bytes > 0 {
        parts.push(format!("backlog {}", size(*backlog_bytes)));
    }
    if *forward_bytes != 0 {
        parts.push(format!("charged in advance {}", signed_size(*forward_bytes)));
    }
    if row.pid.is_some() {
        parts.push(format!("cgroup {}", row.cgroup.as_deref().unwrap_or("unknown")));
    }
    parts.join("; ")
}

/// What the row is of.
pub(crate) fn name(row: &HolderRow) -> String {
    match (row.holder, row.pid, row.port, row.netns) {
        (Some(_), Some(pid), ..) => format!("{}[{pid}]", row.comm.as_deref().unwrap_or("unknown")),
        (Some(holder), None, ..) => match holder {
            Holder::Orphan => "orphans (closed, of no process)".into(),
            Holder::AcceptQueue => "accept queues (of no process yet)".into(),
            Holder::Kernel => "the kernel itself".into(),
            Holder::Elsewhere => "a descriptor that no visible process has".into(),
            Holder::Process | Holder::Unknown => "a process that can't be seen from here".into(),
        },
        (None, _, Some(port), Some(netns)) => format!("port {port}, netns {netns}"),
        // Listeners and what is not connected have no remote address.
        _ => match (&row.remote, &row.cgroup) {
            (Some(remote), _) => remote.clone(),
            (None, Some(cgroup)) => cgroup.clone(),
            (None, None) => "none or unknown".into(),
        },
    }
}

/// The kernel's own page count beside that of the sockets, and what a difference means.
pub(crate) fn meaning(holders: &Holders) -> (String, Tone) {
    let Some(accounted) = holders.accounted_pages else {
        let text = "whether that is all is unknown: /proc/net/sockstat does not show the kernel's own page count";
        return (text.into(), Tone::Warning);
    };
    let count = format!("the kernel's own count is {}", counted(accounted, "page"));
    let reserve = holders.reserve_pages.map_or("unknown".into(), |it| format!("±{}", grouped(it)));
    match holders.unexplained_pages {
        None => (
            format!(
                "{count}: whether that is all is unknown, since only a part of the host's sockets was read"
            ),
            Tone::Plain,
        ),
        Some(0) => (
            format!(
                "{count}: the sockets account for it, up to the reserve of the CPUs ({reserve} pages)"
            ),
            Tone::Good,
        ),
        Some(pages @ 1..) => (
            format!(
                "{count}: {} charged and in no socket that was found. Take another snapshot: if that stays, a socket is in a network \
                 namespace that no process is in, or the kernel leaks; no holder below is the cause",
                counted(pages.unsigned_abs(), "page")
            ),
            Tone::Bad,
        ),
        Some(pages) => (
            format!(
                "{count}: the sockets hold {} more. Traffic moved between the two readings, or an old kernel charges less; take another snapshot",
                counted(pages.unsigned_abs(), "page")
            ),
            Tone::Warning,
        ),
    }
}

#[cfg(test)]
mod tests {
    use c1m_record::{Source, TcpState};

    use super::*;
    use crate::page::Format;

    fn row(holder: Holder, pid: Option<u32>) -> HolderRow {
        let closed = TcpState::ClosedButOpen;
        HolderRow {
            holder: Some(holder),
            pid,
            comm: pid.map(|_| "ngi\u{1b}nx".into()),
            cgroup: pid.map(|_| "/a\nb".into()),
            port: None,
            netns: None,
            remote: None,
            memory: Memory {
                sockets: 20_000,
                closed_but_open: Some(1),
                pages: 25,
                receive_bytes: 100_000,
                forward_bytes: -12,
                states: [(TcpState::Established, 19_999), (closed, 1)].into(),
                ..Memory::default()
            },
        }
    }

    fn record(unexplained_pages: Option<i64>) -> Holders {
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
            unseen: vec!["what is hidden".into()],
            took_ms: 1.25,
        }
    }

    fn drawn(record: &Holders) -> String {
        holders(record, 4096).render(Format::default())
    }

    #[test]
    fn a_summary_comes_first_and_names_are_escaped() {
        assert_eq!(
            drawn(&record(Some(0))),
            "9 TCP sockets: 216.00 KiB of TCP memory (54 pages), the whole host\n\
             the kernel's own count is 60 pages: the sockets account for it, up to the reserve of the CPUs (±510 pages)\n\
             read by eBPF iterators in 1.2 ms\n\
             \n\
             Holders\n\
             holder                               memory    receive  send  sockets  closed but open\n\
             ngi\\u{1b}nx[7]                   100.00 KiB  97.66 KiB   0 B   20,000                1\n\
             \u{20} established 19,999, closed_but_open 1; charged in advance -12 B; cgroup /a\\nb\n\
             orphans (closed, of no process)  100.00 KiB  97.66 KiB   0 B   20,000                1\n\
             \u{20} established 19,999, closed_but_open 1; charged in advance -12 B\n\
             3 further rows with 16.00 KiB: --top shows more\n\
             \n\
             Notes\n\
             \u{20} shared: several processes hold 1 socket; each is counted once, in the row of the process that was found first\n\
             \u{20} unlisted: 2 sockets that the kernel counts, without memory and without a descriptor of a visible process\n\
             \n\
             Not seen\n\
             \u{20} what is hidden\n"
        );
        for none in [Some(0), Some(-1), None] {
            let all = Holders { unlisted_sockets: none, ..record(Some(0)) };
            assert!(!drawn(&all).contains("unlisted"));
        }
    }

    #[test]
    fn the_second_line_says_what_a_difference_means() {
        let second = |record: &Holders| drawn(record).lines().nth(1).unwrap().to_owned();
        assert!(second(&record(Some(9))).contains("9 pages charged and in no socket"));
        assert!(second(&record(Some(-9))).contains("the sockets hold 9 pages more"));
        assert!(second(&record(None)).contains("only a part of the host"));
        let mut blind = record(None);
        (blind.accounted_pages, blind.rows[0].memory.closed_but_open) = (None, None);
        assert!(second(&blind).starts_with("whether that is all is unknown"));
        assert!(drawn(&blind).contains("unknown\n"), "closed sockets");
    }
}
