//! A whole reproduction beside the article.

use maud::{Markup, html};

use super::{
    super::{
        Kept, Report,
        acts::{Act, Reproduction},
        say::{bytes, figure, foreign, grouped, span, tagged},
    },
    table,
};

pub(super) fn section(report: &Report) -> Markup {
    let Some(whole) = &report.reproduction else { return html! {} };
    let acts: Vec<&Kept<Act>> = report.runs.iter().filter_map(|run| run.act.as_ref()).collect();
    html! {
        section {
            (targets(&whole.record))
            h2 { "Beside the article" }
            (table("This run beside the article", html! {
                thead { tr { th scope="col" { "" } th scope="col" { "article" } th scope="col" { "this run" } } }
                tbody { @for act in acts { (rows(act, whole.record.connections)) } }
            }))
            p.note { "The article's figures are those of 1,024,000 connections and of the server's end alone; with fewer connections tcp_mem is scaled by the same factor. The whole run took "
                (tagged(whole.line, "/elapsed_s", whole.record.elapsed_s, span(whole.record.elapsed_s))) "; every kernel setting is as before: "
                (if whole.record.restored { "yes" } else { "no" }) "." }
        }
    }
}

fn targets(whole: &Reproduction) -> Markup {
    html! {
        @if whole.missed.is_empty() {
            div.answer.quiet { span.sign aria-hidden="true" { "✓" } p { strong { "Every target was met." } } }
        } @else {
            div.answer.hit { span.sign aria-hidden="true" { "!" } div { p { strong { "Targets that were missed" } } ul { @for missed in whole.missed.iter().take(50) { li { (foreign(missed)) } } } } }
        }
    }
}

fn rows(kept: &Kept<Act>, connections: u64) -> Markup {
    let act = &kept.record;
    let place = |name: &str| format!("{}/{name}", act.place);
    let tcp_mem = |article: &str| {
        row("tcp_mem, pages", article, html! { (act.tcp_mem.map(grouped).join(" / ")) })
    };
    let held = |article: &str| {
        row(
            "connections held",
            article,
            html! { (figure(kept.line, &place("held"), act.held)) " of " (grouped(connections)) },
        )
    };
    let answered = row(
        "still answering",
        "–",
        html! { (figure(kept.line, &place("answered"), act.answered)) " of " (figure(kept.line, &place("sampled"), act.sampled)) " asked" },
    );
    let memory = |article: &str| {
        let value = act.memory_bytes_per_connection;
        row(
            "memory a connection",
            article,
            html! { (tagged(kept.line, &place("memory_bytes_per_connection"), value, bytes(value))) ", both ends" },
        )
    };
    let pages = |article: &str| {
        row(
            "pages of tcp_mem with all of them open",
            article,
            figure(kept.line, &place("held_pages"), act.held_pages),
        )
    };
    html! {
        tr.heading { th colspan="3" scope="rowgroup" { (foreign(act.title())) } }
        @match act.name.as_str() {
            "default" => {
                (tcp_mem("932,448 / 1,243,264 / 1,864,896"))
                (crossed(kept, "about 990,000"))
                (row("from there on", "the process was killed", consequences(kept)))
                (held("–")) (answered)
            },
            "cure" => { (tcp_mem("786,432 / 2,097,152 / 3,145,728")) (held("1,024,000")) (answered) (pages("–")) (memory("–")) },
            _ => { (held("1,024,000")) (answered) (pages("2")) (memory("7.53 KiB")) (user(kept)) (sockets(kept)) },
        }
        (row("ramp", "–", html! { (tagged(kept.line, &place("ramp_s"), act.ramp_s, span(act.ramp_s))) }))
    }
}

fn row(what: &str, article: &str, this: Markup) -> Markup {
    html! { tr { th.wide scope="row" { (what) } td { (article) } td { (this) } } }
}

fn crossed(kept: &Kept<Act>, article: &str) -> Markup {
    let Some((index, high)) = kept.record.crossings.iter().enumerate().next_back() else {
        return html! {};
    };
    let place = |name: &str| format!("{}/crossings/{index}/{name}", kept.record.place);
    let this = html! {
        @match high.connections { Some(at) => { "connection " (figure(kept.line, &place("connections"), at)) }, None => "not reported" }
        @if let Some(expected) = high.expected { ", expected " (figure(kept.line, &place("expected"), expected)) }
    };
    row("high crossed at", article, this)
}

fn consequences(kept: &Kept<Act>) -> Markup {
    let Some(refused) = &kept.record.refused else { return html! { "unknown" } };
    let place = |name: &str| format!("{}/refused/{name}", kept.record.place);
    html! {
        (figure(kept.line, &place("high_send"), refused.high_send)) " sends and "
        (figure(kept.line, &place("high_receive"), refused.high_receive)) " receives refused, "
        (figure(kept.line, &place("forced_first_skb"), refused.forced_first_skb)) " first skbs forced"
    }
}

fn user(kept: &Kept<Act>) -> Markup {
    let pointer = format!("{}/server_user_bytes_per_connection", kept.record.place);
    let this = match kept.record.server_user_bytes_per_connection {
        Some(value) => tagged(kept.line, &pointer, value, bytes(value)),
        None => html! { "unknown" },
    };
    row("of it the server's own", "76 B", this)
}

fn sockets(kept: &Kept<Act>) -> Markup {
    let stat = &kept.record.sockstat;
    let place = |name: &str| format!("{}/sockstat/{name}", kept.record.place);
    let this = html! { (figure(kept.line, &place("inuse"), stat.inuse)) " in use, " (figure(kept.line, &place("orphan"), stat.orphan)) " orphans, " (figure(kept.line, &place("tw"), stat.tw)) " in TIME_WAIT" };
    row("TCP sockets", "1,024,009 in use, 0, 0", this)
}
