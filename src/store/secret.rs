//! Secrets in files: 32 bytes as hex, readable by their owner alone, made at the first start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use capex_core::ids::{from_hex, to_hex};

/// Longest file that is read, bytes: 64 digits and a line end.
const FILE_MAX_BYTES: u64 = 66;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can be read by others than its owner.
    #[error("{} has mode {mode:03o}; allow only its owner: chmod 600 {}", .path.display(), .path.display())]
    Permissions { path: PathBuf, mode: u32 },
    /// The file does not hold 32 bytes in hex.
    #[error("{} must hold 64 lower-case hex digits; restore it from its backup", .0.display())]
    Invalid(PathBuf),
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
            Self::Io { .. } => "secret.io",
        }
    }
}

/// Reads the secret of a file, or makes it from the system's randomness: 32 bytes in hex,
/// mode 0600.
///
/// # Errors
/// Others may read the file, it holds something else, or the system refuses.
pub fn load_or_create_secret(path: &Path) -> Result<[u8; 32], SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(path).map_err(io)?;
            read(path, File::open(path).map_err(io)?)
        }
        Err(error) => Err(io(error)),
    }
}

fn read(path: &Path, file: File) -> Result<[u8; 32], SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Permissions { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    from_hex(text.strip_suffix('\n').unwrap_or(text))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| SecretError::Invalid(path.to_owned()))
}

/// Writes a fresh secret under a temporary name first, so that a crash leaves a whole file
/// or none, and links it into place, so that one that appeared meanwhile is never replaced.
fn create(path: &Path) -> io::Result<()> {
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = writeln!(file, "{}", to_hex(&secret))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        }
    }
}
