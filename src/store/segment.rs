//! Frames, and the files made of them.
//!
//! A frame is `len u32 | crc32c u32 | seq u64 | kind u8 | payload`, big-endian; `len` counts
//! the payload and the checksum covers everything but itself. Each file begins with a header
//! frame (see [`Meta`](super::schema::Meta)) and is created under a temporary name, so a file
//! with its final name always has a whole header.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::record::MAX_FRAME_BYTES;

/// Bytes of a frame before its payload.
pub(super) const FRAME_HEAD_BYTES: usize = 17;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Network and schema; first frame of every file.
    Header = 1,
    /// The records of a batch, or the last of them.
    Batch = 2,
    /// Part of a snapshot's records.
    Part = 3,
    /// Last frame of a snapshot: the number of its records, u64.
    End = 4,
    /// Records of a batch that goes on in the next frame, under the same number.
    More = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let kinds = [Self::Header, Self::Batch, Self::Part, Self::End, Self::More];
        kinds.into_iter().find(|k| *k as u8 == byte)
    }
}

/// A frame whose checksum holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) payload: &'a [u8],
}

/// The bytes of one frame. The payload is at most [`MAX_FRAME_BYTES`] long.
pub(super) fn encode_frame(kind: Kind, seq: u64, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let mut rest = Vec::with_capacity(9 + payload.len());
    rest.extend_from_slice(&seq.to_be_bytes());
    rest.push(kind as u8);
    rest.extend_from_slice(payload);
    let mut out = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len());
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(&len, &rest).to_be_bytes());
    out.extend_from_slice(&rest);
    out
}

fn checksum(len: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), rest)
}

/// The frame at the start of `bytes`, if a whole and sound one is there.
fn parse_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let payload_len = u32::from_be_bytes(*len) as usize;
    if payload_len > MAX_FRAME_BYTES {
        return None;
    }
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let rest = rest.get(..9 + payload_len)?;
    let (seq, tail) = rest.split_first_chunk::<8>()?;
    let kind = Kind::from_byte(*tail.first()?)?;
    (checksum(len, rest) == u32::from_be_bytes(*crc)).then_some(Frame {
        seq: u64::from_be_bytes(*seq),
        kind,
        payload: &tail[1..],
    })
}

/// Farthest number behind a damaged frame that the search for later frames believes: no
/// segment holds more frames than bytes.
const SEARCH_SEQ_SPAN: u64 = 1 << 24;

/// Whether the bytes could begin a frame soon after `expected_seq`; cheap, so that the search
/// behind a damaged frame computes few checksums.
fn plausible_seq(bytes: &[u8], expected_seq: u64) -> bool {
    let seq = bytes.get(8..).and_then(|rest| rest.first_chunk::<8>());
    let ahead = seq.and_then(|seq| u64::from_be_bytes(*seq).checked_sub(expected_seq));
    ahead.is_some_and(|ahead| (1..=SEARCH_SEQ_SPAN).contains(&ahead))
}

/// Walks the sound frames of a file and stops at the first that is not.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Bytes of all the frames walked so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether a sound frame with a later number than `expected_seq` follows the stop.
    ///
    /// One batch is in flight at a time, so an interrupted write can only spoil the last one,
    /// whose frames all have the same number. A later sound frame therefore proves that acknowledged bytes were damaged.
    pub(super) fn later_frame_follows(&self, expected_seq: u64) -> bool {
        let tail = &self.bytes[self.offset..];
        (1..tail.len()).any(|at| {
            plausible_seq(&tail[at..], expected_seq)
                && parse_frame(&tail[at..])
                    .is_some_and(|f| matches!(f.kind, Kind::Batch | Kind::More))
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let frame = parse_frame(&self.bytes[self.offset..])?;
        self.offset += FRAME_HEAD_BYTES + frame.payload.len();
        Some(frame)
    }
}

/// Walks the sound frames of a file without holding more than one of them.
#[derive(Debug)]
pub(super) struct FrameReader {
    path: PathBuf,
    inner: io::BufReader<File>,
    len: u64,
    offset: usize,
    frame: Vec<u8>,
}

impl FrameReader {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |e| StoreError::io("read", path, e);
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let inner = io::BufReader::new(file);
        Ok(Self { path: path.to_owned(), inner, len, offset: 0, frame: Vec::new() })
    }

    /// Bytes of all the frames walked so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the walk reached the end of the file.
    pub(super) fn at_end(&self) -> bool {
        self.offset as u64 == self.len
    }

    /// The next frame; `None` where no whole and sound one follows.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, StoreError> {
        self.frame.resize(FRAME_HEAD_BYTES, 0);
        if !self.fill(0)? {
            return Ok(None);
        }
        let payload_len = self.frame.first_chunk::<4>().map_or(0, |len| u32::from_be_bytes(*len));
        if payload_len as usize > MAX_FRAME_BYTES {
            return Ok(None);
        }
        self.frame.resize(FRAME_HEAD_BYTES + payload_len as usize, 0);
        if !self.fill(FRAME_HEAD_BYTES)? {
            return Ok(None);
        }
        let frame = parse_frame(&self.frame);
        if frame.is_some() {
            self.offset += self.frame.len();
        }
        Ok(frame)
    }

    /// Reads the frame's bytes from this one on. False at the end of the file.
    fn fill(&mut self, from: usize) -> Result<bool, StoreError> {
        match self.inner.read_exact(&mut self.frame[from..]) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(StoreError::io("read", &self.path, e)),
        }
    }
}

/// The end of a file that grows: what the journal needs of a disk, so that a test can fail it.
pub(super) trait Medium: Send {
    /// Writes all of `bytes` at the end; on an error any part of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once every appended byte survives a loss of power.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl Medium for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.sync_all()
    }
}

/// Opens an existing file for appending.
pub(super) fn open_append(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().append(true).open(path).map_err(|e| StoreError::io("open", path, e))
}

/// Makes the directory's entries survive a loss of power.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StoreError::io("sync", dir, e))
}

/// Creates `path` with what `fill` writes: temporary name, fsync, rename, directory fsync.
/// The file exists under its name either whole or not at all.
pub(super) fn create_whole<T>(
    path: &Path,
    fill: impl FnOnce(&mut WholeFile) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let temporary = path.with_extension(TEMPORARY);
    let written = write_synced(&temporary, path, fill);
    let renamed = written.and_then(|filled| {
        fs::rename(&temporary, path).map_err(|e| StoreError::io("rename", &temporary, e))?;
        Ok(filled)
    });
    match renamed {
        Ok(filled) => {
            path.parent().map_or(Ok(()), sync_dir)?;
            Ok(filled)
        }
        Err(error) => {
            // Best effort: the next open removes what is left.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Extension of a file that is not whole yet.
pub(super) const TEMPORARY: &str = "tmp";

/// Bytes written between two fsyncs of a file in the making: one fsync of all of a large file
/// would hold up those of the journal beside it.
const SYNC_EVERY_BYTES: usize = 8 << 20;

/// A file in the making.
pub(super) struct WholeFile {
    file: File,
    path: PathBuf,
    unsynced_bytes: usize,
    pub(super) bytes: u64,
}

impl WholeFile {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let io = |e| StoreError::io("write", &self.path, e);
        self.file.write_all(bytes).map_err(io)?;
        self.bytes += bytes.len() as u64;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(io)?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }
}

fn write_synced<T>(
    temporary: &Path,
    path: &Path,
    fill: impl FnOnce(&mut WholeFile) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let io = |e| StoreError::io("write", path, e);
    let file = options.open(temporary).map_err(io)?;
    let mut whole = WholeFile { file, path: path.to_owned(), unsynced_bytes: 0, bytes: 0 };
    let filled = fill(&mut whole)?;
    whole.file.sync_all().map_err(io)?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_walk_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Frames::new(&bytes);
            while frames.next().is_some() {}
            let _ = frames.later_frame_follows(0);
        }

        #[test]
        fn one_changed_bit_spoils_a_frame(bit in 0usize..(17 + 5) * 8) {
            let mut bytes = encode_frame(Kind::Batch, 7, b"hello");
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(parse_frame(&bytes).is_none());
        }
    }

    #[test]
    fn a_later_frame_is_found_behind_a_spoilt_one() {
        let mut bytes = encode_frame(Kind::Batch, 7, b"hello");
        bytes.extend(encode_frame(Kind::Batch, 8, b"world"));
        bytes[20] ^= 1;
        let mut frames = Frames::new(&bytes);
        assert!(frames.next().is_none());
        assert!(frames.later_frame_follows(7));
        assert!(!frames.later_frame_follows(8));
    }
}
