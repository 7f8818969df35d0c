//! The directory of a run: a directory per node, one log per child.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::broken::Broken;
use crate::cli::failure::Failure;
use capex_core::reason;

/// Names that are tried for a temporary directory: only dead runs of the same pid are in
/// the way.
const TRIES: u32 = 100;

/// A directory that goes with its owner, unless it is kept.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    /// The named directory, which stays, or a fresh temporary one.
    ///
    /// # Errors
    /// The directory cannot be created, or has content already.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, Broken> {
        match named {
            Some(path) => Self::named(path).map_err(Into::into),
            None => Self::temporary().map_err(Into::into),
        }
    }

    fn named(path: &Path) -> Result<Self, Failure> {
        let refuse = |error: io::Error| Failure::file(path, &error);
        private(true).create(path).map_err(refuse)?;
        if fs::read_dir(path).map_err(refuse)?.next().is_some() {
            let message = format!("{} is not empty", path.display());
            return Err(Failure::new(reason!("devnet.dir_not_empty"), message)
                .with_hint("a market begins with nothing: name a new directory"));
        }
        let path = fs::canonicalize(path).map_err(refuse)?;
        Ok(Self { path, temporary: false })
    }

    fn temporary() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        let pid = std::process::id();
        for n in 0..TRIES {
            let path = base.join(format!("capex-devnet-{pid}-{n}"));
            // Creating refuses what is already there, so nobody can prepare it.
            match private(false).create(&path) {
                Ok(()) => {
                    return Ok(Self { path, temporary: true });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::file(&path, &error)),
            }
        }
        Err(Failure::file(&base, &io::Error::from(ErrorKind::AlreadyExists)))
    }

    /// Leaves the directory where it is.
    pub(super) fn keep(&mut self) {
        self.temporary = false;
    }

    /// Whether it stays after this run.
    pub(super) fn is_kept(&self) -> bool {
        !self.temporary
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Directory of a child.
    pub(super) fn dir(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Log of a child.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// Writes files into a child's directory that only the owner can read.
    ///
    /// # Errors
    /// The first file that cannot be written.
    pub(super) fn write(&self, name: &str, files: &[(&str, String)]) -> Result<PathBuf, Failure> {
        let dir = self.dir(name);
        private(true).create(&dir).map_err(|error| Failure::file(&dir, &error))?;
        for (file, text) in files {
            let path = dir.join(file);
            let mut options = fs::OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|error| Failure::file(&path, &error))?;
        }
        Ok(dir)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed stays for the system's own cleaning of /tmp.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn private(recursive: bool) -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(recursive).mode(0o700);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_home_goes_and_a_named_one_stays_and_must_be_empty() {
        let temporary = Home::open(None).unwrap();
        let path = temporary.path().to_owned();
        temporary.write("node", &[("file", "text".to_owned())]).unwrap();
        assert!(path.join("node/file").exists());
        drop(temporary);
        assert!(!path.exists());

        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("market");
        let home = Home::open(Some(&named)).unwrap();
        home.write("node", &[]).unwrap();
        drop(home);
        assert!(named.join("node").exists());
        let refused = Home::open(Some(&named)).unwrap_err();
        assert_eq!(refused.failure.code, "devnet.dir_not_empty");
    }
}
