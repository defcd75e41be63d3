//! Links, anchors, and docs/SUMMARY.md, from which mdBook makes the book.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pulldown_cmark::Event;

use crate::{
    pages::{self, Page},
    root,
};

const SUMMARY: &str = "docs/SUMMARY.md";
const FIRST: &str = "docs/README.md";

fn docs(pages: &[Page]) -> impl Iterator<Item = &Page> {
    pages.iter().filter(|page| page.path.starts_with("docs"))
}

fn page<'p>(pages: &'p [Page], path: &str) -> &'p Page {
    pages.iter().find(|page| page.path == Path::new(path)).expect("the page exists")
}

/// The pages that this one links to.
fn linked(page: &Page) -> Vec<PathBuf> {
    let links = page.links().into_iter().filter(|link| !link.target.contains("://"));
    links.map(|link| pages::beside(&page.path, &link.target)).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages::all(root());
    let broken: Vec<String> =
        pages.iter().flat_map(|page| page.broken_links(root(), &pages)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A book has what is in its folder: a link out of docs/ leads nowhere there.
#[test]
fn pages_of_docs_link_to_nothing_outside_of_docs() {
    let pages = pages::all(root());
    for page in docs(&pages) {
        for path in linked(page) {
            assert!(path.starts_with("docs"), "{} links to {}", page.name(), path.display());
        }
    }
}

#[test]
fn the_summary_lists_each_page_once_and_no_other() {
    let pages = pages::all(root());
    let listed = linked(page(&pages, SUMMARY));
    let once: BTreeSet<&PathBuf> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "a page is listed twice: {listed:?}");
    let present: BTreeSet<&PathBuf> =
        docs(&pages).map(|page| &page.path).filter(|path| *path != Path::new(SUMMARY)).collect();
    assert_eq!(once, present);
}

/// The names of chapters are what mdBook takes for titles, beside which each page has its own.
#[test]
fn the_first_page_has_three_readers_and_each_page_is_for_one_of_them() {
    let pages = pages::all(root());
    let first = page(&pages, FIRST);
    let headings: Vec<String> = first.headings().into_iter().map(|(_, text)| text).collect();
    assert_eq!(headings[1..4], ["My server fails", "I plan a load test", "I change c1m"]);
    let linked = linked(first);
    for page in docs(&pages).filter(|page| ![SUMMARY, FIRST].contains(&page.name().as_str())) {
        assert!(linked.contains(&page.path), "{} is not in {FIRST}", page.name());
    }
    let parts = page(&pages, SUMMARY).headings();
    for reader in &headings[1..4] {
        assert!(parts.iter().any(|(_, part)| part == reader), "{reader} is not in {SUMMARY}");
    }
}

#[test]
fn the_book_is_made_of_docs_and_kept_out_of_the_repository() {
    let book = fs::read_to_string(root().join("book.toml")).unwrap();
    for line in ["src = \"docs\"", "build-dir = \"target/book\"", "create-missing = false"] {
        assert!(book.lines().any(|it| it == line), "book.toml lacks {line}");
    }
}

/// The first folders of the repository, by which its paths are distinguished from the kernel's.
const FOLDERS: [&str; 5] = ["c1m-", "crates/", "dist/", "docs/", "xtask/"];

#[test]
fn files_that_pages_name_exist() {
    let mut sources = Vec::new();
    for folder in ["c1m-client", "c1m-ebpf", "c1m-server", "crates", "xtask"] {
        sources_of(&root().join(folder), &mut sources);
    }
    for page in &pages::all(root()) {
        let codes = page.events().filter_map(|event| match event {
            Event::Code(code) => Some(code.to_string()),
            _ => None,
        });
        for code in codes.filter(|code| !code.contains([' ', '*', '{', '…'])) {
            let is_path = FOLDERS.iter().any(|it| code.starts_with(it)) && code.contains('/');
            let exists = match code.ends_with(".rs") && !is_path {
                // The end of a path, whose beginning stands before it.
                true => sources.iter().any(|path| path.ends_with(&code)),
                false => !is_path || root().join(&code).exists(),
            };
            assert!(exists, "{} names {code}", page.name());
        }
    }
}

/// The source files in this folder, and in those of it.
fn sources_of(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            sources_of(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn wrong_links_are_found() {
    let page = |path: &str, text: &str| Page { path: path.into(), text: text.into() };
    let pages = [
        page("docs/client.md", "# A\n\n[b](limits.md#nofile) [c](gone.md) [d](#here) [e](#a)"),
        page("docs/limits.md", "# Limits\n\n## no_file: `x`\n\n## A\n\n## A\n"),
    ];
    let broken = pages[0].broken_links(root(), &pages);
    let expected = [
        "docs/client.md: no heading #nofile in limits.md",
        "docs/client.md: no file gone.md",
        "docs/client.md: no heading #here in ",
    ];
    assert_eq!(broken, expected);
    assert_eq!(pages[1].anchors(), ["limits", "no_file-x", "a", "a-1"]);
    assert_eq!(pages::beside(Path::new("docs/a.md"), "../../x.md"), Path::new("../x.md"));
}
