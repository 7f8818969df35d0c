//! An image that its provider fetches from a registry, instead of having its content sent by the
//! holder. What is signed stays the same: a workload names its content by digest, wherever it came
//! from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::limits::IMAGE_NAME_MAX_BYTES;

/// How a digest follows a name.
const DIGEST_MARK: &str = "@sha256:";

/// An image in a registry: `registry.example:5000/team/app` by the digest of its manifest, or of an
/// index that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Registry and repository. [`Self::parts`] tells whether they are formed as they should.
    pub name: String,
    pub digest: Digest,
}

impl ImageRef {
    /// Reads `NAME@sha256:DIGEST`. A tag is left out: the digest says more. `None` if it is anything
    /// else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digest) = text.split_once(DIGEST_MARK)?;
        let tag = name.rfind(':').filter(|colon| !name[*colon..].contains('/'));
        let name = name[..tag.unwrap_or(name.len())].to_owned();
        let image = Self { name, digest: digest.parse().ok()? };
        image.parts().is_some().then_some(image)
    }

    /// Whether a text means to be one.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(DIGEST_MARK)
    }

    /// Registry, with its port if it names one, and repository; `None` if it is none. Nothing in
    /// either leads out of the path into which it is written.
    #[must_use]
    pub fn parts(&self) -> Option<(&str, &str)> {
        let (registry, repository) = self.name.split_once('/')?;
        let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
        let is_label = |label: &str| !label.is_empty() && label.chars().all(is_of_host);
        let is_host = host.split('.').all(is_label) && (host.contains('.') || registry != host);
        let is_port = port.starts_with(|c: char| c.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0);
        let is_path = repository.split('/').all(is_component);
        let is_whole = self.name.len() <= IMAGE_NAME_MAX_BYTES && is_host && is_port && is_path;
        is_whole.then_some((registry, repository))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{DIGEST_MARK}{}", self.name, self.digest)
    }
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

/// A part of a repository's path, as the specification of registries has it: it begins and ends with
/// a letter or digit.
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && text.chars().all(|c| is_plain(c) || matches!(c, '.' | '_' | '-'))
}

/// How far the pull of an image is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Of its content, so far.
    pub received_bytes: u64,
    /// Of all its content; 0 before its manifest is there.
    pub total_bytes: u64,
    /// Once all of it is there: the index, if the digest is that of one, the manifest and the
    /// configuration, as they came, at most [`crate::limits::PULLED_DOCUMENTS_MAX_BYTES`]. From these
    /// the holder knows what it signs for. Nothing before.
    pub documents: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_registries_do_and_lead_nowhere_else() {
        let digest = "ab".repeat(32);
        let long = format!("a.b/{}", "x".repeat(IMAGE_NAME_MAX_BYTES));
        let table = [
            ("docker.io/library/alpine", Some(("docker.io", "library/alpine"))),
            ("docker.io/library/alpine:3.20", Some(("docker.io", "library/alpine"))),
            ("registry.example:5000/team/app:v1", Some(("registry.example:5000", "team/app"))),
            ("localhost:5000/app", Some(("localhost:5000", "app"))),
            ("10.0.0.1:80/a_b.c-d/e", Some(("10.0.0.1:80", "a_b.c-d/e"))),
            ("alpine", None),
            ("library/alpine", None),
            ("Docker.io/library/alpine", None),
            ("docker.io/Library/alpine", None),
            ("docker.io/", None),
            ("docker.io//alpine", None),
            ("docker.io/../alpine", None),
            ("docker.io/a/..", None),
            ("docker.io/a?b", None),
            ("docker.io/a#b", None),
            ("docker.io/a%2fb", None),
            ("docker.io/a b", None),
            ("user@docker.io/a", None),
            ("docker.io:0/a", None),
            ("docker.io:65536/a", None),
            ("docker.io:/a", None),
            ("docker.io:+1/a", None),
            ("docker..io/a", None),
            (".docker.io/a", None),
            ("https://docker.io/a", None),
            (long.as_str(), None),
        ];
        for (name, parts) in table {
            let image = ImageRef::parse(&format!("{name}@sha256:{digest}"));
            assert_eq!(image.as_ref().and_then(ImageRef::parts), parts, "{name}");
        }
        for text in ["docker.io/a", "docker.io/a@sha256:ab", "docker.io/a@sha512:ab"] {
            assert_eq!(ImageRef::parse(text), None, "{text}");
        }
        let text = format!("docker.io/library/alpine@sha256:{digest}");
        assert_eq!(ImageRef::parse(&text).unwrap().to_string(), text);
    }
}
