//! What the doctor says, in words: one table, then what has to be done, one limit after the other.

use c1m_record::*;

const HEAD: [&str; 6] = ["limit", "now", "used", "needed", "stops at", "what happens there"];

pub(super) fn doctor_lines(doctor: &Doctor) -> Vec<String> {
    let mut lines = vec![head(doctor)];
    lines.extend(table(doctor));
    for wall in doctor.walls.iter().filter(|wall| wall.hit) {
        let at = wall.stops_at.map_or(String::new(), |at| format!(" at connection {at}"));
        lines.push(format!("wall  {}{at} ({})", wall.limit.name(), wall.scope.name()));
        lines.extend(wall.note.iter().map(|note| format!("  that is  {note}")));
        lines.extend(wall.fix.iter().map(|fix| format!("  fix  {fix}")));
        lines.push(format!("  danger  {}", wall.danger));
    }
    for unknown in &doctor.unknown {
        let decides =
            if unknown.decides { "this run hangs on it" } else { "this run needs none of it" };
        lines.push(format!("unknown  {}: {} ({decides})", unknown.limit.name(), unknown.why));
    }
    lines.push(memory_line(&doctor.memory));
    lines.extend(doctor.ehash.iter().map(|ehash| {
        format!(
            "ehash  {} buckets, {:.2} sockets in each: more than a few make each look-up longer (thash_entries= of the kernel's command line)",
            ehash.buckets, ehash.chain
        )
    }));
    lines.extend(doctor.configured.iter().map(configured_line));
    if !doctor.unassessed.is_empty() {
        lines.push(format!(
            "settings without an assessment  {}: {}",
            doctor.unassessed.len(),
            doctor.unassessed.join(", ")
        ));
    }
    lines
}

fn configured_line(setting: &ConfiguredSetting) -> String {
    let place = setting.line.map_or(String::new(), |line| format!(":{line}"));
    let value = match setting.value.as_str() {
        "" => String::new(),
        value => format!(" = {value}"),
    };
    let is_other = |taken: &&String| !setting.value.split_whitespace().eq(taken.split_whitespace());
    let taken = setting.taken.iter().filter(is_other).map(|taken| format!("taken as {taken}"));
    let present = setting.present.iter().map(|present| match present.as_str() {
        "" => "this host has none".into(),
        present => format!("this host has {present}"),
    });
    let beside = match taken.chain(present).collect::<Vec<_>>().join("; ") {
        none if none.is_empty() => none,
        some => format!(" ({some})"),
    };
    let how = match setting.overridden_by {
        Some(_) => "does not count",
        None => setting.assessment.says(),
    };
    let (file, name) = (&setting.file, &setting.name);
    format!("setting  {file}{place}  {name}{value}{beside}  {how}: {}", setting.text)
}

fn head(doctor: &Doctor) -> String {
    let role = match doctor.role {
        Role::Server => "their server",
        Role::Client => "their client",
        Role::Both => "both ends",
    };
    let verdict = match (doctor.fits, doctor.first) {
        (Some(true), _) => "fits".into(),
        (_, Some(first)) => format!("does not fit: {} comes first", first.name()),
        _ => "not known from here".into(),
    };
    format!(
        "doctor  {} connections, {role} here, {} bytes queued in each: {verdict}",
        doctor.connections, doctor.queued_bytes
    )
}

fn table(doctor: &Doctor) -> Vec<String> {
    let Doctor { walls, unknown, page_bytes: page, .. } = doctor;
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(walls.iter().map(|wall| {
            [
                wall.limit.name().into(),
                match wall.now {
                    None if !unknown.iter().any(|it| it.limit == wall.limit) => "none".into(),
                    now => with_unit(now, &wall.unit, *page),
                },
                wall.used.map_or("-".into(), |used| with_unit(Some(used), &wall.unit, *page)),
                with_unit(wall.needed, &wall.unit, *page),
                wall.stops_at.map_or("-".into(), |at| at.to_string()),
                happens(wall).into(),
            ]
        }))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Pages never without their bytes, and bytes never without a number that can be read.
fn with_unit(value: Option<u64>, unit: &str, page_bytes: Option<u64>) -> String {
    let Some(value) = value else { return "unknown".into() };
    match unit {
        "pages" => match page_bytes {
            Some(page) => format!("{value} pages = {} MiB", mib(value.saturating_mul(page))),
            None => format!("{value} pages"),
        },
        "bytes" => format!("{value} bytes = {} MiB", mib(value)),
        _ => format!("{value} {unit}"),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn happens(wall: &Wall) -> &'static str {
    match wall.effect {
        _ if wall.stops_at.is_none() => "",
        Effect::Stops => "no more connections",
        Effect::Stalls => "connections or their data wait",
        Effect::Slows => "receive windows stop growing",
        Effect::Resets => "reset when all are cut at once",
        Effect::Forgets => "closed without TIME_WAIT",
        Effect::Bounds => "",
    }
}

fn memory_line(memory: &MemoryNeed) -> String {
    let from = match memory.sizes_from {
        SizesFrom::Slab => "sizes from /sys/kernel/slab",
        SizesFrom::Btf => "sizes from the kernel's types, slabs estimated",
        SizesFrom::Measured => "sizes as on Linux 6.18, since this kernel shows none",
    };
    format!(
        "memory  {} bytes = {} MiB: for each connection {} bytes in the kernel, {} in the programs, {} queued, and {} MiB at all  ({from})",
        memory.bytes,
        mib(memory.bytes),
        memory.kernel_bytes_per_connection,
        memory.user_bytes_per_connection,
        memory.queued_bytes_per_connection,
        mib(memory.fixed_bytes)
    )
}

pub(super) fn applied_lines(applied: &Applied) -> Vec<String> {
    let mut lines: Vec<String> = applied
        .changes
        .iter()
        .map(|change| format!("applied  {} = {}, before {}", change.name, change.to, change.from))
        .collect();
    if !applied.left.is_empty() {
        let left: Vec<_> = applied.left.iter().map(|limit| limit.name()).collect();
        lines.push(format!("left  {}: no kernel setting moves it, see its fix", left.join(", ")));
    }
    lines.push(match (applied.changes.is_empty(), applied.keep) {
        (true, _) => "applied  nothing: no setting has to be moved".into(),
        (_, true) => "applied  until `c1m-server doctor --restore`".into(),
        (_, false) => "applied  until SIGINT or SIGTERM; if this is killed, `c1m-server doctor --restore` puts it back".into(),
    });
    lines
}

pub(super) fn restored_lines(restored: &Restored) -> Vec<String> {
    match restored.settings.as_slice() {
        [] => vec!["restored  nothing had to be put back".into()],
        settings => settings.iter().map(|text| format!("restored  {text}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_bytes_always_show_what_they_are() {
        assert_eq!(with_unit(Some(512), "pages", Some(4096)), "512 pages = 2 MiB");
        assert_eq!(with_unit(Some(512), "pages", Some(65_536)), "512 pages = 32 MiB");
        assert_eq!(with_unit(Some(512), "pages", None), "512 pages");
        assert_eq!(with_unit(Some(3 << 20), "bytes", None), "3145728 bytes = 3 MiB");
        assert_eq!(with_unit(Some(7), "files", None), "7 files");
        assert_eq!(with_unit(None, "pages", None), "unknown");
        assert_eq!(
            with_unit(Some(u64::MAX), "pages", Some(4096)),
            format!("{} pages = {} MiB", u64::MAX, u64::MAX >> 20)
        );
    }

    #[test]
    fn what_is_left_is_told() {
        let applied = Applied { changes: Vec::new(), keep: false, left: vec![LimitName::Memory] };
        let lines = applied_lines(&applied).join("\n");
        assert!(lines.contains("left  memory") && lines.contains("nothing"), "{lines}");
        assert_eq!(restored_lines(&Restored { back: true, settings: Vec::new() }).len(), 1);
    }
}
