//! Holds what the programs really print against the schemas in docs/schema. The tests of the other crates take this file too.

use std::{fs, path::Path};

use jsonschema::Validator;
use serde_json::Value;

/// The published schema of one program's lines.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Reads docs/schema/`name`.json.
    pub(crate) fn read(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = root.join("docs/schema").join(name).with_extension("json");
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let schema = serde_json::from_slice(&text).unwrap();
        Self(jsonschema::draft202012::new(&schema).unwrap())
    }

    /// Fails unless `line` is one JSON value that the schema allows.
    #[track_caller]
    pub(crate) fn check(&self, line: &str) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let errors: Vec<_> = self.0.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {line}", errors.join("; "));
    }
}
