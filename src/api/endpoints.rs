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
    /// Writes the file at once: a reader sees all of it or none.
    ///
    /// # Errors
    /// The file can not be written.
    pub fn write(datadir: &Path, endpoints: &Endpoints) -> io::Result<Self> {
        let path = datadir.join(ENDPOINTS_FILE);
        let part = datadir.join("endpoints.part");
        std::fs::write(&part, serde_json::to_vec_pretty(endpoints)?)?;
        std::fs::rename(&part, &path)?;
        Ok(Self(path))
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
