//! Trades that have ended. They cost no input any work: a view of each is kept for people,
//! and what a late request may still ask; the whole stays in the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bitcoin::secp256k1::{All, Secp256k1};
use serde::{Deserialize, Serialize};

use super::TradeReply;
use super::driver::Open;
use super::view::{Role, TradeView, of_buyer, of_seller};
use crate::code;
use crate::engine::kernel::{Context, Stored, Table, decode_shorter};
use crate::ids::{FundingId, Key, TermsHash, TradeId};
use crate::params::Params;
use crate::settlement::buyer::{self, Buyer};
use crate::settlement::registrar::{Registrar, State};
use crate::settlement::seller::{Refused, Seller};
use crate::wire::{WireError, decode_record};

/// Ended trades of each side that stay in memory, the newest by epoch: about 1 KiB each. A life
/// begins with as many, so a start takes no longer after years. Those that moved coins stay in
/// the store for good; one that moved none goes when it leaves memory, since strangers have it
/// for the work of an order, a thousand in an epoch, and would fill a disk with them.
pub const PAST_KEPT: usize = 1024;
/// Ended locks whose requests are still answered, the last ones to end, of those that were
/// paid and of those that were not: about 2 KiB each. Anyone can have a lock for nothing and let
/// it go, so that those never push out a paid one. A buyer that comes later still gets its
/// certificate, from the register.
pub(super) const LATE_KEPT: usize = 1024;

/// An ended trade as it stands on disk, by (epoch, trade, role).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PastTradeV1 {
    /// The buyer's side.
    Buyer(Box<Buyer>),
    /// The seller's side.
    Seller(Box<Seller>),
}

impl Stored for PastTradeV1 {
    const TABLE: Table = Table::PastTrade;
    const VERSION: u8 = 2;

    fn from_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        // The seller's side reads as before.
        let read = || decode_record(body).or_else(|_| decode_shorter(body, &false));
        (version == 1).then(read)
    }
}

/// Orders ended trades: the oldest epoch first.
type PastKey = (u64, TradeId);

/// What the keys of a trade's records begin with.
#[must_use]
pub fn past_key_prefix(epoch: u64, trade: TradeId) -> Vec<u8> {
    [epoch.to_be_bytes().as_slice(), &trade.0].concat()
}

fn record_key((epoch, trade): PastKey, role: Role) -> Vec<u8> {
    let mut key = past_key_prefix(epoch, trade);
    key.push(match role {
        Role::Buyer => 1,
        Role::Seller => 2,
    });
    key
}

/// Takes the record of a trade that has left memory, unless it moved coins.
fn forget(ctx: &mut Context<'_>, gone: Option<TradeView>) {
    let Some(gone) = gone else { return };
    let coins = [gone.fund, gone.claim, gone.refund, gone.cancel];
    if coins.iter().all(Option::is_none) {
        let key = record_key((gone.row.epoch, gone.trade), gone.role);
        ctx.out.delete(Table::PastTrade, &key);
    }
}

impl PastTradeV1 {
    /// The trade as it is shown.
    #[must_use]
    pub fn view(self, secp: &Secp256k1<All>, params: &Params) -> TradeView {
        match self {
            Self::Buyer(buyer) => of_buyer(&Open::ended(secp, params, *buyer)),
            Self::Seller(seller) => of_seller(&Open::ended(secp, params, *seller)),
        }
    }
}

/// What a late request about an ended lock gets.
#[derive(Debug)]
struct Late {
    funders: BTreeSet<Key>,
    to: Key,
    /// Counts up with each end.
    number: u64,
    was_funded: bool,
    end: State,
}

/// Ended trades in memory.
#[derive(Debug, Default)]
pub(super) struct Past {
    buys: BTreeMap<PastKey, TradeView>,
    sells: BTreeMap<PastKey, TradeView>,
    epochs: BTreeMap<TradeId, u64>,
    /// Fundings that were given up before any left this node.
    unfunded: BTreeMap<FundingId, PastKey>,
    late: BTreeMap<TermsHash, Late>,
    ended: u64,
    activated: VecDeque<TermsHash>,
    released: VecDeque<TermsHash>,
}

impl Past {
    /// A buyer's side has ended: it moves to the history.
    pub(super) fn end_buyer(&mut self, ctx: &mut Context<'_>, open: Open<Buyer>) {
        let key = (open.machine.row.epoch, open.machine.trade);
        ctx.out.delete(Table::Buyer, &open.machine.trade.0);
        let gone = self.keep_buyer(&open);
        let stored = PastTradeV1::Buyer(Box::new(open.machine));
        ctx.out.store(&record_key(key, Role::Buyer), &stored);
        forget(ctx, gone);
    }

    /// A seller's side has ended: it moves to the history.
    pub(super) fn end_seller(&mut self, ctx: &mut Context<'_>, open: Open<Seller>) {
        let key = (open.machine.row.epoch, open.machine.trade);
        ctx.out.delete(Table::Seller, &open.machine.trade.0);
        let gone = self.keep_seller(&open);
        let stored = PastTradeV1::Seller(Box::new(open.machine));
        ctx.out.store(&record_key(key, Role::Seller), &stored);
        forget(ctx, gone);
    }

    /// Takes one into memory; the one that leaves it for that.
    pub(super) fn keep_buyer(&mut self, open: &Open<Buyer>) -> Option<TradeView> {
        let key = (open.machine.row.epoch, open.machine.trade);
        if let buyer::State::Aborted { agreement: Some(agreement), .. } = &open.machine.state {
            self.unfunded.insert(FundingId::of(&[agreement.hash()]), key);
        }
        self.buys.insert(key, of_buyer(open));
        self.epochs.insert(key.1, key.0);
        let (oldest, gone) = self.buys.len().gt(&PAST_KEPT).then(|| self.buys.pop_first())??;
        self.epochs.remove(&oldest.1);
        self.unfunded.retain(|_, of| *of != oldest);
        Some(gone)
    }

    /// The same for the other side.
    pub(super) fn keep_seller(&mut self, open: &Open<Seller>) -> Option<TradeView> {
        let key = (open.machine.row.epoch, open.machine.trade);
        self.sells.insert(key, of_seller(open));
        self.epochs.insert(key.1, key.0);
        let (oldest, gone) = self.sells.len().gt(&PAST_KEPT).then(|| self.sells.pop_first())??;
        self.epochs.remove(&oldest.1);
        Some(gone)
    }

    /// A lock has ended. Its record goes when its requests are no longer answered.
    pub(super) fn end_registrar(&mut self, ctx: &mut Context<'_>, registrar: Registrar) {
        let (hash, terms) = (registrar.hash(), &registrar.signed.terms);
        let funders = terms.funders.iter().map(|funder| funder.key).collect();
        let order = match registrar.state {
            State::Activated { .. } => &mut self.activated,
            State::Locked | State::Funded | State::Released { .. } => &mut self.released,
        };
        self.ended = self.ended.saturating_add(1);
        let (number, was_funded) = (self.ended, registrar.facts.any_funding());
        let late = Late { funders, to: terms.to, number, was_funded, end: registrar.state };
        if self.late.insert(hash, late).is_none() {
            order.push_back(hash);
        }
        if order.len() > LATE_KEPT
            && let Some(oldest) = order.pop_front()
        {
            self.late.remove(&oldest);
            ctx.out.delete(Table::Registrar, &oldest.0);
        }
    }

    /// The answer to a request about a lock that has ended; `None` if it is not remembered.
    pub(super) fn answer(
        &self,
        terms: TermsHash,
        peer: Key,
        ask: LateAsk,
    ) -> Option<Result<TradeReply, Refused>> {
        let late = self.late.get(&terms)?;
        if !late.funders.contains(&peer) && late.to != peer {
            return Some(Err(code!("trade.not_the_buyer")));
        }
        Some(match (&late.end, ask) {
            (State::Activated { activation, .. }, LateAsk::Transfer) => {
                Ok(TradeReply::Activation(activation.clone()))
            }
            (_, LateAsk::Transfer) => Err(code!("transfer.not_paid")),
            (State::Released { .. }, LateAsk::Cancel) => Ok(TradeReply::Cancelled),
            (_, LateAsk::Cancel) => Err(code!("fund.already_acknowledged")),
            (_, LateAsk::Lock) => Err(code!("lock.released")),
        })
    }

    /// Whether the last lock of a peer that ended had been funded.
    pub(super) fn has_funded(&self, peer: Key) -> bool {
        let ended = self.late.values().filter(|late| late.funders.contains(&peer));
        let last = ended.max_by_key(|late| late.number);
        last.is_some_and(|late| late.was_funded)
    }

    /// Whether a funding was given up before it left this node.
    pub(super) fn is_unfunded(&self, funding: &FundingId) -> bool {
        self.unfunded.contains_key(funding)
    }

    pub(super) fn knows(&self, trade: &TradeId) -> bool {
        self.epochs.contains_key(trade)
    }

    pub(super) fn has_sell(&self, trade: &TradeId) -> bool {
        let epoch = self.epochs.get(trade);
        epoch.is_some_and(|epoch| self.sells.contains_key(&(*epoch, *trade)))
    }

    pub(super) fn view(&self, role: Role, trade: &TradeId) -> Option<&TradeView> {
        let key = (*self.epochs.get(trade)?, *trade);
        match role {
            Role::Buyer => self.buys.get(&key),
            Role::Seller => self.sells.get(&key),
        }
    }

    /// Those before a place, the newest first.
    pub(super) fn newest(
        &self,
        role: Role,
        before: Option<PastKey>,
    ) -> impl Iterator<Item = &TradeView> {
        let views = match role {
            Role::Buyer => &self.buys,
            Role::Seller => &self.sells,
        };
        let before = before.map_or(Bound::Unbounded, Bound::Excluded);
        views.range((Bound::Unbounded, before)).rev().map(|(_, view)| view)
    }

    pub(super) fn views(&self, role: Role) -> impl Iterator<Item = &TradeView> {
        match role {
            Role::Buyer => self.buys.values(),
            Role::Seller => self.sells.values(),
        }
    }
}

/// What a late request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LateAsk {
    /// A lock, or a funding under it.
    Lock,
    Transfer,
    Cancel,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Effect;
    use crate::engine::kernel::{Kernel, Keys};
    use crate::engine::trades::view::TxView;
    use crate::settlement::check::SignedTerms;
    use crate::settlement::facts::Facts;
    use crate::settlement::objects::{Row, Transfer};
    use crate::settlement::registrar::Consent;
    use crate::settlement::sample;
    use crate::test_support::devnet;

    fn ended(number: usize, state: State) -> Registrar {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let signed =
            SignedTerms { hash: TermsHash(hash), ..sample::signed_terms(sample::terms(800)) };
        let consent = Consent { accept_id: [8; 32], release_at_ms: 0 };
        let (lock, together) = (sample::envelope(), false);
        Registrar { signed, lock, consent, together, facts: Facts::none(1), state }
    }

    fn paid(number: usize) -> Registrar {
        let mut registrar = ended(number, State::Locked);
        let terms_hash = registrar.hash();
        let transfer =
            Transfer { v: 1, terms_hash, x: [3; 32], spend_txid: [1; 32], vin: 0, quittance: None };
        registrar.state = State::Activated { transfer, activation: sample::envelope() };
        registrar
    }

    fn free(number: usize) -> Registrar {
        ended(number, State::Released { code: "fund.not_sent".to_owned() })
    }

    /// Whom somebody names as the holder has signed nothing.
    #[test]
    fn what_others_do_not_pay_is_not_held_against_the_holder_that_they_named() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut ctx = kernel.context(0);
        let mut past = Past::default();
        let mut terms = sample::terms(800);
        let (buyer, stranger) = (terms.funders[0].key, Key([77; 32]));
        let funded = sample::contract_facts([Some(801), None, None, None]);
        let paid = Registrar { facts: Facts::new(vec![funded]), ..paid(0) };
        past.end_registrar(&mut ctx, paid);
        assert!(past.has_funded(buyer));
        (terms.to, terms.funders[0].key) = (buyer, stranger);
        let hash = TermsHash([9; 32]);
        let signed = SignedTerms { hash, ..sample::signed_terms(terms) };
        past.end_registrar(&mut ctx, Registrar { signed, ..free(1) });
        assert!(past.has_funded(buyer) && !past.has_funded(stranger));
    }

    /// Locks cost nothing, so those that were let go must not make a paid one forgotten.
    #[test]
    fn locks_that_were_let_go_push_out_each_other_and_no_paid_one() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let mut ctx = kernel.context(0);
        let mut past = Past::default();
        let buyer = sample::terms(800).funders[0].key;
        past.end_registrar(&mut ctx, paid(0));
        for number in 1..=LATE_KEPT + 1 {
            past.end_registrar(&mut ctx, free(number));
        }
        assert_eq!(past.late.len(), LATE_KEPT + 1);
        let answer = |past: &Past, of: &Registrar| past.answer(of.hash(), buyer, LateAsk::Transfer);
        let activation = Ok(TradeReply::Activation(sample::envelope()));
        assert_eq!(answer(&past, &paid(0)), Some(activation.clone()));
        assert_eq!(answer(&past, &free(1)), None, "the first to go");
        assert_eq!(answer(&past, &free(2)), Some(Err("transfer.not_paid")));
        // Paid ones have a bound of their own.
        for number in 1..=LATE_KEPT {
            past.end_registrar(&mut ctx, paid(10_000 + number));
        }
        assert_eq!(past.late.len(), 2 * LATE_KEPT);
        assert_eq!(answer(&past, &paid(0)), None);
        assert_eq!(answer(&past, &paid(10_001)), Some(activation));
        assert_eq!(answer(&past, &free(2)), Some(Err("transfer.not_paid")));
    }

    fn aborted(epoch: u64) -> Buyer {
        let mut trade = TradeId([0; 32]);
        trade.0[..8].copy_from_slice(&epoch.to_be_bytes());
        let state = buyer::State::Aborted { code: "fund.late".to_owned(), agreement: None };
        let buyer = sample::buyer(state);
        Buyer { trade, row: Row { epoch, ..buyer.row }, ..buyer }
    }

    #[test]
    fn trades_that_moved_no_coins_do_not_fill_the_disk_and_those_that_did_stay() {
        let mut kernel = Kernel::new(devnet(), Keys::new([1; 32], [2; 32]));
        let (secp, params) = (Secp256k1::new(), devnet());
        let mut past = Past::default();
        let total = 2 * PAST_KEPT as u64 + 10;
        for epoch in 0..total {
            let open = Open::ended(&secp, &params, aborted(epoch));
            past.end_buyer(&mut kernel.context(0), open);
            // Each third one was paid.
            if epoch % 3 == 0
                && let Some(view) = past.buys.get_mut(&(epoch, aborted(epoch).trade))
            {
                let txid = sample::tx().txid();
                view.fund = Some(TxView { txid, height: Some(1), vsize: 154, fee_sat: Some(1) });
            }
        }
        kernel.out.flush();
        let mut disk = BTreeSet::new();
        while let Some(effect) = kernel.out.poll() {
            let Effect::Persist { records, .. } = effect else { continue };
            for record in records.iter().filter(|found| found.table == Table::PastTrade.number()) {
                match record.value {
                    Some(_) => disk.insert(record.key.clone()),
                    None => disk.remove(&record.key),
                };
            }
        }
        assert_eq!(past.buys.len(), PAST_KEPT);
        let first = total - PAST_KEPT as u64;
        let expected: BTreeSet<Vec<u8>> = (0..total)
            .filter(|epoch| *epoch >= first || epoch % 3 == 0)
            .map(|epoch| record_key((epoch, aborted(epoch).trade), Role::Buyer))
            .collect();
        assert_eq!(disk, expected);
    }
}
