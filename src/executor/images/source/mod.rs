//! What a holder has on disk, as content by digest. Content is read from where it lies, in
//! parts: an image is as large as it is, and memory is not.

mod archive;
mod layout;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::manifest::{Config, DOCUMENT_MAX_BYTES, Index, Manifest, here, parse};
use super::names::shown;
use super::unpack::{Bounds, Layer, has_name};
use capex_core::ids::Digest;

/// Lists within lists of manifests: an image of several platforms in an index has two.
const INDEX_DEPTH_MAX: usize = 3;
/// Read at once while hashing.
const BUFFER_BYTES: usize = 64 << 10;

/// What a holder gave to be run.
#[derive(Debug, Clone)]
pub enum Given {
    /// An image: its manifest, and the configuration and layers that it names, each once.
    Image { manifest: Blob, others: Vec<Blob> },
    /// A root file system in one archive.
    Rootfs(Blob),
}

/// Content, and where it lies.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: Digest,
    /// Length, bytes.
    pub bytes: u64,
    from: From,
}

#[derive(Debug, Clone)]
enum From {
    /// Part of a file.
    File { path: PathBuf, offset: u64 },
    /// Written by this program, for an archive that has no manifest of its own.
    Made(Vec<u8>),
}

impl Given {
    /// All its content.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let (first, others): (_, &[Blob]) = match self {
            Self::Image { manifest, others } => (manifest, others),
            Self::Rootfs(archive) => (archive, &[]),
        };
        std::iter::once(first).chain(others)
    }
}

impl Blob {
    /// Copies it into a file, which is durable then; the directory of the file is made.
    ///
    /// # Errors
    /// It is not what its digest and length say, or a file cannot be read or written.
    pub fn copy_to(&self, path: &Path) -> Result<(), ImageError> {
        let io = |error| ImageError::io(path.display().to_string())(error);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let mut file = File::create(path).map_err(io)?;
        let from = self.open().map_err(ImageError::io("image"))?;
        let (digest, bytes) = copied(from, &mut file)?;
        if (digest, bytes) != (self.digest, self.bytes) {
            return Err(ImageError::Content(self.digest));
        }
        file.sync_all().map_err(io)
    }

    /// Its bytes, from where they lie.
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match &self.from {
            From::File { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(file.take(self.bytes)))
            }
            From::Made(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
        }
    }

    fn made(bytes: Vec<u8>) -> Self {
        let digest = Digest(Sha256::digest(&bytes).into());
        Self { digest, bytes: bytes.len() as u64, from: From::Made(bytes) }
    }
}

/// Opens what lies at a path: a directory with an OCI layout, an image as engines save it, or
/// an archive of a root file system. `command` is what it shall run; if it is empty, the image
/// has to say it.
///
/// # Errors
/// It is none of them, or damaged, or there is nothing to run.
pub fn open(path: &Path, command: &[String]) -> Result<Given, ImageError> {
    let given = if path.is_dir() { layout::open(path)? } else { archive::open(path)? };
    let (config, _) = read(&given)?;
    config.command(command)?;
    Ok(given)
}

/// The configuration, and the layers, lowest first.
fn read(given: &Given) -> Result<(Config, Vec<&Blob>), ImageError> {
    match given {
        Given::Rootfs(archive) => Ok((Config::default(), vec![archive])),
        Given::Image { manifest, others } => {
            let manifest = Manifest::parse(&document(manifest)?)?;
            let find = |digest: Digest| {
                let blob = others.iter().find(|blob| blob.digest == digest);
                blob.ok_or(ImageError::Missing(digest))
            };
            let config = Config::parse(&document(find(manifest.config.digest)?)?)?;
            let layers = manifest.layers.iter().map(|layer| find(layer.digest));
            Ok((config, layers.collect::<Result<_, _>>()?))
        }
    }
}

/// Checks that what shall run is in the image, whose content lies in files of its own: nothing is
/// used up for one that could not run. Only its last name is looked for, since links may lead to it.
///
/// # Errors
/// [`ImageError::NoProgram`], or what is wrong with a layer; [`ImageError::TooLarge`] beyond
/// `disk_bytes`.
pub fn check_program(
    given: &Given,
    command: &[String],
    files: &BTreeMap<Digest, PathBuf>,
    disk_bytes: u64,
) -> Result<(), ImageError> {
    let (config, layers) = read(given)?;
    let command = config.command(command)?;
    let program = command.first().map(String::as_str).unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let layer = |blob: &&Blob| {
        let file = files.get(&blob.digest).cloned().ok_or(ImageError::Missing(blob.digest))?;
        Ok(Layer { file, diff_id: None })
    };
    let layers = layers.iter().map(layer).collect::<Result<Vec<_>, ImageError>>()?;
    let bounds = Bounds { bytes: disk_bytes, files: u64::MAX };
    match has_name(&layers, name, bounds)? {
        true => Ok(()),
        false => Err(ImageError::NoProgram(shown(program.as_bytes()))),
    }
}

/// Where the parts of an image are found.
trait Store {
    /// Content of a digest; its length is what is there.
    fn find(&self, digest: Digest) -> Option<Blob>;
}

/// The image that an index leads to.
fn of_index(index: &[u8], store: &impl Store) -> Result<Given, ImageError> {
    let mut found = BTreeMap::new();
    collect(&parse::<Index>("index", index)?, store, 0, &mut found)?;
    match found.len() {
        0 => return Err(ImageError::Platform(format!("linux/{}", here()))),
        1 => {}
        several => return Err(ImageError::Several(several)),
    }
    let manifest = found.into_keys().next().ok_or(ImageError::Several(0))?;
    let manifest = found_blob(store, manifest)?;
    let parts = Manifest::parse(&document(&manifest)?)?.parts();
    let others = parts.into_iter().map(|(digest, bytes)| {
        let blob = found_blob(store, digest)?;
        if blob.bytes == bytes { Ok(blob) } else { Err(ImageError::Content(digest)) }
    });
    Ok(Given::Image { manifest, others: others.collect::<Result<_, _>>()? })
}

/// The manifests for this machine.
fn collect(
    index: &Index,
    store: &impl Store,
    depth: usize,
    found: &mut BTreeMap<Digest, ()>,
) -> Result<(), ImageError> {
    for part in index.manifests.iter().filter(|part| part.is_for_here()) {
        if !part.is_index() {
            found.insert(part.digest, ());
            continue;
        }
        if depth >= INDEX_DEPTH_MAX {
            let why = "lists within lists of manifests".to_owned();
            return Err(ImageError::Document { what: "index", why });
        }
        let inner = document(&found_blob(store, part.digest)?)?;
        collect(&parse("index", &inner)?, store, depth + 1, found)?;
    }
    Ok(())
}

fn found_blob(store: &impl Store, digest: Digest) -> Result<Blob, ImageError> {
    store.find(digest).ok_or(ImageError::Missing(digest))
}

/// A document as a whole.
fn document(blob: &Blob) -> Result<Vec<u8>, ImageError> {
    if blob.bytes > DOCUMENT_MAX_BYTES {
        let why = format!("{} bytes", blob.bytes);
        return Err(ImageError::Document { what: "document", why });
    }
    let mut bytes = Vec::new();
    let mut from = blob.open().map_err(ImageError::io("image"))?;
    from.read_to_end(&mut bytes).map_err(ImageError::io("image"))?;
    Ok(bytes)
}

/// Digest and length of all that a reader has.
fn hash(from: impl Read) -> Result<(Digest, u64), ImageError> {
    copied(from, &mut io::sink())
}

fn copied(mut from: impl Read, to: &mut impl io::Write) -> Result<(Digest, u64), ImageError> {
    let (mut hasher, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).map_err(ImageError::io("image"))?;
        if read == 0 {
            return Ok((Digest(hasher.finalize().into()), length));
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read]).map_err(ImageError::io("a copy of the image"))?;
        length += read as u64;
    }
}

#[cfg(test)]
mod tests;
