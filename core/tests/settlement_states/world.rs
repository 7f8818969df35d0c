//! Parties, chain and messages in a few bytes, and every step that can follow.

#[path = "promises.rs"]
mod promises;
#[path = "together.rs"]
mod together;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use capex_core::settlement::buyer::{self, Buyer};
use capex_core::settlement::registrar::{self, Registrar};
use capex_core::settlement::seller::{self, Seller};
use capex_core::wire::encode;

use crate::cast::{Cast, FIRST, Stage, Trades};
use crate::index::{Mixer, Mixing};
use crate::quiet::{Ends, heard_by_buyer, heard_by_registrar, heard_by_seller};
use crate::roles::{
    Left, Role, Scene, Tx, View, cause, message, new_buyer, new_seller, tell_buyer, tell_registrar,
    tell_seller,
};

/// A spend is as good as final after so many confirmations.
const FINAL: u8 = 2;
/// Slots of delivery, and blocks after it.
const AFTER_DELIVERY: u8 = 5;
/// More than the deepest confirmation takes, after everything else.
const BLOCKS_TO_FINISH: u8 = 12;
/// What pays both of two trades together, or takes back what would.
const COMMON_TXS: u8 = (1 << Tx::Fund as u8) | (1 << Tx::Cancel as u8);
/// No machine.
const NONE: u16 = u16::MAX;

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) trades: Trades,
    /// The seller is the provider.
    pub(crate) is_one_node: bool,
    /// Sellers ask for their buyer's key before they claim.
    pub(crate) quits: bool,
    /// How often each party may stop, and all together.
    pub(crate) stops: u8,
    pub(crate) stops_in_all: u8,
    /// Of one block each.
    pub(crate) reorganisations: u8,
    /// Whoever signs the buyer's funding can send it: at any time, or while its lock stands.
    pub(crate) is_signed_elsewhere: bool,
    pub(crate) is_sent_late: bool,
    /// Once the second trade is matched no message is late, and a block takes all that waits
    /// or nothing. Of two trades together: no message is late that is about one of them alone.
    pub(crate) is_brisk: bool,
}

/// A party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Buyer,
    Seller,
    Provider,
}

impl Who {
    const ALL: [Self; 3] = [Self::Buyer, Self::Seller, Self::Provider];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "people read the fields in a failure")]
pub(crate) enum Action {
    Begin,
    /// The second trade is matched.
    Match,
    /// A message of a trade arrives.
    Arrive(u8, u32),
    /// The registrar's chain source takes the funding of a trade or not, and says so or not.
    Answer {
        trade: u8,
        took: bool,
        says: bool,
    },
    /// A transaction of a trade reaches the mempools.
    Relay(u8, Tx),
    /// A block takes these transactions of each trade.
    Mine([u8; 2]),
    /// The last block gives way to two empty ones; whether its transactions wait again.
    Reorganise(bool),
    Stop(Who),
    Return(Who),
}

/// Everything that matters for what can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Blocks after the first tip.
    tip: u8,
    /// Tip at which each trade began; none before.
    t0: [Option<u8>; 2],
    view: [View; 2],
    /// Transactions that ever left a node.
    offered: [u8; 2],
    /// Messages that were ever sent.
    sent: [u32; 2],
    buyer: [u16; 2],
    seller: [u16; 2],
    registrar: [u16; 2],
    up: u8,
    /// Whose facts of which trade are sure.
    sure: [u8; 2],
    /// How often each party stopped.
    stops: [u8; 3],
    reorganisations: u8,
    /// What paid the seller of each trade and was thrown out of its block.
    thrown_out: [u8; 2],
}

impl State {
    /// Its hash, of whole words: field by field it would take most of the search.
    pub(crate) fn digest(&self) -> u64 {
        let mut mixer = Mixer::default();
        for trade in 0..2 {
            let View { mined, mempool } = self.view[trade];
            let t0 = self.t0[trade].map_or(u8::MAX, |t0| t0);
            let [a, b, c, d, e] = mined;
            let (offered, sure) = (self.offered[trade], self.sure[trade]);
            mixer.write_u64(u64::from_le_bytes([a, b, c, d, e, mempool, t0, offered]));
            let machines = [self.buyer[trade], self.seller[trade], self.registrar[trade]];
            let word = machines.into_iter().fold(0, |word, part| word << 16 | u64::from(part));
            mixer.write_u64(word << 16 | u64::from(sure));
            mixer.write_u64(u64::from(self.sent[trade]));
        }
        let [a, b, c] = self.stops;
        let [first, second] = self.thrown_out;
        let last = [self.tip, self.up, a, b, c, self.reorganisations, first, second];
        mixer.write_u64(u64::from_le_bytes(last));
        mixer.finish()
    }
}

/// Machines by number: equal ones have the same.
struct Pool<M> {
    all: Vec<M>,
    numbers: HashMap<Vec<u8>, u16>,
}

impl<M: serde::Serialize + Ends> Pool<M> {
    fn new() -> Self {
        Self { all: Vec::new(), numbers: HashMap::new() }
    }

    fn put(&mut self, mut machine: M) -> u16 {
        if machine.is_done() {
            machine.forget();
        }
        let next = u16::try_from(self.all.len()).unwrap();
        *self.numbers.entry(encode(&machine)).or_insert_with(|| {
            self.all.push(machine);
            next
        })
    }

    fn get(&self, number: u16) -> Option<&M> {
        self.all.get(usize::from(number))
    }
}

/// What decides how a machine moves.
#[derive(Debug, Clone, Copy)]
struct Move {
    who: u8,
    machine: u16,
    trade: u8,
    t0: u8,
    view: View,
    tip: u8,
    is_sure: bool,
    bit: u32,
    may_lock: bool,
}

impl Move {
    /// All of it in one number: every height fits into six bits.
    fn packed(&self) -> u128 {
        let bits = |word: u128, (value, width): (u32, u32)| word << width | u128::from(value);
        let View { mined, mempool } = self.view;
        let heights = mined.map(|height| (u32::from(height), 6));
        let flags = [u32::from(self.is_sure), u32::from(self.may_lock)].map(|flag| (flag, 1));
        let rest = [
            (u32::from(self.who), 3),
            (u32::from(self.machine), 16),
            (u32::from(self.trade), 1),
            (u32::from(self.t0), 6),
            (u32::from(mempool), 5),
            (u32::from(self.tip), 6),
            (self.bit, 23),
        ];
        heights.into_iter().chain(flags).chain(rest).fold(0, bits)
    }
}

pub(crate) struct World {
    bounds: Bounds,
    stage: Stage,
    casts: BTreeMap<(u8, u8), Cast>,
    buyers: Pool<Buyer>,
    sellers: Pool<Seller>,
    registrars: Pool<Registrar>,
    moves: HashMap<u128, (u16, Left), Mixing>,
}

impl World {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let mut stage = Stage::new(bounds.trades, bounds.is_one_node, bounds.quits);
        stage.is_signed_elsewhere = bounds.is_signed_elsewhere;
        Self {
            stage,
            bounds,
            casts: BTreeMap::new(),
            buyers: Pool::new(),
            sellers: Pool::new(),
            registrars: Pool::new(),
            moves: HashMap::default(),
        }
    }

    /// Different moves that a machine made.
    pub(crate) fn moves(&self) -> usize {
        self.moves.len()
    }

    /// The first trade has just been matched.
    pub(crate) fn first(&mut self) -> State {
        if self.is_together() {
            return self.first_together();
        }
        let mut state = Self::nothing();
        self.open(&mut state, 0);
        state
    }

    fn nothing() -> State {
        State {
            tip: 0,
            t0: [None; 2],
            view: [View::default(); 2],
            offered: [0; 2],
            sent: [0; 2],
            buyer: [NONE; 2],
            seller: [NONE; 2],
            registrar: [NONE; 2],
            up: 0b111,
            sure: [0b111; 2],
            stops: [0; 3],
            reorganisations: 0,
            thrown_out: [0; 2],
        }
    }

    fn open(&mut self, state: &mut State, trade: usize) {
        let number = u8::try_from(trade).unwrap();
        let stage = &self.stage;
        let cast = self
            .casts
            .entry((number, state.tip))
            .or_insert_with(|| Cast::new(stage, number, state.tip));
        state.buyer[trade] = self.buyers.put(new_buyer(stage, cast, state.tip));
        state.seller[trade] = self.sellers.put(new_seller(stage, cast));
        state.t0[trade] = Some(state.tip);
        let _ = self.drive_all(state, cause::TIP);
    }

    fn trades(state: &State) -> impl Iterator<Item = usize> + use<> {
        let begun = state.t0.map(|t0| t0.is_some());
        (0..2).filter(move |trade| begun[*trade])
    }

    fn is_up(state: &State, who: Who) -> bool {
        state.up & who.bit() != 0
    }

    /// Moves one machine: a message first if there is one, then what is due.
    fn drive(
        &mut self,
        state: &mut State,
        who: Who,
        trade: usize,
        bit: u32,
    ) -> Option<&'static str> {
        if !Self::is_up(state, who) {
            return None;
        }
        let machine = match who {
            Who::Buyer => state.buyer[trade],
            Who::Seller => state.seller[trade],
            Who::Provider => state.registrar[trade],
        };
        let key = Move {
            who: who.bit(),
            machine,
            trade: u8::try_from(trade).unwrap(),
            t0: state.t0[trade]?,
            view: state.view[trade],
            tip: state.tip,
            is_sure: state.sure[trade] & who.bit() != 0,
            bit,
            may_lock: who == Who::Provider && self.may_lock(state, trade),
        };
        let (after, left) = match self.moves.get(&key.packed()) {
            Some(known) => *known,
            None => {
                let made = self.make(who, key);
                self.moves.insert(key.packed(), made);
                made
            }
        };
        let place = match who {
            Who::Buyer => &mut state.buyer[trade],
            Who::Seller => &mut state.seller[trade],
            Who::Provider => &mut state.registrar[trade],
        };
        *place = after;
        self.leave(state, trade, left);
        let is_freed = who == Who::Provider && self.bounds.is_one_node && self.is_released(after);
        let told =
            if is_freed { self.drive(state, Who::Seller, trade, cause::LOCK_GONE) } else { None };
        left.broken.or(told)
    }

    fn make(&mut self, who: Who, key: Move) -> (u16, Left) {
        let scene = Scene {
            stage: &self.stage,
            cast: &self.casts[&(key.trade, key.t0)],
            view: key.view,
            tip: key.tip,
            is_sure: key.is_sure,
        };
        match who {
            Who::Buyer => {
                let mut buyer = self.buyers.all[usize::from(key.machine)].clone();
                let told = tell_buyer(&mut buyer, scene, key.bit);
                let left = told.and(buyer.drive(scene, key.bit));
                (self.buyers.put(buyer), left)
            }
            Who::Seller => {
                let mut seller = self.sellers.all[usize::from(key.machine)].clone();
                if key.bit == cause::LOCK_GONE {
                    seller.lock_released("lock.released");
                }
                let told = tell_seller(&mut seller, scene, key.bit);
                let left = told.and(seller.drive(scene, key.bit));
                (self.sellers.put(seller), left)
            }
            Who::Provider => {
                let known = self.registrars.get(key.machine).cloned();
                let (registrar, told) = tell_registrar(known, scene, key.bit, key.may_lock);
                let Some(mut registrar) = registrar else { return (NONE, told) };
                let left = told.and(registrar.drive(scene, key.bit));
                (self.registrars.put(registrar), left)
            }
        }
    }

    fn is_released(&self, registrar: u16) -> bool {
        let registrar = self.registrars.get(registrar);
        registrar.is_some_and(|r| matches!(r.state, registrar::State::Released { .. }))
    }

    /// Whether the register has the certificate free for a trade.
    fn may_lock(&self, state: &State, trade: usize) -> bool {
        let other = state.registrar[1 - trade];
        other == NONE || self.is_released(other)
    }

    fn drive_all(&mut self, state: &mut State, cause: u32) -> Option<&'static str> {
        let mut broken = None;
        for trade in Self::trades(state) {
            for who in Who::ALL {
                broken = broken.or(self.drive(state, who, trade, cause));
            }
        }
        broken
    }

    /// Every step that can follow, with a rule that it breaks.
    pub(crate) fn next(&mut self, state: &State) -> Vec<(Action, State, Option<&'static str>)> {
        let mut all = Vec::new();
        if self.is_over(state) {
            return all;
        }
        self.arrivals(state, &mut all);
        self.answers(state, &mut all);
        self.relays(state, &mut all);
        self.blocks(state, &mut all);
        self.comings_and_goings(state, &mut all);
        self.second(state, &mut all);
        for (_, after, broken) in &mut all {
            if self.is_brisk(after) {
                *broken = broken.or(self.hurry(after, 0)).or(self.hurry(after, 1));
            }
        }
        for (_, after, _) in &mut all {
            self.simplify(after);
        }
        all.retain(|(_, after, broken)| after != state || broken.is_some());
        all
    }

    /// Leaves out of a state what can never have an effect again.
    fn simplify(&self, state: &mut State) {
        for who in Who::ALL {
            if self.has_ended(state, who) && !self.bounds.is_one_node {
                state.up |= who.bit();
            }
        }
        let mut live = [0; 2];
        for trade in Self::trades(state) {
            let buyer = self.buyers.get(state.buyer[trade]);
            let seller = self.sellers.get(state.seller[trade]);
            let registrar = self.registrars.get(state.registrar[trade]);
            let by_buyer = buyer.map_or(0, heard_by_buyer);
            let missing = by_buyer & !state.sent[trade];
            let by_seller = seller.map_or(0, heard_by_seller);
            let offered = state.offered[trade];
            // Once it is everywhere no answer of one source adds to it.
            let waits = registrar.is_some_and(|r| matches!(r.state, registrar::State::Locked))
                || offered & Tx::Fund.bit() == 0;
            let by_source = if waits { message::OFFERED } else { 0 };
            let asked = if by_seller & message::KEPT == 0 { 0 } else { message::KEPT_ASKED };
            let heard = heard_by_registrar(registrar, missing) | asked | by_source;
            live[trade] = by_buyer | by_seller | heard;

            let (view, tip) = (&mut state.view[trade], state.tip);
            // The last block alone can still leave the chain.
            let is_fixed = |view: &View, tx: Tx| {
                let deep = view.depth(tx, tip);
                deep > 1 || deep > 0 && state.reorganisations >= self.bounds.reorganisations
            };
            let mut void = 0;
            if is_fixed(view, Tx::Fund) {
                void |= Tx::Fund.bit() | Tx::Cancel.bit();
            }
            if is_fixed(view, Tx::Cancel) {
                void |= u8::MAX;
            }
            if Tx::SPENDS.into_iter().any(|tx| is_fixed(view, tx)) {
                void |= spends();
            }
            state.offered[trade] &= !void;

            let is_done = |who: Who| match who {
                Who::Buyer => buyer.is_none_or(Ends::is_done),
                Who::Seller => seller.is_none_or(Ends::is_done),
                Who::Provider => registrar.is_none_or(Ends::is_done),
            };
            for who in Who::ALL {
                if is_done(who) {
                    // A new lock is sure of what its chain shows.
                    state.sure[trade] |= who.bit();
                } else if !Self::is_up(state, who) {
                    state.sure[trade] &= !who.bit();
                }
            }
            let refund_at = self.casts[&(u8::try_from(trade).unwrap(), state.t0[trade].unwrap())]
                .heights
                .refund_at;
            if FIRST + u32::from(state.tip) >= refund_at {
                state.thrown_out[trade] = 0;
            }
        }
        let common = if self.is_together() { (live[0] | live[1]) & message::COMMON } else { 0 };
        for (sent, live) in state.sent.iter_mut().zip(live) {
            *sent &= live | common;
        }
    }

    /// Whether all that a party plays has ended, so that it misses nothing while it is away.
    fn has_ended(&self, state: &State, who: Who) -> bool {
        Self::trades(state).all(|trade| match who {
            Who::Buyer => self.buyers.get(state.buyer[trade]).is_none_or(Ends::is_done),
            Who::Seller => self.sellers.get(state.seller[trade]).is_none_or(Ends::is_done),
            Who::Provider => self.registrars.get(state.registrar[trade]).is_none_or(Ends::is_done),
        })
    }

    /// The same for all that runs on the node of a party.
    fn has_ended_here(&self, state: &State, who: Who) -> bool {
        let is_also_provider = who == Who::Seller && self.bounds.is_one_node;
        self.has_ended(state, who) && (!is_also_provider || self.has_ended(state, Who::Provider))
    }

    /// Whether nothing can happen any more but that blocks go by.
    pub(crate) fn is_over(&self, state: &State) -> bool {
        let waits_for_second = self.bounds.trades == Trades::InTurn && state.t0[1].is_none();
        let is_quiet = |trade: usize| {
            let on_its_way = state.offered[trade] | state.view[trade].mempool;
            state.sent[trade] == 0 && on_its_way == 0
        };
        !waits_for_second
            && Who::ALL.into_iter().all(|who| self.has_ended(state, who))
            && Self::trades(state).all(is_quiet)
    }

    fn arrivals(&mut self, state: &State, all: &mut Vec<(Action, State, Option<&'static str>)>) {
        for trade in Self::trades(state) {
            for bit in messages().filter(|bit| state.sent[trade] & bit != 0) {
                if trade == 1 && self.is_common(bit) {
                    continue;
                }
                let mut after = *state;
                let broken = self.deliver(&mut after, trade, bit);
                let trade = u8::try_from(trade).unwrap();
                all.push((Action::Arrive(trade, bit), after, broken));
            }
        }
    }

    /// The registrar's chain source takes the funding that it was handed, or refuses it, which it
    /// says at once; that it took it may be heard later, or not. Or it does not say what it did.
    fn answers(&mut self, state: &State, all: &mut Vec<(Action, State, Option<&'static str>)>) {
        for trade in Self::trades(state) {
            if state.sent[trade] & message::OFFERED == 0 || trade == 1 && self.is_together() {
                continue;
            }
            let concerned = self.concerned(trade, self.is_together());
            for (took, says) in [(true, true), (false, true), (true, false), (false, false)] {
                let mut after = *state;
                let mut broken = None;
                for trade in concerned.clone() {
                    after.sent[trade] &= !message::OFFERED;
                    if took {
                        after.offered[trade] |= Tx::Fund.bit();
                    }
                    let cause = match (took, says) {
                        (true, true) => {
                            after.sent[trade] |= message::TAKEN;
                            continue;
                        }
                        (false, true) => cause::REFUSED,
                        (_, false) => cause::NO_ANSWER,
                    };
                    broken = broken.or(self.drive(&mut after, Who::Provider, trade, cause));
                }
                let trade = u8::try_from(trade).unwrap();
                all.push((Action::Answer { trade, took, says }, after, broken));
            }
        }
    }

    fn relays(&mut self, state: &State, all: &mut Vec<(Action, State, Option<&'static str>)>) {
        for trade in Self::trades(state) {
            let is_late =
                self.bounds.is_signed_elsewhere && self.is_released(state.registrar[trade]);
            for tx in Tx::ALL.into_iter().filter(|tx| state.offered[trade] & tx.bit() != 0) {
                if trade == 1 && self.is_common_tx(tx) {
                    continue;
                }
                let mut after = *state;
                if is_late && tx == Tx::Fund && !self.bounds.is_sent_late {
                    continue;
                }
                if !self.relay(&mut after, trade, tx) {
                    continue;
                }
                let broken = self.drive_all(&mut after, cause::FACTS);
                let trade = u8::try_from(trade).unwrap();
                all.push((Action::Relay(trade, tx), after, broken));
            }
        }
    }

    /// Puts a transaction into the mempools, if it can be in the next block. Of two that
    /// spend the same the later one may always pay more, but a cancel pays more than a funding.
    fn relay(&self, state: &mut State, trade: usize, tx: Tx) -> bool {
        let view = state.view[trade];
        if view.is_mined(tx) || view.waits(tx) {
            return false;
        }
        let cast = &self.casts[&(u8::try_from(trade).unwrap(), state.t0[trade].unwrap())];
        let is_funded = view.is_mined(Tx::Fund) || view.waits(Tx::Fund);
        let is_spent = Tx::SPENDS.into_iter().any(|tx| view.is_mined(tx));
        let replaced = match tx {
            Tx::Fund if view.is_mined(Tx::Cancel) || view.waits(Tx::Cancel) => return false,
            Tx::Fund => 0,
            Tx::Cancel if view.is_mined(Tx::Fund) => return false,
            Tx::Cancel => u8::MAX,
            Tx::Claim | Tx::Taken | Tx::Refund if !is_funded || is_spent => return false,
            Tx::Refund if FIRST + u32::from(state.tip) < cast.heights.refund_at => return false,
            Tx::Claim | Tx::Taken | Tx::Refund => spends(),
        };
        for trade in self.concerned(trade, self.is_common_tx(tx)) {
            let view = &mut state.view[trade];
            view.mempool = (view.mempool & !replaced) | tx.bit();
        }
        true
    }

    fn tip_max(&self) -> u8 {
        u8::try_from(self.stage.delivery_in).unwrap() + AFTER_DELIVERY
    }

    fn blocks(&mut self, state: &State, all: &mut Vec<(Action, State, Option<&'static str>)>) {
        if state.tip >= self.tip_max() {
            return;
        }
        let parts = |trade: usize| {
            let view = state.view[trade];
            let must = if self.is_due_again(state, trade) { state.thrown_out[trade] } else { 0 };
            (0..32_u8).filter(move |part| part & must == must).filter(move |part| {
                let needs_fund = part & spends() != 0;
                let has_fund = view.is_mined(Tx::Fund) || part & Tx::Fund.bit() != 0;
                part & !view.mempool == 0 && (!needs_fund || has_fund)
            })
        };
        let mut parts: [Vec<u8>; 2] = [0, 1].map(|trade| parts(trade).collect());
        if self.is_brisk(state) && !self.is_together() {
            for (part, view) in parts.iter_mut().zip(&state.view) {
                part.retain(|part| *part == 0 || *part == view.mempool);
            }
        }
        for first in parts[0].iter().copied() {
            for second in parts[1].iter().copied() {
                if self.is_together() && (first ^ second) & COMMON_TXS != 0 {
                    continue;
                }
                let mut after = *state;
                after.tip += 1;
                for (trade, part) in [first, second].into_iter().enumerate() {
                    let view = &mut after.view[trade];
                    after.thrown_out[trade] &= !part;
                    for tx in Tx::ALL.into_iter().filter(|tx| part & tx.bit() != 0) {
                        view.mined[tx as usize] = after.tip + 1;
                    }
                    view.mempool &= !part;
                }
                let broken = self.new_tip(&mut after);
                all.push((Action::Mine([first, second]), after, broken));
            }
        }
        // Deeper than the gap between F − g and F + g nothing is promised.
        if state.reorganisations < self.bounds.reorganisations && state.tip > 0 {
            for is_kept in [true, false] {
                let mut after = *state;
                after.reorganisations += 1;
                after.tip += 1;
                for (view, thrown_out) in after.view.iter_mut().zip(&mut after.thrown_out) {
                    for tx in [Tx::Claim, Tx::Taken] {
                        if view.mined[tx as usize] == state.tip + 1 {
                            *thrown_out |= tx.bit();
                        }
                    }
                    *view = leave_block(*view, state.tip + 1, is_kept);
                }
                let broken = self.new_tip(&mut after);
                all.push((Action::Reorganise(is_kept), after, broken));
            }
        }
    }

    /// A payment of the seller that was thrown out of its block is mined again before the refund is valid: the
    /// margin is one block here, so it has to be the next.
    fn is_due_again(&self, state: &State, trade: usize) -> bool {
        let Some(t0) = state.t0[trade].filter(|_| state.thrown_out[trade] != 0) else {
            return false;
        };
        let cast = &self.casts[&(u8::try_from(trade).unwrap(), t0)];
        FIRST + u32::from(state.tip) < cast.heights.refund_at
    }

    /// A rescan that found nothing by the second tip has nothing to find.
    fn new_tip(&mut self, state: &mut State) -> Option<&'static str> {
        for sure in &mut state.sure {
            *sure |= state.up;
        }
        self.drive_all(state, cause::TIP)
    }

    fn comings_and_goings(
        &mut self,
        state: &State,
        all: &mut Vec<(Action, State, Option<&'static str>)>,
    ) {
        for who in Who::ALL {
            if who == Who::Provider && self.bounds.is_one_node {
                continue;
            }
            // One node plays both roles.
            let both = Who::Seller.bit() | Who::Provider.bit();
            let bits = if who == Who::Seller && self.bounds.is_one_node { both } else { who.bit() };
            let mut after = *state;
            if !Self::is_up(state, who) {
                after.up |= bits;
                for (sure, view) in after.sure.iter_mut().zip(&after.view) {
                    // The rescan finds a funding at once.
                    *sure = if view.is_mined(Tx::Fund) { *sure | bits } else { *sure & !bits };
                }
                let broken = self.drive_all(&mut after, cause::TIP);
                all.push((Action::Return(who), after, broken));
            } else if !self.has_ended_here(state, who)
                && state.stops[who as usize] < self.bounds.stops
                && state.stops.iter().sum::<u8>() < self.bounds.stops_in_all
            {
                after.up &= !bits;
                after.stops[who as usize] += 1;
                all.push((Action::Stop(who), after, None));
            }
        }
    }

    /// Once nothing holds the certificate it is sold again, if there is time for a refund.
    fn second(&mut self, state: &State, all: &mut Vec<(Action, State, Option<&'static str>)>) {
        let is_free = self
            .sellers
            .get(state.seller[0])
            .is_some_and(|seller| matches!(seller.state, seller::State::Released { .. }));
        let begins = self.bounds.trades == Trades::InTurn
            && state.t0[1].is_none()
            && is_free
            && self.may_lock(state, 1)
            && state.up == 0b111
            && u32::from(state.tip) + 8 <= self.stage.delivery_in;
        if begins {
            let mut after = *state;
            self.open(&mut after, 1);
            all.push((Action::Match, after, None));
        }
    }

    fn is_brisk(&self, state: &State) -> bool {
        self.bounds.is_brisk && state.t0[1].is_some()
    }

    /// Delivers all messages of a trade until none has an effect.
    fn hurry(&mut self, state: &mut State, trade: usize) -> Option<&'static str> {
        let mut broken = None;
        loop {
            let before = *state;
            let sent = messages().filter(|bit| before.sent[trade] & bit != 0);
            for bit in sent.filter(|bit| !self.is_common(*bit)).collect::<Vec<_>>() {
                broken = broken.or(self.deliver(state, trade, bit));
            }
            if *state == before {
                return broken;
            }
        }
    }
}

/// All that may arrive.
fn messages() -> impl Iterator<Item = u32> {
    (0..23).map(|n| 1 << n).filter(|bit| *bit != message::OFFERED)
}

/// All that spends a contract.
fn spends() -> u8 {
    Tx::SPENDS.into_iter().fold(0, |bits, tx| bits | tx.bit())
}

/// Who gets a message.
fn recipient(bit: u32) -> Who {
    match bit {
        message::TERMS
        | message::LOCK
        | message::ACK
        | message::ACTIVATION
        | message::WALLET
        | message::QUITTANCE
        | message::QUIT_REFUSED => Who::Buyer,
        message::REQUEST
        | message::LOCK_HEARD
        | message::FUND_SHOWN
        | message::CANCEL_SHOWN
        | message::KEY
        | message::KEPT
        | message::NOT_KEPT => Who::Seller,
        _ => Who::Provider,
    }
}

/// A block leaves the chain: what it held waits again, or is forgotten with what needs it.
fn leave_block(mut view: View, block: u8, is_kept: bool) -> View {
    for tx in Tx::ALL {
        if view.mined[tx as usize] == block {
            view.mined[tx as usize] = 0;
            if is_kept {
                view.mempool |= tx.bit();
            }
        }
    }
    let has_fund = view.is_mined(Tx::Fund) || view.waits(Tx::Fund);
    if !has_fund {
        view.mempool &= !spends();
    }
    view
}
