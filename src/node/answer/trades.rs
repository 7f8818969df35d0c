//! Trades of this node and their settlements.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Address;

use super::Read;
use super::orders::side;
use crate::api::types::{ChainTx, Reason, Settlement, Trade, TradeDue, TradeStep, slot_range};
use crate::api::{ApiError, FileText, Noun, Page, Place, Prefix};
use crate::clock::now_ms;
use crate::node::Node;
use crate::node::history::PastTrades;
use crate::node::offload::class_name;
use capex_core::certificate::file;
use capex_core::engine::trades::{Due, Moment, Outlook, Role, StepView, Stuck, TradeView, TxView};
use capex_core::ids::{Key, TradeId, to_hex};
use capex_core::order::Side;
use capex_core::params::Params;
use capex_core::reason;
use capex_core::reasons;
use capex_core::settlement::check::Now;

/// A trade and what lies ahead of it.
type Seen = (TradeView, Outlook);

impl Node {
    /// A page of trades: those in memory, and of the ended ones those that the store has.
    pub(super) fn trades(&self, page: Page) -> Read {
        let (writer, past) = (self.trade_writer(), self.past_trades());
        // Two more tell whether the list goes on, also after both sides of one trade.
        let limit = page.limit + 2;
        let before = page.before.map(|place| (place.number, TradeId(place.id)));
        let known = self.engine().trades().newest(before, limit);
        let known: Vec<Seen> = known.map(|view| self.seen(view)).collect();
        Box::new(move || {
            let key = |view: &TradeView| (view.row.epoch, view.trade, view.role);
            let stored = past.page(page.before, limit)?.into_iter().map(ended);
            // What memory says is newer.
            let all: BTreeMap<_, Seen> =
                stored.chain(known).map(|seen| (key(&seen.0), seen)).collect();
            let place = |view: &TradeView| Place { number: view.row.epoch, id: view.trade.0 };
            let listed = page.cut(all.into_values().map(|seen| (place(&seen.0), seen)));
            Ok(listed.map(|seen| writer.trade(&seen)).into())
        })
    }

    /// One trade, from the store if it ended long ago.
    pub(super) fn trade(&self, prefix: Prefix) -> Read {
        let (writer, past) = (self.trade_writer(), self.past_trades());
        let known = self.engine().trades().views().filter(|view| prefix.matches(&view.trade.0));
        let known: Vec<Seen> = known.map(|view| self.seen(view)).collect();
        Box::new(move || {
            let stored = || Ok::<_, ApiError>(past.find(&prefix)?.into_iter().map(ended).collect());
            let all = if known.is_empty() { stored()? } else { known };
            let found = prefix.find(Noun::Trade, all, |(view, _)| view.trade.0)?;
            Ok(writer.trade(&found).into())
        })
    }

    /// What shows anyone that the provider of a trade was paid and gave nothing.
    pub(super) fn trade_proof(&self, prefix: Prefix) -> Read {
        let (params, past) = (Arc::clone(&self.outside.params), self.past_trades());
        let known = self.engine().trades().views().filter(|view| prefix.matches(&view.trade.0));
        let known: Vec<TradeView> = known.collect();
        Box::new(move || {
            let all = if known.is_empty() { past.find(&prefix)? } else { known };
            let found = prefix.find(Noun::Trade, all, |view| view.trade.0)?;
            let none = reason!("trade.no_proof");
            let proof = found.proof.ok_or_else(|| ApiError::new(none, none.sentence()))?;
            Ok(FileText(file::write_default(&proof, &params)).into())
        })
    }

    /// Open trades that do not go on by themselves, the newest first.
    pub(super) fn stuck_trades(&self) -> Vec<Trade> {
        let writer = self.trade_writer();
        // Only open ones.
        let open = self.engine().trades().newest(None, 0).map(|view| self.seen(view));
        let mut stuck: Vec<Seen> = open.filter(|seen| writer.stuck(seen).is_some()).collect();
        stuck.sort_by_key(|(view, _)| Reverse((view.row.epoch, view.trade, view.role)));
        stuck.iter().map(|seen| writer.trade(seen)).collect()
    }

    fn seen(&self, view: TradeView) -> Seen {
        let engine = self.engine();
        let outlook = engine.trades().outlook(view.role, view.trade, engine.params());
        (view, outlook)
    }

    fn past_trades(&self) -> PastTrades {
        let outside = &self.outside;
        PastTrades { store: Arc::clone(&outside.store), params: Arc::clone(&outside.params) }
    }

    fn trade_writer(&self) -> TradeWriter {
        let chain = self.engine().chain();
        TradeWriter {
            params: Arc::clone(&self.outside.params),
            me: self.engine().me(),
            now_ms: now_ms(),
            tip: chain.height,
            median_time_past_s: chain.median_time_past_s,
            chain_up: chain.up,
        }
    }
}

/// A trade of which only the store knows has ended.
fn ended(view: TradeView) -> Seen {
    (view, Outlook::default())
}

/// Writes trades as the API shows them.
struct TradeWriter {
    params: Arc<Params>,
    me: Key,
    now_ms: u64,
    tip: u32,
    median_time_past_s: u32,
    chain_up: bool,
}

impl TradeWriter {
    fn now(&self) -> Now<'_> {
        Now {
            ms: self.now_ms,
            tip: self.tip,
            median_time_past_s: self.median_time_past_s,
            chain_up: self.chain_up,
            params: &self.params,
        }
    }

    fn stuck(&self, (view, outlook): &Seen) -> Option<Stuck> {
        outlook.stuck(view.trouble.as_deref(), self.now())
    }

    fn trade(&self, seen: &Seen) -> Trade {
        let (view, outlook) = seen;
        let stuck = self.stuck(seen);
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
            holder: view.to.map(|key| key.to_string()),
            buy_order: to_hex(&view.row.buy),
            sell_order: to_hex(&view.row.sell),
            cert_id: view.cert.map(|cert| cert.to_string()),
            state: view.state.to_owned(),
            code: view.code.clone(),
            settlement: self.settlement(view),
            timeline: view.steps().iter().map(step).collect(),
            next: view.next.to_owned(),
            due: outlook.due.map(|due| self.due(due)),
            at_risk_sat: outlook.at_risk_sat,
            at_risk_units: outlook.at_risk_units,
            fees_sat: view.fees_sat,
            trouble: view.trouble.clone(),
            stuck: stuck.map(reason),
            advice: view.advice(stuck),
        }
    }

    fn due(&self, due: Due) -> TradeDue {
        let expected_at = due.expected_ms(self.now());
        TradeDue {
            kind: due.what.name().to_owned(),
            height: match due.at {
                Moment::Height(height) => Some(height),
                Moment::Time(_) => None,
            },
            expected_at,
            minutes_left: expected_at.saturating_sub(self.now_ms).div_ceil(60_000),
            then: due.what.then().to_owned(),
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
            by_key: view.is_by_key,
            refund: view.refund.as_ref().map(chain_tx),
            preimage: view.preimage.map(|x| to_hex(&x)),
            state: view.state.to_owned(),
        })
    }
}

fn reason(stuck: Stuck) -> Reason {
    let sentence = reasons::Reason::find(stuck.code()).map(reasons::Reason::sentence);
    Reason { code: stuck.code().to_owned(), message: sentence.unwrap_or_default().to_owned() }
}

fn step(step: &StepView) -> TradeStep {
    TradeStep {
        what: step.what.to_owned(),
        at: step.at_ms,
        height: step.height,
        tx: step.tx.as_ref().map(chain_tx),
    }
}

fn chain_tx(tx: &TxView) -> ChainTx {
    ChainTx { txid: tx.txid.to_string(), height: tx.height, vsize: tx.vsize, fee_sat: tx.fee_sat }
}
