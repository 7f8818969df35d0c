//! Files that a command writes for its user: whole and durable or not at all, and never in the
//! place of another unless that is asked for.

use std::path::{Path, PathBuf};

use super::Context;
use super::failure::Failure;
use crate::store::{create_private, replace_private};
use capex_core::reason;

/// Where an export goes.
#[derive(Debug, clap::Args)]
pub struct Out {
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "out")]
    pub force: bool,
}

impl Out {
    /// Writes the file and says where, if one was named.
    ///
    /// # Errors
    /// As [`write()`]; `None` if there is no file to write.
    pub fn write(&self, bytes: &[u8], context: &mut Context<'_>) -> Option<Result<(), Failure>> {
        let path = self.out.as_deref()?;
        Some(write(path, bytes, self.force).and_then(|()| {
            context.show(&serde_json::json!({ "path": path }), |_, page| {
                page.line(format_args!("written to {}", path.display()));
            })
        }))
    }
}

/// Writes a file of mode 0600. What is no file, as a terminal or a pipe, takes the bytes as it is.
///
/// # Errors
/// `file.exists` unless it may be replaced, `file.unusable`.
pub fn write(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(path, bytes).map_err(|error| Failure::file(path, &error));
    }
    let place = if force { replace_private } else { create_private };
    place(path, bytes).map_err(|error| {
        if error.is_already_there() {
            let message = format!("{} is there already", path.display());
            return Failure::new(reason!("file.exists"), message);
        }
        Failure::new(reason!("file.unusable"), error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_unless_it_may_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.txt");
        let written = |bytes: &[u8], force| {
            let code = write(&path, bytes, force).err().map(|failure| failure.code);
            (code, std::fs::read(&path).unwrap())
        };
        assert_eq!(written(b"first", false), (None, b"first".to_vec()));
        assert_eq!(written(b"second", false), (Some("file.exists".to_owned()), b"first".to_vec()));
        assert_eq!(written(b"third", true), (None, b"third".to_vec()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        for force in [false, true] {
            write(Path::new("/dev/null"), b"bytes", force).unwrap();
        }
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        let refused = write(Path::new("/nowhere/at/all"), b"", false).unwrap_err();
        assert_eq!(refused.code, "file.unusable");
    }
}
