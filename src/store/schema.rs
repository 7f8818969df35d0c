//! What a journal file says about itself: its network and the schema of its records.

use super::error::StoreError;
use std::path::Path;

/// Version of the record schema that this release writes. An older one is migrated at open in
/// numbered steps (none so far: in version 1 a batch was one frame); a newer one is refused.
pub const SCHEMA_VERSION: u16 = 2;

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
    fn a_newer_schema_is_refused() {
        let meta = Meta { network: "devnet".into(), magic: [1, 2, 3, 4] };
        let mut header = meta.encode();
        header[9] += 1;
        let error = meta.admit(Path::new("x"), &header).unwrap_err();
        assert_eq!(error.code(), "store.newer_schema");
    }

    #[test]
    fn the_same_name_with_another_magic_is_another_network() {
        let meta = Meta { network: "devnet".into(), magic: [1, 2, 3, 4] };
        let other = Meta { magic: [1, 2, 3, 5], ..meta.clone() };
        let error = meta.admit(Path::new("x"), &other.encode()).unwrap_err();
        assert_eq!(error.code(), "store.wrong_network");
    }
}
