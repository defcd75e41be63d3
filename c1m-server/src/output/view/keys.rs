//! What a key does to the view.

use super::View;

/// A key, as far as the view knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    /// Ctrl-C, which is no signal on a terminal that hands on every key.
    Interrupt,
}

/// What comes of it for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Draw again.
    Draw,
    Nothing,
    End,
}

/// Longer filters are nobody's.
const FILTER_MAX: usize = 64;

impl View {
    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Action {
        if key == Key::Interrupt {
            return Action::End;
        }
        if self.is_typing {
            return self.typed(key);
        }
        match key {
            Key::Char('q') => return Action::End,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('/') => self.is_typing = true,
            Key::Escape => self.filter.clear(),
            Key::Up | Key::Char('k') => {
                self.scrolled = (self.scrolled + 1).min(self.events.len().saturating_sub(1));
            }
            Key::Down | Key::Char('j') => self.scrolled = self.scrolled.saturating_sub(1),
            _ => return Action::Nothing,
        }
        Action::Draw
    }

    fn typed(&mut self, key: Key) -> Action {
        match key {
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.filter.clear();
                self.is_typing = false;
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(letter) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(letter);
            }
            _ => return Action::Nothing,
        }
        self.scrolled = 0;
        Action::Draw
    }

    /// Does this line pass the filter?
    pub(super) fn passes(&self, line: &str) -> bool {
        self.filter.is_empty() || line.to_lowercase().contains(&self.filter.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::view::Sort;

    #[test]
    fn a_filter_is_typed_and_q_belongs_to_it() {
        let mut view = View::default();
        for key in [Key::Char('/'), Key::Char('q'), Key::Char('x'), Key::Backspace] {
            assert_eq!(view.key(key), Action::Draw);
        }
        assert_eq!((view.filter.as_str(), view.is_typing), ("q", true));
        assert_eq!(view.key(Key::Enter), Action::Draw);
        assert!(view.passes("SYN Queue") && !view.passes("ports"));
        assert_eq!(view.key(Key::Escape), Action::Draw);
        assert!(view.passes("ports"));
        assert_eq!(view.key(Key::Char('q')), Action::End);
    }

    #[test]
    fn ctrl_c_ends_whatever_is_typed() {
        let mut view = View::default();
        view.key(Key::Char('/'));
        assert_eq!(view.key(Key::Interrupt), Action::End);
    }

    #[test]
    fn orders_come_round() {
        let mut view = View::default();
        let seen: Vec<Sort> = (0..4)
            .map(|_| {
                view.key(Key::Char('s'));
                view.sort
            })
            .collect();
        assert_eq!(seen, [Sort::Time, Sort::Name, Sort::Scope, Sort::Usage]);
        assert_eq!(view.key(Key::Char('z')), Action::Nothing);
    }

    #[test]
    fn scrolling_stays_within_the_events() {
        let mut view = View::default();
        view.key(Key::Up);
        assert_eq!(view.scrolled, 0);
        view.events = ["a".into(), "b".into()].into();
        for _ in 0..5 {
            view.key(Key::Up);
        }
        assert_eq!(view.scrolled, 1);
        view.key(Key::Down);
        assert_eq!(view.scrolled, 0);
    }
}
