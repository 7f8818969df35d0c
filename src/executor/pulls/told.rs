//! What the holder makes of its provider's answer: the documents name each other by digest, the first
//! of them is the one that was asked for, so nothing has to be believed.

use sha2::{Digest as _, Sha256};

use crate::executor::images::{Config, Manifest, names};
use capex_core::ids::Digest;
use capex_core::lease::objects::{Content, Payload};
use capex_core::lease::pull::ImageRef;
use capex_core::reason;
use capex_core::reasons::Reason;

/// What a workload runs that has this image, which its provider has pulled. `command` is what it shall
/// run; if it is empty, the image has to say it.
///
/// # Errors
/// `pull.bad_answer` if the documents are not those of the image; `image.no_command`.
pub fn payload(
    image: &ImageRef,
    documents: &[Vec<u8>],
    command: &[String],
) -> Result<Payload, Reason> {
    let (manifest, config) = checked(image, documents).ok_or(reason!("pull.bad_answer"))?;
    config.command(command).map_err(|error| error.reason())?;
    let blobs = manifest.1.parts().into_iter();
    let blobs = blobs.map(|(digest, bytes)| Content { digest, bytes }).collect();
    Ok(Payload::Oci { manifest: manifest.0, blobs })
}

fn checked(image: &ImageRef, documents: &[Vec<u8>]) -> Option<((Content, Manifest), Config)> {
    let (above, named, config) = match documents {
        [manifest, config] => (None, manifest, config),
        [index, manifest, config] => (Some(index), manifest, config),
        _ => return None,
    };
    let manifest = content(named);
    let is_asked_for = match above {
        None => manifest.digest == image.digest,
        Some(index) => {
            content(index).digest == image.digest && names(index, manifest.digest).ok()?
        }
    };
    let read = Manifest::parse(named).ok()?;
    let is_its_config =
        content(config) == Content { digest: read.config.digest, bytes: read.config.size };
    let config = Config::of_any(config).ok()?;
    (is_asked_for && is_its_config).then_some(((manifest, read), config))
}

fn content(bytes: &[u8]) -> Content {
    Content { digest: Digest(Sha256::digest(bytes).into()), bytes: bytes.len() as u64 }
}
