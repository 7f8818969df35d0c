//! The keys of a node and the secrets derived from them.

use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::Key;
use crate::params::Params;
use crate::wire::{Object, Verified, sign};

/// The engine's signing keys. Single-use secrets come by HMAC from one hardened wallet
/// child, the salt of a life and an index, both journaled first.
pub struct Keys {
    identity: SigningKey,
    settlement: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.public())
    }
}

impl Keys {
    /// From the identity secret and the private key of m/7268'/coin'/0'.
    #[must_use]
    pub fn new(identity: [u8; 32], settlement: [u8; 32]) -> Self {
        Self { identity: SigningKey::from_bytes(&identity), settlement }
    }

    /// Public identity.
    #[must_use]
    pub fn public(&self) -> Key {
        Key(self.identity.verifying_key().to_bytes())
    }

    /// Signs an object as this node.
    #[must_use]
    pub fn sign<T: Object>(&self, value: T, params: &Params) -> Verified<T> {
        sign(value, params.magic, &self.identity)
    }

    /// `HMAC-SHA256(settlement key, label ‖ salt ‖ u64be(index))`.
    #[must_use]
    pub(super) fn secret(&self, label: &str, salt: [u8; 32], index: u64) -> [u8; 32] {
        // HMAC takes a key of any length, so this construction cannot fail.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.settlement)
            .expect("HMAC accepts a key of any length");
        mac.update(label.as_bytes());
        mac.update(&salt);
        mac.update(&index.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{from_hex, to_hex};

    /// Keys and preimages of open trades are derived again after a restart: another
    /// derivation would lose them. Written by `tests/vectors/settlement_ref.py`.
    #[test]
    fn secrets_are_derived_as_ever() {
        let text = include_str!("../../../../tests/vectors/settlement_secrets.txt");
        let mut cases = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let bytes = |hex: &str| <[u8; 32]>::try_from(from_hex(hex).unwrap()).unwrap();
            let keys = Keys::new([1; 32], bytes(parts[0]));
            let index = u64::from_str_radix(parts[3], 16).unwrap();
            let secret = keys.secret(parts[1], bytes(parts[2]), index);
            assert_eq!(to_hex(&secret), parts[4], "{line}");
            cases += 1;
        }
        assert_eq!(cases, 8);
    }
}
