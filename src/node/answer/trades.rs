//! Trades of this node and their settlements.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Address;

use super::Read;
use super::orders::side;
use crate::api::types::{ChainTx, Settlement, Trade, slot_range};
use crate::api::{Noun, Page, Place, Prefix};
use crate::node::Node;
use crate::node::history::PastTrades;
use crate::node::offload::class_name;
use capex_core::engine::trades::{Role, TradeView, TxView};
use capex_core::ids::{Key, TradeId, to_hex};
use capex_core::order::Side;
use capex_core::params::Params;

impl Node {
    /// A page of trades: those in memory, and of the ended ones those that the store has.
    pub(super) fn trades(&self, page: Page) -> Read {
        let (writer, past) = (self.trade_writer(), self.past_trades());
        // Two more tell whether the list goes on, also after both sides of one trade.
        let limit = page.limit + 2;
        let before = page.before.map(|place| (place.number, TradeId(place.id)));
        let known: Vec<TradeView> = self.engine().trades().newest(before, limit).collect();
        Box::new(move || {
            let key = |view: &TradeView| (view.row.epoch, view.trade, view.role);
            let stored = past.page(page.before, limit)?;
            // What memory says is newer.
            let all: BTreeMap<_, TradeView> =
                stored.into_iter().chain(known).map(|view| (key(&view), view)).collect();
            let place = |view: &TradeView| Place { number: view.row.epoch, id: view.trade.0 };
            let listed = page.cut(all.into_values().map(|view| (place(&view), view)));
            Ok(listed.map(|view| writer.trade(&view)).into())
        })
    }

    /// One trade, from the store if it ended long ago.
    pub(super) fn trade(&self, prefix: Prefix) -> Read {
        let (writer, past) = (self.trade_writer(), self.past_trades());
        let known = self.engine().trades().views().filter(|view| prefix.matches(&view.trade.0));
        let known: Vec<TradeView> = known.collect();
        Box::new(move || {
            let views = if known.is_empty() { past.find(&prefix)? } else { known };
            let found = prefix.find(Noun::Trade, views, |view| view.trade.0)?;
            Ok(writer.trade(&found).into())
        })
    }

    fn past_trades(&self) -> PastTrades {
        let outside = &self.outside;
        PastTrades { store: Arc::clone(&outside.store), params: Arc::clone(&outside.params) }
    }

    fn trade_writer(&self) -> TradeWriter {
        TradeWriter { params: Arc::clone(&self.outside.params), me: self.engine().me() }
    }
}

/// Writes trades as the API shows them.
struct TradeWriter {
    params: Arc<Params>,
    me: Key,
}

impl TradeWriter {
    fn trade(&self, view: &TradeView) -> Trade {
        let me = self.me;
        let (own_side, buyer, seller) = match view.role {
            Role::Buyer => (Side::Buy, me, view.counterparty),
            Role::Seller => (Side::Sell, view.counterparty, me),
        };
        Trade {
            trade_id: view.trade.to_string(),
            epoch: view.row.epoch,
            side: side(own_side),
            class: class_name(&self.params, view.row.class),
            window: slot_range(view.row.window()),
            qty: view.row.qty,
            price_msat: view.row.msat,
            price_sat: view.row.price_sat(),
            buyer: buyer.to_string(),
            seller: seller.to_string(),
            buy_order: to_hex(&view.row.buy),
            sell_order: to_hex(&view.row.sell),
            cert_id: view.cert.map(|cert| cert.to_string()),
            state: view.state.to_owned(),
            code: view.code.clone(),
            settlement: self.settlement(view),
        }
    }

    fn settlement(&self, view: &TradeView) -> Option<Settlement> {
        let network = self.params.chain.network;
        let script = view.contract_spk.as_ref()?;
        let address = Address::from_script(script, network).ok()?;
        Some(Settlement {
            terms_hash: view.terms_hash?.to_string(),
            address: address.to_string(),
            fund: view.fund.as_ref().map(chain_tx),
            claim: view.claim.as_ref().map(chain_tx),
            refund: view.refund.as_ref().map(chain_tx),
            preimage: view.preimage.map(|x| to_hex(&x)),
            state: view.state.to_owned(),
        })
    }
}

fn chain_tx(tx: &TxView) -> ChainTx {
    ChainTx { txid: tx.txid.to_string(), height: tx.height, vsize: tx.vsize, fee_sat: tx.fee_sat }
}
