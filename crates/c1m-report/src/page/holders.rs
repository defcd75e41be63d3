//! Who held TCP memory when it was the most.

use c1m_record::{HolderRow, Holders, HoldersScope};
use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{UNKNOWN, as_f64, clock, figure, foreign, perhaps, tagged},
    },
    meter, table,
};

/// Rows that are shown.
const ROWS: usize = 20;

pub(super) fn section(run: &Run) -> Markup {
    html! {
        h3 { "Who held the memory" }
        @match &run.holders {
            Some(kept) => (found(kept.line, kept.at, &kept.record)),
            None => p.empty {
                "Not known: there is no " code { "holders" } " line in these records. " code { "c1m-server watch" }
                " writes one when usage comes above pressure or high; " code { "c1m-server holders --json >> run.jsonl" } " adds one at any time."
            },
        }
    }
}

fn found(line: u64, at: u64, holders: &Holders) -> Markup {
    let whole =
        holders.accounted_pages.unwrap_or(holders.found_pages).max(holders.found_pages).max(1);
    let left_off = holders.rows.len().saturating_sub(ROWS) as u64 + holders.rows_omitted;
    html! {
        p {
            "At " (clock(at)) " UTC, by " (holders.source.name()) ", of " @match holders.scope { HoldersScope::Host => "the whole host", HoldersScope::Part => "a part of the host" } ". The kernel counted "
            (perhaps(line, "/accounted_pages", holders.accounted_pages)) " pages; the sockets that were found hold " (figure(line, "/found_pages", holders.found_pages)) ". Not explained by them: "
            @match holders.unexplained_pages { Some(pages) => (tagged(line, "/unexplained_pages", pages, pages)), None => (UNKNOWN) } "."
        }
        (table("Holders", html! {
            thead { tr {
                th scope="col" { "holder" } th scope="col" { "share" } th.number scope="col" { "pages" } th.number scope="col" { "sockets" }
                th.number scope="col" { "receive, bytes" } th.number scope="col" { "send, bytes" } th.number scope="col" { "closed but open" } th scope="col" { "cgroup" }
            } }
            tbody { @for (index, row) in holders.rows.iter().take(ROWS).enumerate() {
                @let place = |name: &str| format!("/rows/{index}/{name}");
                tr {
                    th scope="row" { (name(row)) }
                    td.bar { (meter(as_f64(row.memory.pages) / as_f64(whole))) }
                    td.number { (figure(line, &place("pages"), row.memory.pages)) }
                    td.number { (figure(line, &place("sockets"), row.memory.sockets)) }
                    td.number { (figure(line, &place("receive_bytes"), row.memory.receive_bytes)) }
                    td.number { (figure(line, &place("send_bytes"), row.memory.send_bytes)) }
                    td.number { (perhaps(line, &place("closed_but_open"), row.memory.closed_but_open)) }
                    td { @if let Some(cgroup) = &row.cgroup { code { (foreign(cgroup)) } } @else { "–" } }
                }
            } }
        }))
        @if left_off > 0 { p.note { "Holders that are not shown: " (left_off) "." } }
        @if !holders.unseen.is_empty() {
            p.note { "What could not be seen:" }
            ul.note { @for unseen in holders.unseen.iter().take(ROWS) { li { (foreign(unseen)) } } }
        }
    }
}

fn name(row: &HolderRow) -> Markup {
    html! {
        @match (&row.comm, row.pid, row.port, &row.remote, row.holder) {
            (Some(comm), Some(pid), ..) => { (foreign(comm)) " (" (pid) ")" },
            (_, Some(pid), ..) => { "process " (pid) },
            (_, _, Some(port), ..) => { "port " (port) },
            (_, _, _, Some(remote), _) => (foreign(remote)),
            (.., Some(holder)) => (holder.name().replace('_', " ")),
            _ => (row.cgroup.as_deref().map_or("–".into(), foreign)),
        }
    }
}
