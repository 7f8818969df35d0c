//! The file `<datadir>/endpoints`: JSON, written when the daemon is ready, removed when it
//! stops, so that port 0 works and the command line finds its daemon.

use std::io;
use std::path::{Path, PathBuf};

use super::types::Endpoints;

/// Name of the file in the data directory.
pub const ENDPOINTS_FILE: &str = "endpoints";

/// The file of a daemon. Removes it when dropped.
#[derive(Debug)]
pub struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// The file of a data directory, not written yet.
    #[must_use]
    pub fn of(datadir: &Path) -> Self {
        Self(datadir.join(ENDPOINTS_FILE))
    }

    /// Whether the file is there and says so.
    #[must_use]
    pub fn holds(&self, endpoints: &Endpoints) -> bool {
        let found = std::fs::read(&self.0).unwrap_or_default();
        serde_json::to_vec_pretty(endpoints).is_ok_and(|text| text == found)
    }

    /// Replaces the content at once: a reader sees all of it or what was there before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, endpoints: &Endpoints) -> io::Result<()> {
        let part = self.0.with_extension("part");
        std::fs::write(&part, serde_json::to_vec_pretty(endpoints)?)?;
        std::fs::rename(&part, &self.0)
    }
}

impl Drop for EndpointsFile {
    fn drop(&mut self) {
        // A file left behind names a process that is gone; the command line says so.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Reads the file of a data directory.
///
/// # Errors
/// There is no such file, or it is not a daemon's.
pub fn read(datadir: &Path) -> io::Result<Endpoints> {
    let text = std::fs::read(datadir.join(ENDPOINTS_FILE))?;
    Ok(serde_json::from_slice(&text)?)
}
