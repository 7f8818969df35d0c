//! What a lease has said, and what it has left: read in parts, whether its process runs or not.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use capex_core::ids::LeaseId;
use capex_core::lease::objects::Stream;
use rustix::fs::OFlags;

use super::error::{At, ExecutorError};
use super::logs::{LogChunk, read_range};
use super::manager::Manager;

impl Manager {
    /// At most `max` bytes of a stream from an offset, `max` being cut to
    /// [`capex_core::limits::LEASE_CHUNK_BYTES`].
    ///
    /// # Errors
    /// `lease.not_found`, `executor.io`.
    pub fn read_log(
        &self,
        lease: &LeaseId,
        stream: Stream,
        from: u64,
        max: usize,
    ) -> Result<LogChunk, ExecutorError> {
        let lease = self.shared.known(lease)?;
        let path = lease.dir.log(stream);
        // Before the bytes, so that nothing can be written between them and the end.
        let ended = lease.record()?.state.is_over();
        if !path.exists() {
            return Ok(LogChunk { bytes: Vec::new(), end: ended });
        }
        let mut file = File::open(&path).at(&path)?;
        let bytes = read_range(&mut file, from, max).at(&path)?;
        let read_to = from.saturating_add(bytes.len() as u64);
        let end = ended && read_to >= file.metadata().at(&path)?.len();
        Ok(LogChunk { bytes, end })
    }

    /// At most `max` bytes of a result from an offset, once the workload is over. Only
    /// regular files that the specification names: a link the workload left is no result.
    ///
    /// # Errors
    /// `lease.not_found`, `result.not_ended`, `result.not_found`, `executor.io`.
    pub fn read_result(
        &self,
        lease: &LeaseId,
        name: &str,
        from: u64,
        max: usize,
    ) -> Result<LogChunk, ExecutorError> {
        let lease = self.shared.known(lease)?;
        if !lease.spec().workload.results.iter().any(|result| result == name) {
            return Err(ExecutorError::NoResult);
        }
        if !lease.record()?.state.is_over() {
            return Err(ExecutorError::NotEnded);
        }
        let path = lease.dir.work().join(name);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let mut file = opened.map_err(|_| ExecutorError::NoResult)?;
        let meta = file.metadata().at(&path)?;
        if !meta.is_file() {
            return Err(ExecutorError::NoResult);
        }
        let bytes = read_range(&mut file, from, max).at(&path)?;
        let end = from.saturating_add(bytes.len() as u64) >= meta.len();
        Ok(LogChunk { bytes, end })
    }
}
