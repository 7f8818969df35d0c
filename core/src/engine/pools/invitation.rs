//! An invitation to a pool: the signed pool as one line of text, for any way that people talk.
//!
//! ```text
//! capex-pool 1 <network> <hex payload> <hex signature>
//! ```
//! Whoever has it may join. The creator's key stands in the payload.

use super::objects::Pool;
use crate::ids::{from_hex, to_hex};
use crate::params::Params;
use crate::reason;
use crate::reasons::Reason;
use crate::wire::{Envelope, Verified, WireError, decode_exact};

/// Longest text, bytes: a pool that names seven members needs 900.
pub const INVITATION_MAX_BYTES: usize = 1024;

const HEADER: [&str; 2] = ["capex-pool", "1"];

/// Why a text is no invitation that this node can take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// Longer than an invitation can be.
    #[error("longer than an invitation can be")]
    TooLong,
    /// Not five words of that form.
    #[error("expected `capex-pool 1 <network> <hex payload> <hex signature>` on one line")]
    Syntax,
    /// Of another network.
    #[error("the invitation is for network `{0}`")]
    Network(String),
    /// The payload is no pool, or the signature is not its creator's.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl InvitationError {
    /// Its row in the table of reasons.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLong => reason!("pool.invitation_too_long"),
            Self::Syntax => reason!("pool.invitation_syntax"),
            Self::Network(_) => reason!("pool.other_network"),
            Self::Wire(error) => error.reason(),
        }
    }
}

/// The text of a pool.
#[must_use]
pub(super) fn write(pool: &Envelope, params: &Params) -> String {
    let [name, version] = HEADER;
    let (payload, signature) = (to_hex(&pool.payload), to_hex(pool.signature.as_flattened()));
    format!("{name} {version} {} {payload} {signature}", params.name)
}

/// The pool of a text.
///
/// # Errors
/// The first [`InvitationError`] found.
pub fn read(text: &str, params: &Params) -> Result<Verified<Pool>, InvitationError> {
    if text.len() > INVITATION_MAX_BYTES {
        return Err(InvitationError::TooLong);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [name, version, network, payload, signature] = words.as_slice() else {
        return Err(InvitationError::Syntax);
    };
    if [*name, *version] != HEADER {
        return Err(InvitationError::Syntax);
    }
    if *network != params.name {
        return Err(InvitationError::Network((*network).escape_default().to_string()));
    }
    let bytes = |hex: &str| from_hex(hex).ok_or(InvitationError::Syntax);
    let (payload, signature) = (bytes(payload)?, bytes(signature)?);
    let (halves, rest) = signature.as_chunks::<32>();
    let signature = <[[u8; 32]; 2]>::try_from(halves).map_err(|_| InvitationError::Syntax)?;
    if !rest.is_empty() {
        return Err(InvitationError::Syntax);
    }
    let key = decode_exact::<Pool>(&payload)?.creator.0;
    Ok(Envelope { key, payload, signature }.verify::<Pool>(params.magic)?)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::ids::Key;
    use crate::settlement::sample::params;
    use crate::units::Window;
    use crate::wire::sign;

    fn text() -> String {
        let (params, key) = (params("devnet"), SigningKey::from_bytes(&[1; 32]));
        let pool = Pool {
            v: 1,
            creator: Key(key.verifying_key().to_bytes()),
            to: Key([2; 32]),
            class: 1,
            features: 0,
            qty: 2,
            window: Window { start: 100, end: 110 },
            slots: 3,
            limit_msat: 1_000_000,
            until_ms: 1,
            invited: Vec::new(),
            all_or_nothing: true,
            nonce16: [3; 16],
        };
        write(sign(pool, params.magic, &key).envelope(), &params)
    }

    #[test]
    fn an_invitation_is_one_line_that_comes_back_as_it_was() {
        let (text, params) = (text(), params("devnet"));
        assert!(!text.contains('\n') && text.len() <= INVITATION_MAX_BYTES / 2 + 64, "{text}");
        let pool = read(&text, &params).unwrap();
        assert_eq!(write(pool.envelope(), &params), text);
        assert_eq!(read(&format!("  {text}\n"), &params), Ok(pool));
    }

    #[test]
    fn what_is_no_invitation_is_refused_with_a_code() {
        let good = text();
        let code = |text: &str| read(text, &params("devnet")).unwrap_err().reason().code();
        let of = |change: fn(&mut Vec<String>)| {
            let mut words: Vec<String> = good.split(' ').map(str::to_owned).collect();
            change(&mut words);
            code(&words.join(" "))
        };
        assert_eq!(code(""), "pool.invitation_syntax");
        assert_eq!(code(&good[..good.len() - 2]), "pool.invitation_syntax");
        assert_eq!(code(&format!("{good}00")), "pool.invitation_syntax");
        assert_eq!(code(&good.to_uppercase()), "pool.invitation_syntax");
        assert_eq!(code(&"a ".repeat(513)), "pool.invitation_too_long");
        assert_eq!(of(|words| words[1] = "2".into()), "pool.invitation_syntax");
        assert_eq!(of(|words| words[2] = "mainnet".into()), "pool.other_network");
        assert_eq!(of(|words| words[3].replace_range(200..202, "07")), "wire.bad_signature");
        assert_eq!(of(|words| words[4].replace_range(0..2, "00")), "wire.bad_signature");
        assert_eq!(of(|words| words[3].push_str("00")), "wire.not_canonical");
        assert_eq!(of(|words| words[3].truncate(60)), "wire.malformed");
        // Signed for another network, whatever the word says.
        let other = read(&good, &Params { magic: [9; 4], ..params("devnet") });
        assert_eq!(other.unwrap_err().reason().code(), "wire.bad_signature");
    }
}
