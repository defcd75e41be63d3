//! Checks what the programs print against the schemas in docs/schema.

pub mod sample;

use std::{fs, path::Path, sync::LazyLock};

use jsonschema::Validator;
use serde_json::Value;

/// Of c1m-server's lines.
pub static SERVER: LazyLock<Schema> = LazyLock::new(|| Schema::read("c1m-server"));
/// Of c1m-client's lines.
pub static CLIENT: LazyLock<Schema> = LazyLock::new(|| Schema::read("c1m-client"));

/// The published schema of one program's lines.
#[derive(Debug)]
pub struct Schema(Validator);

impl Schema {
    /// Reads docs/schema/`name`.json.
    pub fn read(name: &str) -> Self {
        Self(jsonschema::draft202012::new(&published(name)).unwrap())
    }

    /// Fails unless `line` is one JSON value that the schema allows.
    #[track_caller]
    pub fn check(&self, line: &str) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let errors: Vec<_> = self.0.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {line}", errors.join("; "));
    }
}

fn published(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let path = root.join("docs/schema").join(name).with_extension("json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}
