//! The terminal: taken for the view, and given back on every way out.

use std::{io, thread};

use anyhow::Context as _;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::output::view::{self, Action, Key, View};

/// Keys that wait to be taken.
const KEYS: usize = 64;

/// The terminal while it shows the view. Dropping it puts the terminal back; so does a panic, before it says anything.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    keys: Receiver<Event>,
    pub(super) view: View,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It can't be put into raw mode, or nothing be written to it.
    pub(super) fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init()
            .context("cannot take the terminal for the view: --no-tui does without")?;
        let (sender, keys) = channel(KEYS);
        // Waits for the terminal, and ends with the process or when nobody takes its keys any more.
        thread::spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self { terminal, keys, view: View::default() })
    }

    pub(super) fn draw(&mut self) -> io::Result<()> {
        let Self { terminal, view, .. } = self;
        terminal.draw(|frame| view::draw(view, frame)).map(drop)
    }

    /// The next thing to do because of a key, or of another size of the terminal.
    pub(super) async fn action(&mut self) -> Action {
        loop {
            let action = match self.keys.recv().await {
                Some(Event::Key(key)) => key_of(key).map(|key| self.view.key(key)),
                Some(Event::Resize(..)) => Some(Action::Draw),
                Some(_) => None,
                // The terminal is gone.
                None => Some(Action::End),
            };
            match action {
                None | Some(Action::Nothing) => {}
                Some(action) => return action,
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    match event.code {
        KeyCode::Char('c') if event.modifiers.contains(KeyModifiers::CONTROL) => {
            Some(Key::Interrupt)
        }
        KeyCode::Char(letter) => Some(Key::Char(letter)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_view() {
        let key = |code, modifiers| key_of(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Some(Key::Char('c')));
        assert_eq!(key(KeyCode::F(1), KeyModifiers::NONE), None);
        let release =
            KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(key_of(release), None);
    }
}
