//! The file `<datadir>/endpoints`: JSON, written when the daemon is ready, removed when it
//! stops, so that port 0 works and the command line finds its daemon.

use std::io;
use std::path::{Path, PathBuf};

use super::types::Endpoints;

/// Name of the file in the data directory.
pub const ENDPOINTS_FILE: &str = "endpoints";

/// The written file. Removes it when dropped.
#[derive(Debug)]
pub struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Writes the file of a data directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(datadir: &Path, endpoints: &Endpoints) -> io::Result<Self> {
        let file = Self(datadir.join(ENDPOINTS_FILE));
        file.rewrite(endpoints)?;
        Ok(file)
    }

    /// Replaces the content at once: a reader sees all of it or what was there before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rewrite(&self, endpoints: &Endpoints) -> io::Result<()> {
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
