//! The page that a command prints which answers once: lines, items and tables, as wide as a terminal or unwrapped.
//!
//! Every text passes [`escape::line`] on its way into a [`Text`], so no page has a raw name from outside.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr as _;

use crate::escape;

/// Between two columns.
const GAP: usize = 2;
/// A column is not made narrower than this.
const COLUMN_MIN: usize = 10;
/// Texts below a row, and what follows the first line of an item.
const INDENT: usize = 2;

/// What a text is to a reader; a colour where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    /// A heading, or what is to be read first.
    Strong,
    Good,
    Warning,
    Bad,
    /// What few readers need.
    Faint,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// One line of text, escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    text: String,
    tone: Tone,
}

impl Text {
    #[must_use]
    pub fn new(text: &str, tone: Tone) -> Self {
        Self { text: escape::line(text).into_owned(), tone }
    }

    /// Wrapped after `indent` blanks, the following lines `hanging` blanks further.
    fn write(&self, page: &mut String, format: Format, indent: usize, hanging: usize) {
        let room = format.width.map(|width| width.saturating_sub(indent + hanging));
        for (index, line) in wrapped(&self.text, room).iter().enumerate() {
            let blanks = if index == 0 { indent } else { indent + hanging };
            page.extend(std::iter::repeat_n(' ', blanks));
            format.paint(page, line, self.tone);
            page.push('\n');
        }
    }
}

impl<T: AsRef<str>> From<T> for Text {
    fn from(text: T) -> Self {
        Self::new(text.as_ref(), Tone::Plain)
    }
}

/// How a page is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    /// Columns of the terminal; `None`: nothing is wrapped, so that each row is one line, with its notes below it.
    pub width: Option<usize>,
    pub color: bool,
}

impl Format {
    fn paint(self, page: &mut String, text: &str, tone: Tone) {
        // Writing to a string does not fail.
        let _ = match tone.style() {
            style if self.color && style != Style::new() => write!(page, "{style}{text}{style:#}"),
            _ => write!(page, "{text}"),
        };
    }
}

#[derive(Debug, Clone)]
enum Block {
    Line(Text),
    Item(Text),
    Table(Table),
    Blank,
}

/// What is printed, from top to bottom.
#[derive(Debug, Clone, Default)]
pub struct Page {
    blocks: Vec<Block>,
}

impl Page {
    pub fn line(&mut self, text: impl Into<Text>) {
        self.blocks.push(Block::Line(text.into()));
    }

    /// A heading, with an empty line above it.
    pub fn section(&mut self, title: &str) {
        self.blocks.push(Block::Blank);
        self.line(Text::new(title, Tone::Strong));
    }

    /// A text below a line, indented.
    pub fn item(&mut self, text: impl Into<Text>) {
        self.blocks.push(Block::Item(text.into()));
    }

    pub fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }

    /// The lines, each with its end.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut page = String::new();
        for block in &self.blocks {
            match block {
                Block::Line(text) => text.write(&mut page, format, 0, INDENT),
                Block::Item(text) => text.write(&mut page, format, INDENT, INDENT),
                Block::Table(table) => table.write(&mut page, format),
                Block::Blank => page.push('\n'),
            }
        }
        page
    }
}

/// On which side a column's texts stand: numbers on the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

#[derive(Debug, Clone)]
struct Row {
    cells: Vec<Text>,
    /// Below the row, over the whole width.
    notes: Vec<Text>,
}

/// Rows under a heading. Columns are as wide as their texts. Where a terminal is narrower, texts on the left side are wrapped in their
/// column; where that is not enough either, each cell has a line of its own behind the name of its column.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Side)>,
    rows: Vec<Row>,
}

impl Table {
    #[must_use]
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let columns = columns.iter().map(|(name, side)| (escape::line(name).into_owned(), *side));
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// One cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), notes: Vec::new() });
    }

    /// A text below the last row.
    pub fn note(&mut self, text: impl Into<Text>) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(text.into());
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn write(&self, page: &mut String, format: Format) {
        let widths = self.widths(format.width);
        if let Some(widths) = &widths {
            let names = self.columns.iter().map(|(name, _)| Text::new(name, Tone::Strong));
            self.write_row(page, format, &names.collect::<Vec<_>>(), widths);
        }
        for (number, row) in self.rows.iter().enumerate() {
            if widths.is_none() && number > 0 {
                page.push('\n');
            }
            match &widths {
                Some(widths) => self.write_row(page, format, &row.cells, widths),
                None => {
                    for ((name, _), cell) in self.columns.iter().zip(&row.cells) {
                        let text = Text { text: format!("{name}: {}", cell.text), ..*cell };
                        text.write(page, format, 0, INDENT);
                    }
                }
            }
            row.notes.iter().for_each(|note| note.write(page, format, INDENT, INDENT));
        }
    }

    /// `None`: the columns do not fit.
    fn widths(&self, room: Option<usize>) -> Option<Vec<usize>> {
        let texts = |index: usize| {
            let cells = self.rows.iter().filter_map(move |row| row.cells.get(index));
            cells.map(|cell| cell.text.as_str()).chain([self.columns[index].0.as_str()])
        };
        let most = |index, of: fn(&str) -> usize| texts(index).map(of).max().unwrap_or(0);
        let columns = 0..self.columns.len();
        let mut widths: Vec<usize> =
            columns.map(|index| most(index, |text| text.width())).collect();
        let gaps = GAP * widths.len().saturating_sub(1);
        let longest_word = |text: &str| text.split(' ').map(|it| it.width()).max().unwrap_or(0);
        // Words stay whole where they can.
        for keeps_words in [true, false] {
            let least = |index: usize| match self.columns[index].1 {
                Side::Left if keeps_words => most(index, longest_word).max(COLUMN_MIN),
                Side::Left => COLUMN_MIN,
                Side::Right => usize::MAX,
            };
            while room.is_some_and(|room| widths.iter().sum::<usize>() + gaps > room) {
                let wide = widths.iter_mut().enumerate();
                let wide = wide.filter(|(index, width)| **width > least(*index));
                // Names come first in a row: where words are cut, the texts behind them are.
                let chosen =
                    if keeps_words { wide.max_by_key(|(_, width)| **width) } else { wide.last() };
                let Some((_, width)) = chosen else { break };
                *width -= 1;
            }
        }
        room.is_none_or(|room| widths.iter().sum::<usize>() + gaps <= room).then_some(widths)
    }

    fn write_row(&self, page: &mut String, format: Format, cells: &[Text], widths: &[usize]) {
        let cells: Vec<(Vec<String>, Tone)> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| (wrapped(&cell.text, format.width.map(|_| *width)), cell.tone))
            .collect();
        let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
        for index in 0..height {
            let mut blanks = 0;
            for (((lines, tone), width), (_, side)) in cells.iter().zip(widths).zip(&self.columns) {
                let text = lines.get(index).map_or("", String::as_str);
                let rest = width.saturating_sub(text.width());
                let (before, after) = if *side == Side::Right { (rest, 0) } else { (0, rest) };
                blanks += before;
                if !text.is_empty() {
                    page.extend(std::iter::repeat_n(' ', blanks));
                    format.paint(page, text, *tone);
                    blanks = 0;
                }
                blanks += if text.is_empty() { width - before } else { after } + GAP;
            }
            page.push('\n');
        }
    }
}

/// In lines of at most so many columns, cut at blanks; a word that is longer is cut within.
fn wrapped(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room.map(|room| room.max(1)) else { return vec![text.to_owned()] };
    if text.width() <= room {
        return vec![text.to_owned()];
    }
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        for character in word.chars() {
            line.push(character);
            // Of a whole, since a character can change the width of the one before it.
            if line.width() > room && line.chars().count() > 1 {
                line.pop();
                lines.push(std::mem::replace(&mut line, character.to_string()));
            }
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn narrow(width: usize) -> Format {
        Format { width: Some(width), color: false }
    }

    fn table() -> Table {
        let mut table =
            Table::new(&[("name", Side::Left), ("sockets", Side::Right), ("what", Side::Left)]);
        table.row(["nginx", "1,024,000", "a long text of many words"].map(Text::from));
        table.note("a note that belongs to the row above it");
        table.row(["a", "7", ""].map(Text::from));
        table
    }

    fn page() -> Page {
        let mut page = Page::default();
        page.line(Text::new("a summary", Tone::Good));
        page.section("rows");
        page.table(table());
        page.item("an item with some words");
        page
    }

    #[test]
    fn without_a_width_each_row_is_one_line() {
        assert_eq!(
            page().render(Format::default()),
            "a summary\n\nrows\n\
             name     sockets  what\n\
             nginx  1,024,000  a long text of many words\n\
             \u{20} a note that belongs to the row above it\n\
             a              7\n\
             \u{20} an item with some words\n"
        );
    }

    #[test]
    fn texts_are_wrapped_in_their_column_and_notes_under_their_row() {
        assert_eq!(
            page().render(narrow(36)),
            "a summary\n\nrows\n\
             name     sockets  what\n\
             nginx  1,024,000  a long text of\n\
             \u{20}                 many words\n\
             \u{20} a note that belongs to the row\n\
             \u{20}   above it\n\
             a              7\n\
             \u{20} an item with some words\n"
        );
    }

    #[test]
    fn a_table_that_cannot_fit_has_a_line_for_each_cell() {
        let drawn = page().render(narrow(20));
        assert!(
            drawn.contains("name: nginx\nsockets: 1,024,000\nwhat: a long text\n  of many words\n"),
            "{drawn}"
        );
    }

    #[test]
    fn colours_are_taken_back_and_can_be_left_out() {
        let mut page = Page::default();
        page.line(Text::new("bad", Tone::Bad));
        let colored = page.render(Format { width: None, color: true });
        assert_eq!(colored, "\u{1b}[1m\u{1b}[31mbad\u{1b}[0m\n");
        assert_eq!(page.render(Format::default()), "bad\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&[("name", Side::Left), ("n", Side::Right)]);
        table.row(["日本", "1"].map(Text::from));
        table.row(["abcd", "2"].map(Text::from));
        let mut page = String::new();
        table.write(&mut page, Format::default());
        assert_eq!(page, "name  n\n日本  1\nabcd  2\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(width in 6usize..120, text in "\\PC{0,80}", other: String) {
            let mut page = page();
            let mut table = table();
            table.row([text.as_str(), &other, &text].map(Text::from));
            table.note(&other);
            page.table(table);
            page.item(&text);
            page.line(&other);
            let drawn = page.render(narrow(width));
            prop_assert!(!drawn.contains(|it: char| it.is_control() && it != '\n'));
            for line in drawn.lines() {
                prop_assert!(line.width() <= width, "{line:?} is wider than {width}");
            }
            // Nothing is lost but blanks.
            let letters = |text: &str| text.chars().filter(|it| *it != ' ' && *it != '\n').count();
            let unwrapped = page.render(Format::default());
            prop_assert!(letters(&drawn) >= letters(&unwrapped) - letters("namesocketswhat") * 2);
        }
    }
}
