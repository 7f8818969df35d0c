//! A root file system that is being laid down. Every path is resolved by the kernel beneath
//! its root: a link that leads out of it is an error, whenever it was made.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat,
    chownat, fchmod, fchown, futimens, linkat, mkdirat, mknodat, openat, openat2, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Bounds, IDS, Unpacked};
use crate::executor::images::error::ImageError;
use crate::executor::images::names::{DEPTH_MAX, PATH_MAX_BYTES, Parts, shown};
use crate::executor::images::tars::{Header, Kind};

/// Directories that an archive does not mention.
const DIRECTORY_MODE: u32 = 0o755;
/// Bits of a mode that are kept. A program that takes on its owner's rights does not in a
/// lease, and half of all images have some: the bit is dropped, and the program stays.
const FILE_MODE: u32 = 0o777;
/// Directories keep the bits that let others write in them, and hand down their group.
const SHARED_MODE: u32 = 0o3777;
/// Copied at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Where the root of what is unpacked is open.
pub(super) struct Tree {
    root: OwnedFd,
    bounds: Bounds,
    first_id: Option<u32>,
    used: Unpacked,
}

impl Tree {
    pub(super) fn open(
        root: &Path,
        bounds: Bounds,
        first_id: Option<u32>,
    ) -> Result<Self, ImageError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|error| ImageError::io(root.display().to_string())(error.into()))?;
        let tree = Self { root, bounds, first_id, used: Unpacked::default() };
        // An archive need not mention it.
        tree.own(tree.root.as_fd(), "", 0, 0)?;
        tree.chmod(tree.root.as_fd(), ".", DIRECTORY_MODE)?;
        Ok(tree)
    }

    pub(super) fn used(&self) -> Unpacked {
        self.used
    }

    /// Lays down one entry. What another entry of the same name laid down is replaced.
    pub(super) fn lay(
        &mut self,
        header: &Header,
        parts: &Parts,
        content: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let (uid, gid) = ids(header)?;
        let Some((above, name)) = parts.split() else {
            if header.kind != Kind::Directory {
                return Err(ImageError::Path(".".to_owned()));
            }
            self.own(self.root.as_fd(), "", uid, gid)?;
            return self.chmod(self.root.as_fd(), ".", header.mode & SHARED_MODE);
        };
        self.count()?;
        let dir = self.directory(above)?;
        match header.kind {
            Kind::Directory => self.lay_directory(&dir, name, header, (uid, gid)),
            Kind::File => self.lay_file(&dir, name, header, (uid, gid), content),
            Kind::Symlink => self.lay_symlink(&dir, name, header, (uid, gid)),
            Kind::Link => self.lay_link(&dir, name, header),
            Kind::Pipe => {
                remove(dir.as_fd(), name, 0)?;
                let mode = Mode::from_raw_mode(header.mode & FILE_MODE);
                mknodat(&dir, name, FileType::Fifo, mode, 0).map_err(failed(name))?;
                self.own(dir.as_fd(), name, uid, gid)
            }
            Kind::Special => Err(ImageError::Special(shown(&header.path))),
        }
    }

    /// Removes a name of a directory, if both are there.
    pub(super) fn hide(&self, above: &[String], name: &str) -> Result<(), ImageError> {
        match self.existing(above)? {
            Some(dir) => remove(dir.as_fd(), name, 0),
            None => Ok(()),
        }
    }

    /// Removes all that is in a directory, if it is there.
    pub(super) fn empty(&self, above: &[String]) -> Result<(), ImageError> {
        match self.existing(above)? {
            Some(dir) => remove_content(dir.as_fd(), 0),
            None => Ok(()),
        }
    }

    fn lay_directory(
        &self,
        dir: &OwnedFd,
        name: &str,
        header: &Header,
        (uid, gid): (u32, u32),
    ) -> Result<(), ImageError> {
        let is_directory = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_directory {
            remove(dir.as_fd(), name, 0)?;
            mkdirat(dir, name, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(failed(name))?;
        }
        self.own(dir.as_fd(), name, uid, gid)?;
        self.chmod(dir.as_fd(), name, header.mode & SHARED_MODE)
    }

    fn lay_file(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        header: &Header,
        (uid, gid): (u32, u32),
        content: &mut dyn Read,
    ) -> Result<(), ImageError> {
        remove(dir.as_fd(), name, 0)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = openat(dir, name, flags | OFlags::CLOEXEC, mode).map_err(failed(name))?;
        let mut file = File::from(file);
        self.copy(name, content, header.size, &mut file)?;
        if let Some((uid, gid)) = self.shifted(uid, gid) {
            fchown(&file, Some(uid), Some(gid)).map_err(failed(name))?;
        }
        fchmod(&file, Mode::from_raw_mode(header.mode & FILE_MODE)).map_err(failed(name))?;
        let time = Timespec { tv_sec: i64::try_from(header.mtime).unwrap_or(0), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        futimens(&file, &times).map_err(failed(name))
    }

    fn lay_symlink(
        &self,
        dir: &OwnedFd,
        name: &str,
        header: &Header,
        (uid, gid): (u32, u32),
    ) -> Result<(), ImageError> {
        // Where it leads is for whoever follows it in the lease; here nobody follows it out.
        let is_text = !header.link.is_empty()
            && header.link.len() <= PATH_MAX_BYTES
            && !header.link.contains(&0)
            && std::str::from_utf8(&header.link).is_ok();
        if !is_text {
            return Err(ImageError::Link(shown(&header.path)));
        }
        remove(dir.as_fd(), name, 0)?;
        symlinkat(&header.link[..], dir, name).map_err(failed(name))?;
        self.own(dir.as_fd(), name, uid, gid)
    }

    fn lay_link(&self, dir: &OwnedFd, name: &str, header: &Header) -> Result<(), ImageError> {
        let refused = || ImageError::Link(shown(&header.path));
        let target = Parts::of(&header.link).map_err(|_| refused())?;
        let (above, target) = target.split().ok_or_else(refused)?;
        let from = self.existing(above)?.ok_or_else(refused)?;
        let stat = statat(&from, target, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| refused())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused());
        }
        remove(dir.as_fd(), name, 0)?;
        linkat(&from, target, dir, name, AtFlags::empty()).map_err(|error| match error {
            // Replaced by itself.
            Errno::NOENT => refused(),
            error => failed(name)(error),
        })
    }

    fn copy(
        &mut self,
        name: &str,
        content: &mut dyn Read,
        size: u64,
        file: &mut File,
    ) -> Result<(), ImageError> {
        if size > self.bounds.bytes.saturating_sub(self.used.bytes) {
            return Err(ImageError::TooLarge(self.bounds.bytes));
        }
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(size).unwrap_or(usize::MAX))];
        let mut left = size;
        while left > 0 {
            let read = content.read(&mut buffer).map_err(super::broken)?;
            if read == 0 {
                return Err(ImageError::Archive("it is cut off".to_owned()));
            }
            io::Write::write_all(file, &buffer[..read]).map_err(|error| from_io(name, error))?;
            left = left.saturating_sub(read as u64);
        }
        self.used.bytes += size;
        Ok(())
    }

    /// One file more.
    fn count(&mut self) -> Result<(), ImageError> {
        self.used.files += 1;
        if self.used.files <= self.bounds.files {
            return Ok(());
        }
        Err(ImageError::TooMany(self.bounds.files))
    }

    /// Opens a directory beneath the root, and makes what is missing of it.
    fn directory(&mut self, parts: &[String]) -> Result<OwnedFd, ImageError> {
        if let Some(dir) = self.existing(parts)? {
            return Ok(dir);
        }
        for depth in 1..=parts.len() {
            if self.existing(&parts[..depth])?.is_none() {
                let (above, name) = (&parts[..depth - 1], &parts[depth - 1]);
                let dir = self.existing(above)?.ok_or_else(|| not_below(parts))?;
                let mode = Mode::from_raw_mode(DIRECTORY_MODE);
                // There already: a link to what is not, and following it would lead astray.
                mkdirat(&dir, name, mode).map_err(|error| match error {
                    Errno::EXIST => not_below(parts),
                    error => failed(name)(error),
                })?;
                self.own(dir.as_fd(), name, 0, 0)?;
                self.count()?;
            }
        }
        self.existing(parts)?.ok_or_else(|| not_below(parts))
    }

    /// Opens a directory beneath the root; `None` if there is none of this name.
    fn existing(&self, parts: &[String]) -> Result<Option<OwnedFd>, ImageError> {
        let path = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match openat2(&self.root, path, flags, Mode::empty(), within) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV | Errno::LOOP | Errno::NOTDIR) => Err(not_below(parts)),
            Err(error) => Err(failed(&parts.join("/"))(error)),
        }
    }

    fn shifted(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        let first = self.first_id?;
        let of = |id| first.saturating_add(id);
        Some((Uid::from_raw(of(uid)), Gid::from_raw(of(gid))))
    }

    /// Gives a name its owner; an empty name is the directory itself.
    fn own(&self, dir: BorrowedFd<'_>, name: &str, uid: u32, gid: u32) -> Result<(), ImageError> {
        let Some((uid, gid)) = self.shifted(uid, gid) else {
            return Ok(());
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        chownat(dir, name, Some(uid), Some(gid), flags).map_err(failed(name))
    }

    /// Changes the mode of a directory that was just made or found to be one.
    fn chmod(&self, dir: BorrowedFd<'_>, name: &str, mode: u32) -> Result<(), ImageError> {
        let mode = Mode::from_raw_mode(mode);
        chmodat(dir, name, mode, AtFlags::empty()).map_err(failed(name))
    }
}

fn ids(header: &Header) -> Result<(u32, u32), ImageError> {
    let of = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id < IDS)
            .ok_or_else(|| ImageError::Owner { path: shown(&header.path), id })
    };
    Ok((of(header.uid)?, of(header.gid)?))
}

fn not_below(parts: &[String]) -> ImageError {
    ImageError::Path(shown(parts.join("/").as_bytes()))
}

/// Removes whatever has a name in a directory.
fn remove(dir: BorrowedFd<'_>, name: &str, depth: usize) -> Result<(), ImageError> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(failed(name)(error)),
    }
    if depth > DEPTH_MAX {
        return Err(ImageError::Path(shown(name.as_bytes())));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(dir, name, flags, Mode::empty()).map_err(failed(name))?;
    remove_content(inner.as_fd(), depth)?;
    unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(failed(name))
}

fn remove_content(dir: BorrowedFd<'_>, depth: usize) -> Result<(), ImageError> {
    let entries = Dir::read_from(dir).map_err(failed("."))?;
    for entry in entries {
        let entry = entry.map_err(failed("."))?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => remove(dir, name, depth + 1)?,
            // Nothing of such a name was laid down.
            Err(_) => return Err(ImageError::Path(shown(entry.file_name().to_bytes()))),
        }
    }
    Ok(())
}

fn failed(name: &str) -> impl Fn(Errno) -> ImageError {
    let name = name.to_owned();
    move |error| from_io(&name, error.into())
}

fn from_io(name: &str, error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::NoRoom,
        _ => ImageError::Io { what: shown(name.as_bytes()), source: error },
    }
}
