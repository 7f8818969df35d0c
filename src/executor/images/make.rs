//! An archive of files of this machine.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Writes the files, each under its name, into an archive of a root file system.
///
/// # Errors
/// A file cannot be read or written.
pub(in crate::executor) fn write_archive(files: &[(PathBuf, String)], to: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::new(File::create(to)?));
    for (path, name) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(fs::metadata(path)?.len());
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, File::open(path)?)?;
    }
    io::Write::flush(&mut archive.into_inner()?)
}
