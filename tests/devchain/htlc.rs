//! Settlement's taproot HTLC: every wrong claim or refund is refused, by script and by time.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::Keypair;
use bitcoin::opcodes::all::{
    OP_CHECKSIGVERIFY, OP_CLTV, OP_EQUAL, OP_EQUALVERIFY, OP_SHA256, OP_SIZE,
};
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::{ScriptBuf, Sequence, Transaction, Witness, absolute};
use capex::chain::devchain::faucet_script;

use crate::kit::{Kit, Owned, key, unsigned};

const SCRIPT: &str = "mandatory-script-verify-flag-failed";
pub(crate) const PREIMAGE: [u8; 32] = [7; 32];
pub(crate) const VALUE_SAT: u64 = 50_000;
const FEE_SAT: u64 = 400;

pub(crate) struct Htlc {
    pub(crate) seller: Keypair,
    pub(crate) buyer: Keypair,
    claim: ScriptBuf,
    refund: ScriptBuf,
    info: TaprootSpendInfo,
    refund_height: u32,
}

impl Htlc {
    pub(crate) fn new(refund_height: u32) -> Self {
        Self::with_hash(refund_height, sha256::Hash::hash(&PREIMAGE))
    }

    fn with_hash(refund_height: u32, hash: sha256::Hash) -> Self {
        let (seller, buyer) = (key(1), key(2));
        let claim = ScriptBuf::builder()
            .push_x_only_key(&seller.x_only_public_key().0)
            .push_opcode(OP_CHECKSIGVERIFY)
            .push_opcode(OP_SIZE)
            .push_int(32)
            .push_opcode(OP_EQUALVERIFY)
            .push_opcode(OP_SHA256)
            .push_slice(hash.to_byte_array())
            .push_opcode(OP_EQUAL)
            .into_script();
        let refund = ScriptBuf::builder()
            .push_x_only_key(&buyer.x_only_public_key().0)
            .push_opcode(OP_CHECKSIGVERIFY)
            .push_int(i64::from(refund_height))
            .push_opcode(OP_CLTV)
            .into_script();
        let info = TaprootBuilder::new()
            .add_leaf(1, claim.clone())
            .and_then(|builder| builder.add_leaf(1, refund.clone()))
            .expect("two leaves at depth one")
            .finalize(&Secp256k1::new(), key(3).x_only_public_key().0)
            .expect("a whole tree");
        Self { seller, buyer, claim, refund, info, refund_height }
    }

    pub(crate) fn output_script(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.info.output_key())
    }

    fn sign(&self, tx: &Transaction, coin: &Owned, leaf: &ScriptBuf, signer: &Keypair) -> Vec<u8> {
        let sighash = SighashCache::new(tx)
            .taproot_script_spend_signature_hash(
                0,
                &Prevouts::All(std::slice::from_ref(&coin.output)),
                TapLeafHash::from_script(leaf, LeafVersion::TapScript),
                TapSighashType::Default,
            )
            .expect("all prevouts given");
        let message = Message::from_digest(sighash.to_byte_array());
        Secp256k1::new().sign_schnorr_no_aux_rand(&message, signer).serialize().to_vec()
    }

    fn witness(&self, stack: &[Vec<u8>], leaf: &ScriptBuf) -> Witness {
        let control = self
            .info
            .control_block(&(leaf.clone(), LeafVersion::TapScript))
            .expect("a leaf of this tree");
        let mut witness = Witness::from_slice(stack);
        witness.push(leaf);
        witness.push(control.serialize());
        witness
    }

    pub(crate) fn claim_tx(&self, coin: &Owned, preimage: &[u8], signer: &Keypair) -> Transaction {
        let mut tx = unsigned(
            std::slice::from_ref(coin),
            &[(faucet_script(), coin.output.value.to_sat() - FEE_SAT)],
        );
        let signature = self.sign(&tx, coin, &self.claim, signer);
        tx.input[0].witness = self.witness(&[preimage.to_vec(), signature], &self.claim);
        tx
    }

    pub(crate) fn refund_tx(&self, coin: &Owned, lock: u32, sequence: Sequence) -> Transaction {
        self.refund_tx_by(coin, lock, sequence, &self.buyer)
    }

    fn refund_tx_by(
        &self,
        coin: &Owned,
        lock: u32,
        sequence: Sequence,
        signer: &Keypair,
    ) -> Transaction {
        let mut tx = unsigned(
            std::slice::from_ref(coin),
            &[(faucet_script(), coin.output.value.to_sat() - FEE_SAT)],
        );
        tx.lock_time = absolute::LockTime::from_consensus(lock);
        tx.input[0].sequence = sequence;
        let signature = self.sign(&tx, coin, &self.refund, signer);
        tx.input[0].witness = self.witness(&[signature], &self.refund);
        tx
    }
}

fn funded(refund_after: u32) -> (Kit, Htlc, Owned) {
    let mut kit = Kit::new();
    let htlc = Htlc::new(kit.chain.height() + refund_after);
    let coin = kit.funded(&htlc.output_script(), VALUE_SAT);
    (kit, htlc, coin)
}

#[test]
fn the_seller_claims_with_the_preimage() {
    let (mut kit, htlc, coin) = funded(20);
    let claim = htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller);
    assert_eq!(claim.vsize(), 155, "the size that fees are reckoned with");
    kit.send(&claim).expect("a right claim");
    kit.mine(1);
    assert!(kit.chain.confirmed_tx(&claim.compute_txid()).is_some());
}

#[test]
fn a_wrong_preimage_does_not_claim() {
    let (mut kit, htlc, coin) = funded(20);
    let wrong: [&[u8]; 4] = [&[8; 32], &[7; 33], &[], &[7; 31]];
    for preimage in wrong {
        let claim = htlc.claim_tx(&coin, preimage, &htlc.seller);
        assert_eq!(kit.refusal(&claim), SCRIPT, "{} bytes", preimage.len());
    }
}

#[test]
fn a_preimage_of_33_bytes_does_not_claim_even_when_it_hashes_right() {
    let long = [9u8; 33];
    let mut kit = Kit::new();
    let htlc = Htlc::with_hash(kit.chain.height() + 20, sha256::Hash::hash(&long));
    let coin = kit.funded(&htlc.output_script(), VALUE_SAT);
    let claim = htlc.claim_tx(&coin, &long, &htlc.seller);
    assert_eq!(kit.refusal(&claim), SCRIPT);
}

#[test]
fn the_wrong_key_neither_claims_nor_refunds() {
    let (mut kit, htlc, coin) = funded(3);
    assert_eq!(kit.refusal(&htlc.claim_tx(&coin, &PREIMAGE, &htlc.buyer)), SCRIPT);
    kit.mine_to_height(htlc.refund_height);
    let sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    let refund = htlc.refund_tx_by(&coin, htlc.refund_height, sequence, &htlc.seller);
    assert_eq!(kit.refusal(&refund), SCRIPT);
}

#[test]
fn any_flipped_signature_bit_is_refused() {
    let (mut kit, htlc, coin) = funded(20);
    let claim = htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller);
    for bit in [0, 7, 100, 255, 256, 300, 511] {
        let mut stack: Vec<Vec<u8>> = claim.input[0].witness.iter().map(<[u8]>::to_vec).collect();
        stack[1][bit / 8] ^= 1 << (bit % 8);
        let mut flipped = claim.clone();
        flipped.input[0].witness = Witness::from_slice(&stack);
        assert_eq!(kit.refusal(&flipped), SCRIPT, "bit {bit}");
    }
    kit.send(&claim).expect("the unflipped one is right");
}

#[test]
fn a_flipped_bit_is_refused_inside_a_block_too() {
    let (mut kit, htlc, coin) = funded(20);
    let mut claim = htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller);
    let mut stack: Vec<Vec<u8>> = claim.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    stack[1][0] ^= 1;
    claim.input[0].witness = Witness::from_slice(&stack);
    let block = crate::blocks::block_with(&kit, vec![claim], FEE_SAT);
    let refused = kit.chain.submit_block(block, kit.now_s).expect_err("a wrong signature");
    assert_eq!(refused.reason(), SCRIPT);
    assert!(refused.to_string().starts_with("mandatory-script-verify-flag-failed ("));
}

#[test]
fn a_refund_needs_the_lock_time_and_a_sequence_that_enables_it() {
    let (mut kit, htlc, coin) = funded(3);
    kit.mine_to_height(htlc.refund_height + 5);
    let early = htlc.refund_height - 1;
    let open = Sequence::ENABLE_LOCKTIME_NO_RBF;
    assert_eq!(kit.refusal(&htlc.refund_tx(&coin, early, open)), SCRIPT);
    let closed = htlc.refund_tx(&coin, htlc.refund_height, Sequence::MAX);
    assert_eq!(kit.refusal(&closed), SCRIPT);
    kit.send(&htlc.refund_tx(&coin, htlc.refund_height, open)).expect("a right refund");
}

#[test]
fn a_refund_is_minable_from_one_block_after_its_lock_height() {
    let (mut kit, htlc, coin) = funded(5);
    let refund = htlc.refund_tx(&coin, htlc.refund_height, Sequence::ENABLE_LOCKTIME_NO_RBF);
    kit.mine_to_height(htlc.refund_height - 1);
    // The next block has the lock height itself: still too early.
    assert_eq!(kit.refusal(&refund), "non-final");
    let block = crate::blocks::block_with(&kit, vec![refund.clone()], FEE_SAT);
    let refused = kit.chain.submit_block(block, kit.now_s).expect_err("too early");
    assert_eq!(refused.reason(), "bad-txns-nonfinal");
    kit.mine(1);
    kit.send(&refund).expect("the next block is one past the lock");
    kit.mine(1);
    let (height, _) = kit.chain.confirmed_tx(&refund.compute_txid()).expect("mined");
    assert_eq!(height, htlc.refund_height + 1);
}

#[test]
fn a_claim_and_a_refund_cannot_both_stand() {
    let (mut kit, htlc, coin) = funded(3);
    kit.mine_to_height(htlc.refund_height);
    kit.send(&htlc.claim_tx(&coin, &PREIMAGE, &htlc.seller)).expect("a right claim");
    let refund = htlc.refund_tx(&coin, htlc.refund_height, Sequence::ENABLE_LOCKTIME_NO_RBF);
    assert_eq!(kit.refusal(&refund), "insufficient fee");
    kit.mine(1);
    assert_eq!(kit.refusal(&refund), "bad-txns-inputs-missingorspent");
}
