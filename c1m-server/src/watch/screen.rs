//! The terminal: taken for the view, and given back on every way out.

use std::{
    io::{self, Write},
    sync::{Arc, Once},
    thread,
};

use anyhow::Context as _;
use c1m_program::writer::Writer;
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        queue,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::sync::mpsc::{Receiver, channel};

use crate::output::view::{self, Action, Key, View};

/// Keys that wait to be taken.
const KEYS: usize = 64;

/// The terminal while it shows the view. Dropping it puts the terminal back; so does a panic,
/// before it says anything.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Picture>>,
    writer: Arc<Writer>,
    keys: Receiver<Event>,
    pub(super) view: View,
}

/// Collects what is drawn, and hands it over as a whole.
struct Picture {
    bytes: Vec<u8>,
    writer: Arc<Writer>,
}

impl Write for Picture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.raw(std::mem::take(&mut self.bytes)).map_err(io::Error::other)
    }
}

impl Screen {
    /// Takes the terminal, which is standard output.
    ///
    /// # Errors
    /// It can't be put into raw mode, or nothing be written to it.
    pub(super) fn open(writer: Arc<Writer>) -> anyhow::Result<Self> {
        let (sender, keys) = channel(KEYS);
        let terminal = take(&writer)
            .inspect_err(|_| give_back(&writer))
            .context("cannot take the terminal for the view: --no-tui does without")?;
        // Waits for the terminal, and ends with the process or when nobody takes its keys any more.
        thread::spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self { terminal, writer, keys, view: View::default() })
    }

    /// Draws what has changed. While the terminal is stopped, nothing is drawn: what is missing
    /// comes with a later picture.
    pub(super) fn draw(&mut self) -> anyhow::Result<()> {
        let Self { terminal, view, writer, .. } = self;
        writer.check()?;
        if writer.is_idle() {
            terminal.draw(|frame| view::draw(view, frame))?;
        }
        Ok(())
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
        give_back(&self.writer);
    }
}

fn take(writer: &Arc<Writer>) -> io::Result<Terminal<CrosstermBackend<Picture>>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Past the writer's thread, which may be the one that panics.
            ratatui::restore();
            before(info);
        }));
    });
    enable_raw_mode()?;
    let mut picture = Picture { bytes: Vec::new(), writer: writer.clone() };
    queue!(picture, EnterAlternateScreen)?;
    picture.flush()?;
    Terminal::new(CrosstermBackend::new(picture))
}

fn give_back(writer: &Arc<Writer>) {
    let mut picture = Picture { bytes: Vec::new(), writer: writer.clone() };
    // A terminal that is gone needs neither.
    let _ = queue!(picture, LeaveAlternateScreen, Show).and_then(|()| picture.flush());
    let _ = disable_raw_mode();
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
