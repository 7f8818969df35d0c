//! Trades of this node, in the roles of [`crate::settlement`]: buyer, seller, registrar.
//!
//! One driver carries out what the machines of all three roles are due to do. The router
//! updates the chain view before it calls [`Trades::on_chain`]. Every input may arrive
//! twice. Each state is written before anything that follows from it leaves, because the
//! outbox puts records before effects.
//!
//! Work is done on what an input concerns: an open trade is found by its names on the chain
//! or by its next deadline, and an ended one leaves memory but for a bounded rest. The store
//! keeps all, and is asked page by page.

mod batch;
mod buyer;
mod certainty;
mod driver;
mod exit;
mod funding;
mod index;
mod messages;
mod outlook;
mod partners;
mod parts;
mod past;
mod prepaid;
mod purchase;
mod registrar;
mod seller;
mod titles;
mod together;
mod tries;
mod view;

use std::collections::BTreeSet;

use bitcoin::{ScriptBuf, Txid};

use self::batch::Batches;
use self::driver::{Driver, Open, Told, Turn};
use self::index::Index;
use self::past::{LateAsk, Past};
use self::prepaid::Prepaid;
use super::io::{Effect, Funding, Unsent};
use super::kernel::{Answer, Context, Record, Stored, Timer, Unreadable, records};
use crate::certificate::{Certificate, Hop};
use crate::code;
use crate::ids::{CertId, FundingId, Key, TermsHash, TradeId};
use crate::limits::OPEN_SETTLEMENTS_MAX;
use crate::settlement::buyer::{Buyer, Phase, State};
use crate::settlement::exit::DOES_NOT_FIT;
use crate::settlement::facts::ChainFacts;
use crate::settlement::fees;
use crate::settlement::joint::Contribution;
use crate::settlement::objects::{
    LockGrant, Quittance, Row, Terms, TermsCancel, TermsRequest, Transfer,
};
use crate::settlement::registrar::Registrar;
use crate::settlement::seller::{Goods, Refused, Seller};
use crate::units::{Slot, TimeMs, Units};
use crate::wire::{Envelope, Verified};

pub use self::messages::{TradeNews, TradePurpose, TradeReply, TradeRequest};
pub use self::outlook::{Due, Milestone, Moment, Outlook, Stuck};
pub use self::partners::refund_key;
pub use self::parts::WaitingPart;
pub use self::past::{PAST_KEPT, PastTradeV1, past_key_prefix};
pub use self::purchase::{Invited, Purchase};
pub use self::titles::{Fresh, Titles};
pub use self::view::{Role, StepView, TradeView, TxView};

/// Counter of single-use settlement keys.
const KEYS: &str = "settlement";
/// A request about a trade that this node does not know.
const NO_AGREEMENT: &str = "trade.no_agreement";
/// The end of a trade whose buyer gave up.
const CANCELLED: &str = "trade.cancelled_by_buyer";

/// What the rest of the engine must know of trades.
///
/// After a restart the end of every remembered trade is told again, because a crash may have
/// come between its record and what follows from it: taking it twice must change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeEvent {
    /// The trade will not happen; a seller's units are free again.
    Void { trade: TradeId, code: String },
    /// The claim is in a block: this node sold.
    Sold {
        trade: TradeId,
        cert: CertId,
        /// What of it is consumed.
        seq: u32,
    },
    /// The claim is undone for good: this node still holds what it was about to sell.
    Unsold { cert: CertId, seq: u32 },
    /// The buyer of a part has asked for terms: now the certificate has to be split.
    Wanted { trade: TradeId, cert: CertId },
    /// The certificate moved to the buyer's `to`; its Activation has been verified.
    Bought {
        trade: TradeId,
        /// Complete, this sale being its last hop.
        certificate: Certificate,
    },
    /// This node has signed terms that others pay a part of, who have still to sign.
    Signed { trade: TradeId },
    /// An earlier life has had this certificate of this provider, and its records are lost.
    Missing { cert: CertId, provider: Key },
}

/// What a buyer insists on beyond the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuyLimits {
    /// Most that the funding may cost in fees, sat.
    pub fee_cap_sat: u64,
    /// Most that its owner is willing to lose in all fees of the trade, sat.
    pub max_loss_sat: u64,
    /// Feature bits that the bid required.
    pub features: u64,
    /// From this slot on the holder is not to redeem any more.
    pub use_by: Option<Slot>,
    /// Whether the buyer may take it back from its holder.
    pub is_recallable: bool,
}

/// One role of this node in one open trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Party {
    Buyer(TradeId),
    Seller(TradeId),
    Registrar(TermsHash),
}

/// Every trade of this node.
#[derive(Debug, Default)]
pub struct Trades {
    buyers: Driver<Buyer>,
    sellers: Driver<Seller>,
    registrars: Driver<Registrar>,
    index: Index,
    past: Past,
    prepaid: Prepaid,
    batches: Batches,
    /// Tip that every open trade has acted on, and whether the chain was there.
    seen_tip: Option<(u32, bool)>,
}

/// Runs one input over the parts of [`Trades`], and gives back what came of it.
macro_rules! turn {
    ($self:ident, $ctx:ident, $titles:ident, |$turn:ident| $body:expr) => {{
        let mut index = std::mem::take(&mut $self.index);
        let mut made = Turn::new($ctx, $titles, &mut index);
        let $turn = &mut made;
        let result = $body;
        $self.finish($turn);
        let events = std::mem::take(&mut made.events);
        $self.index = index;
        (result, events)
    }};
}
use turn;

impl Trades {
    /// Takes its records back after a restart: watches again from before each `t0`, sends
    /// again what had been sent, and tells the ends of the newest ended trades again.
    ///
    /// # Errors
    /// The first record that cannot be read.
    pub fn load(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        all: &[Record],
    ) -> Result<Vec<TradeEvent>, Unreadable> {
        let read = Read::new(all)?;
        let ((), events) = turn!(self, ctx, titles, |turn| self.take_back(turn, read));
        Ok(events)
    }

    fn take_back(&mut self, turn: &mut Turn<'_, '_>, read: Read) {
        let slot_s = turn.ctx.params.slot_s;
        for past in read.past {
            match past {
                PastTradeV1::Buyer(buyer) => {
                    let open = Open::load(turn, *buyer);
                    self.count(&open.machine, slot_s);
                    // The newest are read, so none has to go.
                    let _ = self.past.keep_buyer(&open);
                }
                PastTradeV1::Seller(seller) => {
                    let open = Open::load(turn, *seller);
                    let _ = self.past.keep_seller(&open);
                }
            }
        }
        for buyer in read.buyers {
            self.count(&buyer, slot_s);
            let open = Open::load(turn, buyer);
            self.buyers.restore(turn, open);
        }
        for seller in read.sellers {
            let open = Open::load(turn, seller);
            self.sellers.restore(turn, open);
        }
        for registrar in read.registrars {
            let open = Open::load(turn, registrar);
            self.registrars.restore(turn, open);
        }
    }

    /// The own bid of a row was matched: asks the seller for terms. Once per trade.
    pub fn open_buy(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        row: &Row,
        trade: TradeId,
        purchase: Purchase,
    ) -> Vec<TradeEvent> {
        if self.knows_buy(&trade) {
            return Vec::new();
        }
        let buyer = purchase::draft(ctx, row, trade, purchase);
        if let Some(code) = self.refuse_buy(ctx, &buyer) {
            return vec![TradeEvent::Void { trade, code: code.to_owned() }];
        }
        self.count(&buyer, ctx.params.slot_s);
        let ((), events) = turn!(self, ctx, titles, |turn| {
            let open = Open::new(turn, buyer);
            self.buyers.insert(turn, open);
        });
        events
    }

    fn refuse_buy(&mut self, ctx: &Context<'_>, buyer: &Buyer) -> Option<Refused> {
        if self.buyers.len() >= OPEN_SETTLEMENTS_MAX {
            return Some("trade.too_many_open");
        }
        if buyer.registrar == ctx.me() {
            return Some("trade.own_capacity");
        }
        // A part of a bid may be too small for its fees: its seller is not even asked.
        let rate = ctx.chain.estimate(fees::FUND_TARGET);
        if rate.is_some_and(|rate| buyer.is_uneconomical(rate)) {
            return Some("fund.uneconomical");
        }
        // A clock that is ahead ends no window.
        self.prepaid.expire(ctx.past_ms());
        let cap = ctx.params.prepaid_cap_sat;
        let owed = self.prepaid.sat(&buyer.registrar).saturating_add(buyer.share_sat());
        let is_beyond = |given_up_sat| cap > 0 && owed.saturating_sub(given_up_sat) > cap;
        let is_refused = is_beyond(0) && is_beyond(self.given_up_sat(buyer.registrar));
        is_refused.then_some("trade.prepaid_cap")
    }

    /// What trades with a provider that were given up would have cost, sat. Nobody has signed their
    /// fundings, and only this node's own signer still could: they are open until a block says that
    /// it never will, which may take as long as the window.
    fn given_up_sat(&self, provider: Key) -> u64 {
        let of_provider = self.buyers.iter().map(|open| &open.machine);
        let of_provider = of_provider.filter(|buyer| buyer.registrar == provider);
        let given_up = of_provider.filter(|buyer| {
            matches!(&buyer.state, State::Paying { phase: Phase::Abandoned { .. }, .. })
        });
        given_up.map(|buyer| buyer.share_sat()).fold(0, u64::saturating_add)
    }

    /// Counts what a buyer owes its provider in advance, unless the trade has failed.
    fn count(&mut self, buyer: &Buyer, slot_s: u32) {
        let bought = matches!(&buyer.state, State::Paying { phase: Phase::Active { .. }, .. });
        if buyer.state.is_done() && !bought {
            self.prepaid.remove(&buyer.trade);
        } else {
            let ends_ms = buyer.row.window().ends_at_ms(slot_s);
            self.prepaid.add(buyer.trade, buyer.registrar, buyer.share_sat(), ends_ms);
        }
    }

    /// The own ask of a row was matched: waits for the buyer's request. Once per trade.
    pub fn open_sell(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        row: &Row,
        trade: TradeId,
        buyer: Key,
        goods: Goods,
    ) -> Vec<TradeEvent> {
        if self.sellers.get(&trade).is_some() || self.past.has_sell(&trade) {
            return Vec::new();
        }
        let ((), events) = turn!(self, ctx, titles, |turn| {
            let offer = if self.sellers.len() >= OPEN_SETTLEMENTS_MAX {
                Err(code!("trade.too_many_open"))
            } else {
                seller::offer(turn.now(), turn.ctx.me(), row, trade, buyer, goods)
            };
            match offer {
                Ok(seller) => {
                    let open = Open::new(turn, seller);
                    self.sellers.insert(turn, open);
                }
                Err(code) => {
                    turn.events.push(TradeEvent::Void { trade, code: code.to_owned() });
                }
            }
        });
        events
    }

    /// A peer's request about a trade, and what it caused. The same request gets the same
    /// answer, which stands in a record.
    pub fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        peer: Key,
        request: TradeRequest,
    ) -> (Result<TradeReply, Refused>, Vec<TradeEvent>) {
        turn!(self, ctx, titles, |turn| match request {
            TradeRequest::Terms(request) => self.on_terms(turn, peer, &request, false),
            TradeRequest::RecallableTerms(request) => self.on_terms(turn, peer, &request, true),
            TradeRequest::Accept { terms, accepts } => {
                self.on_accept(turn, peer, &terms, &accepts)
            }
            TradeRequest::Fund { terms, tx } => self.on_fund(turn, peer, terms, &tx),
            TradeRequest::Transfer(transfer) => self.on_transfer(turn, peer, transfer),
            TradeRequest::Cancel(cancel) => self.on_cancel(turn, &cancel),
            TradeRequest::Quittance(signed) => self.on_quittance(turn, peer, &signed),
            TradeRequest::IsKept(terms) => self.on_is_kept(turn, peer, terms),
            TradeRequest::Part { terms, part } => self.on_part(turn, peer, terms, part),
            TradeRequest::Parts { terms, parts } => self.on_parts(turn, peer, terms, &parts),
        })
    }

    fn on_terms(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        request: &TermsRequest,
        is_recallable: bool,
    ) -> Result<TradeReply, Refused> {
        let trade = request.trade_id;
        let answer = self
            .sellers
            .touch(turn, trade, |open, turn| open.on_request(turn, peer, request, is_recallable));
        let ended = || Err(if self.past.has_sell(&trade) { "trade.void" } else { NO_AGREEMENT });
        answer.unwrap_or_else(ended)
    }

    fn on_accept(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: &Envelope,
        accepts: &[Envelope],
    ) -> Result<TradeReply, Refused> {
        let hash = TermsHash(terms.id::<Terms>(turn.ctx.params.magic));
        if let Some(open) = self.registrars.get(&hash) {
            let lock = || TradeReply::LockGrant(open.machine.lock.clone());
            return open.machine.is_party(peer).then(lock).ok_or(code!("trade.not_the_buyer"));
        }
        if let Some(answer) = self.past.answer(hash, peer, LateAsk::Lock) {
            return answer;
        }
        if self.registrars.len() >= OPEN_SETTLEMENTS_MAX {
            return Err(code!("trade.too_many_open"));
        }
        if self.holds_unfunded(peer) {
            return Err(code!("lock.too_many"));
        }
        let registrar = registrar::lock(turn, peer, terms, accepts)?;
        let reply = TradeReply::LockGrant(registrar.lock.clone());
        let open = Open::new(turn, registrar);
        self.registrars.insert(turn, open);
        Ok(reply)
    }

    /// Whether a peer has a lock here that nobody funded yet, and has not shown that it funds:
    /// a key costs nothing, so before that one free option is enough for it.
    fn holds_unfunded(&self, peer: Key) -> bool {
        let mut waits = false;
        for open in self.registrars.iter().filter(|open| open.machine.is_funder(peer)) {
            match open.machine.state {
                registrar::State::Funded | registrar::State::Activated { .. } => return false,
                registrar::State::Locked => waits = true,
                registrar::State::Released { .. } => {}
            }
        }
        waits && !self.past.has_funded(peer)
    }

    fn on_transfer(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        transfer: Transfer,
    ) -> Result<TradeReply, Refused> {
        let hash = transfer.terms_hash;
        let answer =
            self.registrars.touch(turn, hash, |open, turn| open.on_transfer(turn, peer, transfer));
        let late = || self.past.answer(hash, peer, LateAsk::Transfer);
        let answer = answer.or_else(late).unwrap_or(Err(NO_AGREEMENT));
        // The register remembers a sale for as long as anyone can use it.
        let sold = || turn.titles.activation(hash, peer).map(TradeReply::Activation);
        answer.or_else(|code| sold().ok_or(code))
    }

    fn on_quittance(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        signed: &Envelope,
    ) -> Result<TradeReply, Refused> {
        let quittance = signed.peek::<Quittance>().map_err(|_| DOES_NOT_FIT)?;
        let trade = buyer_of(turn.index, &quittance.terms_hash).ok_or(NO_AGREEMENT)?;
        let answer =
            self.buyers.touch(turn, trade, |open, turn| open.on_quittance(turn, peer, signed));
        answer.unwrap_or(Err(NO_AGREEMENT))
    }

    /// A seller asks before it reveals. What was activated is kept for good.
    fn on_is_kept(
        &mut self,
        turn: &mut Turn<'_, '_>,
        peer: Key,
        terms: TermsHash,
    ) -> Result<TradeReply, Refused> {
        match self.registrars.get(&terms).map(|open| open.machine.keeps(peer)) {
            Some(Ok(true)) => Ok(TradeReply::Kept),
            Some(Ok(false)) => Ok(TradeReply::NotYet),
            Some(Err(code)) => Err(code),
            None if turn.titles.activation(terms, peer).is_some() => Ok(TradeReply::Kept),
            None => Err(code!("lock.released")),
        }
    }

    fn on_cancel(
        &mut self,
        turn: &mut Turn<'_, '_>,
        cancel: &Envelope,
    ) -> Result<TradeReply, Refused> {
        let cancel = cancel.verify::<TermsCancel>(turn.ctx.params.magic);
        let cancel = cancel.map_err(|error| error.code())?;
        let hash = cancel.terms_hash;
        // The seller of the same node is told by its registrar.
        let released = self.registrars.touch(turn, hash, |open, turn| {
            if open.machine.cancel(&cancel)? {
                open.release(turn, CANCELLED, Some(cancel.id()));
            }
            Ok(TradeReply::Cancelled)
        });
        if let Some(answer) = released {
            return answer;
        }
        let sold = seller_of(turn.index, &hash).and_then(|trade| {
            self.sellers.touch(turn, trade, |open, turn| {
                if open.machine.cancel(&cancel)? {
                    open.release(turn, CANCELLED);
                }
                Ok(TradeReply::Cancelled)
            })
        });
        let late = || self.past.answer(hash, Key(cancel.key()), LateAsk::Cancel);
        sold.or_else(late).unwrap_or(Err(NO_AGREEMENT))
    }

    /// A provider's lock was heard: a seller that is not the provider learns so that it has
    /// been granted, and so does a buyer that was not told.
    pub fn on_lock(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        grant: &Verified<LockGrant>,
    ) -> Vec<TradeEvent> {
        let (provider, terms) = (grant.provider, grant.terms_hash);
        let told = Told::Granted { provider, terms };
        turn!(self, ctx, titles, |turn| {
            turn.told.push(told);
            let buyer = buyer_of(turn.index, &terms).filter(|trade| {
                let open = self.buyers.get(trade);
                open.is_some_and(|open| open.machine.registrar == provider)
            });
            if let Some(trade) = buyer {
                self.buyers.touch(turn, trade, |open, turn| open.on_lock(turn, grant.envelope()));
            }
        })
        .1
    }

    /// The answer of a peer to a request of this node, or why there is none.
    pub fn on_reply(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        peer: Key,
        purpose: TradePurpose,
        answer: Answer<TradeReply>,
    ) -> Vec<TradeEvent> {
        let trade = match purpose {
            TradePurpose::Terms(trade)
            | TradePurpose::Accept(trade)
            | TradePurpose::Fund(trade)
            | TradePurpose::Transfer(trade) => trade,
            TradePurpose::Cancel(_) => return Vec::new(),
            TradePurpose::Together(trade) => {
                return turn!(self, ctx, titles, |turn| {
                    self.buyers.touch(turn, trade, |open, turn| {
                        open.on_together(turn, peer, answer);
                    })
                })
                .1;
            }
            TradePurpose::IsKept(trade) => {
                return turn!(self, ctx, titles, |turn| {
                    self.sellers.touch(turn, trade, |open, turn| open.on_kept(turn, answer))
                })
                .1;
            }
            TradePurpose::Quittance(trade) => {
                return turn!(self, ctx, titles, |turn| {
                    self.sellers.touch(turn, trade, |open, turn| open.on_key(turn, answer))
                })
                .1;
            }
        };
        turn!(self, ctx, titles, |turn| {
            for trade in self.concerned_by(turn, purpose, trade, &answer) {
                let answer = answer.clone();
                self.buyers.touch(turn, trade, |open, turn| open.on_reply(turn, peer, answer));
            }
        })
        .1
    }

    /// A certificate has arrived by another way than the answer to its buyer, who takes the
    /// Activation from it.
    pub fn on_certificate(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        certificate: &Certificate,
    ) -> Vec<TradeEvent> {
        turn!(self, ctx, titles, |turn| {
            for hop in &certificate.hops {
                let Hop::Sale { terms, transfer, activation, .. } = hop else { continue };
                let hash = TermsHash(terms.id::<Terms>(turn.ctx.params.magic));
                let Some(trade) = buyer_of(turn.index, &hash) else { continue };
                self.buyers.touch(turn, trade, |open, turn| {
                    open.on_activation(turn, activation, Some(transfer));
                });
            }
        })
        .1
    }

    /// New chain facts, or that the chain source came or went (with no facts).
    pub fn on_chain(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        facts: &ChainFacts,
    ) -> Vec<TradeEvent> {
        let tip = Some((ctx.chain.height, ctx.chain.up));
        let is_new_tip = self.seen_tip != tip;
        self.seen_tip = tip;
        turn!(self, ctx, titles, |turn| {
            let concerned = turn.index.concerned(facts);
            self.buyers.on_chain(turn, facts, &concerned, is_new_tip);
            self.registrars.on_chain(turn, facts, &concerned, is_new_tip);
            self.tell_sellers(turn);
            self.sellers.on_chain(turn, facts, &concerned, is_new_tip);
        })
        .1
    }

    /// The wallet's answer to [`Effect::Fund`].
    pub fn on_funded(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        funding: FundingId,
        result: Result<Funding, String>,
    ) -> Vec<TradeEvent> {
        let is_known = !self.index.by_funding(&funding).is_empty();
        if !is_known && result.is_ok() && self.past.is_unfunded(&funding) {
            ctx.out.push(Effect::ReleaseCoins { funding });
        }
        turn!(self, ctx, titles, |turn| self.on_funded_by_wallet(turn, funding, &result)).1
    }

    /// The wallet's answer to [`Effect::Contribute`].
    pub fn on_contributed(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        funding: FundingId,
        result: &Result<Contribution, String>,
    ) -> Vec<TradeEvent> {
        let is_known = !self.index.by_funding(&funding).is_empty();
        if !is_known && result.is_ok() && self.past.is_unfunded(&funding) {
            ctx.out.push(Effect::ReleaseCoins { funding });
        }
        turn!(self, ctx, titles, |turn| {
            for party in turn.index.by_funding(&funding) {
                let Party::Buyer(trade) = party else { continue };
                self.buyers.touch(turn, trade, |open, turn| open.on_contributed(turn, result));
            }
        })
        .1
    }

    /// A funding that the wallet has built, and cannot sign, was handed out.
    pub fn on_exported(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        funding: FundingId,
        built: &Funding,
    ) -> Vec<TradeEvent> {
        turn!(self, ctx, titles, |turn| {
            for party in turn.index.by_funding(&funding) {
                let Party::Buyer(trade) = party else { continue };
                self.buyers.touch(turn, trade, |open, turn| open.on_exported(turn, built.clone()));
            }
        })
        .1
    }

    /// What became of a broadcast.
    pub fn on_broadcasted(
        &mut self,
        ctx: &mut Context<'_>,
        titles: &mut dyn Titles,
        txid: Txid,
        result: &Result<(), Unsent>,
    ) -> Vec<TradeEvent> {
        turn!(self, ctx, titles, |turn| {
            for party in turn.index.by_txid(&txid) {
                match party {
                    Party::Buyer(trade) => self.buyers.broadcasted(turn, trade, txid, result),
                    Party::Seller(trade) => self.sellers.broadcasted(turn, trade, txid, result),
                    Party::Registrar(terms) => {
                        self.registrars.broadcasted(turn, terms, txid, result);
                    }
                }
            }
        })
        .1
    }

    /// Time passed.
    pub fn on_tick(&mut self, ctx: &mut Context<'_>, titles: &mut dyn Titles) -> Vec<TradeEvent> {
        turn!(self, ctx, titles, |turn| {
            self.buyers.on_tick(turn);
            self.registrars.on_tick(turn);
            self.tell_sellers(turn);
            self.sellers.on_tick(turn);
        })
        .1
    }

    /// What the registrar tells the seller of the same node, before that one does what is due.
    fn tell_sellers(&mut self, turn: &mut Turn<'_, '_>) {
        for told in std::mem::take(&mut turn.told) {
            let (Told::Granted { terms, .. } | Told::Released { terms, .. }) = &told;
            let Some(trade) = seller_of(turn.index, terms) else { continue };
            self.sellers.touch(turn, trade, |open, turn| {
                let moved = match &told {
                    Told::Granted { provider, terms } => {
                        open.machine.lock_granted(turn.now(), *provider, *terms)
                    }
                    Told::Released { code, .. } => open.machine.lock_released(code),
                };
                if moved {
                    open.moved(turn);
                }
            });
        }
    }

    /// What one role tells another of the same node, and ends: both until there is no more.
    fn finish(&mut self, turn: &mut Turn<'_, '_>) {
        let slot_s = turn.ctx.params.slot_s;
        self.tell_sellers(turn);
        self.put_together(turn);
        for open in self.buyers.take_ended() {
            self.batches.forget(&open.machine.trade);
            self.count(&open.machine, slot_s);
            self.past.end_buyer(turn.ctx, open);
        }
        for open in self.sellers.take_ended() {
            self.past.end_seller(turn.ctx, open);
        }
        for open in self.registrars.take_ended() {
            self.past.end_registrar(turn.ctx, open.machine);
        }
    }

    /// When the next thing falls due, and what.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(TimeMs, Timer)> {
        let (buyers, sellers) = (self.buyers.next_deadline(), self.sellers.next_deadline());
        let (registrars, batches) = (self.registrars.next_deadline(), self.batches.next_deadline());
        [buyers, sellers, registrars, batches].into_iter().flatten().min()
    }

    fn knows_buy(&self, trade: &TradeId) -> bool {
        self.buyers.get(trade).is_some() || self.past.view(Role::Buyer, trade).is_some()
    }

    /// Whether a trade was ever opened, and is remembered.
    #[must_use]
    pub fn knows(&self, trade: &TradeId) -> bool {
        let open = self.buyers.get(trade).is_some() || self.sellers.get(trade).is_some();
        open || self.past.knows(trade)
    }

    /// Indices from which open trades derive keys.
    pub fn key_indices(&self) -> impl Iterator<Item = u64> {
        let buyers = self.buyers.iter().map(|open| open.machine.key_index);
        let agreed = self.sellers.iter().filter_map(|open| open.machine.state.agreed());
        buyers.chain(agreed.map(|(signed, _)| signed.key_index))
    }

    /// Scripts of the wallet that open trades will be paid to.
    pub fn promised_scripts(&self) -> BTreeSet<ScriptBuf> {
        let agreed = self.sellers.iter().filter_map(|open| open.machine.state.agreed());
        let payouts = agreed.map(|(signed, _)| signed.agreement.terms().payout_spk.clone());
        let refunds = self.buyers.iter().flat_map(|open| open.machine.refund_scripts());
        payouts.map(ScriptBuf::from_bytes).chain(refunds).collect()
    }

    /// Rows of open sells of own capacity with their units: what the ledger must keep for them.
    pub fn open_sells(&self) -> impl Iterator<Item = (TradeId, &Row, &Units)> {
        self.sellers.iter().filter_map(|open| {
            let seller = &open.machine;
            match &seller.goods {
                Goods::Capacity { units, .. } => Some((seller.trade, &seller.row, units)),
                Goods::Certificate(_) | Goods::Part { .. } => None,
            }
        })
    }
}

fn buyer_of(index: &Index, terms: &TermsHash) -> Option<TradeId> {
    index.by_terms(terms).iter().find_map(|party| match party {
        Party::Buyer(trade) => Some(*trade),
        Party::Seller(_) | Party::Registrar(_) => None,
    })
}

fn seller_of(index: &Index, terms: &TermsHash) -> Option<TradeId> {
    index.by_terms(terms).iter().find_map(|party| match party {
        Party::Seller(trade) => Some(*trade),
        Party::Buyer(_) | Party::Registrar(_) => None,
    })
}

/// What a restart brings back.
struct Read {
    buyers: Vec<Buyer>,
    sellers: Vec<Seller>,
    registrars: Vec<Registrar>,
    past: Vec<PastTradeV1>,
}

impl Read {
    fn new(all: &[Record]) -> Result<Self, Unreadable> {
        fn values<S: Stored>(all: &[Record]) -> Result<Vec<S>, Unreadable> {
            records::<S>(all).map(|found| found.map(|(_, value)| value)).collect()
        }
        let mut past: Vec<(&[u8], PastTradeV1)> = Vec::new();
        for found in records::<PastTradeV1>(all) {
            let (record, value) = found?;
            past.push((&record.key, value));
        }
        past.sort_by(|a, b| b.0.cmp(a.0));
        let (mut buys, mut sells) = (0, 0);
        past.retain(|(_, past)| {
            let seen = match past {
                PastTradeV1::Buyer(_) => &mut buys,
                PastTradeV1::Seller(_) => &mut sells,
            };
            *seen += 1;
            *seen <= PAST_KEPT
        });
        Ok(Self {
            buyers: values(all)?,
            sellers: values(all)?,
            registrars: values(all)?,
            past: past.into_iter().map(|(_, past)| past).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
