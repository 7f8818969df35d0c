//! From wallet and chain to what the engine is told, and what it asks of them.

use bitcoin::{OutPoint, ScriptBuf};

use crate::chain::{ChainUpdate, Relevant, WatchFull, Watcher};
use crate::wallet::{Funded, Wallet, WalletError};
use capex_core::admission::has_work;
use capex_core::engine::io::Funding;
use capex_core::ids::FundingId;
use capex_core::settlement::facts::{ChainFacts, Sighting};
use capex_core::settlement::transaction::KnownTx;
use capex_core::wire::sha256;

/// What an update says to the engine.
pub(super) fn chain_facts(update: &ChainUpdate, relevant: Relevant) -> ChainFacts {
    let sighting = |tx, height| Sighting { tx: KnownTx::new(tx), height };
    let connected =
        relevant.connected.into_iter().map(|(height, _, tx)| sighting(tx, Some(height)));
    let waiting = relevant.mempool.into_iter().map(|tx| sighting(tx, None));
    ChainFacts {
        height: update.height,
        median_time_past_s: update.median_time_past_s,
        feerates: update.feerates.clone(),
        least_feerate_sat_kvb: update.least_feerate_sat_kvb,
        disconnected: relevant.disconnected,
        seen: connected.chain(waiting).collect(),
    }
}

/// A funding as the engine knows it.
pub(super) fn funding(funded: Funded) -> Funding {
    Funding { tx: funded.tx, outpoints: funded.outpoints, fee_sat: funded.fee_sat }
}

/// Lets the wallet make a funding.
///
/// # Errors
/// The wallet's refusal.
pub(super) fn fund(
    wallet: &mut Wallet,
    funding: FundingId,
    outputs: &[(ScriptBuf, u64)],
    feerate_sat_kvb: u64,
    tip_height: u32,
) -> Result<Funding, WalletError> {
    wallet.fund(funding.0, outputs, feerate_sat_kvb, tip_height).map(self::funding)
}

/// Adds scripts and outputs to the watch list.
///
/// # Errors
/// The first that does not fit; later ones are tried all the same.
pub(super) fn watch(
    watcher: &mut Watcher,
    spks: Vec<ScriptBuf>,
    outpoints: Vec<OutPoint>,
) -> Result<(), WatchFull> {
    let spks: Vec<_> = spks.into_iter().map(|spk| watcher.watch_spk(spk)).collect();
    let outpoints: Vec<_> = outpoints.into_iter().map(|out| watcher.watch_outpoint(out)).collect();
    spks.into_iter().chain(outpoints).collect()
}

/// Searches the nonce that gives an order its proof of work.
#[must_use]
pub fn search_nonce(prefix: &[u8], bits: u8) -> Option<u64> {
    // 2^(bits + 8) tries fail with a probability of e^-256.
    let most = 1_u64 << (u32::from(bits) + 8).min(62);
    (0..most).find(|nonce| has_work(&sha256(&[prefix, &nonce.to_be_bytes()]), bits))
}
