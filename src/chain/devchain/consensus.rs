//! The consensus rules on a single transaction, but for scripts.

use std::collections::HashSet;

use bitcoin::{Transaction, TxOut, Weight};

use super::reject::Reject;

/// A coinbase output may be spent in the hundredth block after it.
pub const COINBASE_MATURITY: u32 = 100;

/// Largest amount, and largest sum of amounts, in sat: 21 million bitcoin.
pub(super) const MAX_MONEY_SAT: u64 = 2_100_000_000_000_000;

/// nLockTime below this is a height, otherwise unix seconds.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;

/// BIP-68: this bit of a sequence switches its relative lock off.
const SEQUENCE_DISABLE: u32 = 1 << 31;
/// BIP-68: this bit makes it count in units of 512 s, otherwise in blocks.
const SEQUENCE_TIME: u32 = 1 << 22;
/// BIP-68: the bits that hold the count.
const SEQUENCE_MASK: u32 = 0xffff;

/// An unspent output and where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    pub output: TxOut,
    /// Height of its block; one above the tip for an output of an unconfirmed transaction.
    pub height: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

/// The block into which a transaction would go.
pub(super) struct Place<'a> {
    /// Its height.
    pub(super) height: u32,
    /// Median time past of its parent, unix seconds.
    pub(super) mtp_s: u32,
    /// Median time past by height, on the branch that leads to it.
    pub(super) mtp_at: &'a dyn Fn(u32) -> u32,
}

/// Rules that need nothing but the transaction (Core's `CheckTransaction`).
pub(super) fn check_transaction(tx: &Transaction) -> Result<(), Reject> {
    if tx.input.is_empty() {
        return Err(Reject::new("bad-txns-vin-empty"));
    }
    if tx.output.is_empty() {
        return Err(Reject::new("bad-txns-vout-empty"));
    }
    if tx.base_size() as u64 * 4 > Weight::MAX_BLOCK.to_wu() {
        return Err(Reject::new("bad-txns-oversize"));
    }
    check_outputs(tx)?;
    let mut seen = HashSet::with_capacity(tx.input.len());
    if !tx.input.iter().all(|input| seen.insert(input.previous_output)) {
        return Err(Reject::new("bad-txns-inputs-duplicate"));
    }
    if tx.is_coinbase() {
        if !(2..=100).contains(&tx.input[0].script_sig.len()) {
            return Err(Reject::new("bad-cb-length"));
        }
    } else if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(Reject::new("bad-txns-prevout-null"));
    }
    Ok(())
}

fn check_outputs(tx: &Transaction) -> Result<(), Reject> {
    let mut total_sat = 0u64;
    for output in &tx.output {
        // The wire format is signed; Core reads the upper half as negative.
        let value_sat = output.value.to_sat();
        if value_sat > i64::MAX as u64 {
            return Err(Reject::new("bad-txns-vout-negative"));
        }
        if value_sat > MAX_MONEY_SAT {
            return Err(Reject::new("bad-txns-vout-toolarge"));
        }
        total_sat += value_sat;
        if total_sat > MAX_MONEY_SAT {
            return Err(Reject::new("bad-txns-txouttotal-toolarge"));
        }
    }
    Ok(())
}

/// Whether nLockTime lets the transaction into a block (Core's `IsFinalTx`; BIP-113).
pub(super) fn is_final(tx: &Transaction, place: &Place<'_>) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let reached = if lock < LOCKTIME_THRESHOLD { place.height } else { place.mtp_s };
    lock < reached || tx.input.iter().all(|input| input.sequence.is_final())
}

/// Whether all relative locks are reached (BIP-68). `spent` are the coins of the inputs in
/// their order.
pub(super) fn sequence_locks_reached(tx: &Transaction, spent: &[Coin], place: &Place<'_>) -> bool {
    // Core compares the version as unsigned.
    if (tx.version.0 as u32) < 2 {
        return true;
    }
    tx.input.iter().zip(spent).all(|(input, coin)| {
        let sequence = input.sequence.to_consensus_u32();
        if sequence & SEQUENCE_DISABLE != 0 {
            return true;
        }
        let count = sequence & SEQUENCE_MASK;
        if sequence & SEQUENCE_TIME == 0 {
            return u64::from(coin.height) + u64::from(count) <= u64::from(place.height);
        }
        let from_s = (place.mtp_at)(coin.height.saturating_sub(1));
        u64::from(from_s) + u64::from(count) * 512 <= u64::from(place.mtp_s)
    })
}

/// Rules on amounts and maturity (Core's `CheckTxInputs`); gives the fee in sat.
pub(super) fn check_inputs(tx: &Transaction, spent: &[Coin], height: u32) -> Result<u64, Reject> {
    let mut in_sat = 0u64;
    for coin in spent {
        let depth = height.saturating_sub(coin.height);
        if coin.coinbase && depth < COINBASE_MATURITY {
            return Err(Reject::with(
                "bad-txns-premature-spend-of-coinbase",
                format!("tried to spend coinbase at depth {depth}"),
            ));
        }
        // Each coin was checked when it was made, so the sum stays far below u64::MAX.
        in_sat = in_sat.saturating_add(coin.output.value.to_sat());
        if in_sat > MAX_MONEY_SAT {
            return Err(Reject::new("bad-txns-inputvalues-outofrange"));
        }
    }
    let out_sat: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
    in_sat.checked_sub(out_sat).ok_or_else(|| {
        Reject::with("bad-txns-in-belowout", format!("value in ({in_sat}) < value out ({out_sat})"))
    })
}
