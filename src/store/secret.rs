//! Secrets in files: readable by their owner alone, whole or absent, never replaced by chance.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

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

/// Writes a new file of mode 0600, durably and whole; one that is there already stays.
///
/// # Errors
/// The system refuses.
pub fn create_private(path: &Path, content: impl AsRef<[u8]>) -> Result<(), SecretError> {
    let link = |temporary: &Path| match fs::hard_link(temporary, path) {
        // One that appeared meanwhile is never replaced.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    write_private(path, content.as_ref(), link).map_err(|source| SecretError::io(path, source))
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
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
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
