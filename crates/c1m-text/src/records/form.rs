//! The one writer of `key=value` lines: a form with places that are filled from a record's fields.

use serde_json::Value;

use crate::units::size;

/// Fills a form from a record as JSON has it. `None`: nothing is left of it.
///
/// | in the form | becomes |
/// |---|---|
/// | `{path}`, `{=path}` | the value, in the second case behind the field's name and `=`; `unknown` where it is `null` |
/// | `{path?word}` | `word` where the value is `null` or empty |
/// | `{path:.1s}` | a number with one digit after the point, and its unit |
/// | `{path:size}` | a number of bytes for people |
/// | `{path:,}` | a list, with the character between two |
/// | `{path:a=x|b=y}` | words for values |
/// | `[…]` | left out when a value in it is `null` or empty; places with a `?` do not decide |
/// | `<…>` | left out when a value in it is `null`, empty or 0; the same |
pub(super) fn fill(form: &str, record: &Value) -> Option<String> {
    let (mut line, mut rest) = (String::new(), form);
    while let Some(at) = rest.find(['{', '[', '<']) {
        line += &rest[..at];
        let closing = match rest.as_bytes()[at] {
            b'{' => '}',
            b'[' => ']',
            _ => '>',
        };
        // A form that is not closed is taken as it stands; a test goes through all of them.
        let Some(end) = rest[at..].find(closing).map(|end| at + end) else { break };
        let inside = &rest[at + 1..end];
        match closing {
            '}' => line += &place(inside, record),
            _ => {
                let mut needed = places(inside).filter(|place| !place.contains('?'));
                if needed.all(|place| is_there(get(record, path(place)), closing == '>')) {
                    line += &fill(inside, record).unwrap_or_default();
                }
            }
        }
        rest = &rest[end + 1..];
    }
    line += rest;
    (!line.is_empty()).then_some(line)
}

fn get<'a>(record: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(record, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// What stands between braces in a form.
pub(super) fn places(form: &str) -> impl Iterator<Item = &str> {
    form.split('{').skip(1).filter_map(|part| part.split('}').next())
}

/// The path of a place.
pub(super) fn path(place: &str) -> &str {
    place.trim_start_matches('=').split([':', '?']).next().unwrap_or_default()
}

fn is_there(value: &Value, and_not_zero: bool) -> bool {
    let counts_as_absent = is_empty(value) || (and_not_zero && value.as_u64() == Some(0));
    !counts_as_absent
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn place(text: &str, record: &Value) -> String {
    let (text, word) = text.split_once('?').unwrap_or((text, "unknown"));
    let (path, format) = text.split_once(':').unwrap_or((text, ""));
    let (name, path) = match path.strip_prefix('=') {
        Some(path) => (path.rsplit('.').next().unwrap_or(path).to_owned() + "=", path),
        None => (String::new(), path),
    };
    let value = get(record, path);
    name + &match value {
        Value::Object(fields) if fields.is_empty() => "none".into(),
        empty if is_empty(empty) => word.to_owned(),
        value => formatted(value, format),
    }
}

fn formatted(value: &Value, format: &str) -> String {
    let plain = match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let texts: Vec<String> = list.iter().map(|it| formatted(it, "")).collect();
            return texts.join(format);
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}={}", name.replace(' ', "_"), formatted(value, ""))
            };
            return fields.iter().map(field).collect::<Vec<_>>().join(" ");
        }
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |number| number.to_string())
        }
        other => other.to_string(),
    };
    if format.contains('=') {
        let mut words = format.split('|').filter_map(|word| word.split_once('='));
        return words.find(|(of, _)| *of == plain).map_or(plain, |(_, word)| word.to_owned());
    }
    if format == "size" {
        return value.as_u64().map_or(plain, size);
    }
    let digits =
        format.strip_prefix('.').and_then(|it| Some((it.get(..1)?.parse().ok()?, it.get(1..)?)));
    match (value.as_f64(), digits) {
        (Some(number), Some((digits, unit))) => format!("{number:.digits$}{unit}"),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_filled_and_what_is_unknown_is_said() {
        let record = json!({
            "count": 1234567, "zero": 0, "none": null, "name": "a\u{1b}b", "flag": false, "list": [1, 2, 3],
            "s": 2.25, "no": [], "counts": {"accept EMFILE": 2, "x": 1}, "nothing": {}, "in": {"side": "up", "bytes": 2048},
        });
        for (form, expected) in [
            ("sum  {=count} n={none} {zero}", "sum  count=1234567 n=unknown 0"),
            ("{name} {list:/} {no:,?all}", "a\u{1b}b 1/2/3 all"),
            ("{s:.1s} {none:.1s} {s:.0/s}", "2.2s unknown 2/s"),
            ("{counts} {nothing}", "accept_EMFILE=2 x=1 none"),
            ("{=in.side:up=above|down=below} {flag:true=yes|false=no}", "side=above no"),
            ("{in.bytes:size}", "2.00 KiB"),
            ("a[ {=none}][ {=zero}]< {=zero}>< {=count}>[ {no:,}]", "a zero=0 count=1234567"),
            ("a[ {in.side} {none}]", "a"),
            ("a[ {in.side} {none?nobody}]", "a up nobody"),
        ] {
            assert_eq!(fill(form, &record).as_deref(), Some(expected), "{form}");
        }
        assert_eq!(fill("[x  {none}]", &record), None);
    }
}
