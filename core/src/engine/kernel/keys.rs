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
