//! The verdict with what it stands on.

use c1m_record::{Cause, Tier};
use maud::{Markup, html};

use super::{
    super::{
        run::Run,
        say::{figure, foreign, perhaps},
    },
    summary::limit,
    table,
};

pub(super) fn section(run: &Run) -> Markup {
    let Some(verdict) = &run.verdict else { return html! {} };
    html! {
        h3 { "Verdict and evidence" }
        p.note { (tier(verdict.record.tier)) }
        @if verdict.record.causes.is_empty() {
            p { "No cause: no limit refused, lost or killed anything since the start, on the whole host as far as hooks see it, and in this network namespace as far as counters do." }
        }
        ol.causes {
            @for (index, cause) in verdict.record.causes.iter().enumerate() { (one(verdict.line, index, cause)) }
        }
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Counters => {
            "Judged by the program's own errors and the kernel's counters: no probe was attached."
        }
        Tier::Tracepoints => {
            "Judged by tracepoints and the kernel's counters; this kernel does not let its functions be hooked, or nothing needed it."
        }
        Tier::Functions => "Judged by hooks on the kernel's own decisions.",
    }
}

fn one(line: u64, index: usize, cause: &Cause) -> Markup {
    html! {
        li {
            h4 { (limit(cause.limit)) " " span.tag { (cause.confidence.name()) } span.tag { "of the " (cause.scope.name()) } }
            // That of the root stands at the head of the run.
            @if index > 0 { p { (foreign(&cause.text)) } }
            @if !cause.evidence.is_empty() {
                (table(&format!("Evidence for {}", limit(cause.limit)), html! {
                    thead { tr { th scope="col" { "source" } th scope="col" { "what it counts" } th.number scope="col" { "value" } th.number scope="col" { "limit" } } }
                    tbody {
                        @for (at, evidence) in cause.evidence.iter().enumerate() {
                            @let pointer = format!("/causes/{index}/evidence/{at}");
                            tr {
                                td { code { (foreign(&evidence.source)) } }
                                td { (foreign(&evidence.what)) }
                                td.number { (figure(line, &format!("{pointer}/value"), evidence.value)) }
                                td.number { @if evidence.limit.is_some() { (perhaps(line, &format!("{pointer}/limit"), evidence.limit)) } }
                            }
                        }
                    }
                }))
            }
            dl.more {
                @if let Some(to_confirm) = &cause.to_confirm { div { dt { "to make it certain" } dd { (foreign(to_confirm)) } } }
                @if let Some(remedy) = &cause.remedy { div { dt { "remedy" } dd { (foreign(remedy)) } } }
            }
        }
    }
}
