//! Lines of aya-log, from an object that was built with `cargo xtask build-ebpf --log`. The committed one has none.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use super::TraceError;
use crate::sys::readiness;

/// The kernel programs' own log, on standard error.
pub(super) struct KernelLog(AsyncFd<EbpfLogger<ToStandardError>>);

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
            Ok(logger) => Ok(Some(Self(readiness::logger(logger)?))),
            Err(aya_log::Error::MapNotFound) => Ok(None),
            Err(error) => Err(TraceError::Load(error.to_string())),
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        self.0.get_mut().flush();
    }
}
