//! Figures of a report's page, compared with the JSON lines that they are from.

use std::collections::BTreeSet;

use serde_json::Value;

/// Compares every figure of the page with its line; the kinds of records that had some.
pub fn check(page: &str, lines: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = lines.lines().collect();
    let mut kinds = BTreeSet::new();
    for tag in page.split("<span class=\"figure\" ").skip(1) {
        let (tag, shown) = tag.split_once('>').unwrap();
        let attribute = |name: &str| {
            let (_, rest) = tag.split_once(&format!("{name}=\"")).unwrap();
            unescaped(rest.split_once('"').unwrap().0)
        };
        let (number, pointer) = (attribute("data-line"), attribute("data-pointer"));
        let line = lines[number.parse::<usize>().unwrap() - 1];
        let line: Value = serde_json::from_str(line).unwrap();
        let value_of_line =
            line.pointer(&pointer).unwrap_or_else(|| panic!("no {pointer} in line {number}"));
        let value: f64 = attribute("data-value").parse().unwrap();
        assert_eq!(value_of_line.as_f64(), Some(value), "line {number}, {pointer}");
        let shown = shown.split_once('<').unwrap().0;
        assert!(!shown.is_empty(), "line {number}, {pointer} is not shown");
        if let Some(count) = value_of_line.as_u64()
            && shown.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
        {
            assert_eq!(shown.replace(',', ""), count.to_string(), "line {number}, {pointer}");
        }
        kinds.insert(line["kind"].as_str().unwrap().to_owned());
    }
    kinds
}

fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}
