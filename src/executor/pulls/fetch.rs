//! One image on its way from a registry: index, manifest, configuration and layers, in this order,
//! each checked by the digest that names it. What is whole is not fetched again.

use std::fs::{self, File};
use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};

use super::allowed::Registries;
use super::client::{Client, Patience, broken};
use super::error::PullError;
use crate::executor::images::{Chosen, Config, Manifest, choose};
use crate::executor::inventory;
use crate::executor::layout::LeaseDir;
use capex_core::ids::Digest;
use capex_core::lease::pull::{ImageRef, Pulled};
use capex_core::limits::PULLED_DOCUMENTS_MAX_BYTES;

/// Read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// What a registry is asked for where it has manifests: an index, or a manifest, in either form.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// And where it has content.
const BLOBS: &str = "application/octet-stream, */*";

/// A fetch.
pub(super) struct Fetch<'a> {
    pub(super) dir: &'a LeaseDir,
    pub(super) image: &'a ImageRef,
    /// All of its content has no more.
    pub(super) max_bytes: u64,
    /// Is told how many bytes have come, of how many.
    pub(super) tell: &'a dyn Fn(u64, u64),
}

impl Fetch<'_> {
    /// Fetches all that is missing.
    ///
    /// # Errors
    /// What went wrong; no part of anything is left then.
    pub(super) fn run(
        &self,
        registries: &Registries,
        patience: Patience,
    ) -> Result<Pulled, PullError> {
        let named = self.image.parts();
        let base = named.and_then(|(registry, _)| registries.find(registry));
        let (Some((_, repository)), Some(base)) = (named, base) else {
            return Err(PullError::Address(self.image.name.clone()));
        };
        let mut client = Client::new(registries, patience, (base.as_str(), repository));
        fs::create_dir_all(self.dir.blobs()).map_err(PullError::disk(&self.dir.blobs()))?;
        let mut documents = Documents::default();
        let mut named = self.image.digest;
        let bytes = self.document(&mut client, &mut documents, named)?;
        let manifest = match choose(&bytes)? {
            Chosen::Manifest(manifest) => manifest,
            Chosen::Of(digest) => {
                named = digest;
                Manifest::parse(&self.document(&mut client, &mut documents, digest)?)?
            }
        };
        let own_bytes = self.bytes_of(&named);
        let parts = manifest.parts();
        let total_bytes = parts.values().copied().fold(own_bytes, u64::saturating_add);
        self.check_room(total_bytes)?;
        let documents_here = [self.image.digest, named];
        self.prune(|digest| documents_here.contains(digest) || parts.contains_key(digest))?;
        let mut received_bytes = own_bytes;
        (self.tell)(received_bytes, total_bytes);
        let config = manifest.config.digest;
        let first = parts.get_key_value(&config).into_iter();
        let layers = parts.iter().filter(|(digest, _)| **digest != config);
        for (digest, bytes) in first.chain(layers) {
            if *digest == config && documents.room() < *bytes {
                return Err(PullError::Document(format!("a configuration of {bytes} bytes")));
            }
            self.blob(&mut client, digest, *bytes, |more| {
                (self.tell)(received_bytes + more, total_bytes);
            })?;
            received_bytes += *bytes;
            (self.tell)(received_bytes, total_bytes);
            if *digest == config {
                // Before the layers come: it says whether they could run here.
                let text = self.read(digest)?;
                Config::parse(&text)?;
                documents.0.push(text);
            }
        }
        Ok(Pulled { received_bytes, total_bytes, documents: documents.0 })
    }

    fn check_room(&self, bytes: u64) -> Result<(), PullError> {
        if bytes > self.max_bytes {
            return Err(PullError::TooLarge { bytes, max_bytes: self.max_bytes });
        }
        let free_bytes = inventory::free_disk_bytes(self.dir.path());
        if free_bytes.is_ok_and(|free_bytes| free_bytes < bytes) {
            return Err(PullError::DiskFull);
        }
        Ok(())
    }

    /// Removes what an image before this one has left: whoever names one after another has room for
    /// one.
    fn prune(&self, is_kept: impl Fn(&Digest) -> bool) -> Result<(), PullError> {
        let dir = self.dir.blobs();
        for entry in fs::read_dir(&dir).map_err(PullError::disk(&dir))? {
            let path = entry.map_err(PullError::disk(&dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !name.parse::<Digest>().is_ok_and(|digest| is_kept(&digest)) {
                fs::remove_file(&path).map_err(PullError::disk(&path))?;
            }
        }
        Ok(())
    }

    fn bytes_of(&self, digest: &Digest) -> u64 {
        fs::metadata(self.dir.blob(digest)).map_or(0, |meta| meta.len())
    }

    fn read(&self, digest: &Digest) -> Result<Vec<u8>, PullError> {
        let path = self.dir.blob(digest);
        fs::read(&path).map_err(PullError::disk(&path))
    }

    /// An index or a manifest.
    fn document(
        &self,
        client: &mut Client<'_>,
        documents: &mut Documents,
        digest: Digest,
    ) -> Result<Vec<u8>, PullError> {
        if !self.dir.blob(&digest).exists() {
            let room = documents.room();
            let path = format!("manifests/sha256:{digest}");
            let from = client.get(&path, MANIFESTS, room)?;
            let most = Length::AtMost(room);
            self.keep(from, &digest, most, |_| {})?;
        }
        let bytes = self.read(&digest)?;
        documents.0.push(bytes.clone());
        Ok(bytes)
    }

    /// A configuration or a layer.
    fn blob(
        &self,
        client: &mut Client<'_>,
        digest: &Digest,
        bytes: u64,
        tell: impl Fn(u64),
    ) -> Result<(), PullError> {
        if self.dir.blob(digest).exists() && self.bytes_of(digest) == bytes {
            return Ok(());
        }
        let from = client.get(&format!("blobs/sha256:{digest}"), BLOBS, bytes)?;
        self.keep(from, digest, Length::Exactly(bytes), tell)
    }

    /// Writes what comes into its place, once all of it has come and is what it should be.
    fn keep(
        &self,
        from: impl Read,
        digest: &Digest,
        length: Length,
        tell: impl Fn(u64),
    ) -> Result<(), PullError> {
        let part = self.dir.part(digest);
        let kept = self.copy(from, digest, length, tell);
        if kept.is_err() {
            let _ = fs::remove_file(part);
        }
        kept
    }

    fn copy(
        &self,
        mut from: impl Read,
        digest: &Digest,
        length: Length,
        tell: impl Fn(u64),
    ) -> Result<(), PullError> {
        let (part, whole) = (self.dir.part(digest), self.dir.blob(digest));
        let disk = || PullError::disk(&part);
        let mut file = File::create(&part).map_err(disk())?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = from.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > length.most() {
                return Err(length.beyond(digest));
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(disk())?;
            tell(bytes);
        }
        let is_it = Digest(hasher.finalize().into()) == *digest;
        if !is_it || length.is_short_of(bytes) {
            return Err(PullError::Digest(digest.to_string()));
        }
        file.sync_all().map_err(disk())?;
        fs::rename(&part, &whole).map_err(disk())
    }
}

/// Documents that will go to the holder, in one answer.
#[derive(Default)]
struct Documents(Vec<Vec<u8>>);

impl Documents {
    /// Bytes that may still come.
    fn room(&self) -> u64 {
        let had: usize = self.0.iter().map(Vec::len).sum();
        PULLED_DOCUMENTS_MAX_BYTES.saturating_sub(had) as u64
    }
}

/// How long content is, as far as it is known.
#[derive(Clone, Copy)]
enum Length {
    Exactly(u64),
    AtMost(u64),
}

impl Length {
    fn most(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::AtMost(bytes) => bytes,
        }
    }

    fn is_short_of(self, bytes: u64) -> bool {
        matches!(self, Self::Exactly(expected) if expected != bytes)
    }

    /// What more than that is.
    fn beyond(self, digest: &Digest) -> PullError {
        match self {
            Self::Exactly(_) => PullError::Digest(digest.to_string()),
            Self::AtMost(bytes) => PullError::Document(format!("a document beyond {bytes} bytes")),
        }
    }
}
