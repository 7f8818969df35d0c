//! What a journal file says about itself: its network and the schema of its records.

use super::error::StoreError;
use std::path::Path;

/// Version of the journal's frames and of the set of tables that this release writes. The forms
/// of single records have versions of their own and do not change it.
///
/// One that is newer is refused: the release that wrote it must go on. One that is older than
/// `OLDEST_SCHEMA` is refused too; those between would be read by a numbered step each, of
/// which there is none yet.
pub const SCHEMA_VERSION: u16 = 3;

/// Oldest version that this release reads. Versions 1 and 2 were never released: records had no
/// version.
pub(super) const OLDEST_SCHEMA: u16 = 3;

/// Table number that the index keeps for itself.
pub const RESERVED_TABLE: u8 = 0xff;

/// First bytes of the header payload, so that a stray file is not taken for a journal.
const FORMAT: &[u8; 8] = b"capexjnl";

/// The network that a store belongs to: one store, one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Name of the network definition, at most 255 bytes.
    pub network: String,
    /// The definition's magic, which every signature covers.
    pub magic: [u8; 4],
}

impl Meta {
    /// Payload of a segment's header frame: `format | schema u16 | magic | name`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = FORMAT.to_vec();
        out.extend_from_slice(&SCHEMA_VERSION.to_be_bytes());
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(self.network.as_bytes());
        out
    }

    /// Reverse of [`Meta::encode`], with the schema that it names.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, u16)> {
        let rest = bytes.strip_prefix(FORMAT)?;
        let (schema, rest) = rest.split_first_chunk::<2>()?;
        let (magic, name) = rest.split_first_chunk::<4>()?;
        let network = String::from_utf8(name.to_vec()).ok()?;
        Some((Self { network, magic: *magic }, u16::from_be_bytes(*schema)))
    }

    /// Checks the header of `file` against this network and this release.
    pub(super) fn admit(&self, file: &Path, header: &[u8]) -> Result<(), StoreError> {
        let bad = || StoreError::corrupt(file, 0, "a header");
        let (found, schema) = Self::decode(header).ok_or_else(bad)?;
        if schema > SCHEMA_VERSION {
            return Err(StoreError::NewerSchema { found: schema, known: SCHEMA_VERSION });
        }
        if schema < OLDEST_SCHEMA {
            return Err(StoreError::OlderSchema { found: schema, oldest: OLDEST_SCHEMA });
        }
        if found != *self {
            return Err(StoreError::WrongNetwork {
                found: found.network,
                expected: self.network.clone(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_and_an_older_schema_are_refused_with_what_to_do() {
        let meta = Meta { network: "devnet".into(), magic: [1, 2, 3, 4] };
        for (schema, code) in
            [(SCHEMA_VERSION + 1, "store.newer_schema"), (OLDEST_SCHEMA - 1, "store.older_schema")]
        {
            let mut header = meta.encode();
            header[8..10].copy_from_slice(&schema.to_be_bytes());
            let error = meta.admit(Path::new("x"), &header).unwrap_err();
            assert_eq!(error.code(), code);
            assert!(error.hint().is_some());
        }
        assert!(meta.admit(Path::new("x"), &meta.encode()).is_ok());
    }

    #[test]
    fn the_same_name_with_another_magic_is_another_network() {
        let meta = Meta { network: "devnet".into(), magic: [1, 2, 3, 4] };
        let other = Meta { magic: [1, 2, 3, 5], ..meta.clone() };
        let error = meta.admit(Path::new("x"), &other.encode()).unwrap_err();
        assert_eq!(error.code(), "store.wrong_network");
    }
}
