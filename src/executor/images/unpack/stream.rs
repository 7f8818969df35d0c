//! The bytes of a layer: decompressed, counted, and hashed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest as _, Sha256};

use super::{Bounds, Layer};
use crate::executor::images::error::ImageError;
use crate::executor::images::tars::broken;
use capex_core::ids::Digest;

/// Of an archive, what is not content: the headers of an entry and its padding.
const ENTRY_BYTES: u64 = 3 * 512;
/// Extended headers, padding at the end, and what is written over by a later entry.
const SLACK_BYTES: u64 = 64 << 20;
/// Read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A layer as an archive.
pub(super) struct Stream {
    inner: Box<dyn Read>,
    hasher: Option<(Digest, Sha256)>,
    left: u64,
    bounds: Bounds,
}

impl Stream {
    /// Opens a layer, by what its first bytes say of its compression.
    pub(super) fn open(layer: &Layer, bounds: Bounds) -> Result<Self, ImageError> {
        let path = layer.file.display().to_string();
        let file = File::open(&layer.file).map_err(ImageError::io(path.clone()))?;
        let inner = decompressed(file).map_err(ImageError::io(path))?;
        let entries = bounds.files.saturating_mul(ENTRY_BYTES);
        let left = bounds.bytes.saturating_add(entries).saturating_add(SLACK_BYTES);
        let hasher = layer.diff_id.map(|diff_id| (diff_id, Sha256::new()));
        Ok(Self { inner, hasher, left, bounds })
    }

    /// Reads to the end, and compares the digest.
    pub(super) fn finish(mut self) -> Result<(), ImageError> {
        io::copy(&mut self, &mut io::sink()).map_err(broken)?;
        let read = self.hasher.map(|(said, hasher)| (said, Digest(hasher.finalize().into())));
        match read {
            Some((said, found)) if said != found => Err(ImageError::Content(said)),
            Some(_) | None => Ok(()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = (self.left.checked_sub(read as u64))
            .ok_or_else(|| io::Error::other(ImageError::TooLarge(self.bounds.bytes)))?;
        if let Some((_, hasher)) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

/// What is in a file, decompressed if its first bytes say gzip or Zstandard.
pub(in crate::executor::images) fn decompressed(
    file: impl Read + 'static,
) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let first = file.fill_buf()?;
    Ok(match first {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?)
        }
        _ => Box::new(file),
    })
}
