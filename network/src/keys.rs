//! The name of a peer, and the secret behind the own one.

use std::fmt;
use std::str::FromStr;

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};

/// Multihash code of an identity hash: the peer id of an ed25519 key carries the key itself.
const IDENTITY_HASH: u64 = 0;

/// An ed25519 public key (32 bytes): the identity of a node and its libp2p host key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The libp2p peer id of this key, or `None` when the bytes are no ed25519 public key.
    #[must_use]
    pub fn to_peer_id(&self) -> Option<PeerId> {
        let key = ed25519::PublicKey::try_from_bytes(&self.0).ok()?;
        Some(PublicKey::from(key).to_peer_id())
    }

    /// The key inside a peer id, or `None` for ids of other key types.
    #[must_use]
    pub fn from_peer_id(peer: &PeerId) -> Option<Self> {
        let hash = peer.as_ref();
        if hash.code() != IDENTITY_HASH {
            return None;
        }
        let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
        key.try_into_ed25519().ok().map(|key| Self(key.to_bytes()))
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({self})")
    }
}

/// A text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer key is 64 lower-case hex digits")]
pub struct ParsePeerKeyError;

impl FromStr for PeerKey {
    type Err = ParsePeerKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ParsePeerKeyError);
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(key))
    }
}

fn nibble(digit: u8) -> Result<u8, ParsePeerKeyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParsePeerKeyError),
    }
}

/// The 32-byte ed25519 secret of the node. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// Wraps the 32 bytes of an ed25519 secret.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn keypair(&self) -> Option<Keypair> {
        Keypair::ed25519_from_bytes(self.0).ok()
    }
}

impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> (PeerKey, PeerId) {
        let pair = Secret([seed; 32]).keypair().unwrap();
        let public = pair.public().try_into_ed25519().unwrap().to_bytes();
        (PeerKey(public), pair.public().to_peer_id())
    }

    #[test]
    fn a_key_and_its_peer_id_name_each_other() {
        for seed in 0..32 {
            let (key, peer) = key(seed);
            assert_eq!(key.to_peer_id(), Some(peer));
            assert_eq!(PeerKey::from_peer_id(&peer), Some(key));
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn the_key_of_rfc_8032_test_1_is_derived() {
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let secret = Secret(secret.parse::<PeerKey>().unwrap().0);
        let pair = secret.keypair().unwrap();
        let peer = pair.public().to_peer_id();
        assert_eq!(PeerKey::from_peer_id(&peer).unwrap().to_string(), public);
    }

    #[test]
    fn ids_without_an_ed25519_key_have_no_peer_key() {
        assert_eq!(PeerKey::from_peer_id(&PeerId::random()), None);
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_parses() {
        let (key, _) = key(1);
        let text = key.to_string();
        for bad in
            [&text[1..], &text.to_uppercase(), "", &format!("{text}0"), &text.replace('a', "g")]
        {
            assert!(bad.parse::<PeerKey>().is_err() || bad == text, "{bad}");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(..)");
    }
}
