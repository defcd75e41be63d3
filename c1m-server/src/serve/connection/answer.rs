//! From bytes that were read to bytes that are sent, one turn of a connection at a time.

use std::{os::fd::RawFd, time::Instant};

use c1m_program::http::Date;
use c1m_sys::{
    clock::wall_seconds,
    socket::{peek, reset_on_close, send_vectored},
};

use super::{Connections, RETRY, Step, index};
use crate::serve::{
    counters::ErrorName,
    http::{self, Parsed},
    partial::Partial,
    response::Response,
};

/// What one connection may send, and how many requests it may have answered, before the others of its worker have their turn.
pub(super) const TURN: Turn = Turn { bytes: 1 << 20, responses: 64 };

/// What is left of a connection's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    bytes: u64,
    responses: u32,
}

impl Turn {
    fn is_over(self) -> bool {
        self.bytes == 0 || self.responses == 0
    }
}

/// The date of responses: the clock is read for the first one of each batch of events, and a new text made when the second is another one.
#[derive(Debug)]
pub(super) struct Clock {
    second: u64,
    date: Date,
    pub(super) is_read: bool,
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: 0, date: Date::of(0), is_read: false }
    }
}

/// How far one attempt to send came.
enum Sent {
    All,
    Some(u64),
    Nothing,
    Failed,
}

impl Connections {
    /// Answers the complete requests in `input`, as far as the connection's turn goes, and keeps the rest.
    pub(super) fn requests(&mut self, fd: RawFd, partial: &mut Partial, mut input: &[u8]) -> Step {
        loop {
            let dropped =
                usize::try_from(partial.discard_bytes).unwrap_or(usize::MAX).min(input.len());
            partial.discard_bytes -= dropped as u64;
            input = &input[dropped..];
            if input.is_empty() {
                return Step::Keep;
            }
            if self.turn.is_over() {
                partial.has_more = true;
                break;
            }
            let response = match http::parse(input) {
                Parsed::Partial => break,
                Parsed::Refused(status) => {
                    input = &[];
                    self.refusal(fd, status)
                }
                Parsed::Request(request) => {
                    input = &input[request.head_bytes..];
                    partial.discard_bytes = request.body_bytes;
                    let ends_open_body = self.open_bodies.take(index(fd));
                    let response = Response::to(&request, ends_open_body, self.date());
                    if response.leaves_body_open(&request) {
                        self.open_bodies.set(index(fd));
                    }
                    response
                }
            };
            partial.head_since = None;
            self.counters().request();
            match self.respond(fd, partial, response) {
                None => {}
                Some(Step::Keep) if partial.write.is_some() => break,
                Some(step) => return step,
            }
        }
        keep(partial, input);
        Step::Keep
    }

    /// The last response on a connection.
    pub(super) fn refusal(&mut self, fd: RawFd, status: u16) -> Response {
        Response::refusal(status, self.open_bodies.take(index(fd)), self.date())
    }

    /// Sends `response`, or its beginning. `None`: it is sent, and the connection goes on.
    pub(super) fn respond(
        &mut self,
        fd: RawFd,
        partial: &mut Partial,
        response: Response,
    ) -> Option<Step> {
        if response.status() != 200 {
            self.counters().error(ErrorName::Status(response.status()));
        }
        self.turn.responses = self.turn.responses.saturating_sub(1);
        let sent = match self.send(fd, &response, 0) {
            Sent::All if response.closes => return Some(self.drain(fd, partial)),
            Sent::All => return None,
            Sent::Failed => return Some(Step::Close),
            Sent::Some(sent) => sent,
            Sent::Nothing => 0,
        };
        partial.head_since = None;
        partial.write = Some((response, sent));
        Some(Step::Keep)
    }

    /// Goes on with the requests that were read before.
    pub(super) fn go_on(&mut self, fd: RawFd, partial: &mut Partial) -> Step {
        partial.has_more = false;
        let input = std::mem::take(&mut partial.input);
        let read = partial.head_since;
        let step = self.requests(fd, partial, &input);
        if partial.head_since.is_some() {
            // Whatever of `input` waits on was read by then.
            partial.head_since = read.or(partial.head_since);
        }
        step
    }

    /// The time for the head at the end of `partial.input` is over: answers with 408 if the rest of it has not come.
    ///
    /// Behind a response that the peer does not read there is no place for an answer: the connection is closed, and counted as if it had
    /// been answered. While a response waits nothing is read, so the rest may be in the socket: then the client has done its part.
    pub(super) fn head_is_overdue(&mut self, fd: RawFd, partial: &mut Partial) -> Step {
        partial.head_since = None;
        let head = http::last_head(&partial.input, partial.discard_bytes);
        if head.is_empty() || self.is_complete_in_socket(fd, head) {
            return Step::Keep;
        }
        if partial.write.is_some() || partial.has_more {
            self.counters().error(ErrorName::Status(408));
            // What the client does not read would stay in the kernel as an orphan's, up to the whole send buffer. A socket that refuses
            // the option is closed all the same.
            let _ = reset_on_close(fd);
            return Step::Close;
        }
        partial.input = Vec::new();
        let refusal = self.refusal(fd, 408);
        self.respond(fd, partial, refusal).unwrap_or(Step::Keep)
    }

    fn is_complete_in_socket(&mut self, fd: RawFd, head: &[u8]) -> bool {
        // An error of the socket ends the connection when it is read.
        let count = peek(fd, &mut self.buffer).unwrap_or(0);
        count > 0
            && matches!(http::parse(&[head, &self.buffer[..count]].concat()), Parsed::Request(_))
    }

    /// Goes on with a response half sent, and then with what was asked behind it.
    pub(super) fn resume(
        &mut self,
        fd: RawFd,
        partial: &mut Partial,
        response: Response,
        sent: u64,
    ) -> Step {
        self.cancel(fd, partial);
        match self.send(fd, &response, sent) {
            Sent::All if response.closes => self.drain(fd, partial),
            Sent::All => self.go_on(fd, partial),
            Sent::Some(more) => {
                partial.write = Some((response, sent + more));
                Step::Keep
            }
            Sent::Nothing => {
                partial.write = Some((response, sent));
                self.wait(fd, partial, RETRY);
                Step::Keep
            }
            Sent::Failed => Step::Close,
        }
    }

    /// Sends `response` from its byte `start` on, as far as the socket takes it.
    fn send(&mut self, fd: RawFd, response: &Response, start: u64) -> Sent {
        let mut sent = 0;
        loop {
            let Some(part) = response.rest(start + sent, |slices| send_vectored(fd, slices)) else {
                return Sent::All;
            };
            match part.result {
                Ok(count) => {
                    sent += count as u64;
                    self.turn.bytes = self.turn.bytes.saturating_sub(count as u64);
                    if count < part.bytes || (self.turn.bytes == 0 && !part.is_last) {
                        return Sent::Some(sent);
                    }
                    if part.is_last {
                        return Sent::All;
                    }
                }
                Err(error) if self.failed(&error) == Step::Close => return Sent::Failed,
                Err(_) if sent > 0 => return Sent::Some(sent),
                Err(_) => return Sent::Nothing,
            }
        }
    }

    fn date(&mut self) -> Date {
        if !self.clock.is_read {
            self.clock.is_read = true;
            // A clock that can't be read keeps the second that it had.
            let second = wall_seconds().unwrap_or(self.clock.second);
            if second != self.clock.second {
                self.clock.second = second;
                self.clock.date = Date::of(second);
            }
        }
        self.clock.date
    }
}

/// Keeps `input`, which waits behind a response or for the rest of its head. The time for a head at its end runs from its first byte on, so
/// also while a response waits that the peer does not read.
fn keep(partial: &mut Partial, input: &[u8]) {
    // Behind the last response of a connection nothing is answered.
    let is_last = partial.write.as_ref().is_some_and(|(response, _)| response.closes);
    partial.input = if is_last { Vec::new() } else { input.to_vec() };
    if !partial.input.is_empty() {
        partial.head_since.get_or_insert_with(Instant::now);
    }
}
