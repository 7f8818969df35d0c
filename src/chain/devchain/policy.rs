//! What the mempool accepts beyond what a block may hold (Core's `src/policy/`).
//!
//! Limits of fees are the defaults of Core since 29.1. Where later versions are more generous
//! (chains of unconfirmed transactions, new unconfirmed inputs of a replacement, OP_RETURN),
//! the older rule stands: what this mempool takes, every node in use takes.

use std::collections::BTreeSet;

use bitcoin::taproot::{TAPROOT_ANNEX_PREFIX, TAPROOT_LEAF_MASK, TAPROOT_LEAF_TAPSCRIPT};
use bitcoin::{FeeRate, OutPoint, Script, Transaction, Txid, Weight, Witness};

use super::consensus::Coin;
use super::mempool::{MAX_MEMPOOL_TXS, MAX_MEMPOOL_VSIZE, Mempool};
use super::reject::Reject;

/// Least feerate relayed, sat per 1,000 vB (Core's `-minrelaytxfee`).
pub const MIN_RELAY_SAT_KVB: u64 = 100;
/// Least a replacement adds per 1,000 vB of its own size (`-incrementalrelayfee`).
pub const INCREMENTAL_SAT_KVB: u64 = 100;
/// Feerate at which an output must be worth spending (`-dustrelayfee`).
pub const DUST_RELAY_SAT_KVB: u64 = 3_000;

/// Heaviest transaction relayed.
const MAX_STANDARD_WEIGHT: Weight = Weight::from_wu(400_000);
/// Smallest transaction relayed, without witnesses, in bytes (CVE-2017-12842).
const MIN_STANDARD_NONWITNESS_BYTES: usize = 65;
/// Longest scriptSig relayed, in bytes.
const MAX_SCRIPT_SIG_BYTES: usize = 1_650;
/// Longest OP_RETURN script relayed, in bytes (before Core 30).
const MAX_OP_RETURN_BYTES: usize = 83;
/// Most signature operations, weighted, in a relayed transaction.
const MAX_SIGOPS_COST: usize = 16_000;
/// Longest item on the stack of a relayed tapscript spend, in bytes.
const MAX_TAPSCRIPT_ITEM_BYTES: usize = 80;
/// Most transactions in a chain of unconfirmed ones, the new one included.
const MAX_CHAIN_TXS: usize = 25;
/// Most transactions that one replacement may evict.
const MAX_REPLACED_TXS: usize = 100;

/// Mempool settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether any transaction may be replaced (Core's default), or only those that say so
    /// by BIP-125.
    pub full_rbf: bool,
    /// Most transactions held, at most [`MAX_MEMPOOL_TXS`].
    pub max_txs: usize,
    /// Most virtual bytes held, at most [`MAX_MEMPOOL_VSIZE`].
    pub max_vsize: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { full_rbf: true, max_txs: MAX_MEMPOOL_TXS, max_vsize: MAX_MEMPOOL_VSIZE }
    }
}

/// A transaction that the mempool would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub txid: Txid,
    /// Its fee in sat.
    pub fee_sat: u64,
    /// Its virtual size in bytes.
    pub vsize: u64,
}

/// The fee in sat that `vsize` bytes cost at a rate, rounded up as Core's `CFeeRate` does.
pub(super) fn fee_sat_at(rate_sat_kvb: u64, vsize: u64) -> u64 {
    rate_sat_kvb.saturating_mul(vsize).div_ceil(1_000)
}

/// Whether a transaction is relayed at all (Core's `IsStandardTx`).
pub(super) fn check_standard(tx: &Transaction) -> Result<(), Reject> {
    if !(1..=2).contains(&tx.version.0) {
        return Err(Reject::new("version"));
    }
    if tx.weight() > MAX_STANDARD_WEIGHT {
        return Err(Reject::new("tx-size"));
    }
    if tx.base_size() < MIN_STANDARD_NONWITNESS_BYTES {
        return Err(Reject::new("tx-size-small"));
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG_BYTES {
            return Err(Reject::new("scriptsig-size"));
        }
        if !input.script_sig.is_push_only() {
            return Err(Reject::new("scriptsig-not-pushonly"));
        }
    }
    check_standard_outputs(tx)
}

fn check_standard_outputs(tx: &Transaction) -> Result<(), Reject> {
    let dust_rate = FeeRate::from_sat_per_kwu(DUST_RELAY_SAT_KVB / 4);
    let mut op_returns = 0;
    for output in &tx.output {
        let script = &output.script_pubkey;
        if !is_standard_script(script) {
            return Err(Reject::new("scriptpubkey"));
        }
        if script.is_op_return() {
            op_returns += 1;
        } else if output.value < script.minimal_non_dust_custom(dust_rate) {
            return Err(Reject::new("dust"));
        }
    }
    match op_returns > 1 {
        true => Err(Reject::new("multi-op-return")),
        false => Ok(()),
    }
}

fn is_standard_script(script: &Script) -> bool {
    if script.is_op_return() {
        return script.len() <= MAX_OP_RETURN_BYTES;
    }
    script.is_witness_program() || script.is_p2pkh() || script.is_p2sh() || script.is_p2pk()
}

/// Whether the witnesses that spend taproot outputs are relayed (Core's `IsWitnessStandard`).
pub(super) fn check_standard_witnesses(tx: &Transaction, spent: &[Coin]) -> Result<(), Reject> {
    let is_standard = |witness: &Witness| {
        let items: Vec<&[u8]> = witness.iter().collect();
        match items.split_last() {
            // Scripts decide on those.
            None | Some((_, [])) => true,
            Some((last, [stack @ .., _script])) => last.first().is_some_and(|first| {
                *first != TAPROOT_ANNEX_PREFIX
                    && (first & TAPROOT_LEAF_MASK != TAPROOT_LEAF_TAPSCRIPT
                        || stack.iter().all(|item| item.len() <= MAX_TAPSCRIPT_ITEM_BYTES))
            }),
        }
    };
    let of_taproot =
        tx.input.iter().zip(spent).filter(|(_, coin)| coin.output.script_pubkey.is_p2tr());
    match of_taproot.map(|(input, _)| &input.witness).all(is_standard) {
        true => Ok(()),
        false => Err(Reject::new("bad-witness-nonstandard")),
    }
}

/// Checks the weighted signature operations of a relayed transaction.
pub(super) fn check_standard_sigops(cost: usize) -> Result<(), Reject> {
    match cost > MAX_SIGOPS_COST {
        true => Err(Reject::with("bad-txns-too-many-sigops", cost.to_string())),
        false => Ok(()),
    }
}

/// Checks the fee against the relay minimum.
pub(super) fn check_fee(fee_sat: u64, vsize: u64) -> Result<(), Reject> {
    let least_sat = fee_sat_at(MIN_RELAY_SAT_KVB, vsize);
    match fee_sat < least_sat {
        true => Err(Reject::with("min relay fee not met", format!("{fee_sat} < {least_sat}"))),
        false => Ok(()),
    }
}

/// Bounds the chain of unconfirmed transactions that `tx` would lengthen.
pub(super) fn check_chain(mempool: &Mempool, ancestors: &BTreeSet<Txid>) -> Result<(), Reject> {
    if ancestors.len() + 1 > MAX_CHAIN_TXS {
        return Err(Reject::with("too-long-mempool-chain", "too many unconfirmed ancestors"));
    }
    let crowded = |txid: &Txid| mempool.with_descendants(*txid).len() + 1 > MAX_CHAIN_TXS;
    match ancestors.iter().any(crowded) {
        true => Err(Reject::with("too-long-mempool-chain", "too many descendants")),
        false => Ok(()),
    }
}

/// The unconfirmed transactions that `tx` conflicts with directly.
///
/// # Errors
/// `txn-mempool-conflict` if one of them may not be replaced.
pub(super) fn conflicts(
    mempool: &Mempool,
    tx: &Transaction,
    policy: Policy,
) -> Result<BTreeSet<Txid>, Reject> {
    let direct: BTreeSet<Txid> =
        tx.input.iter().filter_map(|input| mempool.spender(&input.previous_output)).collect();
    let signals = |txid: &Txid| {
        mempool.get(txid).is_some_and(|entry| {
            entry.tx.is_explicitly_rbf()
                || mempool
                    .ancestors(&entry.tx)
                    .iter()
                    .any(|a| mempool.get(a).is_some_and(|e| e.tx.is_explicitly_rbf()))
        })
    };
    match policy.full_rbf || direct.iter().all(signals) {
        true => Ok(direct),
        false => Err(Reject::new("txn-mempool-conflict")),
    }
}

/// Whether `tx` may replace its `direct` conflicts (BIP-125 rules 2 to 5, and the feerate
/// rule of Core); gives all that it evicts.
pub(super) fn check_replacement(
    mempool: &Mempool,
    tx: &Transaction,
    fee_sat: u64,
    direct: &BTreeSet<Txid>,
) -> Result<BTreeSet<Txid>, Reject> {
    let txid = tx.compute_txid();
    let mut evicted = BTreeSet::new();
    for conflict in direct {
        evicted.extend(mempool.with_descendants(*conflict));
    }
    if let Some(parent) = mempool.ancestors(tx).intersection(&evicted).next() {
        let detail = format!("{txid} spends conflicting transaction {parent}");
        return Err(Reject::with("bad-txns-spends-conflicting-tx", detail));
    }
    if evicted.len() > MAX_REPLACED_TXS {
        let detail = format!(
            "rejecting replacement {txid}; too many potential replacements ({} > {MAX_REPLACED_TXS})",
            evicted.len()
        );
        return Err(Reject::with("too many potential replacements", detail));
    }
    check_no_new_unconfirmed(mempool, tx, direct)?;
    check_replacement_fee(mempool, tx, fee_sat, &evicted)?;
    Ok(evicted)
}

fn check_no_new_unconfirmed(
    mempool: &Mempool,
    tx: &Transaction,
    direct: &BTreeSet<Txid>,
) -> Result<(), Reject> {
    let known: BTreeSet<OutPoint> = direct
        .iter()
        .filter_map(|txid| mempool.get(txid))
        .flat_map(|entry| entry.tx.input.iter().map(|input| input.previous_output))
        .collect();
    let adds =
        |outpoint: &OutPoint| !known.contains(outpoint) && mempool.get(&outpoint.txid).is_some();
    match tx.input.iter().position(|input| adds(&input.previous_output)) {
        Some(index) => Err(Reject::with(
            "replacement-adds-unconfirmed",
            format!("replacement {} adds unconfirmed input, idx {index}", tx.compute_txid()),
        )),
        None => Ok(()),
    }
}

fn check_replacement_fee(
    mempool: &Mempool,
    tx: &Transaction,
    fee_sat: u64,
    evicted: &BTreeSet<Txid>,
) -> Result<(), Reject> {
    let (txid, vsize) = (tx.compute_txid(), tx.vsize() as u64);
    let refuse = |why: String| {
        Err(Reject::with("insufficient fee", format!("rejecting replacement {txid}{why}")))
    };
    // Since a child may pay for its parents, what counts is each with those that it would be
    // mined with.
    for gone in evicted.iter().filter_map(|gone| mempool.get(gone)) {
        let package: BTreeSet<Txid> =
            mempool.ancestors(&gone.tx).intersection(evicted).copied().collect();
        let old_sat = gone.fee_sat + mempool.sum(&package, |entry| entry.fee_sat);
        let old_vsize = gone.vsize + mempool.sum(&package, |entry| entry.vsize);
        if fee_sat as u128 * old_vsize as u128 <= old_sat as u128 * vsize as u128 {
            return refuse(format!(
                "; new feerate {fee_sat} sat / {vsize} vB <= old feerate {old_sat} sat / {old_vsize} vB"
            ));
        }
    }
    let old_sat = mempool.sum(evicted, |entry| entry.fee_sat);
    if fee_sat < old_sat {
        return refuse(format!(", less fees than conflicting txs; {fee_sat} < {old_sat}"));
    }
    let (more_sat, least_sat) = (fee_sat - old_sat, fee_sat_at(INCREMENTAL_SAT_KVB, vsize));
    if more_sat < least_sat {
        return refuse(format!(", not enough additional fees to relay; {more_sat} < {least_sat}"));
    }
    Ok(())
}
