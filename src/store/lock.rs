//! One process per store: an advisory lock that dies with its holder and names it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::StoreError;

const LOCK_FILE: &str = "lock";

/// The held lock; dropping it lets the next process in.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `dir` without waiting.
    ///
    /// # Errors
    /// [`StoreError::Locked`] with the holder's process id when another process has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let io = |source| StoreError::io("open", &path, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                write_pid(&mut file).map_err(|e| StoreError::io("write", &path, e))?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Locked { dir: dir.to_owned(), pid: read_pid(&mut file) })
            }
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
        }
    }
}

/// The process that has the store in `dir` open, if it is of the same user: its lock dies with
/// it, so the file alone says nothing. Takes no lock, which could keep a node from starting.
#[must_use]
pub fn holder(dir: &Path) -> Option<u32> {
    let path = dir.join(LOCK_FILE).canonicalize().ok()?;
    let pid = read_pid(&mut File::open(&path).ok()?)?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is_open = |file: std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|target| target == path)
    };
    files.flatten().any(is_open).then_some(pid)
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
