//! README.md and docs/ as a book: links and anchors, the list of its pages, the form of a page,
//! the words, and what pages quote.

mod links;
mod pages;
mod quotes;
mod shape;
mod words;

use std::path::Path;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent")
}
