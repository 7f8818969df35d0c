//! Settlements of this node, as buyer and as seller: feeds the state machines of
//! [`crate::settlement`] and carries out what they ask for.
//!
//! The engine updates its [`super::ChainView`] before it calls [`Trades::on_chain`].
//! Every input may arrive twice. Each state is written before anything that follows from it
//! leaves, because the outbox puts records before effects.

mod buying;
mod pace;
mod selling;
mod view;

use std::collections::BTreeMap;

use bitcoin::secp256k1::{Keypair, SecretKey};
use bitcoin::{OutPoint, ScriptBuf, Txid};

use self::buying::Buying;
use self::selling::Selling;
use super::io::{Effect, Event, Funding};
use super::kernel::{Context, Purpose, Record, Table};
use crate::certificate::Certificate;
use crate::ids::{CertId, Key, TermsHash, TradeId};
use crate::limits::OPEN_SETTLEMENTS_MAX;
use crate::settlement::check::Now;
use crate::settlement::facts::{Batch, ChainFacts};
use crate::settlement::objects::{Row, SettleReply, SettleRequest};
use crate::settlement::registrar::Registrar;
use crate::settlement::{buyer, seller};
use crate::units::{TimeMs, Units};

pub use self::view::{Role, TradeView, TxView};

/// Finished settlements that stay in memory and store; the oldest epochs go first.
const DONE_KEPT: usize = 1024;
/// Steps that one input may cause in one settlement: more than there are states, so that
/// only a fault could reach it.
const STEPS_MAX: usize = 16;

/// Ends that are the other side's fault.
const MISSES: [&str; 8] = [
    "terms.late",
    "lock.late",
    "lock.conflict",
    "settle.refunded",
    "trade.buyer_silent",
    "trade.cancelled_by_buyer",
    "fund.not_sent",
    "fund.not_confirmed",
];

/// What the rest of the engine must know of settlements. Those that a request causes are
/// told by the next input.
///
/// After a restart the end of every remembered settlement is told again, because a crash may
/// have come between its record and what follows from it: taking it twice must change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeEvent {
    /// The trade will not happen; a seller's units are free again.
    Void {
        /// Which.
        trade: TradeId,
        /// Reason code.
        code: String,
    },
    /// The claim is in a block: this node sold.
    Sold {
        /// Which.
        trade: TradeId,
        /// What.
        cert: CertId,
    },
    /// The certificate moved to the buyer's `to`; its Activation has been verified.
    Bought {
        /// Which.
        trade: TradeId,
        /// Complete, with one hop.
        certificate: Certificate,
    },
    /// A transaction of the settlement lost its block.
    Reorged {
        /// Which.
        trade: TradeId,
        /// The transaction.
        txid: Txid,
    },
}

/// What a buyer insists on beyond the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuyLimits {
    /// Most that the funding may cost in fees, sat.
    pub fee_cap_sat: u64,
    /// Feature bits that the bid required.
    pub features: u64,
}

/// Every settlement of this node.
#[derive(Debug, Default)]
pub struct Trades {
    buys: BTreeMap<TradeId, Buying>,
    sells: BTreeMap<TradeId, Selling>,
    by_terms: BTreeMap<TermsHash, TradeId>,
    events: Vec<TradeEvent>,
    /// Time of the last input: what was due by then has been tried.
    seen_ms: TimeMs,
}

/// The time of a context.
fn now<'a>(ctx: &Context<'a>) -> Now<'a> {
    Now { ms: ctx.now_ms, tip: ctx.chain.height, params: ctx.params }
}

/// A single-use key; `None` with probability 2^-128.
fn single_use_key(ctx: &Context<'_>, label: &str, index: u64) -> Option<Keypair> {
    let secret = SecretKey::from_slice(&ctx.secret(label, index)).ok()?;
    Some(Keypair::from_secret_key(ctx.secp, &secret))
}

fn notify(ctx: &mut Context<'_>, trade: TradeId, state: &str) {
    ctx.out.notify(Event::Trade { trade, state: state.to_owned() });
}

fn watch(ctx: &mut Context<'_>, spks: Vec<ScriptBuf>, outpoints: Vec<OutPoint>, from_height: u32) {
    ctx.out.push(Effect::Watch { spks, outpoints, from_height });
}

impl Trades {
    /// Takes its records back after a restart: watches again from before each `t0`, sends
    /// again what had been sent. Records of other tables are passed over.
    pub fn load(&mut self, ctx: &mut Context<'_>, records: &[Record]) {
        for record in records.iter().filter(|record| record.value.is_some()) {
            let known = if record.table == Table::Buyer.number() {
                record.read::<buyer::Buyer>().map(|buyer| self.load_buy(ctx, buyer))
            } else if record.table == Table::Seller.number() {
                record.read::<seller::Seller>().map(|seller| self.load_sell(ctx, seller))
            } else {
                continue;
            };
            if known.is_err() {
                let trade = record.key.as_slice().try_into().map(TradeId).unwrap_or_default();
                notify(ctx, trade, "record.unreadable");
            }
        }
    }

    fn load_buy(&mut self, ctx: &mut Context<'_>, buyer: buyer::Buyer) {
        let trade = buyer.trade;
        let buying = Buying::load(ctx, buyer, &mut self.events);
        self.buys.insert(trade, buying);
    }

    fn load_sell(&mut self, ctx: &mut Context<'_>, seller: seller::Seller) {
        let trade = seller.trade;
        let selling = Selling::load(ctx, seller, &mut self.events);
        if let Some(hash) = selling.terms_hash() {
            self.by_terms.insert(hash, trade);
        }
        self.sells.insert(trade, selling);
    }

    /// The own bid of a row was matched: asks the seller for terms. Once per trade.
    pub fn open_buy(
        &mut self,
        ctx: &mut Context<'_>,
        row: &Row,
        trade: TradeId,
        provider: Key,
        to: Key,
        limits: BuyLimits,
    ) {
        if self.buys.contains_key(&trade) {
            return;
        }
        if let Some(code) = self.refuse_buy(ctx, row, provider) {
            self.events.push(TradeEvent::Void { trade, code: code.to_owned() });
            return;
        }
        let buying = Buying::open(ctx, row, trade, provider, to, limits);
        self.buys.insert(trade, buying);
    }

    fn refuse_buy(&self, ctx: &Context<'_>, row: &Row, provider: Key) -> Option<&'static str> {
        let open = self.buys.values().filter(|buying| !buying.buyer.state.is_done()).count();
        if open >= OPEN_SETTLEMENTS_MAX {
            return Some("trade.too_many_open");
        }
        let cap = ctx.params.prepaid_cap_sat;
        let owed = self.prepaid_sat(ctx, provider).saturating_add(row.price_sat());
        (cap > 0 && owed > cap).then_some("trade.prepaid_cap")
    }

    /// What this node has paid, or is about to pay, a provider for windows that have not
    /// ended, sat.
    #[must_use]
    pub fn prepaid_sat(&self, ctx: &Context<'_>, provider: Key) -> u64 {
        let counts = |buying: &&Buying| {
            let buyer = &buying.buyer;
            let lost = buyer.state.is_done() && buyer.state.name() != "active";
            let ends = buyer.row.window().ends_at_ms(ctx.params.slot_s);
            buyer.provider == provider && !lost && ends > ctx.now_ms
        };
        let prices = self.buys.values().filter(counts).map(|buying| buying.buyer.row.price_sat());
        prices.fold(0, u64::saturating_add)
    }

    /// The own ask of a row was matched and its units are numbered: waits for the buyer's
    /// request. Once per trade.
    pub fn open_sell(
        &mut self,
        ctx: &mut Context<'_>,
        row: &Row,
        trade: TradeId,
        buyer: Key,
        units: Units,
        features: u64,
    ) {
        if self.sells.contains_key(&trade) {
            return;
        }
        let open = self.sells.values().filter(|selling| !selling.seller.state.is_done()).count();
        if open >= OPEN_SETTLEMENTS_MAX {
            self.events.push(TradeEvent::Void { trade, code: "trade.too_many_open".to_owned() });
            return;
        }
        let selling = Selling::open(ctx, row, trade, buyer, units, features);
        self.sells.insert(trade, selling);
    }

    /// A peer's request; `None` if it is about certificates rather than settlements.
    ///
    /// The same request gets the same answer, which stands in the record.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        custody: &mut dyn Registrar,
        peer: Key,
        request: SettleRequest,
    ) -> Option<SettleReply> {
        let trade = match &request {
            SettleRequest::Terms(terms) => Some(terms.trade_id),
            SettleRequest::Accept { terms, .. } => self.of_terms(selling::terms_id(ctx, terms)),
            SettleRequest::Fund { terms_hash, .. } => self.of_terms(*terms_hash),
            SettleRequest::Transfer(transfer) => self.of_terms(transfer.terms_hash),
            SettleRequest::Cancel(cancel) => {
                selling::cancelled_terms(cancel).and_then(|hash| self.of_terms(hash))
            }
            SettleRequest::Gift(_) | SettleRequest::Push(_) | SettleRequest::GetCert(_) => {
                return None;
            }
        };
        let selling = trade.and_then(|trade| self.sells.get_mut(&trade));
        let Some(selling) = selling else {
            return Some(SettleReply::Refused { code: "trade.no_agreement".to_owned() });
        };
        let reply = selling.answer(ctx, custody, peer, request, &mut self.events);
        if let Some(hash) = selling.terms_hash() {
            self.by_terms.insert(hash, selling.seller.trade);
        }
        Some(reply.unwrap_or_else(|code| SettleReply::Refused { code: code.to_owned() }))
    }

    fn of_terms(&self, hash: TermsHash) -> Option<TradeId> {
        self.by_terms.get(&hash).copied()
    }

    /// The answer to a request of this buyer, or why there is none.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        custody: &mut dyn Registrar,
        purpose: &Purpose,
        result: Result<SettleReply, String>,
    ) -> Vec<TradeEvent> {
        let (Purpose::Terms(trade)
        | Purpose::Accept(trade)
        | Purpose::Fund(trade)
        | Purpose::Transfer(trade)) = purpose
        else {
            return self.take_events();
        };
        if let Some(buying) = self.buys.get_mut(trade) {
            buying.on_reply(ctx, custody, result, &mut self.events);
        }
        self.take_events()
    }

    /// New chain facts, or that the chain source came or went (with no facts).
    pub fn on_chain(
        &mut self,
        ctx: &mut Context<'_>,
        custody: &mut dyn Registrar,
        facts: &ChainFacts,
    ) -> Vec<TradeEvent> {
        self.seen_ms = ctx.now_ms;
        let batch = Batch::new(facts);
        for buying in self.buys.values_mut() {
            buying.on_chain(ctx, custody, &batch, &mut self.events);
        }
        for selling in self.sells.values_mut() {
            selling.on_chain(ctx, custody, &batch, &mut self.events);
        }
        self.take_events()
    }

    /// The wallet's answer to [`Effect::Fund`].
    pub fn on_funded(
        &mut self,
        ctx: &mut Context<'_>,
        custody: &mut dyn Registrar,
        terms_hash: TermsHash,
        result: Result<Funding, String>,
    ) -> Vec<TradeEvent> {
        let ours = |buying: &&mut Buying| buying.terms_hash() == Some(terms_hash);
        if let Some(buying) = self.buys.values_mut().find(ours) {
            buying.on_funded(ctx, custody, result, &mut self.events);
        }
        self.take_events()
    }

    /// What became of a broadcast. Only remembered for people: the chain decides, and every
    /// new tip tries again.
    pub fn on_broadcasted(&mut self, txid: Txid, result: &Result<(), String>) {
        for buying in self.buys.values_mut() {
            buying.pace.broadcasted(txid, result);
        }
        for selling in self.sells.values_mut() {
            selling.pace.broadcasted(txid, result);
        }
    }

    /// Time passed.
    pub fn on_tick(
        &mut self,
        ctx: &mut Context<'_>,
        custody: &mut dyn Registrar,
    ) -> Vec<TradeEvent> {
        self.seen_ms = ctx.now_ms;
        for buying in self.buys.values_mut() {
            buying.drive(ctx, custody, &mut self.events);
        }
        for selling in self.sells.values_mut() {
            selling.drive(ctx, custody, &mut self.events);
        }
        self.forget_oldest(ctx);
        self.take_events()
    }

    /// When the next thing falls due, and what. What is due already has been tried.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(TimeMs, &'static str)> {
        let buys = self.buys.values().flat_map(Buying::deadlines);
        let sells = self.sells.values().flat_map(Selling::deadlines);
        buys.chain(sells).filter(|(at, _)| *at > self.seen_ms).min()
    }

    /// Whether a trade was ever opened, and is remembered.
    #[must_use]
    pub fn knows(&self, trade: &TradeId) -> bool {
        self.buys.contains_key(trade) || self.sells.contains_key(trade)
    }

    /// Indices from which open settlements derive keys.
    pub fn key_indices(&self) -> impl Iterator<Item = u64> {
        let buys = self.buys.values().filter(|buying| !buying.buyer.state.is_done());
        let sells = self.sells.values().filter(|selling| !selling.seller.state.is_done());
        let sold = sells.filter_map(|selling| selling.seller.state.key_index());
        buys.map(|buying| buying.buyer.key_index).chain(sold)
    }

    /// Rows of open sells with their units: what the ledger must keep for them.
    pub fn open_sells(&self) -> impl Iterator<Item = (TradeId, &Row, &Units)> {
        let open = self.sells.iter().filter(|(_, selling)| !selling.seller.state.is_done());
        open.map(|(trade, selling)| (*trade, &selling.seller.row, &selling.seller.units))
    }

    /// How many of the remembered settlements a counterparty let fail, to rank it.
    #[must_use]
    pub fn misses(&self, counterparty: Key) -> u32 {
        let missed = |view: &TradeView| {
            let code = view.code.as_deref().unwrap_or_default();
            view.counterparty == counterparty && view.done && MISSES.contains(&code)
        };
        u32::try_from(self.views().filter(missed).count()).unwrap_or(u32::MAX)
    }

    fn take_events(&mut self) -> Vec<TradeEvent> {
        std::mem::take(&mut self.events)
    }

    /// Keeps the newest finished settlements, by epoch.
    fn forget_oldest(&mut self, ctx: &mut Context<'_>) {
        let done = |(id, selling): (&TradeId, &Selling)| {
            selling.seller.state.is_done().then_some((selling.seller.row.epoch, *id))
        };
        for trade in oldest(self.sells.iter().filter_map(done).collect()) {
            ctx.out.delete(Table::Seller, &trade.0);
            self.sells.remove(&trade);
            self.by_terms.retain(|_, of| *of != trade);
        }
        let done = |(id, buying): (&TradeId, &Buying)| {
            buying.buyer.state.is_done().then_some((buying.buyer.row.epoch, *id))
        };
        for trade in oldest(self.buys.iter().filter_map(done).collect()) {
            ctx.out.delete(Table::Buyer, &trade.0);
            self.buys.remove(&trade);
        }
    }
}

fn oldest(mut done: Vec<(u64, TradeId)>) -> Vec<TradeId> {
    let surplus = done.len().saturating_sub(DONE_KEPT);
    if surplus == 0 {
        return Vec::new();
    }
    done.sort_unstable();
    done.into_iter().take(surplus).map(|(_, trade)| trade).collect()
}
