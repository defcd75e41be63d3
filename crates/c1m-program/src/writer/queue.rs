//! What waits to be written, and what is missing.

use std::{collections::VecDeque, io};

use super::{Change, Missing, OnError, Rank};

/// Changes that wait to be asked for.
const CHANGES: usize = 16;

/// Is to be called when an error has ended the stream.
pub(super) type OnFailure = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Item>,
    /// Of the queue.
    pub(super) bytes: usize,
    /// Lines of the item that the thread is about to write.
    pub(super) in_hand: Option<u64>,
    /// Pieces taken so far.
    pub(super) pieces: u64,
    /// Lines dropped or lost so far.
    pub(super) missing: u64,
    /// The last error, while it holds.
    pub(super) failure: Option<io::Error>,
    /// Lines lost since it began.
    pub(super) lost: u64,
    pub(super) changes: VecDeque<Change>,
    pub(super) closed: bool,
    pub(super) on_failure: Option<OnFailure>,
}

pub(super) enum Item {
    Text {
        bytes: Vec<u8>,
        lines: u64,
        rank: Rank,
    },
    /// So many lines were dropped here.
    Gap(u64),
}

impl State {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_hand.is_none()
    }

    pub(super) fn has_ended(&self, on_error: OnError) -> bool {
        on_error == OnError::Stop && self.failure.is_some()
    }

    /// Lines that are not written, and those of which that is not said yet.
    pub(super) fn unwritten(&self) -> u64 {
        self.queue.iter().map(Item::lines).sum::<u64>() + self.in_hand.unwrap_or(0)
    }

    fn change(&mut self, change: Change) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// Lines that come now are not taken.
    pub(super) fn drop_lines(&mut self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.missing += lines;
        if let Some(Item::Gap(before)) = self.queue.back_mut() {
            *before += lines;
        } else {
            self.queue.push_back(Item::Gap(lines));
            self.change(Change::Unread);
        }
    }

    /// Of the lines that wait, the last ones stay.
    pub(super) fn drop_ordinary(&mut self) {
        for item in std::mem::take(&mut self.queue) {
            match item {
                Item::Text { bytes, lines, rank: Rank::Ordinary } => {
                    self.bytes -= bytes.len();
                    self.drop_lines(lines);
                }
                // They are counted already.
                Item::Gap(lines) => match self.queue.back_mut() {
                    Some(Item::Gap(before)) => *before += lines,
                    _ => self.queue.push_back(item),
                },
                Item::Text { .. } => self.queue.push_back(item),
            }
        }
    }

    /// What stands for the lines that were lost; empty if there are none.
    pub(super) fn lost_notice(&self, notice: impl Fn(u64, Missing<'_>) -> String) -> String {
        match &self.failure {
            Some(error) if self.lost > 0 => notice(self.lost, Missing::Refused(error)),
            _ => String::new(),
        }
    }

    /// An item was written.
    pub(super) fn resume(&mut self, item: &Item) {
        if let Item::Gap(lines) = *item {
            self.change(Change::Resumed { lines });
        }
        if self.failure.take().is_some() {
            let lines = std::mem::take(&mut self.lost);
            self.change(Change::Resumed { lines });
        }
    }

    /// An item could not be written. Returns who is to be told.
    pub(super) fn fail(
        &mut self,
        error: io::Error,
        item: &Item,
        lines: u64,
        on_error: OnError,
    ) -> Option<OnFailure> {
        // Lines of a gap are counted already.
        self.missing += if matches!(item, Item::Gap(_)) { 0 } else { lines };
        self.lost += lines;
        if self.failure.is_none() {
            self.change(Change::Refused(error.to_string()));
        }
        self.failure = Some(error);
        if on_error == OnError::GoOn {
            return None;
        }
        self.missing += self.queue.iter().map(Item::uncounted).sum::<u64>();
        self.queue.clear();
        self.bytes = 0;
        self.on_failure.take()
    }
}

impl Item {
    pub(super) fn lines(&self) -> u64 {
        match self {
            Self::Text { lines, .. } | Self::Gap(lines) => *lines,
        }
    }

    /// Lines that are not counted as missing.
    fn uncounted(&self) -> u64 {
        match self {
            Self::Text { lines, .. } => *lines,
            Self::Gap(_) => 0,
        }
    }
}
