//! SIGINT, SIGTERM, SIGHUP and SIGQUIT. Handlers, not a mask: neither a handler nor its absence is handed on to started programs.

use std::{io, sync::mpsc, thread};

use tokio::signal::unix::{SignalKind, signal};

/// From here on these signals do nothing in this process.
pub(super) fn ignore() -> io::Result<()> {
    watch(|| {})
}

/// From here on each of these signals calls `arrived`, in a thread of its own.
pub(crate) fn watch(mut arrived: impl FnMut() + Send + 'static) -> io::Result<()> {
    let (ready, is_ready) = mpsc::channel();
    thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            // The receiver waits for exactly this.
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            let kinds = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
                signal(SignalKind::hangup()),
                signal(SignalKind::quit()),
            );
            let (mut interrupt, mut terminate, mut hangup, mut quit) = match kinds {
                (Ok(interrupt), Ok(terminate), Ok(hangup), Ok(quit)) => {
                    (interrupt, terminate, hangup, quit)
                }
                (Err(error), ..) | (_, Err(error), ..) | (.., Err(error), _) | (.., Err(error)) => {
                    return drop(ready.send(Err(error)));
                }
            };
            if ready.send(Ok(())).is_err() {
                return;
            }
            loop {
                tokio::select! {
                    _ = interrupt.recv() => arrived(),
                    _ = terminate.recv() => arrived(),
                    _ = hangup.recv() => arrived(),
                    _ = quit.recv() => arrived(),
                }
            }
        });
    })?;
    is_ready.recv().map_err(io::Error::other)?
}
