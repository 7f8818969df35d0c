//! The cooperative exit: the seller spends the contract by both keys, as any payment.
//!
//! ```text
//! S → B  Quittance, with x    B → P  Transfer with the Quittance    P → B  Activation
//! S → B  Quittance again      B → S  the key that B used for this contract alone
//! S      spends the contract by key path, 111 vB in place of 155, and shows no script
//! ```
//!
//! With its signature the seller counts the terms as paid, so that nobody waits for a block. What
//! it then has is what it had before: a contract that it alone can spend until the refund, by
//! script whatever the buyer does. The buyer gives its key only when it holds the Activation, and
//! from then on takes nothing back. Of the seller's preimage alone, or of one that is gossiped,
//! nothing follows.
//!
//! The certificate moves ahead of the chain, and the chain still decides: where the buyer's refund
//! becomes final, the sale was none. The buyer has no Activation then, or breaks its word, and the
//! register takes the certificate back ([`super::seller::Seller::takes_back`]). Only a provider
//! that sells by itself can know that it was the buyer who took the coins: a reseller that has the
//! key can spend by the refund's leaf too. So a resale is claimed by script.

use std::fmt;

use bitcoin::secp256k1::{Keypair, Secp256k1, SecretKey, Signing};
use serde::{Deserialize, Serialize};

use super::objects::{Quittance, Terms, Transfer};
use super::seller::Refused;
use crate::code;
use crate::ids::{Key, TermsHash};
use crate::wire::{Envelope, Magic, VERSION, encode, sha256};

/// Too late for a Quittance, as a registrar says that has not moved the certificate on it, and
/// will not.
pub const TOO_LATE: Refused = code!("quittance.too_late");
/// A Quittance of other terms, by another, or with another preimage.
pub const DOES_NOT_FIT: Refused = code!("quittance.does_not_fit");
/// A Quittance of a seller that does not keep the register.
pub const RESALE: Refused = code!("quittance.resale");

/// A Quittance that fits its terms, as the buyer keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quitted {
    pub x: [u8; 32],
    pub signature: [[u8; 32]; 2],
    /// The registrar has said that it moves nothing on it.
    pub is_refused: bool,
}

impl Quitted {
    /// Of a Quittance that a seller shows.
    ///
    /// # Errors
    /// `quittance.does_not_fit`.
    pub fn new(
        magic: Magic,
        terms: &Terms,
        hash: TermsHash,
        signed: &Envelope,
    ) -> Result<Self, Refused> {
        let quittance = signed.verify::<Quittance>(magic).map_err(|_| DOES_NOT_FIT)?;
        let fits = quittance.key() == terms.from.0
            && quittance.terms_hash == hash
            && sha256(&[&quittance.x]) == terms.payment_hash;
        let (x, signature) = (quittance.x, signed.signature);
        fits.then_some(Self { x, signature, is_refused: false }).ok_or(DOES_NOT_FIT)
    }

    /// What the registrar is shown, and the certificate keeps.
    #[must_use]
    pub fn transfer(&self, terms_hash: TermsHash) -> Transfer {
        let (x, quittance) = (self.x, Some(self.signature));
        Transfer { v: VERSION, terms_hash, x, spend_txid: [0; 32], vin: 0, quittance }
    }
}

/// Whether a Transfer carries the seller's Quittance of these terms.
#[must_use]
pub fn has_quit(magic: Magic, terms: &Terms, hash: TermsHash, named: &Transfer) -> bool {
    let signed = named.signed_quittance(terms.from);
    let quitted = signed.and_then(|signed| Quitted::new(magic, terms, hash, &signed).ok());
    quitted.is_some_and(|quitted| quitted.transfer(hash) == *named)
}

impl Transfer {
    /// The Quittance that it carries, were it by this seller.
    #[must_use]
    pub fn signed_quittance(&self, seller: Key) -> Option<Envelope> {
        let quittance = Quittance { v: self.v, terms_hash: self.terms_hash, x: self.x };
        let payload = encode(&quittance);
        self.quittance.map(|signature| Envelope { key: seller.0, payload, signature })
    }
}

/// A buyer's single-use key, in the seller's hands.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedKey(pub [u8; 32]);

impl fmt::Debug for HandedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandedKey")
    }
}

impl HandedKey {
    /// The key, if it is one.
    #[must_use]
    pub fn pair<C: Signing>(&self, secp: &Secp256k1<C>) -> Option<Keypair> {
        let secret = SecretKey::from_slice(&self.0).ok()?;
        Some(Keypair::from_secret_key(secp, &secret))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::super::sample;
    use super::*;
    use crate::wire::sign;

    const MAGIC: Magic = [1, 2, 3, 4];
    const X: [u8; 32] = [3; 32];
    const HASH: TermsHash = TermsHash([7; 32]);

    fn seller(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn terms() -> Terms {
        let mut terms = sample::terms(800);
        terms.from = Key(seller(1).verifying_key().to_bytes());
        terms.payment_hash = sha256(&[&X]);
        terms
    }

    fn quittance() -> Quittance {
        Quittance { v: VERSION, terms_hash: HASH, x: X }
    }

    #[test]
    fn only_the_sellers_own_word_for_these_terms_and_their_preimage_counts() {
        let signed =
            |quittance: Quittance, by: u8| sign(quittance, MAGIC, &seller(by)).envelope().clone();
        let quitted = |signed: &Envelope| Quitted::new(MAGIC, &terms(), HASH, signed);
        let good = signed(quittance(), 1);
        let known = quitted(&good).unwrap();
        assert_eq!((known.x, known.is_refused), (X, false));
        let transfer = known.transfer(HASH);
        assert_eq!(transfer.signed_quittance(terms().from), Some(good.clone()));
        assert!(has_quit(MAGIC, &terms(), HASH, &transfer));

        let mut forged = good.clone();
        forged.signature[0][0] ^= 1;
        let mut newer = good;
        newer.payload[0] = 2;
        for wrong in [
            signed(quittance(), 2),
            signed(Quittance { x: [4; 32], ..quittance() }, 1),
            signed(Quittance { terms_hash: TermsHash([8; 32]), ..quittance() }, 1),
            sign(quittance(), [9; 4], &seller(1)).envelope().clone(),
            forged,
            newer,
        ] {
            assert_eq!(quitted(&wrong), Err("quittance.does_not_fit"), "{:?}", wrong.payload);
        }
        for wrong in [
            Transfer { quittance: None, ..transfer.clone() },
            Transfer { quittance: Some([[0; 32]; 2]), ..transfer.clone() },
            Transfer { spend_txid: [1; 32], ..transfer.clone() },
            Transfer { vin: 1, ..transfer.clone() },
            Transfer { x: [4; 32], ..transfer.clone() },
            Transfer { v: 2, ..transfer.clone() },
            Transfer { terms_hash: TermsHash([8; 32]), ..transfer },
        ] {
            assert!(!has_quit(MAGIC, &terms(), HASH, &wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_handed_key_shows_nothing_of_itself() {
        let key = HandedKey([0x5a; 32]);
        assert_eq!(format!("{key:?}"), "HandedKey");
        assert!(key.pair(&Secp256k1::new()).is_some());
        assert!(HandedKey([0; 32]).pair(&Secp256k1::new()).is_none());
    }
}
