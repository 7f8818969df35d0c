//! Names of things: 32 bytes each, lower-case hex as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hex digits")]
pub struct ParseIdError;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The digits of an id in lower-case hex, without an allocation.
pub(crate) fn hex_digits(id: &[u8; 32]) -> [u8; 64] {
    let mut digits = [0; 64];
    write_hex(id, &mut digits);
    digits
}

/// Writes as many digits of lower-case hex as `digits` holds.
pub(crate) fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Bytes of lower-case hex, `None` on anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

macro_rules! id {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &to_hex(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = from_hex(text).ok_or(ParseIdError)?;
                bytes.try_into().map(Self).map_err(|_| ParseIdError)
            }
        }
    )*};
}

id! {
    /// An ed25519 key: who signs, and the libp2p host key of their node.
    Key,
    /// An order signed for one epoch.
    OrderId,
    /// A standing order of this daemon, re-signed each epoch.
    StandingId,
    /// A row of an epoch's result.
    TradeId,
    /// A certificate: the id of its Issue.
    CertId,
    /// Terms of one settlement.
    TermsHash,
    /// One funding transaction, and the terms that it pays for.
    FundingId,
    /// A lease: the id of its Redeem.
    LeaseId,
    /// What several pay for together.
    PoolId,
    /// Any signed object.
    ObjectId,
    /// SHA-256 of content: a component, an input, a result.
    Digest,
}

impl FundingId {
    /// The funding that pays the contracts of these terms, in this order.
    #[must_use]
    pub fn of(terms: &[TermsHash]) -> Self {
        let mut parts: Vec<&[u8]> = vec![b"capex/funding/v1\0"];
        parts.extend(terms.iter().map(|hash| hash.0.as_slice()));
        Self(crate::wire::sha256(&parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lower_case_hex_of_32_bytes() {
        let text = "00ff".repeat(16);
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        for bad in ["", "00", &"00FF".repeat(16), &"00ff".repeat(17), &"0g".repeat(32)] {
            assert_eq!(bad.parse::<Key>(), Err(ParseIdError), "{bad}");
        }
    }
}
