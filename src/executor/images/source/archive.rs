//! A file: an image as `docker save` and `podman save` write it, an OCI layout in an archive,
//! or a root file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::{Blob, From, Given, Store, document, hash, of_index};
use crate::executor::images::error::ImageError;
use crate::executor::images::manifest::{LAYERS_MAX, parse};
use crate::executor::images::names::Parts;
use crate::executor::images::tars::{Kind, for_each};
use crate::executor::images::unpack::decompressed;
use capex_core::ids::Digest;

/// Parts of a saved image that are remembered: each layer has up to three files.
const MEMBERS_MAX: usize = 4 * LAYERS_MAX;
const OCI_LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
const DOCKER_MANIFEST: &str = "manifest.json";
/// Links from layer to layer of one saved image, which older engines write.
const LINKS_MAX: usize = 8;

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// A member of the archive.
enum Member {
    File(Blob),
    Link(String),
}

/// What the archive has of a saved image.
#[derive(Default)]
struct Members {
    files: BTreeMap<String, Member>,
    /// Names that are no part of a saved image: then it is a root file system.
    foreign: bool,
}

impl Store for Members {
    fn find(&self, digest: Digest) -> Option<Blob> {
        let blob = self.file(&format!("blobs/sha256/{digest}"), 0)?;
        Some(Blob { digest, ..blob })
    }
}

impl Members {
    /// The file of a name, by way of links within the archive.
    fn file(&self, name: &str, links: usize) -> Option<Blob> {
        match self.files.get(name)? {
            Member::File(blob) => Some(blob.clone()),
            Member::Link(target) if links < LINKS_MAX => self.file(target, links + 1),
            Member::Link(_) => None,
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let blob = self.file(name, 0);
        document(&blob.ok_or_else(|| ImageError::Format(format!("it has no {name}")))?)
    }

    fn is_image(&self) -> bool {
        let has = |name| self.files.contains_key(name);
        !self.foreign && (has(DOCKER_MANIFEST) || (has(OCI_LAYOUT) && has(INDEX)))
    }
}

pub(super) fn open(path: &Path) -> Result<Given, ImageError> {
    let opened = || File::open(path).map_err(ImageError::io(path.display().to_string()));
    let length = opened()?.metadata().map_err(ImageError::io(path.display().to_string()))?.len();
    let is_plain = for_each(opened()?, |_, _, _| Err(ImageError::Cancelled));
    let is_plain = matches!(is_plain, Err(ImageError::Cancelled));
    let stream = decompressed(opened()?).map_err(ImageError::io(path.display().to_string()))?;
    let members = members(path, stream)?;
    if members.is_image() {
        if !is_plain {
            return Err(ImageError::Compressed);
        }
        if members.files.contains_key(OCI_LAYOUT) {
            return of_index(&members.document(INDEX)?, &members);
        }
        return of_docker(&members);
    }
    let (digest, bytes) = hash(opened()?)?;
    if bytes != length || bytes == 0 {
        return Err(ImageError::Format(path.display().to_string()));
    }
    Ok(Given::Rootfs(Blob { digest, bytes, from: From::File { path: path.to_owned(), offset: 0 } }))
}

fn members(path: &Path, stream: impl std::io::Read) -> Result<Members, ImageError> {
    let mut members = Members::default();
    let mut entries = 0_u64;
    for_each(stream, |header, _, offset| {
        entries += 1;
        let name = Parts::of(&header.path)?.joined();
        let member = match header.kind {
            Kind::File => Member::File(Blob {
                digest: Digest([0; 32]),
                bytes: header.size,
                from: From::File { path: path.to_owned(), offset },
            }),
            Kind::Symlink | Kind::Link => match link_within(&name, header.kind, &header.link) {
                Some(target) => Member::Link(target),
                None => return Ok(()),
            },
            Kind::Directory => return Ok(()),
            Kind::Pipe | Kind::Special => return Ok(()),
        };
        if members.files.len() >= MEMBERS_MAX {
            // No saved image has so many: what was remembered is not needed.
            members.foreign = true;
            members.files.clear();
        }
        if !members.foreign {
            members.files.insert(name, member);
        }
        Ok(())
    })?;
    if entries == 0 {
        return Err(ImageError::Format(path.display().to_string()));
    }
    Ok(members)
}

/// Where a link of the archive leads in the archive.
fn link_within(name: &str, kind: Kind, link: &[u8]) -> Option<String> {
    let link = std::str::from_utf8(link).ok()?;
    let mut parts: Vec<&str> = match kind {
        Kind::Symlink => name.split('/').collect(),
        _ => Vec::new(),
    };
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An image as engines save it: it names files instead of digests, so a manifest is written
/// that names those.
fn of_docker(members: &Members) -> Result<Given, ImageError> {
    let saved: Vec<Saved> = parse("manifest", &members.document(DOCKER_MANIFEST)?)?;
    let saved = match saved.as_slice() {
        [saved] => saved,
        others => return Err(ImageError::Several(others.len())),
    };
    let named = |name: &String| {
        let missing = || {
            ImageError::Format(format!("it has no {}", super::super::names::shown(name.as_bytes())))
        };
        let blob = members.file(name, 0).ok_or_else(missing)?;
        let (digest, _) = hash(blob.open().map_err(ImageError::io("image"))?)?;
        Ok::<_, ImageError>(Blob { digest, ..blob })
    };
    let config = named(&saved.config)?;
    if saved.layers.is_empty() || saved.layers.len() > LAYERS_MAX {
        let why = format!("it has {} layers, of 1 to {LAYERS_MAX}", saved.layers.len());
        return Err(ImageError::Document { what: "manifest", why });
    }
    let layers = saved.layers.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let part = |kind: &str, blob: &Blob| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", blob.digest),
            "size": blob.bytes,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("config.v1+json", &config),
        "layers": layers.iter().map(|layer| part("layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    let manifest = Blob::made(manifest.to_string().into_bytes());
    let parts: BTreeMap<Digest, Blob> =
        std::iter::once(config).chain(layers).map(|blob| (blob.digest, blob)).collect();
    Ok(Given::Image { manifest, others: parts.into_values().collect() })
}
