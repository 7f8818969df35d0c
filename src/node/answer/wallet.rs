//! The wallet: coins, history, payments.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::Hash;
use bitcoin::{Address, OutPoint, Txid};

use super::Read;
use crate::api::{ApiError, Noun, Prefix, types};
use crate::node::Node;
use crate::wallet::{Amounts, HistoryEntry, Payment, Waiting, WalletError, with_pruned};
use capex_core::engine::trades::TradeView;
use capex_core::ids::FundingId;
use capex_core::reason;

/// Confirmation target of a payment without a fee rate, chain blocks.
const PAYMENT_TARGET: u32 = 6;
/// Confirmation target of a replacement without a fee rate.
const BUMP_TARGET: u32 = 1;
/// Most transactions in one answer: some thousand trades.
const HISTORY_MAX: usize = 10_000;

impl Node {
    pub(super) fn balance(&self) -> types::Balance {
        let balance = self.driver.wallet().balance();
        let committed = self.engine().treasury().reserved_sat();
        types::Balance {
            spendable_sat: balance.spendable_sat,
            confirmed_sat: balance.confirmed_sat,
            pending_sat: balance.pending_sat,
            reserved_sat: balance.locked_sat.saturating_add(committed),
        }
    }

    pub(super) fn address(&mut self) -> Result<types::Address, ApiError> {
        let address = self.driver.wallet_mut().next_address().map_err(refused)?;
        Ok(types::Address { address: address.to_string() })
    }

    pub(super) fn descriptors(&self) -> types::Descriptors {
        let [receive, change] = self.driver.wallet().descriptors();
        types::Descriptors { receive, change }
    }

    pub(super) fn coins(&self) -> Vec<types::Coin> {
        let coin = |coin: crate::wallet::Coin| types::Coin {
            outpoint: coin.outpoint.to_string(),
            amount_sat: coin.amount_sat,
            height: coin.height,
            state: coin.state.name().to_owned(),
        };
        self.driver.wallet().coin_list().into_iter().map(coin).collect()
    }

    /// What is in memory, and then what the store has of years.
    pub(super) fn wallet_history(&self) -> Read {
        let recent = self.driver.wallet().recent_history(HISTORY_MAX);
        let (trades, store) = (self.trades_by_txid(), Arc::clone(&self.outside.store));
        Box::new(move || {
            let entries = with_pruned(recent, &store, HISTORY_MAX).map_err(refused)?;
            let shown: Vec<_> = entries.iter().map(|entry| wallet_tx(entry, &trades)).collect();
            Ok(shown.into())
        })
    }

    /// What each transaction of a trade is for.
    fn trades_by_txid(&self) -> BTreeMap<Txid, (&'static str, String)> {
        let mut found = BTreeMap::new();
        for view in self.engine().trades().views() {
            for (what, tx) in transactions(&view) {
                found.insert(tx, (what, view.trade.to_string()));
            }
        }
        found
    }

    /// Pays, or says what would be paid. Coins that standing orders and open trades count on
    /// stay.
    pub(super) fn send_coins(
        &mut self,
        body: &types::SendCoins,
    ) -> Result<types::Payment, ApiError> {
        let chain = self.engine().chain();
        if !chain.up && !body.dry_run {
            return Err(ApiError::new(reason!("chain.down"), "the chain source does not answer"));
        }
        let feerate = body.feerate_sat_kvb.unwrap_or(chain.feerate_sat_kvb(PAYMENT_TARGET));
        let to = self.read_address(&body.to)?;
        let amount = body.amount_sat.map_or(Amounts::All, Amounts::Exactly);
        let coins = read_coins(&body.coins)?;
        let wallet = self.driver.wallet_mut();
        let quote = wallet.quote_send(&to, amount, feerate, &coins).map_err(refused)?;
        let need_sat = quote.amount_sat.saturating_add(quote.fee_sat);
        let spendable_sat = self.driver.wallet().balance().spendable_sat;
        let reserved_sat = self.engine().treasury().reserved_sat();
        if need_sat > spendable_sat.saturating_sub(reserved_sat) {
            let message = format!("{reserved_sat} sat of {spendable_sat} sat are kept for orders");
            return Err(ApiError::new(reason!("wallet.reserved"), message));
        }
        if body.dry_run {
            return Ok(payment(&quote, false));
        }
        let sent = self.driver.pay(&mut self.outside, &to, amount, feerate, &coins);
        Ok(payment(&sent.map_err(refused)?, true))
    }

    pub(super) fn bump_payment(
        &mut self,
        body: &types::BumpPayment,
    ) -> Result<types::Payment, ApiError> {
        let txid: Txid = body.txid.parse().map_err(|_| refused(WalletError::NoPayment))?;
        let estimate = self.engine().chain().feerate_sat_kvb(BUMP_TARGET);
        let feerate = body.feerate_sat_kvb.unwrap_or(estimate);
        let bumped = self.driver.bump_payment(&mut self.outside, txid, feerate);
        Ok(payment(&bumped.map_err(refused)?, true))
    }

    /// What waits for a signature made elsewhere.
    pub(super) fn psbts(&self) -> Vec<types::WaitingPsbt> {
        let waiting = self.driver.wallet().waiting();
        waiting.into_iter().map(|waiting| self.waiting_dto(&waiting)).collect()
    }

    fn waiting_dto(&self, waiting: &Waiting) -> types::WaitingPsbt {
        let purchase = self.engine().trades().purchase_of(FundingId(waiting.terms_hash));
        types::WaitingPsbt {
            txid: waiting.txid.to_string(),
            what: waiting.form.name().to_owned(),
            trade_id: purchase.map(|(trade, _)| trade.to_string()),
            amount_sat: waiting.amount_sat,
            fee_sat: waiting.fee_sat,
            until: purchase.and_then(|(_, until_ms)| until_ms),
        }
    }

    pub(super) fn export_psbt(&mut self, prefix: &Prefix) -> Result<types::PsbtText, ApiError> {
        let waiting = self.driver.wallet().waiting().into_iter().map(|waiting| waiting.txid);
        let txid = one_txid(prefix, waiting)?;
        let bytes = self.driver.export_psbt(&mut self.outside, txid).map_err(refused)?;
        Ok(types::PsbtText { psbt: BASE64.encode(bytes) })
    }

    pub(super) fn take_psbt(&mut self, bytes: &[u8]) -> Result<types::SignedPsbt, ApiError> {
        let (txid, funding) = self.driver.take_psbt(&mut self.outside, bytes).map_err(refused)?;
        let trades = self.engine().trades();
        let purchase = funding.and_then(|funding| trades.purchase_of(funding));
        let trade_id = purchase.map(|(trade, _)| trade.to_string());
        Ok(types::SignedPsbt { txid: txid.to_string(), trade_id })
    }

    pub(super) fn drop_psbt(
        &mut self,
        prefix: &Prefix,
    ) -> Result<Vec<types::WaitingPsbt>, ApiError> {
        let waiting = self.driver.wallet().waiting().into_iter().map(|waiting| waiting.txid);
        let txid = one_txid(prefix, waiting)?;
        self.driver.drop_psbt(&mut self.outside, txid).map_err(refused)?;
        Ok(self.psbts())
    }

    pub(super) fn rescan_wallet(
        &mut self,
        body: types::RescanWallet,
    ) -> Result<types::Rescan, ApiError> {
        let rescan = self.driver.rescan_wallet(&mut self.outside, body.gap, body.from_height);
        Ok(types::Rescan { from_height: rescan.map_err(refused)? })
    }

    fn read_address(&self, text: &str) -> Result<Address, ApiError> {
        let network = self.engine().params().chain.network;
        let unusable = |what: &str| ApiError::new(reason!("wallet.bad_address"), what);
        let address: Address<NetworkUnchecked> =
            text.parse().map_err(|_| unusable("this is no bitcoin address"))?;
        address.require_network(network).map_err(|_| refused(WalletError::OtherNetwork))
    }
}

/// The one transaction with an id that begins so, as people write it: its bytes in reverse.
fn one_txid(prefix: &Prefix, waiting: impl Iterator<Item = Txid>) -> Result<Txid, ApiError> {
    prefix.find(Noun::Psbt, waiting, |txid| {
        let mut id = txid.to_byte_array();
        id.reverse();
        id
    })
}

fn read_coins(texts: &[String]) -> Result<Vec<OutPoint>, ApiError> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| ApiError::new(reason!("wallet.bad_coin"), "a coin is named as TXID:VOUT"))
    };
    texts.iter().map(read).collect()
}

fn transactions(view: &TradeView) -> impl Iterator<Item = (&'static str, Txid)> {
    let all = [("fund", &view.fund), ("claim", &view.claim), ("refund", &view.refund)];
    let known = all.map(|(what, tx)| tx.as_ref().map(|tx| (what, tx.txid)));
    known.into_iter().flatten()
}

fn wallet_tx(
    entry: &HistoryEntry,
    trades: &BTreeMap<Txid, (&'static str, String)>,
) -> types::WalletTx {
    let trade = trades.get(&entry.txid);
    let kept_sat = entry.received_sat.saturating_add(entry.fee_sat.unwrap_or(0));
    let what = match trade {
        Some((what, _)) => what,
        None if entry.sent_sat == 0 => "received",
        None if entry.sent_sat > kept_sat => "payment",
        None => "own",
    };
    types::WalletTx {
        txid: entry.txid.to_string(),
        height: entry.height,
        at: entry.at_s.map(|at_s| at_s.saturating_mul(1000)),
        what: what.to_owned(),
        trade_id: trade.map(|(_, trade)| trade.clone()),
        sent_sat: entry.sent_sat,
        received_sat: entry.received_sat,
        fee_sat: entry.fee_sat,
    }
}

fn payment(payment: &Payment, sent: bool) -> types::Payment {
    types::Payment {
        txid: payment.tx.compute_txid().to_string(),
        amount_sat: payment.amount_sat,
        fee_sat: payment.fee_sat,
        change_sat: payment.change_sat,
        vsize: payment.tx.vsize() as u64,
        sent: sent && !payment.awaits,
        awaits_signature: sent && payment.awaits,
    }
}

fn refused(error: WalletError) -> ApiError {
    ApiError::coded(error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_to_sign_is_named_by_digits_that_no_other_begins_with() {
        let [one, other] = [1, 2].map(|last| {
            let mut id = [last; 32];
            id[28..].fill(0xab);
            Txid::from_byte_array(id)
        });
        let find = |text: &str| {
            let prefix = Prefix::parse(text).unwrap();
            one_txid(&prefix, [one, other].into_iter()).map_err(|error| (error.status, error.code))
        };
        assert_eq!(find("abababab"), Err((409, "wallet.psbt_ambiguous".to_owned())));
        assert_eq!(find("abababac"), Err((404, "wallet.psbt_unknown".to_owned())));
        for txid in [one, other] {
            assert_eq!(find(&txid.to_string()[..10]), Ok(txid));
        }
    }
}
