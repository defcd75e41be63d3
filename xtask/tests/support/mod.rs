//! What the tests of `xtask reproduce` share.

pub(crate) mod fake;
pub(crate) mod run;
#[path = "../../../c1m-server/tests/schema/mod.rs"]
mod schema;
