//! Choosing coins.
//!
//! Confirmed coins go first, and among them those of a FUND that nobody answered for: taking
//! them cancels it at no extra cost. The unconfirmed change of an own transaction can vanish
//! with it, so it is taken only where confirmed coins do not suffice, and never together with
//! them: if it vanishes, no other coin is tied to the transaction that falls with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bdk_wallet::coin_selection::{BranchAndBoundCoinSelection, LargestFirstCoinSelection};
use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, LocalOutput, TxOrdering};
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxOut, Txid};

use super::Wallet;
use super::entry::{Fund, Kind};
use super::error::WalletError;
use super::sign::{fee_sat, signed_vsize};

/// Size of a taproot output: what leaving out the change saves.
const CHANGE_BYTES: u64 = 43;
/// Greatest lock time that means a height (BIP-113 uses larger values as times).
pub(super) const MAX_HEIGHT: u32 = 499_999_999;
/// Tries to find a rate at which a transaction pays for its ancestors as well: each try may
/// choose other coins, with other ancestors.
const PACKAGE_TRIES: usize = 4;

/// Where coins come from, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Confirmed coins of FUNDs that nobody answered for.
    Lent,
    /// All confirmed coins that are not locked.
    Confirmed,
    /// Unconfirmed change of own transactions.
    Change,
}

/// How many of the coins a transaction takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    Enough,
    All,
}

/// What a transaction shall pay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish<'a> {
    /// These outputs.
    Outputs(&'a [(ScriptBuf, u64)]),
    /// Everything to one script.
    Sweep(&'a ScriptBuf),
}

impl Wallet {
    /// Builds and signs a transaction; nothing is locked or journaled.
    pub(super) fn build(
        &mut self,
        wish: Wish<'_>,
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Fund, WalletError> {
        let mut short = None;
        for source in [Source::Lent, Source::Confirmed, Source::Change] {
            let coins = self.coins_from(source);
            if coins.is_empty() && source != Source::Confirmed {
                continue;
            }
            match self.select(&coins, wish, feerate_sat_kvb, tip_height, Take::Enough) {
                Ok(psbt) => return self.finish(psbt, wish),
                Err(CreateTxError::CoinSelection(lack)) => {
                    let have_sat = coins.values().map(|coin| coin.txout.value.to_sat()).sum();
                    let need_sat = lack.needed.to_sat();
                    let better = short.is_none_or(|(most_sat, _)| have_sat > most_sat);
                    short = if better { Some((have_sat, need_sat)) } else { short };
                }
                Err(CreateTxError::OutputBelowDustLimit(index)) => {
                    return Err(WalletError::BadAmount { index });
                }
                Err(other) => return Err(WalletError::build(other)),
            }
        }
        let (have_sat, need_sat) = short.unwrap_or_default();
        Err(WalletError::InsufficientFunds { have_sat, need_sat })
    }

    /// The same from the given coins alone, all of them; from any if there are none.
    pub(super) fn build_from(
        &mut self,
        named: &[OutPoint],
        wish: Wish<'_>,
        feerate_sat_kvb: u64,
        tip_height: u32,
    ) -> Result<Fund, WalletError> {
        if named.is_empty() {
            return self.build(wish, feerate_sat_kvb, tip_height);
        }
        let coins = self.named(named)?;
        match self.select(&coins, wish, feerate_sat_kvb, tip_height, Take::All) {
            Ok(psbt) => self.finish(psbt, wish),
            Err(CreateTxError::CoinSelection(lack)) => {
                let have_sat = coins.values().map(|coin| coin.txout.value.to_sat()).sum();
                Err(WalletError::InsufficientFunds { have_sat, need_sat: lack.needed.to_sat() })
            }
            Err(CreateTxError::OutputBelowDustLimit(index)) => {
                Err(WalletError::BadAmount { index })
            }
            Err(other) => Err(WalletError::build(other)),
        }
    }

    /// Coins that somebody named, each of which can be spent.
    fn named(&self, named: &[OutPoint]) -> Result<BTreeMap<OutPoint, LocalOutput>, WalletError> {
        let tip_height = self.tip_height();
        let all: BTreeMap<OutPoint, LocalOutput> =
            self.coins().map(|coin| (coin.outpoint, coin)).collect();
        let check = |coin: &OutPoint| {
            let coin = *coin;
            let found = all.get(&coin).ok_or(WalletError::NoCoin { coin })?;
            if self.entries.is_kept(coin) {
                Err(WalletError::CoinLocked { coin })
            } else if !self.is_mature(found, tip_height) && !self.is_own_change(found) {
                Err(WalletError::CoinPending { coin })
            } else {
                Ok((coin, found.clone()))
            }
        };
        named.iter().map(check).collect()
    }

    fn coins_from(&self, source: Source) -> BTreeMap<OutPoint, LocalOutput> {
        let tip_height = self.tip_height();
        let fits = |coin: &LocalOutput| match source {
            Source::Lent => self.entries.is_lent(coin.outpoint) && self.is_mature(coin, tip_height),
            Source::Confirmed => self.is_mature(coin, tip_height),
            Source::Change => self.is_own_change(coin),
        };
        let free = self.coins().filter(|coin| !self.entries.is_locked(coin.outpoint));
        free.filter(fits).map(|coin| (coin.outpoint, coin)).collect()
    }

    /// Chooses among coins: an exact match if there is one, else the largest first, so that a
    /// FUND has few inputs and the same wallet chooses the same coins. What spends unconfirmed
    /// coins pays for their transactions too: a miner takes all of them or none.
    fn select(
        &mut self,
        coins: &BTreeMap<OutPoint, LocalOutput>,
        wish: Wish<'_>,
        feerate_sat_kvb: u64,
        tip_height: u32,
        take: Take,
    ) -> Result<Psbt, CreateTxError> {
        let avoided: Vec<OutPoint> = self
            .bdk
            .list_unspent()
            .map(|coin| coin.outpoint)
            .filter(|outpoint| !coins.contains_key(outpoint))
            .collect();
        let mut rate_sat_kvb = feerate_sat_kvb;
        let mut tries = 0;
        loop {
            let algorithm =
                BranchAndBoundCoinSelection::new(CHANGE_BYTES, LargestFirstCoinSelection);
            let mut builder = self.bdk.build_tx().coin_selection(algorithm);
            match wish {
                Wish::Outputs(outputs) => {
                    let amount =
                        |(script, sat): &(ScriptBuf, u64)| (script.clone(), Amount::from_sat(*sat));
                    builder.set_recipients(outputs.iter().map(amount).collect());
                }
                Wish::Sweep(script) => {
                    builder.drain_to(script.clone());
                }
            }
            match (take, wish) {
                (Take::All, _) => {
                    let named: Vec<OutPoint> = coins.keys().copied().collect();
                    builder.add_utxos(&named).map_err(|_| CreateTxError::NoUtxosSelected)?;
                    builder.manually_selected_only();
                }
                (Take::Enough, Wish::Sweep(_)) => {
                    builder.drain_wallet();
                }
                (Take::Enough, Wish::Outputs(_)) => {}
            }
            builder
                .fee_rate(FeeRate::from_sat_per_kwu(rate_sat_kvb.div_ceil(4)))
                .current_height(tip_height.min(MAX_HEIGHT))
                .ordering(by_content())
                .unspendable(avoided.clone());
            let psbt = builder.finish()?;
            let (lack_sat, vsize) = self.package_lack(&psbt, feerate_sat_kvb);
            tries += 1;
            if lack_sat == 0 || tries == PACKAGE_TRIES {
                return Ok(psbt);
            }
            self.drop_draft(&psbt.unsigned_tx);
            let more = lack_sat.saturating_mul(1_000).div_ceil(vsize.max(1));
            rate_sat_kvb = rate_sat_kvb.saturating_add(more);
        }
    }

    /// Gives the change address of a transaction that will not be signed to the next one.
    pub(super) fn drop_draft(&mut self, tx: &Transaction) {
        for output in &tx.output {
            let place = self.bdk.derivation_of_spk(output.script_pubkey.clone());
            if let Some((KeychainKind::Internal, index)) = place {
                self.bdk.unmark_used(KeychainKind::Internal, index);
            }
        }
    }

    /// What a transaction lacks, in sat, to lift itself and its unconfirmed ancestors to a
    /// rate; and its own size.
    fn package_lack(&self, psbt: &Psbt, feerate_sat_kvb: u64) -> (u64, u64) {
        let tx = &psbt.unsigned_tx;
        let vsize = signed_vsize(tx, self.is_taproot());
        let spent_sat: u64 =
            psbt.inputs.iter().filter_map(|input| input.witness_utxo.as_ref()).map(sat).sum();
        let fee = spent_sat.saturating_sub(tx.output.iter().map(sat).sum());
        let mut ancestors = BTreeMap::new();
        self.collect_ancestors(tx, &mut ancestors);
        if ancestors.is_empty() {
            return (0, vsize);
        }
        let paid: u64 = ancestors.values().map(|(fee_sat, _)| fee_sat).sum();
        let size: u64 = ancestors.values().map(|(_, vsize)| vsize).sum();
        let due = fee_sat(feerate_sat_kvb, vsize.saturating_add(size)).unwrap_or(u64::MAX);
        // Ancestors that pay more than the rate need no help, and give none.
        let own = fee_sat(feerate_sat_kvb, vsize).unwrap_or(u64::MAX);
        (due.saturating_sub(paid).max(own).saturating_sub(fee), vsize)
    }

    fn collect_ancestors(&self, tx: &Transaction, found: &mut BTreeMap<Txid, (u64, u64)>) {
        let parents: BTreeSet<Txid> =
            tx.input.iter().map(|input| input.previous_output.txid).collect();
        for txid in parents {
            let Some(parent) = self.unconfirmed(txid) else { continue };
            if found.contains_key(&txid) {
                continue;
            }
            let fee = self.bdk.calculate_fee(&parent).map_or(0, |fee| fee.to_sat());
            found.insert(txid, (fee, parent.vsize() as u64));
            self.collect_ancestors(&parent, found);
        }
    }

    fn finish(&self, psbt: Psbt, wish: Wish<'_>) -> Result<Fund, WalletError> {
        let spent = psbt.inputs.into_iter().map(|input| input.witness_utxo);
        let prevouts: Option<Vec<TxOut>> = spent.collect();
        let prevouts = prevouts.ok_or_else(|| WalletError::build("an input without its coin"))?;
        let tx = self.sign(psbt.unsigned_tx, &prevouts)?;
        let outputs = match wish {
            Wish::Outputs(outputs) => outputs.to_vec(),
            Wish::Sweep(script) => {
                let paid = tx.output.iter().filter(|output| output.script_pubkey == *script);
                paid.map(|output| (script.clone(), sat(output))).collect()
            }
        };
        Ok(Fund {
            tx,
            kind: Kind::Terms,
            outputs,
            prevouts,
            is_broadcast: false,
            is_lent: false,
            cancel: None,
            awaits: self.is_watch_only(),
            bump: None,
            is_exported: false,
            joint: None,
        })
    }
}

fn sat(output: &TxOut) -> u64 {
    output.value.to_sat()
}

/// Inputs and outputs in the order of their contents (BIP-69): it tells no more about the
/// change than a random one, and the same wallet builds the same transaction.
fn by_content() -> TxOrdering {
    TxOrdering::Custom {
        input_sort: Arc::new(|a: &TxIn, b: &TxIn| a.previous_output.cmp(&b.previous_output)),
        output_sort: Arc::new(|a: &TxOut, b: &TxOut| a.cmp(b)),
    }
}
