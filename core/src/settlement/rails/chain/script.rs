//! Script template 1: the taproot output that holds a buyer's money.
//!
//! ```text
//! tr( KeyAgg(S, B) + terms_hash·G, { and_v(v:pk(S),sha256(H)), and_v(v:pk(B),after(T_R)) } )
//! ```
//!
//! The address commits to the terms, so paying it is agreeing to exactly them. Templates
//! are versioned for ever: this file may not change what version 1 means.

use bitcoin::opcodes::all::{
    OP_CHECKSIGVERIFY, OP_CLTV, OP_EQUAL, OP_EQUALVERIFY, OP_SHA256, OP_SIZE,
};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Parity, PublicKey, Secp256k1, Verification, XOnlyPublicKey};
use bitcoin::taproot::{ControlBlock, LeafVersion, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{ScriptBuf, TapLeafHash, TapNodeHash};

use super::keyagg::{self, KeyAggError};
use crate::ids::TermsHash;
use crate::settlement::objects::Terms;

/// The only template so far.
pub const TEMPLATE: u8 = 1;
/// Length of a preimage. The claim leaf checks it: without that the seller could claim
/// with a preimage that the provider must refuse.
pub const PREIMAGE_BYTES: usize = 32;

/// Why terms have no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Not a template that this node knows.
    #[error("unknown script template")]
    Template,
    /// The terms have no such funder.
    #[error("no such funder")]
    Funder,
    /// A key is not on the curve, or both parties have one key.
    #[error("settlement key is invalid")]
    Key,
    /// Height that is no lock time.
    #[error("refund height is not a block height")]
    Height,
    /// The keys do not aggregate.
    #[error("{0}")]
    KeyAgg(#[from] KeyAggError),
}

impl ScriptError {
    /// Stable reason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Template => "terms.template",
            Self::Funder => "terms.funder",
            Self::Key => "terms.key",
            Self::Height => "terms.height",
            Self::KeyAgg(error) => error.code(),
        }
    }
}

/// One funder's contract: everything that is needed to pay to it and to spend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    pub spk: ScriptBuf,
    /// Value agreed, sat.
    pub amount_sat: u64,
    pub claim: ScriptBuf,
    pub refund: ScriptBuf,
    spend: TaprootSpendInfo,
}

impl Contract {
    /// Recomputes the contract of funder number `funder` from signed terms.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub fn new<C: Verification>(
        secp: &Secp256k1<C>,
        terms: &Terms,
        hash: TermsHash,
        funder: usize,
    ) -> Result<Self, ScriptError> {
        if terms.template != TEMPLATE {
            return Err(ScriptError::Template);
        }
        let funder = terms.funders.get(funder).ok_or(ScriptError::Funder)?;
        let seller = xonly(terms.s_xonly)?;
        let buyer = xonly(funder.refund_xonly)?;
        if seller == buyer {
            return Err(ScriptError::Key);
        }
        let claim = claim_leaf(seller, terms.payment_hash);
        let refund = refund_leaf(buyer, terms.refund_at)?;
        let even = |key| PublicKey::from_x_only_public_key(key, Parity::Even);
        let sum = keyagg::aggregate(secp, &[even(seller), even(buyer)])?;
        let internal = keyagg::tweak_plain(secp, &sum, hash.0)?.x_only_public_key().0;
        let spend = TaprootBuilder::new()
            .add_leaf(1, claim.clone())
            .and_then(|tree| tree.add_leaf(1, refund.clone()))
            .map_err(|_| ScriptError::Template)?
            .finalize(secp, internal)
            .map_err(|_| ScriptError::Template)?;
        let spk = ScriptBuf::new_p2tr_tweaked(spend.output_key());
        Ok(Self { spk, amount_sat: funder.amount_sat, claim, refund, spend })
    }

    /// Control block of one of the two leaves, 65 bytes.
    #[must_use]
    pub fn control_block(&self, leaf: &ScriptBuf) -> Option<ControlBlock> {
        self.spend.control_block(&(leaf.clone(), LeafVersion::TapScript))
    }

    /// Merkle root of the two leaves, by which the internal key is tweaked.
    #[must_use]
    pub fn merkle_root(&self) -> Option<TapNodeHash> {
        self.spend.merkle_root()
    }

    /// Internal key: the aggregate, tweaked by the terms.
    #[must_use]
    pub fn internal_key(&self) -> XOnlyPublicKey {
        self.spend.internal_key()
    }
}

/// Hash of a leaf as signatures commit to it.
#[must_use]
pub fn leaf_hash(leaf: &ScriptBuf) -> TapLeafHash {
    TapLeafHash::from_script(leaf, LeafVersion::TapScript)
}

fn xonly(bytes: [u8; 32]) -> Result<XOnlyPublicKey, ScriptError> {
    XOnlyPublicKey::from_slice(&bytes).map_err(|_| ScriptError::Key)
}

/// `<S> CHECKSIGVERIFY SIZE 32 EQUALVERIFY SHA256 <H> EQUAL`, 73 bytes.
fn claim_leaf(seller: XOnlyPublicKey, payment_hash: [u8; 32]) -> ScriptBuf {
    Builder::new()
        .push_x_only_key(&seller)
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_opcode(OP_SIZE)
        .push_int(PREIMAGE_BYTES as i64)
        .push_opcode(OP_EQUALVERIFY)
        .push_opcode(OP_SHA256)
        .push_slice(payment_hash)
        .push_opcode(OP_EQUAL)
        .into_script()
}

/// `<B> CHECKSIGVERIFY <T_R> CHECKLOCKTIMEVERIFY`, 39 bytes for heights from 32,768 to 8,388,607.
fn refund_leaf(buyer: XOnlyPublicKey, refund_at: u32) -> Result<ScriptBuf, ScriptError> {
    let height = bitcoin::absolute::Height::from_consensus(refund_at);
    let height = height.map_err(|_| ScriptError::Height)?.to_consensus_u32();
    if height == 0 {
        return Err(ScriptError::Height);
    }
    Ok(Builder::new()
        .push_x_only_key(&buyer)
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_int(i64::from(height))
        .push_opcode(OP_CLTV)
        .into_script())
}

#[cfg(test)]
mod tests {
    use bitcoin::{Address, Network};

    use super::*;
    use crate::ids::{from_hex, to_hex};
    use crate::settlement::sample;

    #[test]
    fn leaves_have_their_exact_bytes() {
        let secp = Secp256k1::new();
        let terms = sample::terms(840_000);
        let contract = Contract::new(&secp, &terms, TermsHash([7; 32]), 0).unwrap();
        let (s, b) = (to_hex(&terms.s_xonly), to_hex(&terms.funders[0].refund_xonly));
        let h = to_hex(&terms.payment_hash);
        assert_eq!(to_hex(contract.claim.as_bytes()), format!("20{s}ad82012088a820{h}87"));
        assert_eq!(contract.claim.len(), 73);
        // T_R = 840,150 = 0x0cd1d6, little endian.
        assert_eq!(to_hex(contract.refund.as_bytes()), format!("20{b}ad03d6d10cb1"));
        assert_eq!(contract.refund.len(), 39);
        for leaf in [&contract.claim, &contract.refund] {
            assert_eq!(contract.control_block(leaf).unwrap().serialize().len(), 65);
        }
        assert!(contract.spk.is_p2tr());
    }

    /// Open contracts are recomputed from their terms: another address would lose them.
    /// Written by `tests/vectors/settlement_ref.py`, which shares no code with this program.
    #[test]
    fn terms_have_the_address_that_they_always_had() {
        let secp = Secp256k1::new();
        let text = include_str!("../../../../../tests/vectors/settlement_contract.txt");
        let mut cases = 0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let bytes = |n: usize| <[u8; 32]>::try_from(from_hex(parts[n]).unwrap()).unwrap();
            let mut terms = sample::terms(840_000);
            (terms.s_xonly, terms.funders[0].refund_xonly) = (bytes(1), bytes(2));
            (terms.payment_hash, terms.refund_at) = (bytes(3), parts[4].parse().unwrap());
            let contract = Contract::new(&secp, &terms, TermsHash(bytes(0)), 0).unwrap();
            assert_eq!(to_hex(&contract.internal_key().serialize()), parts[5], "{line}");
            assert_eq!(to_hex(contract.spk.as_bytes()), parts[6], "{line}");
            let address = Address::from_script(&contract.spk, Network::Bitcoin).unwrap();
            assert_eq!(address.to_string(), parts[7], "{line}");
            for (leaf, expected) in [(&contract.claim, parts[8]), (&contract.refund, parts[9])] {
                let control = contract.control_block(leaf).unwrap();
                assert_eq!(to_hex(&control.serialize()), expected, "{line}");
            }
            cases += 1;
        }
        assert_eq!(cases, 8);
    }

    #[test]
    fn the_address_commits_to_the_terms() {
        let secp = Secp256k1::new();
        let terms = sample::terms(840_000);
        let spk = |terms: &Terms, hash| Contract::new(&secp, terms, hash, 0).map(|c| c.spk);
        let base = spk(&terms, TermsHash([7; 32])).unwrap();
        assert_ne!(base, spk(&terms, TermsHash([8; 32])).unwrap());
        assert_eq!(
            spk(&terms, TermsHash([0xff; 32])),
            Err(ScriptError::KeyAgg(KeyAggError::Scalar))
        );
    }

    #[test]
    fn unusable_terms_have_no_address() {
        let secp = Secp256k1::new();
        let good = sample::terms(840_000);
        let refuse =
            |terms: &Terms| Contract::new(&secp, terms, TermsHash([7; 32]), 0).unwrap_err();
        let mut same = good.clone();
        same.s_xonly = same.funders[0].refund_xonly;
        assert_eq!(refuse(&same), ScriptError::Key);
        let mut off_curve = good.clone();
        off_curve.s_xonly = [0xff; 32];
        assert_eq!(refuse(&off_curve), ScriptError::Key);
        let mut time = good.clone();
        time.refund_at = 500_000_000;
        assert_eq!(refuse(&time), ScriptError::Height);
        let mut template = good.clone();
        template.template = 2;
        assert_eq!(refuse(&template), ScriptError::Template);
        let mut nobody = good;
        nobody.funders.clear();
        assert_eq!(refuse(&nobody), ScriptError::Funder);
    }
}
