//! `tcp_mem`, `tcp_rmem` and `tcp_wmem`: three values each, of which every one is assessed, in pages or in bytes.

use c1m_record::LimitName;

use super::{Circumstances, Say};
use crate::{footprint::charged_pages, raise::mib};

const MEM: &str = "net.ipv4.tcp_mem";
const GIB: u64 = 1 << 30;

fn harms_or(complaints: Vec<String>, otherwise: impl FnOnce() -> Say) -> Say {
    if complaints.is_empty() { otherwise() } else { Say::harms(complaints.join("; ")) }
}

/// In the largest unit of which it is a multiple, or else in the largest one of which there are ten.
fn size(bytes: u128) -> String {
    let units = [(1u128 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let exact = |(unit, _): &(u128, &str)| {
        bytes >= *unit && bytes.is_multiple_of(*unit) && bytes / unit < 10_000
    };
    let rounded = |(unit, _): &(u128, &str)| bytes >= unit * 10;
    let unit = units.into_iter().find(exact).or_else(|| units.into_iter().find(rounded));
    unit.map_or(format!("{bytes} bytes"), |(unit, name)| {
        format!("{} {name}", (bytes + unit / 2) / unit)
    })
}

fn spaced(values: &[i128]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl Circumstances<'_> {
    fn page_bytes(&self) -> u64 {
        self.host.readings.page()
    }

    pub(super) fn tcp_mem(&self, values: [i128; 3]) -> Say {
        let mut complaints = self.tcp_mem_by_itself(values);
        let present = self.present_numbers(MEM);
        if complaints.is_empty() && values.iter().zip(&present).any(|(value, own)| value < own) {
            let what = match () {
                () if values[1] >= present[1] && values[2] >= present[2] => {
                    "once there is memory pressure, it lasts until usage is below low"
                }
                () => "queues meet the limit earlier",
            };
            complaints.push(format!(
                "lower than the {} that this host has already: {what}",
                spaced(&present)
            ));
        }
        harms_or(complaints, || {
            if charged_pages(self.run.queued_bytes, self.page_bytes()) == 0 {
                return Say::nothing(
                    "idle connections use none of it: tcp_mem counts what waits in queues, and no socket, inode or file",
                );
            }
            let present = present.get(2).copied();
            self.compared(
                Some(LimitName::TcpMemHigh),
                "queues meet the limit earlier",
                values[2],
                present,
            )
        })
    }

    /// What is wrong with it on a host of this memory.
    fn tcp_mem_by_itself(&self, [low, pressure, high]: [i128; 3]) -> Vec<String> {
        let mut all = Vec::new();
        if (low, pressure) == (4096, 87_380)
            || (low, pressure) == (4096, 65_536)
            || (low, pressure) == (4096, 16_384)
        {
            all.push(format!(
                "{low} {pressure} are the bytes of tcp_rmem or tcp_wmem, and the unit here is pages of {} bytes",
                self.page_bytes()
            ));
        }
        if low > pressure || pressure > high {
            all.push("the three values have to ascend: low, pressure, high".into());
        }
        if let Some(total) = self.host.readings.memory_total_bytes {
            all.extend(self.beside_memory(pressure, high, total));
        }
        if pressure == high {
            let equal = if low == high {
                "three equal values leave"
            } else {
                "pressure and high are equal, which leaves"
            };
            all.push(format!(
                "{equal} no band: memory pressure begins where allocations are refused already"
            ));
        }
        all
    }

    fn beside_memory(&self, pressure: i128, high: i128, total: u64) -> Option<String> {
        let (page, pages) = (self.page_bytes(), total / self.page_bytes());
        if high > pages.into() {
            return Some(beyond_memory(high, page, total));
        }
        // 1/16 of the free pages at boot for pressure, one and a half of that for high (net/ipv4/tcp.c, tcp_init_mem, 6.18). What the kernel itself
        // took at boot was not free.
        let (default_pressure, default_high) = (pages / 16, pages / 32 * 3);
        let is_low = |value: i128, default: u64| value < i128::from(default / 4 * 3);
        let bytes = |pages: i128| size(u128::try_from(pages).unwrap_or(0) * u128::from(page));
        if is_low(high, default_high) {
            return Some(format!(
                "high is {high} pages ({}), below the kernel's own default of about {default_high} for this host: it makes the limit lower than it was",
                bytes(high)
            ));
        }
        is_low(pressure, default_pressure).then(|| format!(
            "pressure is {pressure} pages ({}), below the kernel's own default of about {default_pressure} for this host: receive windows stop growing there",
            bytes(pressure)
        ))
    }

    /// Bytes of one socket.
    pub(super) fn buffer(&self, name: &str, values: [i128; 3]) -> Say {
        let [least, default, most] = values;
        let is_receive = name.ends_with("rmem");
        let mut all = Vec::new();
        if most < default {
            all.push(format!(
                "the third value is below the second: a queue begins with {default} bytes and never grows"
            ));
        } else if default < least {
            all.push("the three values have to ascend: least, default, most".into());
        }
        if (4..=4096).contains(&default)
            && (1 << 10..=1 << 20).contains(&most)
            && most >= default * 16
            && least <= 16
        {
            all.push("it looks like kB or pages, and the unit is bytes".into());
        }
        // A million of them are what is written about.
        if least > 16 * 4096 {
            all.push(format!(
                "the first value is what each socket may hold even above tcp_mem: {} for {} connections",
                size(u128::try_from(least).unwrap_or(0) * u128::from(self.run.connections)),
                self.run.connections
            ));
        }
        let present = self.present_numbers(name);
        // 131,072 since Linux 4.20, and 87,380 before.
        let usual = if is_receive { 87_380 } else { 16_384 };
        let own = present.get(1).copied().unwrap_or(usual).max(usual);
        let is_now = present == values;
        if default < if is_now { usual } else { own } {
            all.push(format!(
                "a second value of {default} bytes instead of {own} slows each connection down at its beginning, and saves nothing: idle \
                 connections take none of it"
            ));
        }
        if present.get(2).is_some_and(|own| most < *own) {
            all.push(format!(
                "the third value is lower than the {} of this host: fast connections over long ways get slower",
                present[2]
            ));
        }
        harms_or(all, || {
            Say::nothing(format!(
                "{name} bounds one socket's queue (up to {}): idle connections take nothing of it, whatever it says",
                size(u128::try_from(most).unwrap_or(0))
            ))
        })
    }
}

/// Somebody may have written another unit: which one is told by what would make sense on this host.
fn beyond_memory(high: i128, page: u64, total: u64) -> String {
    let value = u128::try_from(high).unwrap_or(0);
    let beyond = format!(
        "high is {high} pages of {page} bytes, {}, more than the {} MiB of this host",
        size(value * u128::from(page)),
        mib(total)
    );
    let total = u128::from(total);
    let as_kb = value * 1024 <= total;
    // Less is no limit that anybody would set for a host: what one socket may hold is written so.
    let as_bytes = value <= total;
    match (as_kb, as_bytes) {
        (true, _) if value * 1024 >= u128::from(GIB) && !value.is_multiple_of(1 << 20) => {
            format!(
                "{beyond}: it looks like kB ({}) or bytes ({}), and the unit is pages",
                size(value * 1024),
                size(value)
            )
        }
        (true, _) => format!(
            "{beyond}: it looks like bytes ({}) or kB ({}), and the unit is pages",
            size(value),
            size(value * 1024)
        ),
        (false, true) => {
            format!("{beyond}: it looks like bytes ({}), and the unit is pages", size(value))
        }
        (false, false) => {
            format!("{beyond}: it is no limit at all, and the OOM killer comes first")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_can_be_read() {
        for (bytes, text) in [
            (7, "7 bytes"),
            (16 << 20, "16 MiB"),
            (1 << 30, "1 GiB"),
            (12 << 30, "12 GiB"),
            (64 << 30, "64 GiB"),
            (1_572_864 * 4096, "6 GiB"),
            (927_000_000, "884 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn another_unit_is_told_by_its_size() {
        let told = |high| beyond_memory(high, 4096, 24 << 30);
        assert!(
            told(16_777_216).contains("looks like bytes (16 MiB) or kB (16 GiB)"),
            "{}",
            told(16_777_216)
        );
        assert!(
            told(12_884_901_888).contains("looks like bytes (12 GiB)"),
            "{}",
            told(12_884_901_888)
        );
        assert!(
            told(13_000_000).contains("looks like kB (12 GiB) or bytes"),
            "{}",
            told(13_000_000)
        );
        assert!(told(i128::from(i64::MAX)).contains("no limit at all"));
    }
}
