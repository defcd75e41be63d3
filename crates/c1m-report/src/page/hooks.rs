//! How all of it was seen: kernel, hooks, precision, and what was lost.

use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{UNKNOWN, figure, foreign, tagged},
    },
    crossings::precise,
    table,
};

pub(super) fn section(run: &Run) -> Markup {
    html! {
        h3 { "Kernel, hooks and precision" }
        (lost(run))
        @match &run.hooks {
            None => p.empty { "No hook: nothing was traced, or these records begin behind the line that says it." },
            Some(kept) => {
                @let hooks = &kept.record.hooks;
                @let attached = hooks.iter().filter(|hook| hook.attached).count();
                @let exact = hooks.iter().filter(|hook| hook.reason.is_none() && hook.hook.is_some()).count();
                p { "Linux " strong { (foreign(&kept.record.kernel)) } ": " (attached) " of " (hooks.len()) " signals by programs in the kernel, " (exact) " of them by the most exact way there is." }
                details { summary { "Each signal, how it was got, and why not better" }
                    (table("Hooks", html! {
                        thead { tr { th scope="col" { "signal" } th scope="col" { "got by" } th scope="col" { "precision" } th scope="col" { "why no better way" } } }
                        tbody { @for hook in hooks { tr {
                            th scope="row" { code { (foreign(&hook.signal)) } br; span.quiet { (foreign(&hook.proves)) } }
                            td { @match &hook.hook { Some(way) => code { (foreign(way)) }, None => span.unknown { "not on this host" } } }
                            td { @if let Some(precision) = hook.precision { (precise(precision)) } @if let Some(says) = &hook.says { br; span.quiet { (foreign(says)) } } }
                            td { @if let Some(reason) = &hook.reason { (foreign(reason)) } @else { "it is the best one" } }
                        } } }
                    }))
                }
            },
        }
    }
}

fn lost(run: &Run) -> Markup {
    let own =
        run.ended.as_ref().and_then(|ended| Some((ended.line, ended.record.own_cpu_percent?)));
    html! {
        p {
            "Events lost: "
            @match run.lost() {
                Some((line, lost, by)) => {
                    strong { (figure(line, "/dropped", lost)) }
                    @if !by.is_empty() { " (" @for (index, (name, count)) in by.iter().enumerate() { @if index > 0 { ", " } (foreign(name)) " " (count) } ")" }
                },
                None => (UNKNOWN),
            }
            "."
            @if let Some((line, percent)) = own { " The watch itself took " (tagged(line, "/own_cpu_percent", percent, format!("{percent:.2} %"))) " of one core." }
        }
    }
}
