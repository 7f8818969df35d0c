//! What a workload writes, as it writes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

use super::cut::Cut;
use super::doors::{Now, Run};
use super::files::failed;
use super::frames::{FRAME_MAX_BYTES, frame, kind};
use super::programs::finish;
use crate::executor::layout::LeaseDir;
use capex_core::lease::objects::Stream;

/// Between two looks at a log.
const LOOK: Duration = Duration::from_millis(50);

/// The logs of a workload, from some place on.
pub(super) struct Follow(Vec<(u8, File)>);

/// Opens them: all of it, or from now on.
pub(super) fn open(dir: &LeaseDir, from_start: bool) -> io::Result<Follow> {
    let logs = [(kind::OUTPUT, Stream::Stdout), (kind::ERRORS, Stream::Stderr)];
    let open = |(kind, stream)| {
        let mut file = File::open(dir.log(stream))?;
        if !from_start {
            file.seek(SeekFrom::End(0))?;
        }
        Ok((kind, file))
    };
    logs.into_iter().map(open).collect::<io::Result<_>>().map(Follow)
}

impl Follow {
    /// Gives them to the other end until the workload has ended, and its exit code.
    pub(super) async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite,
        now: watch::Receiver<Now>,
        cut: Cut,
    ) {
        let (mut from, mut to) = split(stream);
        let work = async {
            loop {
                // Looked at before the logs are: what it wrote is in them when it has ended.
                let code = match now.borrow().run {
                    Run::Exited { code } => Some(code),
                    Run::Waits | Run::Begins | Run::Runs(_) => None,
                };
                while !cut.is_now() && self.give(&mut to).await? {}
                if cut.is_now() {
                    return to.write_all(&failed(&Cut::failure())).await;
                }
                if let Some(code) = code {
                    return to.write_all(&frame(kind::EXIT, &code.to_be_bytes())).await;
                }
                sleep(LOOK).await;
            }
        };
        let mut sink = tokio::io::sink();
        tokio::select! {
            // Whoever is gone needs no more.
            _ = work => {}
            _ = tokio::io::copy(&mut from, &mut sink) => return,
        }
        finish(from, Arc::new(Mutex::new(to))).await;
    }

    /// Whether there was anything.
    async fn give(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<bool> {
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        let mut was_any = false;
        for (kind, file) in &mut self.0 {
            let count = file.read(&mut buffer)?;
            if count > 0 {
                was_any = true;
                to.write_all(&frame(*kind, &buffer[..count])).await?;
            }
        }
        Ok(was_any)
    }
}
