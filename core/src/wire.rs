//! Bytes on the wire: one encoding, one way to sign, one way to refuse.
//!
//! The lowest room: generic and pure. Every signed object of the protocol is
//! `payload = bincode(fixed-width integers, big endian, at most 4,096 bytes)` and the
//! signature covers `"capex/<object>/v<version>\0" ‖ network magic ‖ payload`. The object id
//! is SHA-256 of the same bytes without the signature, so a signer cannot make two ids of
//! one payload. Bytes are verified, stored and forwarded **as received**.
//!
//! A payload starts with its version, and each object has its own range of versions: a new
//! form of one leaves the others alone, and is signed under a name that no older form shares.
//!
//! This is the only file that names bincode.

use crate::memo;
use crate::reason;
use crate::reasons::{Blame, Reason};
use std::fmt;
use std::ops::{Deref, RangeInclusive};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::block_api::compress256;
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
        self.reason().code()
    }

    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Oversize => reason!("wire.oversize"),
            Self::Malformed => reason!("wire.malformed"),
            Self::NotCanonical => reason!("wire.not_canonical"),
            Self::UnknownVersion => reason!("wire.unknown_version"),
            Self::WeakKey => reason!("wire.weak_key"),
            Self::BadSignature => reason!("wire.bad_signature"),
            Self::WrongSigner => reason!("wire.wrong_signer"),
        }
    }

    /// Whether the bytes alone prove the sender at fault.
    #[must_use]
    pub fn is_blamable(self) -> bool {
        self.reason().blame() == Blame::Peer
    }
}

fn config<const LIMIT: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Encodes a value of the protocol.
///
/// # Panics
/// Never for the types of this crate: they hold no type that bincode cannot encode.
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
///
/// The first byte of its encoding is its version.
pub trait Object: Serialize + DeserializeOwned + Clone + fmt::Debug + PartialEq {
    /// Name in the signature's domain, `capex/<NAME>/v<version>`.
    const NAME: &'static str;

    /// Versions that this program reads. Another one is ignored and blamed on nobody: it may
    /// come from a newer program.
    const VERSIONS: RangeInclusive<u8>;

    /// The key that must have signed, where the payload itself names it.
    fn signer(&self) -> Option<[u8; 32]> {
        None
    }
}

/// The version of every object that this program signs.
pub const VERSION: u8 = 1;

fn preimage(name: &str, magic: Magic, payload: &[u8]) -> Vec<u8> {
    let version = payload.first().copied().unwrap_or_default();
    let mut bytes = domain(name, version, magic);
    bytes.extend_from_slice(payload);
    bytes
}

/// What stands before the payload of an object in what its id hashes.
pub(crate) fn domain(name: &str, version: u8, magic: Magic) -> Vec<u8> {
    let mut bytes = format!("capex/{name}/v{version}\0").into_bytes();
    bytes.extend_from_slice(&magic);
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
    let length = parts.iter().map(|part| part.len()).sum();
    if length <= SHORT_BYTES {
        return sha256_short(parts, length);
    }
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

const BLOCK_BYTES: usize = 64;
/// The most that fits into two blocks with its end mark and its length.
const SHORT_BYTES: usize = 2 * BLOCK_BYTES - 9;
/// What SHA-256 begins with (FIPS 180-4, 5.3.3).
const SHA256_BEGIN: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 of so few bytes, in one call of the compression and without the buffer of the general
/// hasher: the root of 100,000 orders is 200,000 of these.
fn sha256_short(parts: &[&[u8]], length: usize) -> [u8; 32] {
    let mut blocks = [[0; BLOCK_BYTES]; 2];
    let count = if length + 9 <= BLOCK_BYTES { 1 } else { 2 };
    let (bytes, _) = blocks.as_flattened_mut().split_at_mut(count * BLOCK_BYTES);
    let (content, bits) = bytes.split_at_mut(count * BLOCK_BYTES - 8);
    bits.copy_from_slice(&(8 * length as u64).to_be_bytes());
    let mut rest = content;
    for part in parts.iter().copied().chain([[0x80].as_slice()]) {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    let mut state = SHA256_BEGIN;
    compress256(&mut state, &blocks[..count]);
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

/// Id of an object: SHA-256 of what its signature covers.
#[must_use]
pub fn object_id<T: Object>(object: &T, magic: Magic) -> [u8; 32] {
    sha256(&[&signing_prefix(object, magic)])
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
/// The only constructors are [`sign`], [`Parsed::verify`] and, for what this node verified
/// and wrote to its own journal, `Verified::from_own_journal`, so code that holds one never
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

    /// An object that nobody signed, where a test needs more of them than can be signed.
    #[cfg(test)]
    pub(crate) fn made_up(value: T, id: [u8; 32]) -> Self {
        let envelope = Envelope { key: [0; 32], payload: Vec::new(), signature: [[0; 32]; 2] };
        Self { value, id, envelope }
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
        let Parsed { value, id, envelope, .. } = envelope.parse(magic)?;
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
    /// # Errors
    /// The first [`WireError`] found.
    pub fn verify<T: Object>(&self, magic: Magic) -> Result<Verified<T>, WireError> {
        self.clone().parse(magic)?.verify()
    }

    /// Checks form, version and the signer that the payload names, and hashes the payload:
    /// all that is cheaper than the signature.
    ///
    /// # Errors
    /// Form, version or signer.
    pub fn parse<T: Object>(self, magic: Magic) -> Result<Parsed<T>, WireError> {
        let value: T = self.peek()?;
        if value.signer().is_some_and(|signer| signer != self.key) {
            return Err(WireError::WrongSigner);
        }
        let message = preimage(T::NAME, magic, &self.payload);
        Ok(Parsed { value, id: sha256(&[&message]), message, envelope: self })
    }

    /// Decodes without looking at who signed.
    ///
    /// # Errors
    /// Form or version.
    pub fn peek<T: Object>(&self) -> Result<T, WireError> {
        // A newer version may have a form that does not decode here.
        let version = self.payload.first().ok_or(WireError::Malformed)?;
        if !T::VERSIONS.contains(version) {
            return Err(WireError::UnknownVersion);
        }
        decode_exact(&self.payload)
    }

    /// Object id of the payload, were it a `T`.
    #[must_use]
    pub fn id<T: Object>(&self, magic: Magic) -> [u8; 32] {
        sha256(&[&preimage(T::NAME, magic, &self.payload)])
    }
}

/// An object that was decoded and hashed, and whose signature nobody has checked yet.
///
/// It is what the cheap checks look at; [`Parsed::verify`] turns it into a [`Verified`]
/// without decoding or hashing it again.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    value: T,
    id: [u8; 32],
    message: Vec<u8>,
    envelope: Envelope,
}

impl<T> Parsed<T> {
    /// The object, as its sender claims it.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Object id: the hash of what a signature must cover.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// The bytes as received.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Checks the signature.
    ///
    /// Strict verification only: batch and cofactored verification accept signatures that
    /// others refuse, and nodes must agree.
    ///
    /// # Errors
    /// [`WireError::WeakKey`] or [`WireError::BadSignature`].
    pub fn verify(self) -> Result<Verified<T>, WireError> {
        verify_bytes(&self.envelope.key, &self.message, &self.envelope.signature)?;
        Ok(Verified { value: self.value, id: self.id, envelope: self.envelope })
    }
}

fn verify_bytes(key: &[u8; 32], message: &[u8], sig: &[[u8; 32]; 2]) -> Result<(), WireError> {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&sig[0]);
    bytes[32..].copy_from_slice(&sig[1]);
    memo::once(key, &bytes, message, || {
        let key = VerifyingKey::from_bytes(key).map_err(|_| WireError::WeakKey)?;
        if key.is_weak() {
            return Err(WireError::WeakKey);
        }
        let signature = Signature::from_bytes(&bytes);
        key.verify_strict(message, &signature).map_err(|_| WireError::BadSignature)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"test";

    /// An object that has had a second version.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        v: u8,
        text: u64,
    }

    impl Object for Note {
        const NAME: &'static str = "note";
        const VERSIONS: RangeInclusive<u8> = 1..=2;
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn signed_over(domain: &str, payload: Vec<u8>) -> Envelope {
        let message = [domain.as_bytes(), &MAGIC, &payload].concat();
        let signature = key().sign(&message).to_bytes();
        Envelope { key: key().verifying_key().to_bytes(), payload, signature: halves(&signature) }
    }

    #[test]
    fn a_hash_of_few_bytes_is_that_of_the_general_hasher() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for length in 0..=2 * SHORT_BYTES {
            let (first, rest) = bytes[..length].split_at(length / 3);
            let expected: [u8; 32] = Sha256::digest(&bytes[..length]).into();
            assert_eq!(sha256(&[first, &[], rest]), expected, "{length}");
        }
    }

    #[test]
    fn each_version_is_signed_under_its_own_name() {
        for v in Note::VERSIONS {
            let note = Note { v, text: 5 };
            let signed = sign(note.clone(), MAGIC, &key());
            assert_eq!(signed.envelope().verify::<Note>(MAGIC).unwrap(), signed);
            let own = signed_over(&format!("capex/note/v{v}\0"), encode(&note));
            assert_eq!(own, *signed.envelope(), "version {v}");
            let other = signed_over(&format!("capex/note/v{}\0", 3 - v), encode(&note));
            assert_eq!(other.verify::<Note>(MAGIC), Err(WireError::BadSignature), "version {v}");
        }
    }

    #[test]
    fn a_signature_of_one_version_does_not_pass_as_another() {
        let mut envelope = sign(Note { v: 2, text: 5 }, MAGIC, &key()).envelope().clone();
        envelope.payload[0] = 1;
        assert_eq!(envelope.peek::<Note>(), Ok(Note { v: 1, text: 5 }));
        assert_eq!(envelope.verify::<Note>(MAGIC), Err(WireError::BadSignature));
    }

    #[test]
    fn a_version_outside_the_range_of_its_object_is_nobodys_fault() {
        for v in [0, 3, u8::MAX] {
            let envelope = sign(Note { v, text: 5 }, MAGIC, &key()).envelope().clone();
            let error = envelope.verify::<Note>(MAGIC).unwrap_err();
            assert_eq!((error, error.is_blamable()), (WireError::UnknownVersion, false), "{v}");
        }
    }
}
