//! Files into a lease and out of it: one, or a directory with all below it as an archive.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{Mutex, mpsc};
use tokio::task::spawn_blocking;

use super::cut::Cut;
use super::frames::{FRAME_MAX_BYTES, frame, kind, read_frame};
use super::programs::finish;
use crate::executor::images::{DEPTH_MAX, Header, ImageError, Kind, Parts, for_each, shown};
use crate::executor::runtimes::{Failure, Files, Within, Writing};
use capex_core::reason;

/// Frames on their way between the stream and the disk.
const QUEUE: usize = 16;
/// Names of one directory that an archive may have: they are held in memory.
const NAMES_MAX: usize = 1 << 16;
/// What a directory gets that an archive does not mention.
const DIRECTORY_MODE: u32 = 0o755;

/// What is wrong with a file, in the terms of whoever asked for it.
pub(super) fn failure(error: &io::Error, path: &str) -> Failure {
    let text = format!("{}: {error}", shown(path.as_bytes()));
    match error.kind() {
        io::ErrorKind::NotFound => Failure::workload(reason!("access.no_file"), text),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::workload(reason!("access.no_room"), text)
        }
        _ => Failure::workload(reason!("access.file"), text),
    }
}

/// A file, or a tree of them, that is about to be read.
pub(super) struct Reading {
    files: Arc<Files>,
    path: String,
    /// Absent for a tree.
    file: Option<File>,
}

impl Reading {
    /// Opens it. Blocks.
    pub(super) fn open(files: Arc<Files>, path: &str, is_tree: bool) -> Result<Self, Failure> {
        let path = files.path(path);
        let failed = |error: io::Error| failure(&error, &path);
        let metadata = files.root.metadata(&path, true).map_err(failed)?;
        let file = match (is_tree, metadata.is_dir()) {
            (true, _) => None,
            (false, true) => {
                let error = io::Error::other("it is a directory, which needs `--recursive`");
                return Err(failed(error));
            }
            (false, false) => Some(files.root.linked_file(&path).map_err(failed)?),
        };
        Ok(Self { files, path, file })
    }

    /// Gives it to the other end.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite, mut cut: Cut) {
        let (from, mut to) = split(stream);
        let (queue, mut queued) = mpsc::channel::<Vec<u8>>(QUEUE);
        let work = spawn_blocking(move || self.produce(Outlet(queue)));
        loop {
            let bytes = tokio::select! {
                () = cut.wait() => return conclude(from, to, Err(Cut::failure())).await,
                bytes = queued.recv() => bytes,
            };
            let Some(bytes) = bytes else { break };
            for part in bytes.chunks(FRAME_MAX_BYTES) {
                if to.write_all(&frame(kind::OUTPUT, part)).await.is_err() {
                    return;
                }
            }
        }
        let done = work.await.unwrap_or_else(|error| Err(Failure::host(error.to_string())));
        conclude(from, to, done).await;
    }

    fn produce(self, mut outlet: Outlet) -> Result<(), Failure> {
        let Self { files, path, file } = self;
        let done = match file {
            Some(mut file) => io::copy(&mut file, &mut outlet).map(drop),
            None => {
                let mut archive =
                    tar::Builder::new(io::BufWriter::with_capacity(FRAME_MAX_BYTES, &mut outlet));
                let done = add(&files, &path, "", 0, &mut archive);
                done.and_then(|()| archive.into_inner()?.flush())
            }
        };
        done.map_err(|error| failure(&error, &path))
    }
}

/// Adds a file, or a directory with all below it. What is neither is left out.
fn add(
    files: &Files,
    path: &str,
    name: &str,
    depth: usize,
    archive: &mut tar::Builder<impl Write>,
) -> io::Result<()> {
    let metadata = match files.root.metadata(path, name.is_empty()) {
        // The workload goes on meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !name.is_empty() => return Ok(()),
        metadata => metadata?,
    };
    let shown_name = if name.is_empty() { "." } else { name };
    let mut header = header(files, &metadata);
    if metadata.is_dir() {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("too deep"));
        }
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, shown_name, io::empty())?;
        let mut names = files.root.names(path, NAMES_MAX)?;
        names.sort_unstable();
        for below in names {
            let place = if name.is_empty() { below.clone() } else { format!("{name}/{below}") };
            add(files, &format!("{path}/{below}"), &place, depth + 1, archive)?;
        }
        return Ok(());
    }
    if metadata.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        let link = files.root.link_text(path)?;
        return archive.append_link(&mut header, shown_name, link);
    }
    if metadata.is_file() {
        let file = files.root.file(path)?;
        let length = file.metadata()?.len();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(length);
        // It may shrink while it is read, and its size is said already.
        let whole = file.chain(io::repeat(0)).take(length);
        let last = path.rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { last } else { name };
        return archive.append_data(&mut header, name, whole);
    }
    Ok(())
}

fn header(files: &Files, metadata: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().saturating_sub(files.first_id).into());
    header.set_gid(metadata.gid().saturating_sub(files.first_id).into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// A directory of this machine, as an archive that [`unpack`] takes.
///
/// # Errors
/// The directory, or where the archive goes.
pub fn pack(dir: &Path, to: impl Write) -> io::Result<()> {
    let files = here(dir)?;
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(FRAME_MAX_BYTES, to));
    add(&files, "/", "", 0, &mut archive)?;
    archive.into_inner()?.flush()
}

/// Lays an archive down in a directory of this machine; answers its bytes. Nothing of it gets out
/// of there, whatever it says.
///
/// # Errors
/// A sentence about what is wrong with it, or with the directory.
pub fn unpack(dir: &Path, from: impl Read) -> Result<u64, String> {
    let files = Arc::new(here(dir).map_err(|error| error.to_string())?);
    let place = Place { files, path: String::new(), mode: 0, is_tree: true };
    place.lay_all(from).map_err(|failure| failure.to_string())
}

fn here(dir: &Path) -> io::Result<Files> {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let root = Within::open(dir)?;
    Ok(Files { root, workdir: String::new(), owner, first_id: 0, is_writable: true })
}

/// A place for a file, or for a tree of them.
pub(super) struct Place {
    files: Arc<Files>,
    path: String,
    mode: u32,
    is_tree: bool,
}

impl Place {
    /// Looks whether something can be put there. Blocks.
    pub(super) fn open(
        files: Arc<Files>,
        path: &str,
        mode: u32,
        is_tree: bool,
    ) -> Result<Self, Failure> {
        if !files.is_writable {
            let text = "files of a component come with it, as inputs";
            return Err(Failure::workload(reason!("runtime.unsupported"), text));
        }
        let path = files.path(path);
        let failed = |error: io::Error| failure(&error, &path);
        let above = path.trim_end_matches('/').rsplit_once('/').map_or("", |(above, _)| above);
        let above = files.root.metadata(above, true).map_err(failed)?;
        if !above.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let there = files.root.metadata(&path, true).ok();
        if there.is_some_and(|there| there.is_dir() != is_tree) {
            let error =
                if is_tree { io::ErrorKind::NotADirectory } else { io::ErrorKind::IsADirectory };
            return Err(failed(error.into()));
        }
        Ok(Self { files, path, mode, is_tree })
    }

    /// Takes what the other end gives.
    pub(super) async fn serve(self, stream: impl AsyncRead + AsyncWrite, mut cut: Cut) {
        let (mut from, to) = split(stream);
        let (queue, queued) = mpsc::channel(QUEUE);
        let mut work = spawn_blocking(move || self.consume(Inlet::new(queued)));
        let mut data = Vec::new();
        let done = loop {
            let read = tokio::select! {
                // It is done before all is here if something is wrong.
                done = &mut work => break done,
                // What was begun is undone.
                () = cut.wait() => break Ok(Err(Cut::failure())),
                read = read_frame(&mut from, &mut data) => read,
            };
            let part = match read {
                Ok(kind::INPUT) if data.is_empty() => None,
                Ok(kind::INPUT) => Some(std::mem::take(&mut data)),
                // Whoever asked for it is gone, and what was begun is undone.
                _ => return,
            };
            let is_end = part.is_none();
            if queue.send(part).await.is_err() || is_end {
                break work.await;
            }
        };
        drop(queue);
        let done = done.unwrap_or_else(|error| Err(Failure::host(error.to_string())));
        conclude(from, to, done).await;
    }

    fn consume(self, mut inlet: Inlet) -> Result<(), Failure> {
        let failed = |error: io::Error| failure(&error, &self.path);
        if !self.is_tree {
            lay_file(&self.files, &self.path, self.mode, &mut inlet).map_err(failed)?;
            return inlet.drain().map_err(failed);
        }
        self.files.root.make_dir(&self.path, self.files.host_owner()).map_err(failed)?;
        self.lay_all(&mut inlet)?;
        inlet.drain().map_err(failed)
    }

    fn lay_all(&self, from: impl Read) -> Result<u64, Failure> {
        let (mut wrong, mut bytes) = (None, 0);
        let read = for_each(from, |header, content, _| {
            bytes += header.size;
            self.lay(header, content).map_err(|failure| {
                wrong = Some(failure);
                ImageError::Cancelled
            })
        });
        match (wrong, read) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(Failure::workload(reason!("access.file"), error.to_string())),
            (None, Ok(())) => Ok(bytes),
        }
    }

    /// Lays down one entry of an archive.
    fn lay(&self, header: &Header, content: &mut dyn Read) -> Result<(), Failure> {
        let root = &self.files.root;
        let owner = self.files.host_owner();
        let refused = |text: String| Failure::workload(reason!("access.file"), text);
        let parts = Parts::of(&header.path).map_err(|error| refused(error.to_string()))?;
        let Some((above, _)) = parts.split() else { return Ok(()) };
        let path = format!("{}/{}", self.path, parts.joined());
        let failed = |error: io::Error| failure(&error, &path);
        if !above.is_empty() {
            let above = format!("{}/{}", self.path, above.join("/"));
            root.make_dir(&above, owner).map_err(failed)?;
        }
        match header.kind {
            Kind::Directory => match root.make_one_dir(&path, DIRECTORY_MODE, owner) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
                _ => root.set_mode(&path, header.mode & 0o777).map_err(failed),
            },
            Kind::File => lay_file(&self.files, &path, header.mode, content).map_err(failed),
            Kind::Symlink => {
                match root.remove(&path, false) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
                let text = String::from_utf8_lossy(&header.link);
                root.link(&text, &path, owner).map_err(failed)
            }
            Kind::Link | Kind::Pipe | Kind::Special => {
                let name = shown(&header.path);
                Err(refused(format!("{name} is neither a file, nor a directory, nor a link")))
            }
        }
    }
}

/// Makes a file: there whole, or not at all.
fn lay_file(files: &Files, path: &str, mode: u32, content: &mut dyn Read) -> io::Result<()> {
    let (above, _) = path.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let part = format!("{above}/.capex-{:016x}", u64::from_be_bytes(random));
    let how = Writing { is_made: true, is_new: true, ..Writing::default() };
    let mut file = files.root.written(&part, how, 0o600, files.host_owner())?;
    let laid = io::copy(content, &mut file)
        .and_then(|_| file.set_permissions(Permissions::from_mode(mode & 0o777)))
        .and_then(|()| files.root.rename(&part, path, true));
    if laid.is_err() {
        // What cannot be removed now is the holder's to remove.
        let _ = files.root.remove(&part, false);
    }
    laid
}

/// The last frame of what could not be done.
pub(super) fn failed(failure: &Failure) -> Vec<u8> {
    let text = format!("{}\n{failure}", failure.reason().code());
    frame(kind::FAILED, text.as_bytes())
}

async fn conclude<S: AsyncRead + AsyncWrite>(
    from: tokio::io::ReadHalf<S>,
    mut to: tokio::io::WriteHalf<S>,
    done: Result<(), Failure>,
) {
    let last = match done {
        Ok(()) => frame(kind::EXIT, &0_i32.to_be_bytes()),
        Err(failure) => failed(&failure),
    };
    // Whoever is gone needs no word.
    let _ = to.write_all(&last).await;
    finish(from, Arc::new(Mutex::new(to))).await;
}

/// Writes to the stream, from a thread that may block.
struct Outlet(mpsc::Sender<Vec<u8>>);

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from the stream, on a thread that may block. A stream that breaks off is no end.
struct Inlet {
    queue: mpsc::Receiver<Option<Vec<u8>>>,
    part: io::Cursor<Vec<u8>>,
    is_over: bool,
}

impl Inlet {
    fn new(queue: mpsc::Receiver<Option<Vec<u8>>>) -> Self {
        Self { queue, part: io::Cursor::default(), is_over: false }
    }

    /// An archive ends before its stream does.
    fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.part.read(buffer)?;
            if count > 0 || self.is_over || buffer.is_empty() {
                return Ok(count);
            }
            match self.queue.blocking_recv() {
                Some(Some(part)) => self.part = io::Cursor::new(part),
                Some(None) => self.is_over = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}
