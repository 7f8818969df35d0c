//! Values of a workload's environment that only the provider of its certificate can read.
//!
//! ```text
//! certificate id │ ephemeral X25519 key │ XChaCha20-Poly1305 (value; name and certificate authenticated)
//! ```
//!
//! The key of the provider is that of its node, which every certificate names: an ed25519 key has
//! one form for agreeing on secrets (RFC 7748 §4.1). Each value has an ephemeral key of its own,
//! so that its cipher key is used once and needs no nonce.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use capex_core::ids::{CertId, Key};
use capex_core::lease::workload::SEALED_EXTRA_BYTES;

/// What this is used for, and its version.
const PURPOSE: &[u8] = b"capex sealed value 1";
/// Offsets of the ephemeral key and of the cipher text.
const KEY_AT: usize = 32;
const TEXT_AT: usize = 64;

const _: () = assert!(SEALED_EXTRA_BYTES == TEXT_AT + 16);

/// Why a value cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// The key of the provider is none.
    #[error("the key of the provider is not one")]
    Key,
    /// There is no randomness to be had.
    #[error("the system has no randomness")]
    System,
}

/// Seals a value of a variable for the provider of a certificate.
///
/// # Errors
/// [`NotSealed`].
pub fn seal(provider: &Key, cert: &CertId, name: &str, value: &str) -> Result<Vec<u8>, NotSealed> {
    let provider = VerifyingKey::from_bytes(&provider.0).map_err(|_| NotSealed::Key)?;
    let provider = provider.to_montgomery().to_bytes();
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(|_| NotSealed::System)?;
    let ephemeral = x25519(*secret, X25519_BASEPOINT_BYTES);
    let cipher = cipher(*secret, provider, (ephemeral, provider)).ok_or(NotSealed::Key)?;
    let bound = bound(cert, name);
    let payload = Payload { msg: value.as_bytes(), aad: &bound };
    let text = cipher.encrypt(&XNonce::default(), payload).map_err(|_| NotSealed::System)?;
    Ok([cert.0.as_slice(), ephemeral.as_slice(), text.as_slice()].concat())
}

/// Opens what was sealed for one node.
pub struct Opener {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Opener {
    /// For the node with this identity.
    #[must_use]
    pub fn new(identity: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(identity);
        let public = key.verifying_key().to_montgomery().to_bytes();
        Self { secret: Zeroizing::new(key.to_scalar_bytes()), public }
    }

    /// The value of a variable; `None` if it was sealed for another key, or another name, or was
    /// changed since.
    #[must_use]
    pub fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<String>> {
        let cert = CertId(sealed.first_chunk().copied()?);
        let ephemeral: [u8; 32] = sealed.get(KEY_AT..)?.first_chunk().copied()?;
        let cipher = cipher(*self.secret, ephemeral, (ephemeral, self.public))?;
        let bound = bound(&cert, name);
        let payload = Payload { msg: sealed.get(TEXT_AT..)?, aad: &bound };
        let plain = Zeroizing::new(cipher.decrypt(&XNonce::default(), payload).ok()?);
        std::str::from_utf8(&plain).ok().map(|text| Zeroizing::new(text.to_owned()))
    }
}

/// `None` for a key with which everybody agrees on the same.
fn cipher(
    secret: [u8; 32],
    other: [u8; 32],
    (ephemeral, provider): ([u8; 32], [u8; 32]),
) -> Option<XChaCha20Poly1305> {
    let shared = Zeroizing::new(x25519(secret, other));
    if *shared == [0; 32] {
        return None;
    }
    let hash = Sha256::new()
        .chain_update(PURPOSE)
        .chain_update(*shared)
        .chain_update(ephemeral)
        .chain_update(provider)
        .finalize();
    XChaCha20Poly1305::new_from_slice(&hash).ok()
}

fn bound(cert: &CertId, name: &str) -> Vec<u8> {
    [PURPOSE, &cert.0, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: CertId = CertId([7; 32]);

    fn key(identity: u8) -> Key {
        Key(SigningKey::from_bytes(&[identity; 32]).verifying_key().to_bytes())
    }

    #[test]
    fn only_the_provider_opens_it_and_only_under_its_name() {
        let sealed = seal(&key(1), &CERT, "TOKEN", "hunter2").unwrap();
        assert_eq!(sealed.len(), SEALED_EXTRA_BYTES + 7);
        let open = |identity: u8, name: &str, sealed: &[u8]| {
            Opener::new(&[identity; 32]).open(name, sealed).map(|text| text.to_string())
        };
        assert_eq!(open(1, "TOKEN", &sealed).as_deref(), Some("hunter2"));
        assert_eq!(open(2, "TOKEN", &sealed), None);
        assert_eq!(open(1, "OTHER", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(1, "TOKEN", &changed), None, "byte {at}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(1, "TOKEN", &sealed[..length]), None, "{length} bytes");
        }
        let again = seal(&key(1), &CERT, "TOKEN", "hunter2").unwrap();
        assert_ne!(again[KEY_AT..], sealed[KEY_AT..], "each has a key of its own");
    }

    #[test]
    fn a_key_that_agrees_with_everybody_is_refused() {
        // The neutral element, and what is no point at all.
        let point = |byte: u8| {
            let mut bytes = [0; 32];
            bytes[0] = byte;
            bytes
        };
        let is_none = |bytes: &[u8; 32]| VerifyingKey::from_bytes(bytes).is_err();
        let no_point = (2..=u8::MAX).map(point).find(is_none).unwrap();
        for broken in [point(1), no_point] {
            assert_eq!(seal(&Key(broken), &CERT, "A", "b"), Err(NotSealed::Key), "{broken:?}");
        }
        let mut sealed = seal(&key(1), &CERT, "A", "b").unwrap();
        sealed[KEY_AT..TEXT_AT].fill(0);
        assert_eq!(Opener::new(&[1; 32]).open("A", &sealed), None);
    }
}
