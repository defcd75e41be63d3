//! Lines of aya-log, from an object that was built with `cargo xtask build-ebpf --log`. The
//! committed one has none.

use std::{io, os::fd::AsFd as _};

use aya::Ebpf;
use aya_log::EbpfLogger;
use c1m_sys::readable::Readable;

use super::TraceError;

/// The kernel programs' own log, on standard error.
pub(super) struct KernelLog {
    logger: EbpfLogger<ToStandardError>,
    ready: Readable,
}

struct ToStandardError;

impl log::Log for ToStandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}

impl KernelLog {
    /// `None`: the object does not log.
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Option<Self>, TraceError> {
        match EbpfLogger::init_with_logger(ebpf, ToStandardError) {
            Ok(logger) => Ok(Some(Self { ready: Readable::new(logger.as_fd())?, logger })),
            Err(aya_log::Error::MapNotFound) => Ok(None),
            Err(error) => Err(TraceError::Load(error.to_string())),
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.ready.wait().await
    }

    pub(super) fn flush(&mut self) {
        self.logger.flush();
    }
}
