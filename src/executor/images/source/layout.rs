//! A directory with an OCI layout.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Blob, DOCUMENT_MAX_BYTES, From, Given, Store, of_index};
use crate::executor::images::error::ImageError;
use capex_core::ids::Digest;

struct Layout {
    blobs: PathBuf,
}

impl Store for Layout {
    fn find(&self, digest: Digest) -> Option<Blob> {
        let path = self.blobs.join(digest.to_string());
        let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        Some(Blob { digest, bytes: meta.len(), from: From::File { path, offset: 0 } })
    }
}

pub(super) fn open(path: &Path) -> Result<Given, ImageError> {
    let index = path.join("index.json");
    if !path.join("oci-layout").is_file() || !index.is_file() {
        return Err(ImageError::Format(format!("{} has no oci-layout", path.display())));
    }
    let file = File::open(&index).map_err(ImageError::io(index.display().to_string()))?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ImageError::io(index.display().to_string()))?;
    of_index(&bytes, &Layout { blobs: path.join("blobs/sha256") })
}
