//! What a run needs: whether it fits and which limit it meets first, then every limit, then what to do.

use c1m_record::*;

use crate::{
    page::{Page, Side, Table, Text, Tone},
    units::{counted, grouped, quantity, rounded, size, unit_of},
};

#[must_use]
pub fn doctor(doctor: &Doctor) -> Page {
    let mut page = Page::default();
    head(&mut page, doctor);
    page.section("Limits");
    page.table(limits(doctor));
    let hit = doctor.limits.iter().filter(|limit| limit.hit);
    hit.for_each(|limit| remedy(&mut page, limit, doctor.page_bytes));
    page.section("Memory");
    memory(&mut page, &doctor.memory);
    if let Some(Ehash { buckets, chain }) = doctor.ehash {
        page.item(format!(
            "hash table of connections: {} buckets, {chain:.2} sockets in each; more than a few slow down each look-up (thash_entries= of the kernel's command line)",
            grouped(buckets)
        ));
    }
    if !doctor.unknown.is_empty() {
        page.section("Not known from here");
        doctor.unknown.iter().for_each(|unknown| {
            let (needs, tone) = match unknown.decides {
                true => ("the answer depends on it", Tone::Warning),
                false => ("this run needs none of it", Tone::Plain),
            };
            let name = unknown.limit.name();
            page.item(Text::new(&format!("{name}: {} ({needs})", unknown.why), tone));
        });
    }
    settings(&mut page, doctor);
    page
}

fn head(page: &mut Page, doctor: &Doctor) {
    let role = match doctor.role {
        Role::Server => "their server",
        Role::Client => "their client",
        Role::Both => "both ends",
    };
    let queued = match doctor.queued_bytes {
        0 => "idle".into(),
        bytes => format!("{} queued in each", size(bytes)),
    };
    let (verdict, tone) = match doctor.fits {
        Some(true) => ("fit", Tone::Good),
        Some(false) => ("do not fit", Tone::Bad),
        None => ("may or may not fit: it can't be known from here", Tone::Warning),
    };
    let connections = counted(doctor.connections, "connection");
    page.line(Text::new(&format!("{connections}, {role} here, {queued}: they {verdict}"), tone));
    let Some(first) = doctor.first else { return };
    let limit = doctor.limits.iter().find(|limit| limit.limit == first);
    let at = limit.and_then(|limit| limit.stops_at);
    let at = at.map_or(String::new(), |at| format!(", at connection {}", grouped(at)));
    page.line(Text::new(&format!("first limit: {}{at}", first.name()), tone));
}

fn limits(doctor: &Doctor) -> Table {
    let numbers = ["now", "used", "needed"].map(|name| (name, Side::Right));
    let (limit, met) = ([("limit", Side::Left)], [("met at connection", Side::Left)]);
    let mut table = Table::new(&[&limit[..], &numbers[..], &met[..]].concat());
    for limit in &doctor.limits {
        let is_unknown = doctor.unknown.iter().any(|it| it.limit == limit.limit);
        let tone = match limit.hit {
            true if doctor.first == Some(limit.limit) => Tone::Bad,
            true => Tone::Warning,
            false => Tone::Plain,
        };
        let amount = |value| amount(value, limit, doctor.page_bytes);
        let met = limit
            .stops_at
            .map_or("-".into(), |at| format!("{}: {}", rounded(at), effect_name(limit.effect)));
        table.row([
            Text::new(limit.limit.name(), tone),
            match limit.now {
                None if !is_unknown => "none".into(),
                now => amount(now).into(),
            },
            limit.used.map_or("-".into(), |used| amount(Some(used))).into(),
            amount(limit.needed).into(),
            Text::new(&met, tone),
        ]);
    }
    table
}

fn amount(value: Option<u64>, limit: &PlannedLimit, page_bytes: Option<u64>) -> String {
    value.map_or_else(|| "unknown".into(), |value| quantity(value, &limit.unit, page_bytes))
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Stops => "refused",
        Effect::Stalls => "waits",
        Effect::Slows => "slower",
        Effect::Resets => "reset",
        Effect::Forgets => "no TIME_WAIT",
        Effect::Bounds => "bounded",
    }
}

/// What happens to connections when the limit is met.
fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Stops => "no more connections",
        Effect::Stalls => "connections or their data wait",
        Effect::Slows => "receive windows stop growing",
        Effect::Resets => "connections are reset when all are cut at once",
        Effect::Forgets => "connections are closed without TIME_WAIT",
        Effect::Bounds => "it bounds one socket",
    }
}

fn remedy(page: &mut Page, limit: &PlannedLimit, page_bytes: Option<u64>) {
    let at = limit.stops_at.map_or(String::new(), |at| format!(" at connection {}", grouped(at)));
    page.section(&format!("{}{at} ({})", limit.limit.name(), limit.scope.name()));
    let amount = |value| amount(value, limit, page_bytes);
    let unit = unit_of(&limit.unit, page_bytes).map_or(String::new(), |unit| format!(" {unit}"));
    page.item(format!("then: {}", effect(limit.effect)));
    page.item(format!("needed: {}{unit}; now {}", amount(limit.needed), amount(limit.now)));
    limit.note.iter().for_each(|note| page.item(format!("note: {note}")));
    limit.fix.iter().for_each(|fix| page.item(Text::new(&format!("remedy: {fix}"), Tone::Strong)));
    page.item(format!("risk: {}", limit.risk));
}

fn memory(page: &mut Page, memory: &MemoryNeed) {
    let from = match memory.sizes_from {
        SizesFrom::Slab => "sizes from /sys/kernel/slab",
        SizesFrom::Btf => "sizes from the kernel's types, slabs estimated",
        SizesFrom::Measured => "sizes as on Linux 6.18, since this kernel shows none",
    };
    page.item(format!("{} in all, {from}", size(memory.bytes)));
    page.item(format!(
        "per connection {} in the kernel, {} in the programs, {} queued; {} whatever their number",
        size(memory.kernel_bytes_per_connection),
        size(memory.user_bytes_per_connection),
        size(memory.queued_bytes_per_connection),
        size(memory.fixed_bytes)
    ));
}

fn settings(page: &mut Page, doctor: &Doctor) {
    if !doctor.configured.is_empty() {
        page.section("Configured settings");
        let columns = ["where", "setting", "assessment"];
        let mut table = Table::new(&columns.map(|name| (name, Side::Left)));
        for setting in &doctor.configured {
            let place = setting.line.map_or(String::new(), |line| format!(":{line}"));
            let value = match setting.value.as_str() {
                "" => String::new(),
                value => format!(" = {value}"),
            };
            let (says, tone) = match (&setting.overridden_by, setting.assessment) {
                (Some(_), _) => ("does not count", Tone::Faint),
                (None, it @ (Assessment::Harms | Assessment::Refused)) => (it.says(), Tone::Bad),
                (None, it @ (Assessment::Absent | Assessment::Ignored)) => {
                    (it.says(), Tone::Warning)
                }
                (None, it @ Assessment::Nothing) => (it.says(), Tone::Plain),
                (None, it @ Assessment::Helps) => (it.says(), Tone::Good),
            };
            table.row([
                format!("{}{place}", setting.file).into(),
                format!("{}{value}", setting.name).into(),
                Text::new(says, tone),
            ]);
            table.note(format!("{}{}", setting.text, beside(setting)));
        }
        page.table(table);
    }
    if !doctor.unassessed.is_empty() {
        page.section("Settings without an assessment");
        let (count, names) = (doctor.unassessed.len() as u64, doctor.unassessed.join(", "));
        page.item(format!("{}: {names}", grouped(count)));
    }
}

/// What the kernel takes from the value, and what this host has.
fn beside(setting: &ConfiguredSetting) -> String {
    let is_other = |taken: &&String| !setting.value.split_whitespace().eq(taken.split_whitespace());
    let taken = setting.taken.iter().filter(is_other).map(|taken| format!("taken as {taken}"));
    let present = setting.present.iter().map(|present| match present.as_str() {
        "" => "this host has none".into(),
        present => format!("this host has {present}"),
    });
    match taken.chain(present).collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => none,
        some => format!(" ({some})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Format;

    fn limit(limit: LimitName, unit: &str, now: Option<u64>, hit: bool) -> PlannedLimit {
        PlannedLimit {
            limit,
            scope: Scope::Host,
            now,
            used: None,
            needed: Some(20_064),
            unit: unit.into(),
            stops_at: hit.then_some(16_385),
            effect: Effect::Stops,
            hit,
            fix: hit.then(|| "raise it".into()),
            risk: "none".into(),
            settings: Vec::new(),
            note: None,
        }
    }

    fn record() -> Doctor {
        Doctor {
            connections: 20_000,
            role: Role::Both,
            queued_bytes: 0,
            sources: Some(1),
            rate: None,
            fits: Some(false),
            first: Some(LimitName::Ports),
            limits: vec![
                limit(LimitName::Ports, "connections", Some(16_384), true),
                limit(LimitName::TcpMemHigh, "pages", Some(512), false),
                limit(LimitName::Memory, "bytes", Some(25 << 30), false),
                limit(LimitName::Orphans, "orphans", None, false),
            ],
            unknown: vec![Unknown {
                limit: LimitName::Orphans,
                why: "another\u{7} namespace".into(),
                decides: false,
            }],
            memory: MemoryNeed {
                bytes: 170 << 20,
                kernel_bytes_per_connection: 8300,
                user_bytes_per_connection: 17,
                queued_bytes_per_connection: 0,
                fixed_bytes: 1 << 20,
                sizes_from: SizesFrom::Slab,
            },
            page_bytes: Some(65_536),
            ehash: None,
            configured: vec![ConfiguredSetting {
                file: "/etc/x\u{1b}.conf".into(),
                line: Some(3),
                name: "a.b".into(),
                value: "0x10\u{9b}".into(),
                taken: Some("16".into()),
                present: Some("8".into()),
                assessment: Assessment::Harms,
                overridden_by: None,
                text: "too low".into(),
            }],
            unassessed: vec!["vm.swappiness".into()],
        }
    }

    #[test]
    fn the_first_limit_comes_first_and_numbers_are_for_people() {
        assert_eq!(
            doctor(&record()).render(Format::default()),
            "20,000 connections, both ends here, idle: they do not fit\n\
             first limit: ports, at connection 16,385\n\
             \n\
             Limits\n\
             limit               now  used     needed  met at connection\n\
             ports            16,384     -     20,064  16,385: refused\n\
             tcp_mem_high   32.0 MiB     -   1.22 GiB  -\n\
             memory        25.00 GiB     -  19.59 KiB  -\n\
             orphans         unknown     -     20,064  -\n\
             \n\
             ports at connection 16,385 (host)\n\
             \u{20} then: no more connections\n\
             \u{20} needed: 20,064 connections; now 16,384\n\
             \u{20} remedy: raise it\n\
             \u{20} risk: none\n\
             \n\
             Memory\n\
             \u{20} 170.0 MiB in all, sizes from /sys/kernel/slab\n\
             \u{20} per connection 8.11 KiB in the kernel, 17 B in the programs, 0 B queued; 1.0 MiB whatever their number\n\
             \n\
             Not known from here\n\
             \u{20} orphans: another\\u{7} namespace (this run needs none of it)\n\
             \n\
             Configured settings\n\
             where                setting           assessment\n\
             /etc/x\\u{1b}.conf:3  a.b = 0x10\\u{9b}  harms\n\
             \u{20} too low (taken as 16; this host has 8)\n\
             \n\
             Settings without an assessment\n\
             \u{20} 1: vm.swappiness\n"
        );
    }

    #[test]
    fn pages_without_a_size_stay_pages() {
        let record = Doctor { page_bytes: None, ..record() };
        let drawn = doctor(&record).render(Format::default());
        assert!(drawn.contains("tcp_mem_high        512     -     20,064  -\n"), "{drawn}");
    }

    #[test]
    fn each_answer_is_said() {
        let fits = Doctor { fits: Some(true), first: None, ..record() };
        assert!(doctor(&fits).render(Format::default()).contains("idle: they fit\n\nLimits"));
        let unknown = Doctor { fits: None, first: None, queued_bytes: 2048, ..record() };
        let drawn = doctor(&unknown).render(Format::default());
        assert!(drawn.contains("2.00 KiB queued in each: they may or may not fit"), "{drawn}");
        let colored = doctor(&record()).render(Format { width: None, color: true });
        let bad = Text::new("ports", Tone::Bad);
        let mut page = Page::default();
        page.line(bad);
        let red = page.render(Format { width: None, color: true });
        assert!(
            colored.contains(red.trim_end()),
            "the first limit is seen at a glance: {colored:?}"
        );
    }
}
