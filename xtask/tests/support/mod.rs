//! What the tests of `xtask reproduce` share.

pub(crate) mod fake;
pub(crate) mod run;
