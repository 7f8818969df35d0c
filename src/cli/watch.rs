//! Shows something again and again until it is interrupted.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::output::Page;
use capex_core::reason;

/// Pause between two looks: a person reads no faster, and a daemon has better things to do.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its first cell.
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";

/// Looks and shows every [`LOOK_EVERY`]: in place on a terminal, otherwise block after block,
/// with `--json` one JSON value a line. Ends without a failure on an interrupt, and with the
/// first write after the reader closed standard output.
///
/// # Errors
/// What a look failed with.
pub fn watch<T: Serialize>(
    context: &mut Context<'_>,
    mut look: impl FnMut() -> Result<T, Failure>,
    page: impl Fn(&T, &mut Page),
) -> Result<(), Failure> {
    let interrupted = interrupts()?;
    loop {
        let found = look()?;
        if context.global.json {
            context.io.json_line(&found)?;
        } else {
            let mut text = Page::default();
            page(&found, &mut text);
            if context.io.out_is_terminal {
                context.io.out.write_all(CLEAR)?;
            } else {
                text.line("");
            }
            context.io.page(&text)?;
        }
        context.io.out.flush()?;
        match interrupted.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            // Interrupted, or nothing listens for interrupts any more.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Tells when SIGINT or SIGTERM comes. The handlers are in place when this returns.
fn interrupts() -> Result<Receiver<()>, Failure> {
    let refuse = |error: std::io::Error| {
        Failure::new(reason!("cli.signals"), format!("cannot listen for signals: {error}"))
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refuse)?;
    let signals = {
        let _entered = runtime.enter();
        use tokio::signal::unix::{SignalKind, signal};
        (
            signal(SignalKind::interrupt()).map_err(refuse)?,
            signal(SignalKind::terminate()).map_err(refuse)?,
        )
    };
    let (told, interrupted) = channel();
    std::thread::spawn(move || {
        let (mut interrupt, mut terminate) = signals;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // The command may have ended by itself.
        let _ = told.send(());
    });
    Ok(interrupted)
}
