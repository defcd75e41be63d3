//! What the kernel's slab caches hold: where the memory of an idle connection really is.

use std::collections::BTreeMap;

use thiserror::Error;

/// Why /proc/slabinfo was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SlabinfoError {
    #[error("/proc/slabinfo starts with `{0}`, where version 2 was expected")]
    Version(String),
    #[error("line {0} of /proc/slabinfo is not understood")]
    Line(usize),
}

/// One cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cache {
    /// Objects in use. SLUB counts every object of a CPU's own slab as used.
    pub active_objects: u64,
    /// Of one object with what the allocator keeps beside it, without the rest of its slab.
    pub object_bytes: u64,
    /// Pages that the cache has taken, in bytes, free objects included.
    pub bytes: u64,
}

/// Every cache by its name.
pub type Slabinfo = BTreeMap<String, Cache>;

/// How much one cache grew between two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    pub cache: String,
    pub objects: u64,
    pub object_bytes: u64,
    pub bytes: u64,
}

/// Understands the text of /proc/slabinfo, version 2 (mm/slab_common.c, `slab_show`, 6.18). Only
/// root may read the file. It counts in pages, of so many bytes.
pub fn parse(text: &str, page_bytes: u64) -> Result<Slabinfo, SlabinfoError> {
    let mut lines = text.lines().enumerate();
    let version = lines.next().map_or("", |(_, line)| line);
    if !version.starts_with("slabinfo - version: 2.") {
        return Err(SlabinfoError::Version(version.chars().take(40).collect()));
    }
    let mut caches = Slabinfo::new();
    for (index, line) in lines {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let (name, cache) = cache(line, page_bytes).ok_or(SlabinfoError::Line(index + 1))?;
        // Two caches can have one name, when a module made both.
        let sum = caches.entry(name).or_default();
        sum.active_objects = sum.active_objects.saturating_add(cache.active_objects);
        sum.object_bytes = sum.object_bytes.max(cache.object_bytes);
        sum.bytes = sum.bytes.saturating_add(cache.bytes);
    }
    Ok(caches)
}

/// `name active_objs num_objs objsize objperslab pagesperslab : tunables ... : slabdata
/// active_slabs num_slabs sharedavail`
fn cache(line: &str, page_bytes: u64) -> Option<(String, Cache)> {
    let (sizes, rest) = line.split_once(" : ")?;
    let (_, slabs) = rest.split_once("slabdata")?;
    // A name may have a space in it, so the numbers are counted from the end.
    let sizes: Vec<&str> = sizes.split_whitespace().collect();
    let [name @ .., active, objects, size, per_slab, pages] = sizes.as_slice() else { return None };
    let number = |text: &&str| text.parse::<u64>().ok();
    let (_, object_bytes, _) = (number(objects)?, number(size)?, number(per_slab)?);
    let slabs: u64 = slabs.split_whitespace().nth(1)?.parse().ok()?;
    let bytes = slabs.checked_mul(number(pages)?)?.checked_mul(page_bytes)?;
    let cache = Cache { active_objects: number(active)?, object_bytes, bytes };
    (!name.is_empty()).then(|| (name.join(" "), cache))
}

/// The caches of which at least `objects_min` more objects are in use than before, the largest
/// growth in bytes first.
#[must_use]
pub fn growth(before: &Slabinfo, after: &Slabinfo, objects_min: u64) -> Vec<Growth> {
    let mut grown: Vec<Growth> = after
        .iter()
        .map(|(name, now)| {
            let then = before.get(name).copied().unwrap_or_default();
            Growth {
                cache: name.clone(),
                objects: now.active_objects.saturating_sub(then.active_objects),
                object_bytes: now.object_bytes,
                bytes: now.bytes.saturating_sub(then.bytes),
            }
        })
        .filter(|growth| growth.objects >= objects_min.max(1))
        .collect();
    grown.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.cache.cmp(&b.cache)));
    grown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn slabs_are_counted_in_the_kernels_pages() {
        let bytes = |page| parse(&text(&[("TCP", 12, 3)]), page).unwrap()["TCP"].bytes;
        assert_eq!(bytes(65_536), 16 * bytes(PAGE));
    }

    const HEAD: &str = "slabinfo - version: 2.1\n# name            <active_objs> ...\n";

    fn text(lines: &[(&str, u64, u64)]) -> String {
        let mut text = String::from(HEAD);
        for (name, active, slabs) in lines {
            text +=
                &format!("{name}  {active} 200 312 13 2 : tunables 0 0 0 : slabdata 1 {slabs} 0\n");
        }
        text
    }

    #[test]
    fn reads_caches() {
        let caches =
            parse(&text(&[("TCP", 12, 3), ("kmalloc 96", 7, 1), ("TCP", 1, 1)]), PAGE).unwrap();
        assert_eq!(
            caches["TCP"],
            Cache { active_objects: 13, object_bytes: 312, bytes: 4 * 2 * 4096 }
        );
        assert_eq!(
            caches["kmalloc 96"],
            Cache { active_objects: 7, object_bytes: 312, bytes: 2 * 4096 }
        );
    }

    #[test]
    fn growth_is_sorted_and_never_negative() {
        let before = parse(&text(&[("A", 100, 10), ("B", 100, 10), ("C", 5, 9)]), PAGE).unwrap();
        let after =
            parse(&text(&[("A", 150, 12), ("B", 90, 20), ("C", 5, 9), ("D", 99, 50)]), PAGE)
                .unwrap();
        let names: Vec<_> = growth(&before, &after, 50)
            .into_iter()
            .map(|g| (g.cache, g.objects, g.bytes))
            .collect();
        assert_eq!(names, [("D".into(), 99, 50 * 8192), ("A".into(), 50, 2 * 8192)]);
        // Even a minimum of 0 does not list caches that did not grow.
        assert_eq!(growth(&before, &before, 0), []);
    }

    #[test]
    fn broken_text_is_refused() {
        assert_eq!(parse("", PAGE), Err(SlabinfoError::Version(String::new())));
        assert!(matches!(parse("slabinfo - version: 1.1\n", PAGE), Err(SlabinfoError::Version(_))));
        for line in [
            "TCP",
            "TCP 1 2 3 4 5",
            "1 2 3 4 5 : tunables 0 0 0 : slabdata 1 2 0",
            "TCP 1 2 3 4 : tunables 0 0 0 : slabdata 1 2 0",
            "TCP -1 2 3 4 5 : tunables 0 0 0 : slabdata 1 2 0",
            "TCP 1 2 3 4 5 : tunables 0 0 0 : slabdata 1",
            "TCP 1 2 3 4 9999999999 : tunables 0 0 0 : slabdata 1 9999999999999 0",
        ] {
            assert_eq!(
                parse(&format!("{HEAD}{line}\n"), PAGE),
                Err(SlabinfoError::Line(3)),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_wrong_line_is_named_by_its_number(line in "(TCP| |[0-9]{0,22}|:|tunables|slabdata|\n|\\PC)*") {
            let text = format!("{HEAD}{line}");
            if let Err(SlabinfoError::Line(number)) = parse(&text, PAGE) {
                prop_assert!((3..=text.lines().count()).contains(&number), "{number}: {text:?}");
            }
        }
    }
}
