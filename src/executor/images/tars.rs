//! Archives read entry by entry, with headers of bounded length.

use std::io::{self, Read};

use tar::{EntryType, PaxExtensions};

use super::error::ImageError;
use super::names::{PATH_MAX_BYTES, shown};

/// Extended headers of one entry: a path, a link and some attributes. Those of honest images
/// have less than 1 KiB.
const PAX_MAX_BYTES: u64 = 64 << 10;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Kind {
    File,
    Directory,
    Symlink,
    Link,
    Pipe,
    /// A device, or what no archive of an image contains.
    Special,
}

/// What an archive says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) struct Header {
    pub(in crate::executor) path: Vec<u8>,
    pub(in crate::executor) link: Vec<u8>,
    pub(in crate::executor) kind: Kind,
    pub(in crate::executor) size: u64,
    pub(in crate::executor) mode: u32,
    pub(in crate::executor) uid: u64,
    pub(in crate::executor) gid: u64,
    /// Unix s.
    pub(in crate::executor) mtime: u64,
}

/// Calls `each` with every entry and its content. `position` is that of the content in the
/// archive.
///
/// # Errors
/// A damaged archive, a header that is too long, or what `each` refuses.
pub(in crate::executor) fn for_each(
    from: impl Read,
    mut each: impl FnMut(&Header, &mut dyn Read, u64) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut archive = tar::Archive::new(from);
    let mut long = Long::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        let size = entry.header().entry_size().map_err(broken)?;
        match entry.header().entry_type() {
            EntryType::XHeader => long.read_pax(&bounded(&mut entry, size, PAX_MAX_BYTES)?)?,
            // Says of all entries what none of them needs: skipped with its content.
            EntryType::XGlobalHeader => {}
            EntryType::GNULongName => {
                long.path = Some(name(bounded(&mut entry, size, PATH_MAX_BYTES as u64 + 1)?));
            }
            EntryType::GNULongLink => {
                long.link = Some(name(bounded(&mut entry, size, PATH_MAX_BYTES as u64 + 1)?));
            }
            kind => {
                let header = header(entry.header(), kind, size, std::mem::take(&mut long))?;
                let position = entry.raw_file_position();
                each(&header, &mut entry, position)?;
            }
        }
    }
    Ok(())
}

/// What comes before an entry because its own header has no room for it.
#[derive(Debug, Default)]
struct Long {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
}

impl Long {
    fn read_pax(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        for extension in PaxExtensions::new(bytes) {
            let extension = extension.map_err(broken)?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            // A time may have a fraction, and one before 1970 counts as 1970.
            let number = || {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                std::str::from_utf8(whole).ok().and_then(|text| text.parse().ok())
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = number(),
                b"uid" => self.uid = number(),
                b"gid" => self.gid = number(),
                b"mtime" => self.mtime = number(),
                // Holes would make a file larger than what is counted.
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(ImageError::Archive("a sparse file".to_owned()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn header(raw: &tar::Header, kind: EntryType, size: u64, long: Long) -> Result<Header, ImageError> {
    let path = long.path.unwrap_or_else(|| raw.path_bytes().into_owned());
    let link = long.link.or_else(|| raw.link_name_bytes().map(Vec::from)).unwrap_or_default();
    if long.size.is_some_and(|said| said != size) {
        let path = shown(&path);
        return Err(ImageError::Archive(format!("{path} has two sizes")));
    }
    let kind = match kind {
        // As archives older than the type for directories have them.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Link,
        EntryType::Fifo => Kind::Pipe,
        _ => Kind::Special,
    };
    Ok(Header {
        path,
        link,
        kind,
        size,
        mode: raw.mode().map_err(broken)?,
        uid: long.uid.map_or_else(|| raw.uid(), Ok).map_err(broken)?,
        gid: long.gid.map_or_else(|| raw.gid(), Ok).map_err(broken)?,
        mtime: long.mtime.or_else(|| raw.mtime().ok()).unwrap_or(0),
    })
}

fn bounded(entry: &mut impl Read, size: u64, most: u64) -> Result<Vec<u8>, ImageError> {
    if size > most {
        return Err(ImageError::Header(size));
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

/// GNU tar ends a long name with a NUL.
fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// An error of the archive, or the one that a reader below passed through it.
pub(in crate::executor) fn broken(error: io::Error) -> ImageError {
    match error.downcast::<ImageError>() {
        Ok(refusal) => refusal,
        Err(error) => ImageError::Archive(shown(error.to_string().as_bytes())),
    }
}
