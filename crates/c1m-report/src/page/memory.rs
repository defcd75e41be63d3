//! What a connection costs, by component, beside the article's.

use maud::{Markup, html};

use super::{
    super::{
        plot::memory::{ARTICLE_BYTES, ARTICLE_USER_BYTES, Bar, bars, costs},
        run::Run,
        say::{UNKNOWN, as_f64, bytes, foreign, grouped, tagged},
    },
    figure, table,
};

pub(super) fn section(run: &Run, id: &str) -> Markup {
    let costs = costs(run);
    html! {
        h3 { "Memory per connection" }
        @match &costs {
            Some(costs) => {
                (figure(id, bars(costs), "Memory did not grow with the connections."))
                (components(costs))
            },
            None => (without_slab(run)),
        }
        (charged(run))
    }
}

fn components(bars: &[Bar]) -> Markup {
    html! {
        (table("Components of a connection's memory", html! {
            thead { tr { th scope="col" { "whose" } th.number scope="col" { "part" } th scope="col" { "component" } th.number scope="col" { "bytes a connection" } } }
            tbody { @for bar in bars { @for (index, (name, size)) in bar.parts.iter().enumerate() { tr {
                th scope="row" { (bar.name) }
                td.number { span class={ "swatch part" (index % 6) } {} (index + 1) }
                td { (foreign(name)) }
                td.number { (bytes(*size)) }
            } } } }
        }))
        p.note { "The article has the server's end alone; here both ends of each connection are sockets of one host, so slab counts twice." }
    }
}

fn without_slab(run: &Run) -> Markup {
    let user = run
        .summary
        .as_ref()
        .and_then(|summary| Some((summary.line, summary.record.user_bytes_per_connection?)));
    html! {
        (table("User memory", html! {
            thead { tr { th scope="col" { "component" } th.number scope="col" { "article" } th.number scope="col" { "this run" } } }
            tbody {
                tr {
                    th scope="row" { "user memory of the server" }
                    td.number { (bytes(ARTICLE_USER_BYTES)) }
                    td.number { @match user {
                        Some((line, value)) => (tagged(line, "/user_bytes_per_connection", value, bytes(value))),
                        None => span.unknown { (UNKNOWN) },
                    } }
                }
                tr {
                    th scope="row" { "kernel and user together" }
                    td.number { (bytes(ARTICLE_BYTES)) }
                    td.number { span.unknown { "not measured" } }
                }
            }
        }))
        p.note { "Slab (sockets, inodes, files) by component is measured by " code { "cargo xtask reproduce" } ", which compares before and after on a quiet host." }
    }
}

/// What tcp_mem counts of it: queued data, which an idle connection has none of.
fn charged(run: &Run) -> Markup {
    let most = match (run.most_pages(), &run.act) {
        (Some(point), _) => point.connections.zip(point.pages),
        (None, Some(act)) => Some((act.record.held, act.record.held_pages)),
        (None, None) => None,
    };
    let Some((connections @ 1.., pages)) = most else { return html! {} };
    html! {
        p {
            "At the highest reading "
            @match run.page_bytes() {
                Some((line, place, page)) => {
                    strong { (bytes(as_f64(pages) * as_f64(page) / as_f64(connections))) }
                    " a connection were charged to tcp_mem, at " (tagged(line, &place, page, bytes(as_f64(page)))) " per page."
                },
                // That of the kernel that makes this page says nothing about the one that ran.
                None => {
                    strong { (grouped(pages)) " pages" }
                    " were charged to tcp_mem with " (grouped(connections)) " connections; how many bytes that are is " span.unknown { (UNKNOWN) } ", since these records do not have the page size of their kernel."
                },
            }
            " That is queued data, of the whole host; sockets, inodes and files are slab, which tcp_mem does not count: an idle connection uses none of it."
        }
    }
}
