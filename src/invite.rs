//! An invitation into a network: one line of text from which a newcomer has everything.
//!
//! ```text
//! capex:<base64url of the payload and of the first four bytes of its hash>
//! ```
//! The payload names the network, the hash of its definition and peers; for a test chain that
//! somebody serves to others, also where it is and the token to read it and submit to it. Nobody
//! signs an invitation: whoever hands it over is believed, and what it leads to is checked by the
//! hash. The four bytes find a slip of the hand, not a forger.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capex_core::ids::Digest;
use capex_core::limits::{CONTACT_ADDR_BYTES, CONTACT_ADDRS_MAX};
use capex_core::reason;
use capex_core::reasons::Reason;
use capex_core::wire::{decode_exact, encode, sha256};
use capex_network::check_address;
use serde::{Deserialize, Serialize};

/// Longest text, bytes: eight peers of 128 bytes and a chain need 1,800.
pub const TEXT_MAX_BYTES: usize = 2_048;
/// Most peers that one names.
pub const PEERS_MAX: usize = CONTACT_ADDRS_MAX;

const SCHEME: &str = "capex:";
const VERSION: u8 = 1;
const NAME_MAX_BYTES: usize = 32;
const CHAIN_URL_MAX_BYTES: usize = 128;
const TOKEN_MAX_BYTES: usize = 80;
const CHECK_BYTES: usize = 4;

/// What a newcomer needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    v: u8,
    /// Name of the network.
    pub network: String,
    /// Hash of its definition ([`crate::definitions::hash`]).
    pub definition: Digest,
    /// Multiaddrs with `/p2p/<id>`, one to [`PEERS_MAX`].
    pub peers: Vec<String>,
    /// A chain that somebody serves to others.
    pub chain: Option<SharedChain>,
    /// Until when it is to be taken, unix s.
    pub expires_at_s: u64,
}

/// A test chain that others may read and submit to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedChain {
    /// `http://host:port`.
    pub url: String,
    /// User and password of its RPC, `user:password`.
    pub token: String,
}

/// Why a text is no invitation that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Longer than an invitation can be.
    #[error("longer than an invitation can be ({TEXT_MAX_BYTES} bytes)")]
    TooLong,
    /// Not of that form.
    #[error("an invitation is one line that begins with `{SCHEME}`")]
    Syntax,
    /// A letter is wrong or missing.
    #[error("the invitation is damaged: a part of it is missing or was changed")]
    Damaged,
    /// Of a later program.
    #[error("the invitation is of a later version of this program")]
    UnknownVersion,
    /// A field that cannot be meant.
    #[error("the invitation is no good: {0}")]
    Bad(String),
    /// Its time is over.
    #[error("the invitation was good until {0} (unix s)")]
    Expired(u64),
}

impl InviteError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLong => reason!("invite.too_long"),
            Self::Syntax => reason!("invite.syntax"),
            Self::Damaged => reason!("invite.damaged"),
            Self::UnknownVersion => reason!("invite.unknown_version"),
            Self::Bad(_) => reason!("invite.bad"),
            Self::Expired(_) => reason!("invite.expired"),
        }
    }
}

impl Invite {
    /// An invitation of these parts.
    ///
    /// # Errors
    /// [`InviteError::Bad`].
    pub fn new(
        network: String,
        definition: Digest,
        peers: Vec<String>,
        chain: Option<SharedChain>,
        expires_at_s: u64,
    ) -> Result<Self, InviteError> {
        let invite = Self { v: VERSION, network, definition, peers, chain, expires_at_s };
        invite.check()?;
        Ok(invite)
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut bytes = encode(self);
        let sum = check_sum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{SCHEME}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The invitation of a text, at a time.
    ///
    /// # Errors
    /// The first [`InviteError`] found.
    pub fn read(text: &str, now_s: u64) -> Result<Self, InviteError> {
        let text = text.trim();
        if text.len() > TEXT_MAX_BYTES {
            return Err(InviteError::TooLong);
        }
        let coded = text.strip_prefix(SCHEME).ok_or(InviteError::Syntax)?;
        let bytes = URL_SAFE_NO_PAD.decode(coded).map_err(|_| InviteError::Damaged)?;
        let (payload, sum) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(InviteError::Damaged)?;
        if check_sum(payload) != *sum {
            return Err(InviteError::Damaged);
        }
        if payload.first().is_some_and(|version| *version != VERSION) {
            return Err(InviteError::UnknownVersion);
        }
        let invite: Self = decode_exact(payload).map_err(|_| InviteError::Damaged)?;
        invite.check()?;
        if now_s > invite.expires_at_s {
            return Err(InviteError::Expired(invite.expires_at_s));
        }
        Ok(invite)
    }

    /// What the types cannot say. It comes from somebody else and goes into files and paths.
    fn check(&self) -> Result<(), InviteError> {
        let check = |ok: bool, what: &str| {
            if ok { Ok(()) } else { Err(InviteError::Bad(what.to_owned())) }
        };
        check(self.network.len() <= NAME_MAX_BYTES, "the name of the network is too long")?;
        check(!self.peers.is_empty(), "it names no peer")?;
        check(self.peers.len() <= PEERS_MAX, "it names too many peers")?;
        for peer in &self.peers {
            check(peer.len() <= CONTACT_ADDR_BYTES, "an address is too long")?;
            check_address(peer, true).map_err(|error| InviteError::Bad(error.to_string()))?;
        }
        let Some(SharedChain { url, token }) = &self.chain else { return Ok(()) };
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let host = url.strip_prefix("http://").unwrap_or_default();
        check(url.len() <= CHAIN_URL_MAX_BYTES, "the address of the chain is too long")?;
        check(!host.is_empty() && plain(host), "the address of the chain is none")?;
        check(!host.contains(['/', '@']), "the address of the chain is none")?;
        check(token.len() <= TOKEN_MAX_BYTES && plain(token), "the token of the chain is none")?;
        check(token.contains(':'), "the token of the chain is none")
    }
}

fn check_sum(payload: &[u8]) -> [u8; CHECK_BYTES] {
    let [a, b, c, d, ..] = sha256(&[b"capex/invite", payload]);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str =
        "/ip4/198.51.100.7/tcp/7210/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo";

    type Change = fn(&mut Invite);

    fn invite() -> Invite {
        let chain = SharedChain {
            url: "http://198.51.100.7:18543".into(),
            token: "__guest__:00112233445566778899aabbccddeeff".into(),
        };
        let peers = vec![PEER.to_owned(); 2];
        Invite::new("harbour".into(), Digest([7; 32]), peers, Some(chain), 1_000).unwrap()
    }

    /// The text of an invitation that nobody could have made here.
    fn forged(change: impl FnOnce(&mut Invite)) -> String {
        let mut invite = invite();
        change(&mut invite);
        invite.text()
    }

    #[test]
    fn an_invitation_is_one_line_that_comes_back_as_it_was() {
        let text = invite().text();
        assert!(text.len() < 600 && !text.contains(char::is_whitespace), "{text}");
        assert_eq!(Invite::read(&format!(" {text}\n"), 1_000), Ok(invite()));
    }

    #[test]
    fn what_is_no_invitation_is_refused_with_a_code() {
        let code = |text: &str| Invite::read(text, 1_000).unwrap_err().reason().code();
        let good = invite().text();
        assert_eq!(code(""), "invite.syntax");
        assert_eq!(code("https://example.org"), "invite.syntax");
        assert_eq!(code(&good.replace("capex:", "capex:é")), "invite.damaged");
        assert_eq!(code(&good[..good.len() - 1]), "invite.damaged");
        assert_eq!(code(SCHEME), "invite.damaged");
        assert_eq!(code(&format!("{good}{}", "A".repeat(TEXT_MAX_BYTES))), "invite.too_long");
        for at in [7, 30, 100, good.len() - 1] {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(code(std::str::from_utf8(&bytes).unwrap()), "invite.damaged", "{at}");
        }
        assert_eq!(code(&forged(|invite| invite.v = 2)), "invite.unknown_version");
        assert_eq!(code(&forged(|invite| invite.expires_at_s = 999)), "invite.expired");
    }

    #[test]
    fn what_nobody_can_mean_is_refused() {
        let cases: [(&str, Change); 11] = [
            ("no peer", |invite| invite.peers.clear()),
            ("too many peers", |invite| invite.peers = vec![PEER.into(); PEERS_MAX + 1]),
            ("a peer without an id", |invite| invite.peers[0] = "/ip4/198.51.100.7/tcp/1".into()),
            ("no address", |invite| invite.peers[0] = "harbour".into()),
            ("a long address", |invite| {
                invite.peers[0] = format!("/dns4/{}{PEER}", "a".repeat(CONTACT_ADDR_BYTES));
            }),
            ("a long name", |invite| invite.network = "a".repeat(NAME_MAX_BYTES + 1)),
            ("another scheme", |invite| chain(invite).url = "file:///etc".into()),
            ("a path", |invite| chain(invite).url.push_str("/wallet")),
            ("no host", |invite| chain(invite).url = "http://".into()),
            ("a token of two lines", |invite| chain(invite).token.push('\n')),
            ("a token that is none", |invite| chain(invite).token = "secret".into()),
        ];
        for (what, change) in cases {
            let refused = Invite::read(&forged(change), 0).unwrap_err();
            assert_eq!(refused.reason().code(), "invite.bad", "{what}");
        }
    }

    fn chain(invite: &mut Invite) -> &mut SharedChain {
        invite.chain.as_mut().unwrap()
    }
}
