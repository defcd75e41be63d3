//! How all of it was observed: kernel, probes, their resolution, and dropped events.

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
        h3 { "Kernel, probes and resolution" }
        (lost(run))
        @match &run.hooks {
            None => p.empty { "No hook: nothing was traced, or these records begin behind the line that says it." },
            Some(kept) => {
                @let hooks = &kept.record.hooks;
                @let attached = hooks.iter().filter(|hook| hook.attached).count();
                @let exact = hooks.iter().filter(|hook| hook.reason.is_none() && hook.hook.is_some()).count();
                p { "Linux " strong { (foreign(&kept.record.kernel)) } ": " (attached) " of " (hooks.len()) " probes attached, " (exact) " at full resolution." }
                details { summary { "The attach method of each probe, and why a better one is not available" }
                    (table("Hooks", html! {
                        thead { tr { th scope="col" { "probe" } th scope="col" { "attach method" } th scope="col" { "resolution" } th scope="col" { "why no better one" } } }
                        tbody { @for hook in hooks { tr {
                            th scope="row" { code { (foreign(&hook.probe)) } br; span.quiet { (foreign(&hook.proves)) } }
                            td { @match &hook.hook { Some(way) => code { (foreign(way)) }, None => span.unknown { "not on this host" } } }
                            td { @if let Some(resolution) = hook.resolution { (precise(resolution)) } @if let Some(says) = &hook.says { br; span.quiet { (foreign(says)) } } }
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
            "Dropped events: "
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
