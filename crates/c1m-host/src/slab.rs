//! How large the slabs of the kernel's caches are: /sys/kernel/slab, where a cache that was merged
//! with another one still has its name.

use std::{fs, path::Path};

use c1m_sys::process::page_bytes;

/// Where SLUB shows its caches. Only root may read the files.
const FOLDER: &str = "/sys/kernel/slab";
/// Larger slabs than this SLUB does not make (mm/slub.c, MAX_ORDER of the page allocator; 6.18).
const ORDER_MAX: u64 = 10;

/// Bytes of one object of this cache, those of a slab, and how many objects are in it. `None`:
/// there is no such cache, or it may not be read.
#[must_use]
pub fn of(cache: &str) -> Option<[u64; 3]> {
    below(Path::new(FOLDER), cache, page_bytes().ok()?)
}

fn below(folder: &Path, cache: &str, page_bytes: u64) -> Option<[u64; 3]> {
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(folder.join(cache).join(file)).ok()?.trim().parse().ok()
    };
    let order = number("order").filter(|order| *order <= ORDER_MAX)?;
    let objects = number("objs_per_slab").filter(|objects| *objects > 0)?;
    Some([number("slab_size")?, page_bytes << order, objects])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_empty_or_garbage_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("TCP");
        fs::create_dir(&cache).unwrap();
        let write = |order: &str, objects: &str| {
            fs::write(cache.join("order"), order).unwrap();
            fs::write(cache.join("objs_per_slab"), objects).unwrap();
            fs::write(cache.join("slab_size"), "2368\n").unwrap();
            below(folder.path(), "TCP", 4096)
        };
        assert_eq!(write("3\n", "13\n"), Some([2_368, 32_768, 13]));
        for (order, objects) in
            [("", ""), ("3", ""), ("x", "13"), ("3", "0"), ("99", "13"), ("-1", "13")]
        {
            assert_eq!(write(order, objects), None, "{order:?} {objects:?}");
        }
        assert_eq!(below(folder.path(), "filp", 4096), None);
    }
}
