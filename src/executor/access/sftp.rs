//! Files of a lease by sftp, version 3 of the protocol: what scp, sftp and editors use.

use std::collections::HashMap;
use std::fs::{File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh_sftp::protocol::{
    Attrs, Data, File as Entry, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode,
};
use russh_sftp::server::Handler;
use tokio::task::spawn_blocking;

use crate::executor::runtimes::{Files, Writing};

/// Files and directories that one session has open.
const HANDLES_MAX: usize = 64;
/// Read at once: what one answer holds.
const READ_MAX_BYTES: u32 = 128 << 10;
/// Names of one answer, and of one directory.
const NAMES: usize = 100;
const NAMES_MAX: usize = 1 << 16;
/// Ids that a lease has.
const IDS: u32 = 1 << 16;
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

pub(super) struct Sftp {
    files: Arc<Files>,
    open: HashMap<String, Open>,
    next: u64,
}

enum Open {
    File(Arc<File>),
    /// Names that were not told yet.
    Dir(String, std::vec::IntoIter<String>),
}

type Answer<T> = Result<T, StatusCode>;

impl Sftp {
    pub(super) fn new(files: Arc<Files>) -> Self {
        Self { files, open: HashMap::new(), next: 0 }
    }

    fn keep(&mut self, id: u32, open: Open) -> Answer<Handle> {
        if self.open.len() >= HANDLES_MAX {
            return Err(StatusCode::Failure);
        }
        let handle = self.next.to_string();
        self.next += 1;
        self.open.insert(handle.clone(), open);
        Ok(Handle { id, handle })
    }

    fn file(&self, handle: &str) -> Answer<Arc<File>> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Dir(..)) | None => Err(StatusCode::Failure),
        }
    }

    fn attributes(&self, metadata: &Metadata) -> FileAttributes {
        let second = |time: i64| Some(u32::try_from(time).unwrap_or(0));
        FileAttributes {
            size: Some(metadata.len()),
            uid: Some(metadata.uid().wrapping_sub(self.files.first_id)),
            gid: Some(metadata.gid().wrapping_sub(self.files.first_id)),
            permissions: Some(metadata.mode()),
            atime: second(metadata.atime()),
            mtime: second(metadata.mtime()),
            user: None,
            group: None,
        }
    }

    fn set(&self, path: &str, attrs: &FileAttributes) -> io::Result<()> {
        let root = &self.files.root;
        if let Some(size) = attrs.size {
            root.set_length(path, size)?;
        }
        if let (Some(uid), Some(gid)) = (attrs.uid, attrs.gid) {
            let (uid, gid) = self.host_ids(uid, gid)?;
            root.set_owner(path, uid, gid)?;
        }
        if let Some(mode) = attrs.permissions {
            root.set_mode(path, mode)?;
        }
        if let Some((accessed, modified)) = times(attrs) {
            root.set_times(path, accessed, modified)?;
        }
        Ok(())
    }

    fn host_ids(&self, uid: u32, gid: u32) -> io::Result<(u32, u32)> {
        if uid >= IDS || gid >= IDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((self.files.first_id + uid, self.files.first_id + gid))
    }
}

fn times(attrs: &FileAttributes) -> Option<(SystemTime, SystemTime)> {
    let at = |second: u32| UNIX_EPOCH + Duration::from_secs(second.into());
    Some((at(attrs.atime?), at(attrs.mtime?)))
}

fn code(error: io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

fn done(id: u32, result: io::Result<()>) -> Answer<Status> {
    result.map_err(code)?;
    Ok(Status {
        id,
        status_code: StatusCode::Ok,
        error_message: String::new(),
        language_tag: String::new(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answer<T> {
    spawn_blocking(work).await.map_err(|_| StatusCode::Failure)?.map_err(code)
}

impl Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Answer<Handle> {
        let path = self.files.path(&path);
        let opened = if flags.intersects(OpenFlags::WRITE | OpenFlags::APPEND) {
            let how = Writing {
                is_read: flags.contains(OpenFlags::READ),
                is_made: flags.contains(OpenFlags::CREATE),
                is_new: flags.contains(OpenFlags::EXCLUDE),
                is_emptied: flags.contains(OpenFlags::TRUNCATE),
                is_appended: flags.contains(OpenFlags::APPEND),
            };
            let mode = attrs.permissions.unwrap_or(FILE_MODE);
            self.files.root.written(&path, how, mode, self.files.host_owner())
        } else {
            self.files.root.linked_file(&path)
        };
        self.keep(id, Open::File(Arc::new(opened.map_err(code)?)))
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        self.open.remove(&handle).ok_or(StatusCode::Failure)?;
        done(id, Ok(()))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(&handle)?;
        let data = blocking(move || {
            let mut data = vec![0; len.min(READ_MAX_BYTES) as usize];
            let count = file.read_at(&mut data, offset)?;
            data.truncate(count);
            Ok(data)
        })
        .await?;
        if data.is_empty() && len > 0 { Err(StatusCode::Eof) } else { Ok(Data { id, data }) }
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Answer<Status> {
        let file = self.file(&handle)?;
        blocking(move || file.write_all_at(&data, offset)).await?;
        done(id, Ok(()))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        let metadata = self.files.root.metadata(&self.files.path(&path), false).map_err(code)?;
        Ok(Attrs { id, attrs: self.attributes(&metadata) })
    }

    async fn stat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        let metadata = self.files.root.metadata(&self.files.path(&path), true).map_err(code)?;
        Ok(Attrs { id, attrs: self.attributes(&metadata) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        let metadata = self.file(&handle)?.metadata().map_err(code)?;
        Ok(Attrs { id, attrs: self.attributes(&metadata) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        done(id, self.set(&self.files.path(&path), &attrs))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        let file = self.file(&handle)?;
        let set = || {
            if let Some(size) = attrs.size {
                file.set_len(size)?;
            }
            if let (Some(uid), Some(gid)) = (attrs.uid, attrs.gid) {
                let (uid, gid) = self.host_ids(uid, gid)?;
                std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            if let Some(mode) = attrs.permissions {
                file.set_permissions(Permissions::from_mode(mode & 0o777))?;
            }
            if let Some((accessed, modified)) = times(&attrs) {
                file.set_times(FileTimes::new().set_accessed(accessed).set_modified(modified))?;
            }
            Ok(())
        };
        done(id, set())
    }

    async fn opendir(&mut self, id: u32, path: String) -> Answer<Handle> {
        let path = self.files.path(&path);
        let names = self.files.root.names(&path, NAMES_MAX).map_err(code)?;
        self.keep(id, Open::Dir(path, names.into_iter()))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let Some(Open::Dir(path, names)) = self.open.get_mut(&handle) else {
            return Err(StatusCode::Failure);
        };
        let (path, names) = (path.clone(), names.by_ref().take(NAMES).collect::<Vec<_>>());
        if names.is_empty() {
            return Err(StatusCode::Eof);
        }
        // What is gone meanwhile is left out.
        let entries = names.into_iter().filter_map(|name| {
            let metadata = self.files.root.metadata(&format!("{path}/{name}"), false).ok()?;
            Some(Entry::new(name, self.attributes(&metadata)))
        });
        Ok(Name { id, files: entries.collect() })
    }

    async fn remove(&mut self, id: u32, path: String) -> Answer<Status> {
        done(id, self.files.root.remove(&self.files.path(&path), false))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Answer<Status> {
        done(id, self.files.root.remove(&self.files.path(&path), true))
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let mode = attrs.permissions.unwrap_or(DIRECTORY_MODE);
        let path = self.files.path(&path);
        done(id, self.files.root.make_one_dir(&path, mode, self.files.host_owner()))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Answer<Name> {
        let mut parts: Vec<&str> = Vec::new();
        let path = self.files.path(&path);
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        Ok(Name { id, files: vec![Entry::dummy(format!("/{}", parts.join("/")))] })
    }

    async fn rename(&mut self, id: u32, old: String, new: String) -> Answer<Status> {
        let (old, new) = (self.files.path(&old), self.files.path(&new));
        done(id, self.files.root.rename(&old, &new, false))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Answer<Name> {
        let text = self.files.root.link_text(&self.files.path(&path)).map_err(code)?;
        Ok(Name { id, files: vec![Entry::dummy(text)] })
    }

    /// OpenSSH sends the text of the link first, against the draft, and all follow it.
    async fn symlink(&mut self, id: u32, text: String, path: String) -> Answer<Status> {
        let path = self.files.path(&path);
        done(id, self.files.root.link(&text, &path, self.files.host_owner()))
    }
}
