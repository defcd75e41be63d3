//! Runs an iterator, and reads the records that it writes.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
};

use aya::{
    Btf, Ebpf,
    programs::{Iter, ProgramError},
};
use c1m_ebpf::HeldSocket;

use crate::{TraceError, chain};

/// Twice what the kernel gathers before it hands on: kernel/bpf/bpf_iter.c, `bpf_iter_open`, 8
/// pages.
const BUFFER_BYTES: usize = 64 * 1024;
const RECORD_BYTES: usize = size_of::<HeldSocket>();

/// What it iterates over, and the program's name.
pub(super) type Iterator = (&'static str, &'static str);

pub(super) fn load(
    ebpf: &mut Ebpf,
    (target, name): Iterator,
    kernel_types: &Btf,
) -> Result<(), TraceError> {
    let failed = |error: &ProgramError| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            TraceError::Load(format!("iterator {target}: {io_error} {last}"))
        }
        error => TraceError::Load(format!("iterator {target}: {}", chain(error))),
    };
    let program = program(ebpf, name).map_err(|error| TraceError::Load(error.to_string()))?;
    program.load(target, kernel_types).map_err(|error| failed(&error))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> io::Result<&'a mut Iter> {
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| io::Error::other(format!("the object has no program {name}")))?;
    program.try_into().map_err(io::Error::other)
}

/// Begins one, in the network namespace of the calling thread and the PID namespace of its process.
/// Nothing of it outlives the file.
pub(super) fn open(ebpf: &mut Ebpf, (_, name): Iterator) -> io::Result<File> {
    let program = program(ebpf, name)?;
    let link = program.attach().map_err(io::Error::other)?;
    program.take_link(link).map_err(io::Error::other)?.into_file().map_err(io::Error::other)
}

/// Hands each record to `take`, to the end.
pub(super) fn read(mut source: impl Read, mut take: impl FnMut(&HeldSocket)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        match source.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(()),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            // After 1,000,000 objects without a record the kernel lets others run:
            // kernel/bpf/bpf_iter.c, MAX_ITER_OBJECTS.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        let whole = filled - filled % RECORD_BYTES;
        buffer[..whole].chunks_exact(RECORD_BYTES).for_each(|bytes| take(&record(bytes)));
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn record(bytes: &[u8]) -> HeldSocket {
    let mut words = [0; HeldSocket::WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    HeldSocket::from_words(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and now and then nothing yet.
    struct Dribble {
        bytes: Vec<u8>,
        step: usize,
        turn: usize,
    }

    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn.is_multiple_of(3) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let length = self.step.min(buffer.len()).min(self.bytes.len());
            buffer[..length].copy_from_slice(&self.bytes[..length]);
            self.bytes.drain(..length);
            Ok(length)
        }
    }

    fn read_by(step: usize, bytes: Vec<u8>) -> io::Result<Vec<u64>> {
        let mut seen = Vec::new();
        read(Dribble { bytes, step, turn: 0 }, |record| seen.push(record.socket))?;
        Ok(seen)
    }

    #[test]
    fn records_are_whole_however_they_come() {
        let sockets: Vec<u64> = (1..200).collect();
        let bytes: Vec<u8> = sockets
            .iter()
            .flat_map(|socket| {
                HeldSocket { socket: *socket, ..HeldSocket::default() }.words().to_vec()
            })
            .flat_map(u64::to_ne_bytes)
            .collect();
        for step in [1, 71, 72, 73, 10_000] {
            assert_eq!(read_by(step, bytes.clone()).unwrap(), sockets, "{step}");
        }
        let cut = bytes[..bytes.len() - 1].to_vec();
        assert_eq!(read_by(100, cut).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
