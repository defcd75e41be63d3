//! Numbers as the page has them, and text of others, which is hostile until proved otherwise.

use c1m_text::escape;
use maud::{Markup, Render, html};

pub(super) use c1m_text::units::{bytes, grouped};

/// What is not known. Never 0.
pub(super) const UNKNOWN: &str = "unknown";
/// The longest text of others, in characters.
const LONGEST: usize = 600;

/// Text that somebody else chose: a comm, the path of a cgroup, whatever stands in a JSON line. Maud escapes what HTML would take for
/// markup.
pub(super) fn foreign(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", escape::line(&text[..end])),
        None => escape::line(text).into_owned(),
    }
}

/// A figure, with the line that said it and its place there: whoever doubts it can look, and a test does.
pub(super) fn figure(line: u64, pointer: &str, value: u64) -> Markup {
    tagged(line, pointer, value, grouped(value))
}

/// The same for one that may not be known.
pub(super) fn perhaps(line: u64, pointer: &str, value: Option<u64>) -> Markup {
    match value {
        Some(value) => figure(line, pointer, value),
        None => html! { span.unknown { (UNKNOWN) } },
    }
}

/// A figure in other words than its digits.
pub(super) fn tagged(line: u64, pointer: &str, value: impl Render, shown: impl Render) -> Markup {
    html! { span.figure data-line=(line) data-pointer=(pointer) data-value=(value) { (shown) } }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for pictures and percentages of numbers far below 2^52"
)]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `41.3 %`; what is not nothing is not called 0.
pub(super) fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let percent = 100.0 * as_f64(part) / as_f64(whole);
    Some(match percent {
        _ if part == 0 => "0 %".into(),
        small if small < 0.01 => "less than 0.01 %".into(),
        small if small < 1.0 => format!("{small:.2} %"),
        huge if huge >= 1000.0 => {
            format!(
                "{} %",
                grouped(
                    u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(u64::MAX)
                )
            )
        }
        percent => format!("{percent:.1} %"),
    })
}

/// A span of time: `340 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`.
pub(super) fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return UNKNOWN.into();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and saturates"
    )]
    let whole = seconds.round() as u64;
    match seconds {
        short if short < 1.0 => format!("{:.0} ms", short * 1000.0),
        short if short < 99.95 => format!("{short:.1} s"),
        _ if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ if whole < 48 * 3600 => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} days {} h", grouped(whole / 86_400), whole / 3600 % 24),
    }
}

/// `2026-11-26 21:53:45 UTC`
pub(super) fn moment(at: u64) -> String {
    let text = rfc3339(at);
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => text,
    }
}

/// `21:53:45.796`
pub(super) fn clock(at: u64) -> String {
    c1m_text::units::clock(time(at))
}

/// For `datetime`.
pub(super) fn rfc3339(at: u64) -> String {
    humantime::format_rfc3339_micros(time(at)).to_string()
}

fn time(at: u64) -> std::time::SystemTime {
    // Beyond the year 9999 humantime has no words.
    const LAST: u64 = 253_402_300_799_000_000;
    std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(at.min(LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_seen_is_written_out() {
        assert_eq!(foreign("nginx: wörker"), "nginx: wörker");
        assert_eq!(
            foreign("a\0\u{1b}[2J\u{202e}b\u{ffff}"),
            "a\\u{0}\\u{1b}[2J\\u{202e}b\\u{ffff}"
        );
        assert_eq!(foreign(&"x".repeat(2_000)).chars().count(), LONGEST + 1);
        let markup = html! { td title=(foreign("\"><script>")) { (foreign("</td><script>&")) } };
        assert_eq!(
            markup.into_string(),
            "<td title=\"&quot;&gt;&lt;script&gt;\">&lt;/td&gt;&lt;script&gt;&amp;</td>"
        );
    }

    #[test]
    fn figures_say_where_they_are_from() {
        assert_eq!(
            figure(7, "/peak", 1_024_000).into_string(),
            "<span class=\"figure\" data-line=\"7\" data-pointer=\"/peak\" data-value=\"1024000\">1,024,000</span>"
        );
        assert_eq!(
            perhaps(7, "/peak", None).into_string(),
            "<span class=\"unknown\">unknown</span>"
        );
    }

    #[test]
    fn shares_and_times_are_in_words() {
        assert_eq!(percent(0, 10), Some("0 %".into()));
        assert_eq!(percent(1, 1_000_000), Some("less than 0.01 %".into()));
        assert_eq!(percent(413, 1_000), Some("41.3 %".into()));
        assert_eq!(percent(50, 1), Some("5,000 %".into()));
        assert_eq!(percent(1, 0), None);
        assert_eq!(span(0.34), "340 ms");
        assert_eq!(span(12.34), "12.3 s");
        assert_eq!(span(245.0), "4 min 05 s");
        assert_eq!(span(12_000.0), "3 h 20 min");
        assert_eq!(span(f64::NAN), UNKNOWN);
        assert_eq!(moment(45_296_789_000), "1970-01-01 12:34:56 UTC");
        assert_eq!(clock(45_296_789_000), "12:34:56.789");
        assert_eq!(moment(u64::MAX), "9999-12-31 23:59:59 UTC");
    }
}
