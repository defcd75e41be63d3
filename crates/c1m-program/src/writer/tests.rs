use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

/// Far more than anything here takes.
const CEILING: Duration = Duration::from_secs(60);
const SHORT: Patience =
    Patience { piece: Duration::from_millis(50), all: Duration::from_millis(50) };
const LONG: Patience = Patience { piece: CEILING, all: CEILING };

/// A stream of which the test takes piece by piece, or says why not.
struct Pipe {
    pieces: SyncSender<Vec<u8>>,
    answers: Receiver<io::Result<()>>,
    taken_back: Vec<usize>,
}

struct Reader {
    pieces: Receiver<Vec<u8>>,
    answers: SyncSender<io::Result<()>>,
}

impl Destination for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.send(bytes.to_vec()).map_err(|_| gone(()))?;
        self.answers.recv().map_err(|_| gone(()))??;
        Ok(bytes.len())
    }

    fn take_back(&mut self, written: usize) {
        self.taken_back.push(written);
    }
}

impl Reader {
    /// The next piece; the writer goes on.
    fn take(&self) -> String {
        self.answer(Ok(()))
    }

    fn answer(&self, answer: io::Result<()>) -> String {
        let piece = self.pieces.recv_timeout(CEILING).expect("a piece");
        self.answers.send(answer).unwrap();
        String::from_utf8(piece).unwrap()
    }
}

fn pipe() -> (Pipe, Reader) {
    let (pieces, taken) = sync_channel(0);
    let (answers, answered) = sync_channel(1);
    (Pipe { pieces, answers: answered, taken_back: Vec::new() }, Reader { pieces: taken, answers })
}

fn notice(lines: u64, missing: Missing<'_>) -> String {
    match missing {
        Missing::Unread => format!("{lines} dropped\n"),
        Missing::Refused(error) => format!("{lines} lost: {:?}\n", error.kind()),
    }
}

fn start(on_error: OnError) -> (Writer, Reader) {
    let (pipe, reader) = pipe();
    (Writer::start("the stream", pipe, on_error, || Ok(()), notice).unwrap(), reader)
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// A line that no second one of its kind fits beside.
fn long(letter: char) -> String {
    String::from_iter(std::iter::repeat_n(letter, QUEUE_BYTES - 1)) + "\n"
}

fn read_long(reader: &Reader, letter: char) {
    for _ in 0..QUEUE_BYTES / PIECE_BYTES {
        assert!(reader.take().starts_with(letter));
    }
}

#[test]
fn lines_come_in_order_and_a_gap_is_said_where_it_is() {
    let (writer, reader) = start(OnError::Stop);
    let print = |text: String, rank| writer.print(text, rank).unwrap();
    print(long('a'), Rank::Ordinary);
    // The first one is in hand, and is not in the queue any more.
    let first = reader.take();
    assert!(first.starts_with('a'));
    print(long('b'), Rank::Ordinary);
    print("1\n2\n".into(), Rank::Ordinary);
    print("3\n".into(), Rank::Ordinary);
    assert_eq!((writer.missing(), writer.changes()), (3, vec![Change::Unread]));
    print("last\n".into(), Rank::Last);
    assert!(!writer.is_idle());
    for _ in 1..QUEUE_BYTES / PIECE_BYTES {
        reader.take();
    }
    read_long(&reader, 'b');
    assert_eq!(reader.take(), "3 dropped\n");
    assert_eq!(reader.take(), "last\n");
    writer.finish(LONG).unwrap();
    assert_eq!((writer.missing(), writer.changes()), (3, vec![Change::Resumed { lines: 3 }]));
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let (writer, _reader) = start(OnError::Stop);
    writer.print("1\n2\n".into(), Rank::Ordinary).unwrap();
    writer.print("3\n".into(), Rank::Last).unwrap();
    let error = writer.finish(SHORT).unwrap_err();
    assert_eq!(error.to_string(), "nobody read the stream for too long: 3 lines were not written");
}

#[test]
fn the_last_lines_come_through_to_a_slow_reader() {
    let (writer, reader) = start(OnError::Stop);
    writer.print("in hand\n".into(), Rank::Ordinary).unwrap();
    let first = reader.pieces.recv_timeout(CEILING).unwrap();
    for _ in 0..1000 {
        writer.print("ordinary\n".into(), Rank::Ordinary).unwrap();
    }
    writer.print("last\n".into(), Rank::Last).unwrap();
    // Somebody reads, and needs longer than there is for all: `piece` never ends.
    let patience = Patience { piece: CEILING, all: Duration::from_millis(50) };
    let mut state = writer.shared.state();
    state.closed = true;
    let (guard, waited) = writer.shared.wait(state, patience);
    state = guard;
    assert!(waited == Waited::TooLong);
    state.drop_ordinary();
    drop(state);
    reader.answers.send(Ok(())).unwrap();
    assert_eq!(String::from_utf8(first).unwrap(), "in hand\n");
    assert_eq!([reader.take(), reader.take()], ["1000 dropped\n", "last\n"]);
    writer.finish(LONG).unwrap();
    assert_eq!(writer.missing(), 1000);
}

#[test]
fn a_stream_that_has_ended_says_so_once_and_to_whoever_prints() {
    let (writer, reader) = start(OnError::Stop);
    let (told, is_told) = sync_channel(2);
    writer.on_failure(move || told.send(()).unwrap());
    writer.print("1\n".into(), Rank::Ordinary).unwrap();
    writer.print("2\n".into(), Rank::Ordinary).unwrap();
    reader.answer(Err(full()));
    is_told.recv_timeout(CEILING).unwrap();
    for error in [
        writer.print("3\n".into(), Rank::Last).unwrap_err(),
        writer.check().unwrap_err(),
        writer.finish(LONG).unwrap_err(),
    ] {
        let WriteError::Refused { name, source } = error else { panic!("{error:?}") };
        assert_eq!((name.as_str(), source.kind()), ("the stream", io::ErrorKind::StorageFull));
    }
    // `2` waited behind it, and `3` came too late.
    assert_eq!((writer.missing(), writer.is_closed()), (3, false));
    let mut is_called = false;
    let (told, is_told) = sync_channel(1);
    writer.on_failure(move || told.send(()).unwrap());
    is_called |= is_told.try_recv().is_ok();
    assert!(is_called, "it has failed already");
}

#[test]
fn a_reader_that_has_closed_the_stream_is_no_error_of_whoever_prints() {
    let closed = || Err(io::ErrorKind::BrokenPipe.into());
    let (writer, reader) = start(OnError::Stop);
    let (told, is_told) = sync_channel(1);
    writer.on_failure(move || told.send(()).unwrap());
    writer.print("1\n".into(), Rank::Ordinary).unwrap();
    reader.answer(closed());
    is_told.recv_timeout(CEILING).unwrap();
    writer.print("2\n".into(), Rank::Last).unwrap();
    writer.check().unwrap();
    writer.finish(LONG).unwrap();
    assert_eq!((writer.missing(), writer.is_closed()), (2, true));
    // A file is no standard stream: what it lacks is an error.
    let (writer, reader) = start(OnError::GoOn);
    writer.print("1\n".into(), Rank::Last).unwrap();
    reader.answer(closed());
    assert!(matches!(writer.finish(LONG), Err(WriteError::Refused { .. })));
}

#[test]
fn a_stream_that_goes_on_counts_what_it_lost() {
    let (writer, reader) = start(OnError::GoOn);
    for text in ["1\n", "2\n", "3\n", "4\n"] {
        writer.print(text.into(), Rank::Ordinary).unwrap();
    }
    assert_eq!(reader.take(), "1\n");
    assert_eq!(reader.answer(Err(full())), "2\n");
    assert_eq!(reader.answer(Err(full())), "1 lost: StorageFull\n3\n");
    assert_eq!(reader.take(), "2 lost: StorageFull\n4\n");
    writer.finish(LONG).unwrap();
    let [Change::Refused(why), Change::Resumed { lines: 2 }] = &writer.changes()[..] else {
        panic!("what became of it was not said")
    };
    assert!(!why.is_empty());
    assert_eq!(writer.missing(), 2);
}

#[test]
fn a_stream_that_fails_to_the_end_says_so() {
    let (writer, reader) = start(OnError::GoOn);
    writer.print("1\n".into(), Rank::Last).unwrap();
    reader.answer(Err(full()));
    assert!(matches!(writer.finish(LONG), Err(WriteError::Refused { .. })));
}

#[test]
fn a_start_that_fails_is_told() {
    let (pipe, _reader) = pipe();
    let begin = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let result = Writer::start("the stream", pipe, OnError::Stop, begin, notice);
    assert_eq!(result.err().unwrap().kind(), io::ErrorKind::PermissionDenied);
}
