//! The documents of an image, as far as anything follows from them.
//!
//! Source: OCI Image Format Specification 1.1, and version 2 of Docker's manifest, which has
//! the same fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ImageError;
use capex_core::ids::Digest;

/// An index, manifest or configuration: registries take manifests of up to 4 MiB, and the
/// longest configuration seen has a few thousand lines of history.
pub(super) const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// Layers of an image: container engines do not mount more.
pub(super) const LAYERS_MAX: usize = 127;

/// Content by digest and length.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::executor) struct Part {
    #[serde(deserialize_with = "sha256_digest")]
    pub(in crate::executor) digest: Digest,
    /// Length, bytes.
    pub(in crate::executor) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default, rename = "mediaType")]
    pub(super) media_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
}

impl Part {
    /// Whether it is for machines such as this one, as far as it says.
    pub(super) fn is_for_here(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == here())
    }

    /// Whether it is a list of manifests itself.
    pub(super) fn is_index(&self) -> bool {
        self.media_type.contains("index") || self.media_type.ends_with("list.v2+json")
    }

    /// Whether it runs on Linux at all: what else a builder adds to an index says `unknown`.
    fn is_for_linux(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| platform.os == "linux")
    }
}

/// What the digest of an image leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum Chosen {
    Manifest(Manifest),
    /// It is an index, and this is the manifest for a machine such as this one.
    Of(Digest),
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::executor) struct Manifest {
    pub(in crate::executor) config: Part,
    pub(in crate::executor) layers: Vec<Part>,
}

/// What an image wants to be run as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(in crate::executor) struct Config {
    architecture: Option<String>,
    os: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Process>,
    rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Process {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct RootFs {
    diff_ids: Vec<DiffId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct DiffId(#[serde(deserialize_with = "sha256_digest")] Digest);

/// A list of manifests, or of further lists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Part>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ImageError::Document`].
    pub(in crate::executor) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: Self = parse("manifest", bytes)?;
        if manifest.layers.is_empty() || manifest.layers.len() > LAYERS_MAX {
            let why = format!("it has {} layers, of 1 to {LAYERS_MAX}", manifest.layers.len());
            return Err(ImageError::Document { what: "manifest", why });
        }
        Ok(manifest)
    }

    /// Configuration and layers, each once.
    pub(in crate::executor) fn parts(&self) -> BTreeMap<Digest, u64> {
        let all = std::iter::once(&self.config).chain(&self.layers);
        all.map(|part| (part.digest, part.size)).collect()
    }
}

/// Takes an index, or a manifest, for what it is. A document that could be read as either would be
/// another image for another reader.
///
/// # Errors
/// [`ImageError::Document`]; [`ImageError::Platform`] if the index has nothing for such a machine.
pub(in crate::executor) fn choose(bytes: &[u8]) -> Result<Chosen, ImageError> {
    let Some(manifests) = listed(bytes)? else {
        return Manifest::parse(bytes).map(Chosen::Manifest);
    };
    let mut here = manifests.iter().filter(|part| part.is_for_here() && !part.is_index());
    let first =
        here.next().ok_or_else(|| ImageError::Platform(format!("linux/{}", self::here())))?;
    Ok(Chosen::Of(first.digest))
}

/// Whether a manifest is one of those that an index names, for whatever kind of machine; a manifest
/// names nothing.
///
/// # Errors
/// [`ImageError::Document`].
pub(in crate::executor) fn names(bytes: &[u8], manifest: Digest) -> Result<bool, ImageError> {
    let manifests = listed(bytes)?.unwrap_or_default();
    Ok(manifests.iter().any(|part| part.digest == manifest && part.is_for_linux()))
}

/// What an index lists; `None` for a manifest.
fn listed(bytes: &[u8]) -> Result<Option<Vec<Part>>, ImageError> {
    #[derive(Deserialize)]
    struct Either {
        manifests: Option<Vec<Part>>,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let Either { manifests, config, layers } = parse("manifest", bytes)?;
    if manifests.is_some() && config.is_some() | layers.is_some() {
        let why = "it is an index and a manifest at once".to_owned();
        return Err(ImageError::Document { what: "manifest", why });
    }
    Ok(manifests)
}

impl Config {
    /// Reads the configuration of an image for whatever kind of machine.
    ///
    /// # Errors
    /// [`ImageError::Document`].
    pub(in crate::executor) fn of_any(bytes: &[u8]) -> Result<Self, ImageError> {
        parse("configuration", bytes)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ImageError::Document`]; [`ImageError::Platform`] for another kind of machine.
    pub(in crate::executor) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let config: Self = parse("configuration", bytes)?;
        let (os, architecture) = (config.os.as_deref(), config.architecture.as_deref());
        let is_here = os.is_none_or(|os| os == "linux")
            && architecture.is_none_or(|architecture| architecture == here());
        if is_here { Ok(config) } else { Err(ImageError::Platform(format!("linux/{}", here()))) }
    }

    /// Digests of the layers once they are decompressed, lowest first.
    #[must_use]
    pub(in crate::executor) fn diff_ids(&self) -> Vec<Digest> {
        self.rootfs.diff_ids.iter().map(|diff_id| diff_id.0).collect()
    }

    /// What runs, if the holder gives this command: after the image's entry point, as engines do.
    ///
    /// # Errors
    /// [`ImageError::NoCommand`] if nothing is left.
    pub(in crate::executor) fn command(&self, given: &[String]) -> Result<Vec<String>, ImageError> {
        let process = self.config.clone().unwrap_or_default();
        let mut command = process.entrypoint.unwrap_or_default();
        if given.is_empty() {
            command.extend(process.cmd.unwrap_or_default());
        } else {
            command.extend_from_slice(given);
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(ImageError::NoCommand);
        }
        Ok(command)
    }

    /// `NAME=value` for each variable of the image.
    #[must_use]
    pub(in crate::executor) fn env(&self) -> Vec<String> {
        self.config.as_ref().and_then(|process| process.env.clone()).unwrap_or_default()
    }

    /// `user`, `uid`, `user:group` or `uid:gid`; empty for the superuser.
    #[must_use]
    pub(in crate::executor) fn user(&self) -> &str {
        self.config.as_ref().and_then(|process| process.user.as_deref()).unwrap_or_default()
    }

    /// Where the command begins; the root without one.
    #[must_use]
    pub(in crate::executor) fn workdir(&self) -> &str {
        let named = self.config.as_ref().and_then(|process| process.working_dir.as_deref());
        named.filter(|path| !path.is_empty()).unwrap_or("/")
    }
}

/// Checks that a manifest names exactly the content that was declared with it.
///
/// # Errors
/// [`ImageError::Undeclared`].
pub(in crate::executor) fn declared(
    manifest: &Manifest,
    blobs: impl IntoIterator<Item = (Digest, u64)>,
) -> Result<(), ImageError> {
    let blobs: BTreeMap<Digest, u64> = blobs.into_iter().collect();
    if manifest.parts() == blobs { Ok(()) } else { Err(ImageError::Undeclared) }
}

/// Name of this machine's architecture in images.
pub(super) fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn parse<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, ImageError> {
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(ImageError::Document { what, why: format!("{} bytes", bytes.len()) });
    }
    serde_json::from_slice(bytes).map_err(|error| ImageError::Document {
        what,
        // The text of the error may quote the document.
        why: super::names::shown(error.to_string().as_bytes()),
    })
}

fn sha256_digest<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(from)?;
    let hex = text.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    hex.and_then(|hex| hex.parse().ok())
        .ok_or_else(|| serde::de::Error::custom("a digest is not sha256 and 64 digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(process: &str) -> Config {
        let text = format!(
            r#"{{"architecture":"{}","os":"linux","config":{process},"rootfs":{{"diff_ids":[]}}}}"#,
            here()
        );
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_runs_is_what_an_engine_would_run() {
        type Words = &'static [&'static str];
        let table: [(&str, Words, Option<Words>); 6] = [
            (r#"{"Cmd":["sh"]}"#, &[], Some(&["sh"])),
            (r#"{"Cmd":["sh"]}"#, &["ls"], Some(&["ls"])),
            (r#"{"Entrypoint":["run"],"Cmd":["-v"]}"#, &[], Some(&["run", "-v"])),
            (r#"{"Entrypoint":["run"],"Cmd":["-v"]}"#, &["-q"], Some(&["run", "-q"])),
            (r#"{"Cmd":null,"Env":null}"#, &[], None),
            ("null", &[], None),
        ];
        for (process, given, expected) in table {
            let given: Vec<String> = given.iter().map(|&word| word.to_owned()).collect();
            let command = config(process).command(&given).ok();
            let expected = expected.map(|words| words.iter().map(|&w| w.to_owned()).collect());
            assert_eq!(command, expected, "{process}");
        }
    }

    #[test]
    fn documents_that_lie_are_refused() {
        let digest = "0".repeat(64);
        let part = format!(r#"{{"digest":"sha256:{digest}","size":1}}"#);
        let many = vec![part.as_str(); LAYERS_MAX + 1].join(",");
        let table = [
            (format!(r#"{{"config":{part},"layers":[{part}]}}"#), "fine"),
            (format!(r#"{{"config":{part},"layers":[]}}"#), "image.document"),
            (format!(r#"{{"config":{part},"layers":[{many}]}}"#), "image.document"),
            (
                format!(r#"{{"config":{part},"layers":[{{"digest":"sha256:../x","size":1}}]}}"#),
                "image.document",
            ),
            (
                format!(
                    r#"{{"config":{part},"layers":[{{"digest":"sha256:{digest}","size":-1}}]}}"#
                ),
                "image.document",
            ),
            (
                format!(r#"{{"config":{part},"layers":[{{"digest":"md5:{digest}","size":1}}]}}"#),
                "image.document",
            ),
            ("[".repeat(100_000), "image.document"),
            (" ".repeat(DOCUMENT_MAX_BYTES as usize + 1), "image.document"),
        ];
        for (text, expected) in table {
            let parsed = Manifest::parse(text.as_bytes());
            let code = parsed.map_or_else(|error| error.reason().code(), |_| "fine");
            assert_eq!(code, expected, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn a_workload_declares_what_its_manifest_names() {
        let (one, two) = (Digest([1; 32]), Digest([2; 32]));
        let part = |digest, size| Part { digest, size, platform: None, media_type: String::new() };
        let manifest = Manifest { config: part(one, 5), layers: vec![part(two, 7), part(two, 7)] };
        let table: [(&[(Digest, u64)], bool); 5] = [
            (&[(one, 5), (two, 7)], true),
            (&[(one, 5)], false),
            (&[(one, 5), (two, 8)], false),
            (&[(one, 5), (two, 7), (Digest([3; 32]), 1)], false),
            (&[], false),
        ];
        for (blobs, expected) in table {
            assert_eq!(declared(&manifest, blobs.iter().copied()).is_ok(), expected, "{blobs:?}");
        }
    }
}
