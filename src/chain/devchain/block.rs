//! Building, solving and checking blocks.

use std::collections::HashSet;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, Script, ScriptBuf, Sequence, Target, Transaction, TxIn,
    TxMerkleNode, TxOut, Weight, Witness, absolute, transaction,
};

use super::consensus::check_transaction;
use super::reject::Reject;

/// The proof-of-work target of every block: regtest never retargets. Two hashes on
/// average.
pub const BLOCK_BITS: u32 = 0x207f_ffff;

/// Regtest halves the subsidy every 150 blocks.
const HALVING_BLOCKS: u32 = 150;
/// The first subsidy: 50 bitcoin.
const FIRST_SUBSIDY_SAT: u64 = 5_000_000_000;
/// How far a block's time may run ahead of the clock: 2 h.
const MAX_FUTURE_S: u32 = 7_200;
/// Signature operations, weighted, that a block may hold.
const MAX_SIGOPS_COST: usize = 80_000;
/// Start of a witness commitment output (BIP-141).
const COMMITMENT_MAGIC: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// New coins in the block at `height`, in sat.
pub fn subsidy_sat(height: u32) -> u64 {
    FIRST_SUBSIDY_SAT.checked_shr(height / HALVING_BLOCKS).unwrap_or(0)
}

/// A solved block of `txs` on `prev_hash`, paying subsidy and `fees_sat` to `payee`.
/// `extra_nonce` tells two otherwise equal blocks apart.
pub fn build_block(
    prev_hash: bitcoin::BlockHash,
    height: u32,
    time_s: u32,
    txs: Vec<Transaction>,
    fees_sat: u64,
    payee: &Script,
    extra_nonce: u64,
) -> Block {
    let reward_sat = subsidy_sat(height).saturating_add(fees_sat);
    let mut txdata = vec![coinbase(height, reward_sat, payee, time_s, extra_nonce)];
    txdata.extend(txs);
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: prev_hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: time_s,
            bits: CompactTarget::from_consensus(BLOCK_BITS),
            nonce: 0,
        },
        txdata,
    };
    solve(&mut block);
    block
}

fn coinbase(
    height: u32,
    reward_sat: u64,
    payee: &Script,
    time_s: u32,
    extra_nonce: u64,
) -> Transaction {
    // BIP-34 height first. The time makes the coins of two devchains distinct, so that a
    // payment on one is void on the other.
    let script_sig = Builder::new()
        .push_int(i64::from(height))
        .push_slice(time_s.to_le_bytes())
        .push_slice(extra_nonce.to_le_bytes())
        .into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0u8; 32]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(reward_sat), script_pubkey: payee.into() }],
    }
}

/// Writes the witness commitment and the merkle root, then searches the nonce.
pub fn solve(block: &mut Block) {
    commit_to_witnesses(block);
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    while !meets_target(&block.header) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
}

fn commit_to_witnesses(block: &mut Block) {
    let Some(root) = block.witness_root() else {
        return;
    };
    let Some(coinbase) = block.txdata.first_mut() else {
        return;
    };
    let commitment = Block::compute_witness_commitment(&root, &[0u8; 32]);
    let mut data = PushBytesBuf::new();
    // Four magic bytes and 32 of hash: within the limits of a push.
    let _ = data.extend_from_slice(&COMMITMENT_MAGIC[2..]);
    let _ = data.extend_from_slice(commitment.as_byte_array());
    let script = Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script();
    coinbase.output.retain(|output| !is_commitment(&output.script_pubkey));
    coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey: script });
}

fn is_commitment(script: &ScriptBuf) -> bool {
    script.len() >= 38 && script.as_bytes().starts_with(&COMMITMENT_MAGIC)
}

fn meets_target(header: &Header) -> bool {
    Target::from_compact(CompactTarget::from_consensus(BLOCK_BITS)).is_met_by(header.block_hash())
}

/// Checks a header against the median time past of its parent and the clock, both in unix
/// seconds.
pub(super) fn check_header(header: &Header, parent_mtp_s: u32, now_s: u32) -> Result<(), Reject> {
    if header.bits.to_consensus() != BLOCK_BITS {
        return Err(Reject::with("bad-diffbits", "incorrect proof of work"));
    }
    if !meets_target(header) {
        return Err(Reject::with("high-hash", "proof of work failed"));
    }
    if header.time <= parent_mtp_s {
        return Err(Reject::with("time-too-old", "block's timestamp is too early"));
    }
    if header.time > now_s.saturating_add(MAX_FUTURE_S) {
        return Err(Reject::with("time-too-new", "block timestamp too far in the future"));
    }
    if header.version.to_consensus() < 4 {
        return Err(Reject::new("bad-version"));
    }
    Ok(())
}

/// Checks a block that is to stand at `height`, but for what it spends.
pub(super) fn check_block(block: &Block, height: u32) -> Result<(), Reject> {
    if !block.check_merkle_root() {
        return Err(Reject::with("bad-txnmrklroot", "hashMerkleRoot mismatch"));
    }
    // A repeated transaction can leave the merkle root as it was (CVE-2012-2459).
    let mut seen = HashSet::with_capacity(block.txdata.len());
    if !block.txdata.iter().all(|tx| seen.insert(tx.compute_txid())) {
        return Err(Reject::with("bad-txns-duplicate", "duplicate transaction"));
    }
    check_coinbase(block, height)?;
    for tx in &block.txdata {
        check_transaction(tx)?;
    }
    check_commitment(block)?;
    if block.weight() > Weight::MAX_BLOCK {
        return Err(Reject::with("bad-blk-weight", "weight limit failed"));
    }
    Ok(())
}

fn check_coinbase(block: &Block, height: u32) -> Result<(), Reject> {
    let Some((first, rest)) = block.txdata.split_first() else {
        return Err(Reject::with("bad-blk-length", "size limits failed"));
    };
    if !first.is_coinbase() {
        return Err(Reject::with("bad-cb-missing", "first tx is not coinbase"));
    }
    if rest.iter().any(Transaction::is_coinbase) {
        return Err(Reject::with("bad-cb-multiple", "more than one coinbase"));
    }
    let expected = Builder::new().push_int(i64::from(height)).into_script();
    if !first.input[0].script_sig.as_bytes().starts_with(expected.as_bytes()) {
        return Err(Reject::with("bad-cb-height", "block height mismatch in coinbase"));
    }
    Ok(())
}

fn check_commitment(block: &Block) -> Result<(), Reject> {
    let coinbase = &block.txdata[0];
    let Some(output) = coinbase.output.iter().rev().find(|o| is_commitment(&o.script_pubkey))
    else {
        let witness = |tx: &Transaction| tx.input.iter().any(|i| !i.witness.is_empty());
        return match block.txdata.iter().any(witness) {
            true => Err(Reject::with("unexpected-witness", "unexpected witness data found")),
            false => Ok(()),
        };
    };
    let reserved = &coinbase.input[0].witness;
    let Some(value) = reserved.iter().next().filter(|v| v.len() == 32 && reserved.len() == 1)
    else {
        return Err(Reject::with("bad-witness-nonce-size", "invalid witness reserved value size"));
    };
    let commits = block.witness_root().is_some_and(|root| {
        let commitment = Block::compute_witness_commitment(&root, value);
        output.script_pubkey.as_bytes()[6..38] == commitment.to_byte_array()
    });
    match commits {
        true => Ok(()),
        false => {
            Err(Reject::with("bad-witness-merkle-match", "witness merkle commitment mismatch"))
        }
    }
}

/// Whether the weighted signature operations of a block stay within bounds.
pub(super) fn check_sigops(cost: usize) -> Result<(), Reject> {
    match cost > MAX_SIGOPS_COST {
        true => Err(Reject::with("bad-blk-sigops", "too many sigops")),
        false => Ok(()),
    }
}
