//! A record of every kind that a published schema has, with every member, and one text wherever any text may be.

use serde_json::{Map, Value, json};

/// Deeper than any record is; a schema that refers to itself would go on for ever.
const DEEPEST: usize = 16;
/// Maps whose keys are values of an enum, which the schema does not say, with one of them.
const KEYS: [(&str, &str); 1] = [("states", "listen")];

/// One line of each kind of docs/schema/`name`.json, as its kind and its JSON.
pub fn lines(name: &str, text: &str) -> Vec<(String, Value)> {
    let schema = super::published(name);
    let kinds = schema["oneOf"].as_array().unwrap();
    kinds
        .iter()
        .map(|kind| {
            let Value::Object(mut line) = sample(&schema, kind, text, 0) else { panic!("{kind}") };
            line.insert("v".into(), json!(1));
            line.insert("ts".into(), json!("2026-01-02T03:04:05.000006Z"));
            (line["kind"].as_str().unwrap().to_owned(), Value::Object(line))
        })
        .collect()
}

fn sample(root: &Value, schema: &Value, text: &str, depth: usize) -> Value {
    assert!(depth < DEEPEST, "{schema}");
    let inside = |schema: &Value| sample(root, schema, text, depth + 1);
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[choice].as_array() {
            // The one that is not null says more.
            return inside(schemas.iter().find(|schema| schema["type"] != "null").unwrap());
        }
    }
    let mut members = match schema["$ref"].as_str() {
        Some(reference) => match inside(root.pointer(&reference[1..]).unwrap()) {
            Value::Object(members) => members,
            other => return other,
        },
        None => Map::new(),
    };
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find_map(Value::as_str).unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match kind {
        "string" => return json!(text),
        "integer" | "number" => return json!(1),
        "boolean" => return json!(true),
        "array" => {
            let items = schema["minItems"].as_u64().unwrap_or(1).max(1);
            return (0..items).map(|_| inside(&schema["items"])).collect();
        }
        _ => {}
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let key = KEYS.iter().find(|(map, _)| map == name).map_or(text, |(_, key)| key);
        let member = match member.get("additionalProperties").filter(|it| it.is_object()) {
            Some(values) => json!({ key: inside(values) }),
            None => inside(member),
        };
        members.insert(name.clone(), member);
    }
    Value::Object(members)
}
