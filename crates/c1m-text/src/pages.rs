//! Records as pages: what a command prints for people that answers once. A summary comes first, then tables.

mod doctor;
mod holders;
mod states;

use c1m_record::*;

pub use self::{doctor::doctor, holders::holders, states::states};
pub(crate) use holders::{meaning, name};

use crate::page::{Page, Side, Table, Text, Tone};

/// What could not be read, at the end of a page.
fn unseen(page: &mut Page, unseen: &[String]) {
    if unseen.is_empty() {
        return;
    }
    page.section("Not seen");
    unseen.iter().for_each(|what| page.item(Text::new(what, Tone::Warning)));
}

/// `31 of 40 attached, 22 at full resolution`
pub(crate) fn probes(hooks: &Hooks) -> String {
    let attached = hooks.hooks.iter().filter(|hook| hook.attached).count();
    let best = hooks.hooks.iter().filter(|hook| hook.reason.is_none()).count();
    format!("{attached} of {} attached, {best} at full resolution", hooks.hooks.len())
}

/// In words.
pub(crate) fn resolution(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Exact => "exact",
        Resolution::Connection => "per connection",
        Resolution::Interval => "per interval",
    }
}

/// Every probe with its attach method, and why a better one is not available.
#[must_use]
pub fn hooks(hooks: &Hooks) -> Page {
    let mut page = Page::default();
    let tone = match hooks.hooks.iter().all(|hook| hook.hook.is_some()) {
        true => Tone::Good,
        false => Tone::Warning,
    };
    page.line(Text::new(&format!("probes: {}", probes(hooks)), tone));
    page.line(format!("kernel: {}", hooks.kernel));
    page.section("Attach methods");
    let columns = ["probe", "attach method", "resolution", "what that means here"];
    let mut table = Table::new(&columns.map(|name| (name, Side::Left)));
    for hook in &hooks.hooks {
        let tone = match hook.hook {
            None => Tone::Bad,
            Some(_) if hook.reason.is_some() => Tone::Warning,
            Some(_) => Tone::Plain,
        };
        table.row([
            Text::new(&hook.probe, Tone::Strong),
            Text::new(hook.hook.as_deref().unwrap_or("none on this host"), tone),
            hook.resolution.map_or("-", resolution).into(),
            hook.says.as_deref().unwrap_or("-").into(),
        ]);
        // The reason may have the verifier's log in it.
        let reasons = hook.reason.iter().flat_map(|reason| reason.split('\n'));
        for (index, reason) in reasons.enumerate() {
            let before = if index == 0 { "not better: " } else { "" };
            table.note(Text::new(&format!("{before}{reason}"), Tone::Faint));
        }
    }
    page.table(table);
    page
}

/// What became of settings that were changed.
#[must_use]
pub fn restored(restored: &Restored) -> Page {
    let mut page = Page::default();
    page.line(match (restored.settings.as_slice(), restored.back) {
        ([], _) => "no setting had to be restored".into(),
        (_, true) => Text::new("every setting is as it was", Tone::Good),
        (_, false) => Text::new("a setting is not as it was", Tone::Bad),
    });
    restored.settings.iter().for_each(|text| page.item(text));
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Format;

    fn hook(signal: &str, hook: Option<&str>, reason: Option<&str>) -> Hook {
        Hook {
            probe: signal.into(),
            proves: String::new(),
            hook: hook.map(Into::into),
            attached: hook.is_some(),
            resolution: hook.map(|_| Resolution::Exact),
            says: hook.map(|_| "each one".into()),
            reason: reason.map(Into::into),
            refused: Vec::new(),
        }
    }

    #[test]
    fn each_probe_has_its_method_and_why_it_is_not_better() {
        let record = Hooks {
            kernel: "6.18\u{1b}[2J".into(),
            hooks: vec![
                hook("ports", Some("fexit/inet"), None),
                hook("orphans", Some("tp_btf/x"), Some("fexit/y: refused\nline 2 of the log")),
                hook("oom_kill", None, Some("no BTF\u{7}")),
            ],
        };
        assert_eq!(
            hooks(&record).render(Format::default()),
            "probes: 2 of 3 attached, 1 at full resolution\n\
             kernel: 6.18\\u{1b}[2J\n\
             \n\
             Attach methods\n\
             probe     attach method      resolution  what that means here\n\
             ports     fexit/inet         exact       each one\n\
             orphans   tp_btf/x           exact       each one\n\
             \u{20} not better: fexit/y: refused\n\
             \u{20} line 2 of the log\n\
             oom_kill  none on this host  -           -\n\
             \u{20} not better: no BTF\\u{7}\n"
        );
    }

    #[test]
    fn settings_that_are_back_are_listed() {
        let none = Restored { back: true, settings: Vec::new() };
        assert_eq!(restored(&none).render(Format::default()), "no setting had to be restored\n");
        let one = Restored { back: false, settings: vec!["a.b stays\u{9b}".into()] };
        let drawn = restored(&one).render(Format::default());
        assert_eq!(drawn, "a setting is not as it was\n  a.b stays\\u{9b}\n");
    }
}
