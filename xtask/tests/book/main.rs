//! README.md and docs/ as a book: links and anchors, the list of its pages, the form of a page,
//! the words, and what the README quotes.

mod links;
mod pages;
mod readme;
mod shape;
mod words;

use std::path::Path;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent")
}

/// The page whose rewrite is not part of this book's: what is asked of lines, words and
/// examples is not asked of it. Its links are.
const APART: &str = "docs/architecture.md";
