//! What the kernel refused, dropped and reset, and its own counters beside it.

use std::collections::BTreeMap;

use c1m_record::Refused;
use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{clock, figure, foreign, grouped, perhaps},
    },
    table,
};

/// Rows that each table may have: their names come from outside.
const ROWS: usize = 200;

/// The last record that has it: its line, and where it stands there.
fn last(run: &Run) -> Option<(u64, String, &Refused)> {
    if let Some((line, refused)) =
        run.summary.as_ref().and_then(|kept| Some((kept.line, kept.record.refused.as_deref()?)))
    {
        return Some((line, "/refused".into(), refused));
    }
    if let Some(kept) = &run.ended {
        return Some((kept.line, "/refused".into(), &kept.record.refused));
    }
    if let Some(kept) = &run.refused {
        return Some((kept.line, String::new(), &kept.record));
    }
    let act = run.act.as_ref()?;
    Some((act.line, format!("{}/refused", act.record.place), act.record.refused.as_ref()?))
}

pub(super) fn section(run: &Run) -> Markup {
    html! {
        h3 { "Refused, dropped and reset" }
        @match last(run) {
            Some((line, place, refused)) => {
                (counted(line, &place, refused))
                (more(line, &format!("{place}/call_errors"), "System calls that failed for a limit, of any process", refused.call_errors.as_ref()))
                (more(line, &format!("{place}/kernel"), "The kernel's own counters (TcpExt) of this network namespace, since the start", Some(&refused.kernel)))
            },
            None => p.empty { "Not known: nothing was traced." },
        }
        (errors(run))
        (killed(run))
    }
}

fn counted(line: u64, place: &str, refused: &Refused) -> Markup {
    let rows = [
        ("above tcp_mem high: sends refused", "high_send", Some(refused.high_send)),
        ("above tcp_mem high: receives refused", "high_receive", Some(refused.high_receive)),
        (
            "of these, first skb of an empty queue taken all the same",
            "forced_first_skb",
            Some(refused.forced_first_skb),
        ),
        (
            "under pressure, over the fair share: sends refused",
            "fair_share_send",
            Some(refused.fair_share_send),
        ),
        (
            "under pressure, over the fair share: receives refused",
            "fair_share_receive",
            Some(refused.fair_share_receive),
        ),
        ("memory cgroup: sends refused", "memcg_send", Some(refused.memcg_send)),
        ("memory cgroup: receives refused", "memcg_receive", Some(refused.memcg_receive)),
        ("skbs dropped for memory (PROTO_MEM)", "dropped_skb", refused.dropped_skb),
        ("segments dropped: tcp_mem", "dropped_tcp_mem", refused.dropped_tcp_mem),
        (
            "segments dropped: the socket's receive buffer",
            "dropped_receive_buffer",
            refused.dropped_receive_buffer,
        ),
        (
            "orphans reset: too many of them",
            "orphans_aborted_too_many",
            refused.orphans_aborted_too_many,
        ),
        (
            "orphans reset: out of memory",
            "orphans_aborted_out_of_memory",
            refused.orphans_aborted_out_of_memory,
        ),
        ("times that memory pressure began: tcp_mem", "pressure_entries", refused.pressure_entries),
        (
            "times that memory pressure began: pages that could not be had",
            "pressure_entries_allocator",
            refused.pressure_entries_allocator,
        ),
        ("granted above high", "allowed_above_high", refused.allowed_above_high),
        ("times that segments out of order were thrown away", "ofo_pruned", refused.ofo_pruned),
        ("skbs merged for want of room", "collapsed", refused.collapsed),
        ("accept queue full: SYNs", "accept_queue_syn", refused.accept_queue_syn),
        ("accept queue full: ends of handshakes", "accept_queue_ack", refused.accept_queue_ack),
        ("SYN queue full", "syn_queue_full", refused.syn_queue_full),
        ("searches that found no local port", "ports_exhausted", refused.ports_exhausted),
    ];
    let (seen, rest): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|(_, _, count)| count.is_some_and(|count| count > 0));
    let row = |(words, name, count): (&str, &str, Option<u64>)| {
        html! {
            tr { th scope="row" { (words) } td.number { (perhaps(line, &format!("{place}/{name}"), count)) } }
        }
    };
    html! {
        @if seen.is_empty() { p { "Nothing, of all that the hooks of this host tell." } } @else {
            (table("Refused, dropped and reset", html! { tbody { @for counted in seen { (row(counted)) } } }))
        }
        details { summary { "What did not happen, or is not known here" } (table("Not seen", html! { tbody { @for counted in rest { (row(counted)) } } })) }
    }
}

fn more(line: u64, place: &str, words: &str, counts: Option<&BTreeMap<String, u64>>) -> Markup {
    let Some(counts) = counts else { return html! {} };
    let moved: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    html! {
        @if !moved.is_empty() {
            h4 { (words) }
            (table(words, html! { tbody { @for (name, count) in moved.iter().take(ROWS) {
                // RFC 6901
                @let key = name.replace('~', "~0").replace('/', "~1");
                // A name that can't be shown as it is can't be pointed at either.
                @let is_plain = foreign(name) == **name;
                tr { th scope="row" { code { (foreign(name)) } } td.number { @if is_plain { (figure(line, &format!("{place}/{key}"), **count)) } @else { (grouped(**count)) } } }
            } } }))
            @if moved.len() > ROWS { p.note { "Further names: " (moved.len() - ROWS) "." } }
        }
    }
}

/// What the server itself met.
fn errors(run: &Run) -> Markup {
    let Some(summary) = &run.summary else { return html! {} };
    more(summary.line, "/errors", "The server's own errors", Some(&summary.record.errors))
}

fn killed(run: &Run) -> Markup {
    html! {
        @for kill in &run.kills {
            p.alarm { "At " (clock(kill.at)) " UTC the OOM killer chose " strong { (foreign(&kill.record.comm)) } " (" (kill.record.pid) ")"
                @match kill.record.in_cgroup { Some(true) => " for its memory cgroup", Some(false) => " for the whole host", None => "" } "." }
        }
    }
}
