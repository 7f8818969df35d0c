//! Files of a lease, reached from outside. The kernel resolves every path as the workload would:
//! what it made a link of leads nowhere else. Paths begin at the root, with or without a slash.

use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, chownat, fchown, mkdirat,
    openat2, readlinkat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// Longest of the small files that are read as a whole: those that name users.
const TEXT_MAX_BYTES: u64 = 1 << 20;
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// Of a mode: what a lease may set. Its disk takes no setuid files in any case.
const MODE: u32 = 0o1777;

/// The root of what a workload sees, open.
#[derive(Debug)]
pub(in crate::executor) struct Within(OwnedFd);

/// How a file is opened to be written.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::executor) struct Writing {
    /// Also to be read.
    pub(in crate::executor) is_read: bool,
    /// Made if it is missing.
    pub(in crate::executor) is_made: bool,
    /// And it has to be missing.
    pub(in crate::executor) is_new: bool,
    pub(in crate::executor) is_emptied: bool,
    pub(in crate::executor) is_appended: bool,
}

impl Within {
    pub(in crate::executor) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(root, flags, Mode::empty())?))
    }

    /// A regular file, to be read. Nothing else blocks or answers.
    pub(in crate::executor) fn file(&self, path: &str) -> io::Result<File> {
        self.opened(path, OFlags::RDONLY | OFlags::NOFOLLOW)
    }

    /// The same, by way of links.
    pub(in crate::executor) fn linked_file(&self, path: &str) -> io::Result<File> {
        self.opened(path, OFlags::RDONLY)
    }

    fn opened(&self, path: &str, flags: OFlags) -> io::Result<File> {
        regular(self.at(path, flags | OFlags::NONBLOCK)?)
    }

    /// A regular file, to be written. What is made belongs to `owner`.
    pub(in crate::executor) fn written(
        &self,
        path: &str,
        how: Writing,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<File> {
        let mut flags = if how.is_read { OFlags::RDWR } else { OFlags::WRONLY };
        flags |= OFlags::NONBLOCK | OFlags::CLOEXEC;
        flags.set(OFlags::APPEND, how.is_appended);
        if how.is_made {
            let mode = Mode::from_raw_mode(mode & MODE);
            match openat2(&self.0, path, flags | OFlags::CREATE | OFlags::EXCL, mode, WITHIN) {
                Ok(file) => {
                    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                    return Ok(file.into());
                }
                Err(Errno::EXIST) if !how.is_new => {}
                Err(error) => return Err(error.into()),
            }
        }
        let file = regular(openat2(&self.0, path, flags, Mode::empty(), WITHIN)?)?;
        if how.is_emptied {
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// A small file as text; empty if there is none.
    pub(in crate::executor) fn text(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        match self.file(path).and_then(|file| file.take(TEXT_MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// Makes a directory, and those above it that are missing.
    pub(in crate::executor) fn make_dir(
        &self,
        path: &str,
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let mut done = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let above = self.dir(&done)?;
            done = format!("{done}/{part}");
            match mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    fchown(self.dir(&done)?, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.dir(path).map(drop)
    }

    /// Makes one directory, which has to be missing.
    pub(in crate::executor) fn make_one_dir(
        &self,
        path: &str,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        mkdirat(&above, name, Mode::from_raw_mode(mode & MODE))?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(chownat(&above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes a file with this content, in the place of whatever was there.
    pub(in crate::executor) fn put(
        &self,
        dir: &str,
        name: &str,
        (uid, gid): (u32, u32),
        mut content: impl Read,
    ) -> io::Result<()> {
        let dir = self.dir(dir)?;
        match unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&dir, name, flags, mode)?);
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        io::copy(&mut content, &mut file)?;
        Ok(())
    }

    /// Copies a file out, if it is a regular one of at most so many bytes; answers how many.
    pub(in crate::executor) fn take(&self, path: &str, to: &Path, most: u64) -> io::Result<u64> {
        let file = self.file(path)?;
        let length = file.metadata()?.size();
        if length > most {
            return Err(io::Error::other("larger than what may be kept"));
        }
        // It may grow while it is read.
        io::copy(&mut file.take(length), &mut File::create(to)?)
    }

    /// What lies at a path, be it a link or what a link leads to.
    pub(in crate::executor) fn metadata(
        &self,
        path: &str,
        follows: bool,
    ) -> io::Result<std::fs::Metadata> {
        let flags = if follows { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        File::from(self.at(path, flags)?).metadata()
    }

    /// Names in a directory, at most so many.
    pub(in crate::executor) fn names(&self, path: &str, most: usize) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.dir(path)?)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
            if names.len() > most {
                return Err(io::Error::other("too many files in one directory"));
            }
        }
        Ok(names)
    }

    /// Removes a file, or an empty directory.
    pub(in crate::executor) fn remove(&self, path: &str, is_dir: bool) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(unlinkat(&above, name, flags)?)
    }

    /// Renames; what is there is replaced only if that is wanted.
    pub(in crate::executor) fn rename(
        &self,
        from: &str,
        to: &str,
        replaces: bool,
    ) -> io::Result<()> {
        let (from, old) = self.above(from)?;
        let (to, new) = self.above(to)?;
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(renameat_with(&from, old, &to, new, flags)?)
    }

    /// Makes a link with this text, which the workload resolves.
    pub(in crate::executor) fn link(
        &self,
        text: &str,
        path: &str,
        (uid, gid): (u32, u32),
    ) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        symlinkat(text, &above, name)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(chownat(&above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Text of a link.
    pub(in crate::executor) fn link_text(&self, path: &str) -> io::Result<String> {
        let (above, name) = self.above(path)?;
        Ok(readlinkat(&above, name, Vec::new())?.to_string_lossy().into_owned())
    }

    pub(in crate::executor) fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let (_open, place) = self.place(path)?;
        std::fs::set_permissions(place, Permissions::from_mode(mode & MODE))
    }

    pub(in crate::executor) fn set_owner(&self, path: &str, uid: u32, gid: u32) -> io::Result<()> {
        let file = self.at(path, OFlags::PATH)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?)
    }

    pub(in crate::executor) fn set_length(&self, path: &str, length: u64) -> io::Result<()> {
        let how = Writing::default();
        self.written(path, how, 0, (0, 0))?.set_len(length)
    }

    pub(in crate::executor) fn set_times(
        &self,
        path: &str,
        accessed: SystemTime,
        modified: SystemTime,
    ) -> io::Result<()> {
        let file = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let times = FileTimes::new().set_accessed(accessed).set_modified(modified);
        File::from(file).set_times(times)
    }

    /// By this path the very file is reached that is held open here.
    fn place(&self, path: &str) -> io::Result<(OwnedFd, PathBuf)> {
        let file = self.at(path, OFlags::PATH)?;
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok((file, place.into()))
    }

    fn at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "/" } else { path };
        Ok(openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), WITHIN)?)
    }

    fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The directory that a path ends in, and its last part.
    fn above<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let path = path.trim_end_matches('/');
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((self.dir(above)?, name))
    }
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("not a regular file"))
}
