//! Bytes on the wire: one encoding, one way to sign, one way to refuse.
//!
//! The lowest room: generic and pure. Every signed object of the protocol is
//! `payload = bincode(fixed-width integers, big endian, at most 4,096 bytes)` and the
//! signature covers `"capex/<object>/v1\0" ‖ network magic ‖ payload`. The object id is
//! SHA-256 of the same bytes without the signature, so a signer can not make two ids of
//! one payload. Bytes are verified, stored and forwarded **as received** (DESIGN §4).
//!
//! This is the only file that names bincode.

use std::fmt;
use std::ops::Deref;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{RECORD_MAX_BYTES, SIGNED_MAX_BYTES};

/// Four bytes that name a network inside every signature, so that nothing signed for one
/// network is valid on another.
pub type Magic = [u8; 4];

/// Why bytes were refused. Every variant follows from the bytes alone, so the sender can
/// be blamed, except [`WireError::UnknownVersion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than the limit of its kind.
    #[error("message exceeds its size limit")]
    Oversize,
    /// Not an encoding of the expected type.
    #[error("message does not decode")]
    Malformed,
    /// Decodes, but is not the one canonical encoding (trailing bytes included).
    #[error("message is not canonically encoded")]
    NotCanonical,
    /// A version this node does not know: ignored, never punished.
    #[error("message has an unknown version")]
    UnknownVersion,
    /// The public key is not a point, or has small order.
    #[error("public key is weak or invalid")]
    WeakKey,
    /// The signature does not verify, or belongs to another network or object.
    #[error("signature does not verify")]
    BadSignature,
    /// Signed by another key than the one that the payload names.
    #[error("signed by another key than the payload names")]
    WrongSigner,
}

impl WireError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Oversize => "wire.oversize",
            Self::Malformed => "wire.malformed",
            Self::NotCanonical => "wire.not_canonical",
            Self::UnknownVersion => "wire.unknown_version",
            Self::WeakKey => "wire.weak_key",
            Self::BadSignature => "wire.bad_signature",
            Self::WrongSigner => "wire.wrong_signer",
        }
    }

    /// Whether the bytes alone prove the sender at fault.
    #[must_use]
    pub fn is_blamable(self) -> bool {
        self != Self::UnknownVersion
    }
}

fn config<const LIMIT: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Encodes a value of the protocol.
///
/// # Panics
/// Never for the types of this crate: they hold no type that bincode can not encode.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::<RECORD_MAX_BYTES>())
        .expect("protocol types hold nothing that bincode refuses")
}

/// Decodes the one canonical encoding of a signed payload: at most 4,096 bytes, nothing
/// trailing, and encoding the result again gives the same bytes.
///
/// # Errors
/// [`WireError::Oversize`], [`WireError::Malformed`] or [`WireError::NotCanonical`].
pub fn decode_exact<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    decode_within::<T, SIGNED_MAX_BYTES>(bytes)
}

/// As [`decode_exact`], for journal records and frames that carry several signed objects
/// (at most 4 MiB).
///
/// # Errors
/// As [`decode_exact`].
pub fn decode_record<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    decode_within::<T, RECORD_MAX_BYTES>(bytes)
}

fn decode_within<T: Serialize + DeserializeOwned, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<T, WireError> {
    if bytes.len() > LIMIT {
        return Err(WireError::Oversize);
    }
    let (value, used): (T, usize) = bincode::serde::decode_from_slice(bytes, config::<LIMIT>())
        .map_err(|_| WireError::Malformed)?;
    if used != bytes.len() || encode(&value) != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}

/// A thing that is signed: an order, a certificate's parts, a vote on a root.
pub trait Object: Serialize + DeserializeOwned + Clone + fmt::Debug + PartialEq {
    /// Name in the signature's domain, `capex/<NAME>/v1`.
    const NAME: &'static str;

    /// Version byte of this payload.
    fn version(&self) -> u8;

    /// The key that must have signed, where the payload itself names it.
    fn signer(&self) -> Option<[u8; 32]> {
        None
    }
}

/// The only version of every object today.
pub const VERSION: u8 = 1;

fn preimage(name: &str, magic: Magic, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + name.len() + payload.len());
    bytes.extend_from_slice(b"capex/");
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"/v1\0");
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(payload);
    bytes
}

/// What the id of an object hashes and its signature covers: domain, magic, payload.
#[must_use]
pub fn signing_prefix<T: Object>(object: &T, magic: Magic) -> Vec<u8> {
    preimage(T::NAME, magic, &encode(object))
}

/// SHA-256 of `parts`, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Id of an encoded object: SHA-256 of what its signature covers.
#[must_use]
pub fn object_id_of_bytes(name: &str, magic: Magic, payload: &[u8]) -> [u8; 32] {
    sha256(&[&preimage(name, magic, payload)])
}

/// Id of an object.
#[must_use]
pub fn object_id<T: Object>(object: &T, magic: Magic) -> [u8; 32] {
    object_id_of_bytes(T::NAME, magic, &encode(object))
}

/// Bytes of an object with the signature over them, as they travel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Envelope {
    /// ed25519 key of the signer.
    pub key: [u8; 32],
    /// Canonical encoding of the object.
    pub payload: Vec<u8>,
    /// First and second half of the signature.
    pub signature: [[u8; 32]; 2],
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({} bytes)", self.payload.len())
    }
}

/// An object whose canonical form, signer and signature have been checked.
///
/// The only constructors are [`sign`], [`Envelope::verify`] and, for what this node verified
/// and wrote to its own journal, [`Verified::from_own_journal`], so code that holds one never
/// checks again.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T> {
    value: T,
    id: [u8; 32],
    envelope: Envelope,
}

impl<T> Verified<T> {
    /// Object id: the hash of what was signed.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// Key that signed.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        self.envelope.key
    }

    /// The bytes as received, to store or forward.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Takes the object out of its proof.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T: Object> Verified<T> {
    /// An object that an earlier life of this node verified before it journaled it. The journal
    /// has a checksum, so only the form is checked again: a signature costs ten times as much as
    /// the rest of loading an order.
    ///
    /// # Errors
    /// Form, version, or a payload that names another signer.
    pub(crate) fn from_own_journal(envelope: Envelope, magic: Magic) -> Result<Self, WireError> {
        let value: T = envelope.peek()?;
        if value.signer().is_some_and(|signer| signer != envelope.key) {
            return Err(WireError::WrongSigner);
        }
        let id = envelope.id::<T>(magic);
        Ok(Self { value, id, envelope })
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Signs an object with the key that it names.
#[must_use]
pub fn sign<T: Object>(value: T, magic: Magic, key: &SigningKey) -> Verified<T> {
    let payload = encode(&value);
    let message = preimage(T::NAME, magic, &payload);
    let signature = key.sign(&message).to_bytes();
    let envelope =
        Envelope { key: key.verifying_key().to_bytes(), payload, signature: halves(&signature) };
    Verified { value, id: sha256(&[&message]), envelope }
}

fn halves(signature: &[u8; 64]) -> [[u8; 32]; 2] {
    let mut out = [[0; 32]; 2];
    out[0].copy_from_slice(&signature[..32]);
    out[1].copy_from_slice(&signature[32..]);
    out
}

impl Envelope {
    /// Checks form, version, signer and signature, in this order.
    ///
    /// Strict verification only: batch and cofactored verification accept signatures that
    /// others refuse, and nodes must agree (research on ed25519 edge cases, DESIGN §4).
    ///
    /// # Errors
    /// The first [`WireError`] found.
    pub fn verify<T: Object>(&self, magic: Magic) -> Result<Verified<T>, WireError> {
        let value: T = self.peek()?;
        if value.signer().is_some_and(|signer| signer != self.key) {
            return Err(WireError::WrongSigner);
        }
        let message = preimage(T::NAME, magic, &self.payload);
        verify_bytes(&self.key, &message, &self.signature)?;
        Ok(Verified { value, id: sha256(&[&message]), envelope: self.clone() })
    }

    /// Decodes without checking the signature, for checks that are cheaper than it.
    ///
    /// # Errors
    /// Form or version.
    pub fn peek<T: Object>(&self) -> Result<T, WireError> {
        // The version is the first byte of every object: a newer one may have a form that
        // this node can not decode, and must not be blamed for it.
        match self.payload.first() {
            None => return Err(WireError::Malformed),
            Some(&version) if version != VERSION => return Err(WireError::UnknownVersion),
            Some(_) => {}
        }
        decode_exact(&self.payload)
    }

    /// Object id of the payload, were it a `T`.
    #[must_use]
    pub fn id<T: Object>(&self, magic: Magic) -> [u8; 32] {
        object_id_of_bytes(T::NAME, magic, &self.payload)
    }
}

fn verify_bytes(key: &[u8; 32], message: &[u8], sig: &[[u8; 32]; 2]) -> Result<(), WireError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| WireError::WeakKey)?;
    if key.is_weak() {
        return Err(WireError::WeakKey);
    }
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&sig[0]);
    bytes[32..].copy_from_slice(&sig[1]);
    key.verify_strict(message, &Signature::from_bytes(&bytes)).map_err(|_| WireError::BadSignature)
}
