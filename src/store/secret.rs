//! Secrets in files: readable by their owner alone, whole or absent, never replaced by chance.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// Identity of the node in a data directory.
pub const IDENTITY_FILE: &str = "identity.key";
/// Seed of the wallet in a data directory.
pub const SEED_FILE: &str = "wallet.seed";

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can be read by others than its owner.
    #[error("{} has mode {mode:03o}; allow only its owner: chmod 600 {}", .path.display(), .path.display())]
    Permissions { path: PathBuf, mode: u32 },
    /// The file does not hold what it should.
    #[error("{} does not hold a secret in its form; restore it from its backup", .0.display())]
    Invalid(PathBuf),
    /// A seed as 64 hex digits, from which no words follow.
    #[error("{} holds a seed of an earlier form, which this release does not read", .0.display())]
    OldForm(PathBuf),
    /// The file is sealed, and no password was given.
    #[error("{} is sealed with a password", .0.display())]
    Sealed(PathBuf),
    /// The file is not sealed.
    #[error("{} is not sealed", .0.display())]
    NotSealed(PathBuf),
    /// The file was sealed with another password, or was changed.
    #[error("the password does not open {}", .0.display())]
    WrongPassword(PathBuf),
    /// The password file is empty.
    #[error("{} holds no password", .0.display())]
    NoPassword(PathBuf),
    /// The file does not hold words of a seed.
    #[error("{} does not hold the words of a seed: {}", .0.display(), .1)]
    Words(PathBuf, String),
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl SecretError {
    /// Stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Permissions { .. } => "secret.permissions",
            Self::Invalid(_) => "secret.invalid",
            Self::OldForm(_) => "secret.old_form",
            Self::Sealed(_) => "secret.sealed",
            Self::NotSealed(_) => "secret.not_sealed",
            Self::WrongPassword(_) => "secret.wrong_password",
            Self::NoPassword(_) => "secret.no_password",
            Self::Words(..) => "secret.words",
            Self::Io { .. } => "secret.io",
        }
    }

    /// Whether a new file was not written because there is one.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
    }

    /// A file that the system refuses.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// Others may read it, it is longer than `max_bytes`, or the system refuses.
pub fn read_private(path: &Path, max_bytes: u64) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let io = |source| SecretError::io(path, source);
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Permissions { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(SecretError::Invalid(path.to_owned()));
    }
    Ok(bytes)
}

/// Writes a new file of mode 0600, durably and whole.
///
/// # Errors
/// There is one already ([`SecretError::is_already_there`]), which stays; or the system refuses.
pub fn create_private(path: &Path, content: impl AsRef<[u8]>) -> Result<(), SecretError> {
    let place = |temporary: &Path| match rename_new(temporary, path) {
        Err(error) if is_unknown(&error) => fs::hard_link(temporary, path),
        other => other,
    };
    write_private(path, content.as_ref(), place).map_err(|source| SecretError::io(path, source))
}

/// Renames unless there is such a file: also where a file cannot have two names, as on a memory
/// stick.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Whether a file system does not know how to rename so: those of networks, which know links.
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP];
    unknown.iter().any(|known| error.raw_os_error() == Some(known.raw_os_error()))
}

/// Puts a file of mode 0600 in the place of another, durably and whole.
///
/// # Errors
/// The system refuses; the old file is there then.
pub fn replace_private(path: &Path, content: impl AsRef<[u8]>) -> Result<(), SecretError> {
    let rename = |temporary: &Path| fs::rename(temporary, path);
    write_private(path, content.as_ref(), rename).map_err(|source| SecretError::io(path, source))
}

/// Writes under a temporary name first, so that a crash leaves a whole file or none.
fn write_private(
    path: &Path,
    content: &[u8],
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = match options.open(&temporary) {
        // Of a process that died while it wrote: in a container each has the same number.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary)?;
            options.open(&temporary)?
        }
        other => other?,
    };
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| place(&temporary));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => other?,
    }
    written?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a directory, by name.
    fn found(dir: &Path) -> Vec<(String, String)> {
        let file = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().to_string_lossy().into_owned(), text)
        };
        let mut found: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| file(entry.unwrap())).collect();
        found.sort();
        found
    }

    #[test]
    fn a_file_that_is_there_stays_and_the_caller_knows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        create_private(&path, "first").unwrap();
        assert!(create_private(&path, "second").unwrap_err().is_already_there());
        assert_eq!(found(dir.path()), [("file".to_owned(), "first".to_owned())]);
        replace_private(&path, "third").unwrap();
        assert_eq!(found(dir.path()), [("file".to_owned(), "third".to_owned())]);
    }

    #[test]
    fn what_a_dead_process_of_the_same_number_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        let stale = path.with_extension(format!("{}.tmp", std::process::id()));
        let whole = [("a.key".to_owned(), "whole".to_owned())];
        fs::write(&stale, "half").unwrap();
        create_private(&path, "whole").unwrap();
        assert_eq!(found(dir.path()), whole);
        fs::write(&stale, "half").unwrap();
        replace_private(&path, "whole").unwrap();
        assert_eq!(found(dir.path()), whole);
    }
}
