//! Trades of this node and their settlements.

use bitcoin::Address;

use super::orders::side;
use crate::api::types::{ChainTx, Settlement, Trade, slot_range};
use crate::api::{ApiError, Noun, Prefix};
use crate::node::Node;
use capex_core::engine::trades::{Role, TradeView, TxView};
use capex_core::ids::to_hex;
use capex_core::order::Side;

impl Node {
    pub(super) fn trades(&self) -> Vec<Trade> {
        let mut trades: Vec<Trade> =
            self.engine().trades().views().map(|view| self.trade_dto(&view)).collect();
        trades.sort_by_key(|trade| std::cmp::Reverse((trade.epoch, trade.trade_id.clone())));
        trades
    }

    pub(super) fn trade(&self, prefix: &Prefix) -> Result<Trade, ApiError> {
        let found =
            prefix.find(Noun::Trade, self.engine().trades().views(), |view| view.trade.0)?;
        Ok(self.trade_dto(&found))
    }

    fn trade_dto(&self, view: &TradeView) -> Trade {
        let me = self.engine().me();
        let (own_side, buyer, seller) = match view.role {
            Role::Buyer => (Side::Buy, me, view.counterparty),
            Role::Seller => (Side::Sell, view.counterparty, me),
        };
        Trade {
            trade_id: view.trade.to_string(),
            epoch: view.row.epoch,
            side: side(own_side),
            class: self.class_name(view.row.class),
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
        let network = self.engine().params().chain.network;
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
