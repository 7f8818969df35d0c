//! What every role of a trade has in common: its record, its watches, its tries. The roles
//! say what is due; the driver makes it happen.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;
use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey};

use super::batch::{Once, Shared};
use super::certainty::Certainty;
use super::index::{Index, Names};
use super::titles::Titles;
use super::tries::Tries;
use super::{Party, TradeEvent, TradeNews};
use crate::engine::io::{Effect, Unsent};
use crate::engine::kernel::{Context, Miss, Stored, Subject, Timer};
use crate::ids::{FundingId, Key, TermsHash, TradeId};
use crate::limits::WATCHED_INPUTS_MAX;
use crate::params::Params;
use crate::settlement::check::{Now, SignedTerms};
use crate::settlement::facts::{ChainFacts, Facts, FundFact, Standing};
use crate::settlement::seller::Refused;
use crate::settlement::timelock::RESCAN_BLOCKS;
use crate::settlement::transaction::KnownTx;
use crate::settlement::{Deadline, Rail};
use crate::units::TimeMs;

/// Steps that one input may cause in one trade: more than there are states, so that only a
/// fault could reach it.
const STEPS_MAX: usize = 16;
/// Longest error text of a broadcast that is kept for people, characters.
const ERROR_MAX_CHARS: usize = 120;

/// All that a role may use while it handles one input, and what came of it.
pub(super) struct Turn<'a, 'c> {
    pub(super) ctx: &'a mut Context<'c>,
    pub(super) titles: &'a mut dyn Titles,
    pub(super) index: &'a mut Index,
    /// For the rest of the engine.
    pub(super) events: Vec<TradeEvent>,
    /// For the seller of the same node.
    pub(super) told: Vec<Told>,
    /// What concerns other trades too.
    pub(super) shared: Shared,
}

/// What the own chain source says of a funding that a peer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    Accepted,
    /// It has not been asked, or has not answered.
    NotYet,
    /// It did not take it so far.
    Refused,
}

/// The own chain source did not take a funding.
pub(super) const NOT_ACCEPTED: Refused = "fund.not_accepted";

/// What a registrar tells the seller, where one node is both.
#[derive(Debug)]
pub(super) enum Told {
    Granted { provider: Key, terms: TermsHash },
    Released { terms: TermsHash, code: String },
}

/// What the checks of a trade need to know of the world.
pub(super) fn now<'c>(ctx: &Context<'c>) -> Now<'c> {
    Now {
        ms: ctx.now_ms,
        tip: ctx.chain.height,
        median_time_past_s: ctx.chain.median_time_past_s,
        chain_up: ctx.chain.up,
        params: ctx.params,
    }
}

impl<'a, 'c> Turn<'a, 'c> {
    pub(super) fn new(
        ctx: &'a mut Context<'c>,
        titles: &'a mut dyn Titles,
        index: &'a mut Index,
    ) -> Self {
        let (events, told) = (Vec::new(), Vec::new());
        Self { ctx, titles, index, events, told, shared: Shared::default() }
    }

    pub(super) fn now(&self) -> Now<'c> {
        now(self.ctx)
    }

    /// A single-use key; `None` with probability 2^-128.
    pub(super) fn single_use_key(&self, label: &str, index: u64) -> Option<Keypair> {
        let secret = SecretKey::from_slice(&self.ctx.secret(label, index)).ok()?;
        Some(Keypair::from_secret_key(self.ctx.secp, &secret))
    }
}

/// One role of a trade, as the driver sees it.
pub(super) trait Machine: Stored {
    /// Names it among those of its role.
    type Id: Ord + Copy;
    /// What it is due to do.
    type Step;

    fn id(&self) -> Self::Id;
    fn party(&self) -> Party;
    /// Key of its record.
    fn key(&self) -> [u8; 32];
    /// What people hear when it moves: the trade and its state.
    fn news(&self) -> Option<(TradeId, &'static str)>;
    fn terms(&self) -> Option<&SignedTerms>;
    fn facts(&self) -> Option<&Facts>;
    fn facts_mut(&mut self) -> Option<&mut Facts>;
    fn settle(&mut self, now: Now<'_>) -> bool;
    fn due(&self, now: Now<'_>, sure: bool) -> Self::Step;
    fn deadlines(&self, slot_s: u32) -> Vec<(TimeMs, Deadline)>;
    fn is_done(&self) -> bool;
    /// Whether it waits for an answer that is asked for again and again.
    fn is_asking(&self) -> bool {
        false
    }
    /// Whether nothing of it is expected, for as long as years: a new life does not read the
    /// chain again for it, because the wallet tells what it missed.
    fn is_dormant(&self) -> bool {
        false
    }
    /// Own transactions, so that the answer to their broadcast finds it.
    fn own_txids(&self) -> Vec<Txid> {
        Vec::new()
    }
    fn funding(&self) -> Option<FundingId> {
        None
    }
    /// Coins that its trade needs and the wallet has not locked yet, sat.
    fn commitment(&self) -> Option<(TradeId, u64)> {
        None
    }
    /// Who kept a promise by its having come to this state, or broke one.
    fn conduct(&self) -> Vec<(Subject, Result<(), Miss>)>;
    /// The funding by which a promise was broken: others may share it.
    fn missed_funding(&self) -> Option<Txid> {
        None
    }
    /// Carries out a step.
    fn perform(open: &mut Open<Self>, turn: &mut Turn<'_, '_>, step: Self::Step);
    /// Tells the rest of the engine where it stands; again after a restart.
    fn tell(&self, turn: &mut Turn<'_, '_>);
    /// Sends again, after a restart, what had been sent.
    fn resume(open: &mut Open<Self>, turn: &mut Turn<'_, '_>);
}

/// One role of one open trade.
#[derive(Debug)]
pub(super) struct Open<M> {
    pub(super) machine: M,
    /// Recomputed from the terms.
    pub(super) rail: Option<Rail>,
    pub(super) tries: Tries,
    certainty: Certainty,
    /// The counterparty's last refusal.
    pub(super) refusal: Option<String>,
    /// Why the last broadcast failed.
    pub(super) trouble: Option<String>,
    names: Names,
    deadline: Option<(TimeMs, Timer)>,
    has_moved: bool,
    slot_s: u32,
}

impl<M: Machine> Open<M> {
    fn with(params: &Params, machine: M, certainty: Certainty) -> Self {
        Self {
            machine,
            rail: None,
            tries: Tries::new(params),
            certainty,
            refusal: None,
            trouble: None,
            names: Names::default(),
            deadline: None,
            has_moved: false,
            slot_s: params.slot_s,
        }
    }

    /// A trade that has ended, to be shown.
    pub(super) fn ended(secp: &Secp256k1<All>, params: &Params, machine: M) -> Self {
        let mut open = Self::with(params, machine, Certainty::resumed());
        open.compute_rail(secp);
        open
    }

    /// A new trade, written before anything that follows from it.
    pub(super) fn new(turn: &mut Turn<'_, '_>, machine: M) -> Self {
        let mut open = Self::with(turn.ctx.params, machine, Certainty::Sure);
        open.moved(turn);
        open
    }

    /// A trade that a restart brought back.
    pub(super) fn load(turn: &mut Turn<'_, '_>, machine: M) -> Self {
        let mut open = Self::ended(turn.ctx.secp, turn.ctx.params, machine);
        if !open.machine.is_done() {
            open.rename(turn);
        }
        M::resume(&mut open, turn);
        open.machine.tell(turn);
        open
    }

    fn compute_rail(&mut self, secp: &Secp256k1<All>) {
        if self.rail.is_none()
            && let Some(signed) = self.machine.terms()
        {
            self.rail = Rail::of(secp, &signed.terms, signed.hash).ok();
        }
    }

    pub(super) fn save(&self, turn: &mut Turn<'_, '_>) {
        turn.ctx.out.store(&self.machine.key(), &self.machine);
    }

    /// Its state is another one: written, named and told before anything that follows from it.
    pub(super) fn moved(&mut self, turn: &mut Turn<'_, '_>) {
        self.has_moved = true;
        self.tries.reset();
        self.trouble = None;
        if let Some((trade, state)) = self.machine.news() {
            turn.ctx.out.notify(TradeNews { trade, state: state.to_owned() });
        }
        for (by, kept) in self.machine.conduct() {
            match (by, kept) {
                (by, Err(miss)) => {
                    turn.ctx.missed_with(by, miss, self.machine.missed_funding());
                }
                (Subject::Key(key), Ok(())) => turn.ctx.kept(key),
                (Subject::Coin(_), Ok(())) => {}
            }
        }
        self.compute_rail(turn.ctx.secp);
        self.save(turn);
        self.rename(turn);
        self.machine.tell(turn);
    }

    /// Counts what a counterparty failed to do, if this life has asked for it: after a restart
    /// a deadline may have passed unasked.
    pub(super) fn missed(&self, turn: &mut Turn<'_, '_>, by: Key, miss: Miss) {
        self.missed_with(turn, by, miss, None);
    }

    /// The same for a funding, which other trades may share.
    pub(super) fn missed_with(
        &self,
        turn: &mut Turn<'_, '_>,
        by: Key,
        miss: Miss,
        funding: Option<Txid>,
    ) {
        if self.tries.has_tried() {
            turn.ctx.missed_with(Subject::Key(by), miss, funding);
        }
    }

    /// Its state is the same with other content.
    pub(super) fn changed(&mut self, turn: &mut Turn<'_, '_>) {
        self.save(turn);
        self.rename(turn);
    }

    fn rename(&mut self, turn: &mut Turn<'_, '_>) {
        let names = self.compute_names();
        // Nothing can pay a contract before its terms exist. What is watched later on follows
        // from what was just seen.
        let from_height = match self.names.spks.is_empty() {
            true if self.machine.is_dormant() => None,
            true => Some(self.first_height()),
            false => Some(turn.ctx.chain.height),
        };
        turn.index.rename(turn.ctx, self.machine.party(), &self.names, &names, from_height);
        self.names = names;
    }

    /// No block below this one holds anything of the trade.
    fn first_height(&self) -> u32 {
        let t0 = self.machine.terms().map_or(0, |signed| signed.terms.t0);
        t0.saturating_sub(RESCAN_BLOCKS)
    }

    /// Has the chain read again for all that it watches, because something was missed.
    pub(super) fn rescan(&mut self, turn: &mut Turn<'_, '_>) {
        self.certainty = Certainty::resumed();
        let spks = self.names.spks.iter().cloned().collect();
        let outpoints = self.names.outpoints.iter().copied().collect();
        let from_height = Some(self.first_height());
        turn.ctx.out.push(Effect::Watch { spks, outpoints, from_height });
    }

    fn compute_names(&self) -> Names {
        let mut names = Names::default();
        names.terms.extend(self.machine.terms().map(|signed| signed.hash));
        names.fundings.extend(self.machine.funding());
        names.txids.extend(self.machine.own_txids());
        let (Some(rail), Some(facts)) = (&self.rail, self.machine.facts()) else { return names };
        names.spks.extend(rail.spks().cloned());
        let funds = || facts.contracts().iter().filter_map(|contract| contract.fund.as_ref());
        // Several contracts may have one funding.
        let fundings: BTreeSet<Txid> = funds().map(FundFact::txid).collect();
        let inputs = WATCHED_INPUTS_MAX / fundings.len().max(1);
        for contract in facts.contracts() {
            names.txids.extend(contract.txids());
        }
        for fund in funds() {
            // The contract's output, and what the funding spends: every role must learn of a
            // replacement, which ends the trade.
            let spent = fund.inputs().take(inputs).filter(|_| facts.coins().is_empty());
            names.outpoints.extend(spent.chain([fund.outpoint()]));
        }
        names.outpoints.extend(facts.coins());
        names
    }

    pub(super) fn tried(&mut self, turn: &Turn<'_, '_>) {
        let ctx = &turn.ctx;
        self.tries.tried(ctx.now_ms, ctx.chain.height);
    }

    /// Sends a transaction; one that several trades share once in a turn.
    pub(super) fn broadcast(&mut self, turn: &mut Turn<'_, '_>, tx: &KnownTx) {
        if turn.shared.is_first(Once::Broadcast(tx.txid())) {
            turn.ctx.out.push(Effect::Broadcast { tx: tx.tx().clone() });
        }
    }

    /// The answer to a broadcast. Of a funding it says whether the own chain source knows it; a
    /// refusal is otherwise only remembered for people: the chain decides, and every new tip
    /// tries again.
    pub(super) fn broadcasted(
        &mut self,
        turn: &mut Turn<'_, '_>,
        txid: Txid,
        result: &Result<(), Unsent>,
    ) {
        let short = |error: &Unsent| error.words().chars().take(ERROR_MAX_CHARS).collect();
        self.trouble = result.as_ref().err().map(short);
        let took = match result {
            Ok(()) => Some(true),
            Err(Unsent::Refused(_)) => Some(false),
            Err(Unsent::NoAnswer(_)) => None,
        };
        if self.machine.facts_mut().is_some_and(|facts| facts.answered(txid, took)) {
            self.changed(turn);
        }
    }

    /// What the own chain source says of a funding that a peer showed.
    pub(super) fn known(&self, tx: &KnownTx) -> Known {
        match self.machine.facts().and_then(|facts| facts.standing(tx.txid())) {
            Some(Standing::Seen) => Known::Accepted,
            Some(Standing::Refused) => Known::Refused,
            Some(Standing::Shown | Standing::Offered | Standing::Unanswered) | None => {
                Known::NotYet
            }
        }
    }

    /// Applies new chain facts, if they concern this trade.
    fn learn(&mut self, turn: &mut Turn<'_, '_>, facts: Option<&ChainFacts>) {
        let (Some(rail), Some(known)) = (&self.rail, self.machine.facts_mut()) else { return };
        let contracts = rail.contracts();
        let change = facts.map(|facts| known.apply(contracts, facts)).unwrap_or_default();
        let forgot = self.certainty.learn(known, &change, turn.ctx.chain.height);
        if change.any || forgot {
            self.changed(turn);
        }
    }

    /// Does what is due until nothing is.
    fn drive(&mut self, turn: &mut Turn<'_, '_>) {
        for _ in 0..STEPS_MAX {
            if self.machine.settle(turn.now()) {
                self.moved(turn);
            }
            let step = self.machine.due(turn.now(), self.certainty.is_sure());
            self.has_moved = false;
            M::perform(self, turn, step);
            if !self.has_moved {
                break;
            }
        }
    }

    fn commit(&self, turn: &mut Turn<'_, '_>) {
        if let Some((trade, needed_sat)) = self.machine.commitment() {
            turn.ctx.treasury.commit(trade, needed_sat);
        }
    }

    fn next_deadline(&self, turn: &Turn<'_, '_>) -> Option<(TimeMs, Timer)> {
        let due = self.deadlines().into_iter();
        let mut all: Vec<_> = due.map(|(at_ms, what)| (at_ms, Timer::Trade(what))).collect();
        if self.machine.is_asking() {
            all.push((self.tries.due_ms(), Timer::TradeRetry));
        }
        // What is due already has been tried.
        all.into_iter().filter(|(at_ms, _)| *at_ms > turn.ctx.now_ms).min()
    }

    /// Times at which something falls due, unix ms, with what.
    pub(super) fn deadlines(&self) -> Vec<(TimeMs, Deadline)> {
        self.machine.deadlines(self.slot_s)
    }
}

/// Every open trade of one role.
#[derive(Debug)]
pub(super) struct Driver<M: Machine> {
    open: BTreeMap<M::Id, Open<M>>,
    deadlines: BTreeSet<(TimeMs, M::Id, Timer)>,
    ended: Vec<Open<M>>,
}

impl<M: Machine> Default for Driver<M> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), deadlines: BTreeSet::new(), ended: Vec::new() }
    }
}

impl<M: Machine> Driver<M> {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn get(&self, id: &M::Id) -> Option<&Open<M>> {
        self.open.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Open<M>> {
        self.open.values()
    }

    /// When the next thing falls due, and what.
    pub(super) fn next_deadline(&self) -> Option<(TimeMs, Timer)> {
        self.deadlines.first().map(|(at_ms, _, what)| (*at_ms, *what))
    }

    /// Trades that ended since the last call. They have left this driver.
    pub(super) fn take_ended(&mut self) -> Vec<Open<M>> {
        std::mem::take(&mut self.ended)
    }

    /// Takes a trade in and does what is due of it.
    pub(super) fn insert(&mut self, turn: &mut Turn<'_, '_>, open: Open<M>) {
        let id = open.machine.id();
        self.open.insert(id, open);
        self.touch(turn, id, |_, _| ());
    }

    /// Takes back a trade after a restart; what is due of it is done by the next tick.
    pub(super) fn restore(&mut self, turn: &mut Turn<'_, '_>, mut open: Open<M>) {
        let id = open.machine.id();
        open.deadline = Some((turn.ctx.now_ms, Timer::TradeResume));
        self.deadlines.insert((turn.ctx.now_ms, id, Timer::TradeResume));
        open.commit(turn);
        let is_done = open.machine.is_done();
        self.open.insert(id, open);
        if is_done {
            self.end(turn, id);
        }
    }

    /// The answer to a broadcast of a trade's transaction.
    pub(super) fn broadcasted(
        &mut self,
        turn: &mut Turn<'_, '_>,
        id: M::Id,
        txid: Txid,
        result: &Result<(), Unsent>,
    ) {
        self.touch(turn, id, |open, turn| open.broadcasted(turn, txid, result));
    }

    /// Lets something happen to a trade, does what is due of it after that, and puts it
    /// where its new deadline, or its end, belongs.
    pub(super) fn touch<R>(
        &mut self,
        turn: &mut Turn<'_, '_>,
        id: M::Id,
        happen: impl FnOnce(&mut Open<M>, &mut Turn<'_, '_>) -> R,
    ) -> Option<R> {
        let open = self.open.get_mut(&id)?;
        let result = happen(open, turn);
        open.drive(turn);
        open.commit(turn);
        let deadline = open.next_deadline(turn);
        if deadline != open.deadline {
            if let Some((at_ms, what)) = open.deadline.take() {
                self.deadlines.remove(&(at_ms, id, what));
            }
            if let Some((at_ms, what)) = deadline {
                self.deadlines.insert((at_ms, id, what));
            }
            open.deadline = deadline;
        }
        if open.machine.is_done() {
            self.end(turn, id);
        }
        Some(result)
    }

    fn end(&mut self, turn: &mut Turn<'_, '_>, id: M::Id) {
        let Some(open) = self.open.remove(&id) else { return };
        if let Some((at_ms, what)) = open.deadline {
            self.deadlines.remove(&(at_ms, id, what));
        }
        let (party, nameless) = (open.machine.party(), Names::default());
        turn.index.rename(turn.ctx, party, &open.names, &nameless, None);
        self.ended.push(open);
    }

    /// New chain facts for those whom they concern. A new tip concerns all.
    pub(super) fn on_chain(
        &mut self,
        turn: &mut Turn<'_, '_>,
        facts: &ChainFacts,
        concerned: &BTreeSet<Party>,
        is_new_tip: bool,
    ) {
        let concerns = |open: &Open<M>| concerned.contains(&open.machine.party());
        let due = |open: &&Open<M>| is_new_tip || concerns(open) || !open.certainty.is_sure();
        let ids: Vec<M::Id> =
            self.open.values().filter(due).map(|open| open.machine.id()).collect();
        for id in ids {
            self.touch(turn, id, |open, turn| {
                let facts = concerns(open).then_some(facts);
                open.learn(turn, facts);
            });
        }
    }

    /// Time passed: does what is due.
    pub(super) fn on_tick(&mut self, turn: &mut Turn<'_, '_>) {
        let due = self.deadlines.iter().take_while(|(at_ms, ..)| *at_ms <= turn.ctx.now_ms);
        let ids: Vec<M::Id> = due.map(|(_, id, _)| *id).collect();
        for id in ids {
            self.touch(turn, id, |_, _| ());
        }
    }
}
