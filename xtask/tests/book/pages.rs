//! The Markdown pages of a folder, as their readers get them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// One page: its path below the root, and its text.
pub(crate) struct Page {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A link or an image of a page: the target as written, and the words that stand for it.
pub(crate) struct Link {
    pub(crate) target: String,
    pub(crate) words: String,
}

/// README.md and docs/*.md below this root.
pub(crate) fn all(root: &Path) -> Vec<Page> {
    let docs = fs::read_dir(root.join("docs")).expect("there is docs/");
    let names = docs.map(|entry| entry.expect("an entry of docs/").file_name());
    let mut paths: Vec<PathBuf> = names.map(|name| Path::new("docs").join(name)).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
    paths.push("README.md".into());
    paths.sort();
    let page = |path: PathBuf| {
        let text = fs::read_to_string(root.join(&path)).expect("a page is text");
        Page { path, text }
    };
    paths.into_iter().map(page).collect()
}

impl Page {
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = Event<'_>> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES)
    }

    pub(crate) fn links(&self) -> Vec<Link> {
        let (mut links, mut open) = (Vec::new(), None);
        for event in self.events() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    open = Some(Link { target: dest_url.to_string(), words: String::new() });
                }
                Event::End(TagEnd::Link | TagEnd::Image) => links.extend(open.take()),
                Event::Text(text) | Event::Code(text) => {
                    open.iter_mut().for_each(|link| link.words.push_str(&text));
                }
                Event::SoftBreak => open.iter_mut().for_each(|link| link.words.push(' ')),
                _ => {}
            }
        }
        links
    }

    /// What links may name in this page: made of the headings as GitHub and mdBook do.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let anchors = self.headings().into_iter().map(|(_, heading)| {
            let kept = heading.trim().chars().filter_map(|letter| match letter {
                ' ' => Some('-'),
                '-' | '_' => Some(letter),
                _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
                _ => None,
            });
            let anchor: String = kept.collect();
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
        });
        anchors.collect()
    }

    pub(crate) fn headings(&self) -> Vec<(HeadingLevel, String)> {
        let (mut headings, mut open) = (Vec::new(), None);
        for event in self.events() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => open = Some((level, String::new())),
                Event::End(TagEnd::Heading(_)) => headings.extend(open.take()),
                Event::Text(text) | Event::Code(text) => {
                    open.iter_mut().for_each(|(_, heading)| heading.push_str(&text));
                }
                _ => {}
            }
        }
        headings
    }

    /// What is wrong with the relative links of this page, which is one of `pages` below `root`.
    pub(crate) fn broken_links(&self, root: &Path, pages: &[Self]) -> Vec<String> {
        let by_path: BTreeMap<&Path, &Self> =
            pages.iter().map(|page| (page.path.as_path(), page)).collect();
        let mut broken = Vec::new();
        for link in self.links().into_iter().filter(|link| !link.target.contains("://")) {
            let (file, anchor) = match link.target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (link.target.as_str(), None),
            };
            let path = if file.is_empty() { self.path.clone() } else { beside(&self.path, file) };
            if !root.join(&path).is_file() {
                broken.push(format!("{}: no file {}", self.name(), link.target));
                continue;
            }
            let has = |anchor| by_path.get(path.as_path()).map(|it| it.anchors().contains(&anchor));
            if let Some(anchor) = anchor.filter(|it| has((*it).to_owned()) != Some(true)) {
                broken.push(format!("{}: no heading #{anchor} in {file}", self.name()));
            }
        }
        broken
    }
}

/// Where a link of this page leads, without `..`.
pub(crate) fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for component in Path::new(link).components() {
        match component {
            Component::ParentDir => {
                // More of them than folders lead out of the root, to a file that is not there.
                if !path.pop() {
                    path.push("..");
                }
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}
