//! The longest call of `Engine::handle` while an epoch's orders arrive, are voted on and end.
//!
//! `cargo bench -p capex-core --bench handle`. Signatures, matching and what effects ask for
//! happen between the calls, as in a node. Linux.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capex_core::bundle::pack;
use capex_core::engine::io::WalletFacts;
use capex_core::engine::market::signing::signs_at_ms;
use capex_core::engine::market::{Computed, MarketCommand, OrderSpec, TimeInForce};
use capex_core::engine::{Effect, Engine, Input, Keys, Topic, Unchecked, Verdict};
use capex_core::epoch::{Root, computed_at_ms, epoch_at, opens_at_ms, root_at_ms};
use capex_core::ids::Key;
use capex_core::limits::EPOCHS_IN_MEMORY;
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::settlement::facts::ChainFacts;
use capex_core::settlement::fees::FeeLimit;
use capex_core::test_support::devnet;
use capex_core::units::Window;
use capex_core::wire::{VERSION, encode};

/// An epoch begins then on a devnet, unix ms.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// Orders of one owner, which are two messages or three.
const PER_OWNER: usize = 16;
/// So many that the oldest leaves memory.
const EPOCHS: u64 = EPOCHS_IN_MEMORY as u64 + 2;
/// Who hands over all messages.
const PEER: Key = Key([7; 32]);

/// An engine, and how long its calls took.
struct Watched {
    engine: Engine,
    params: Params,
    calls: BTreeMap<&'static str, Vec<Duration>>,
    accepted: usize,
    next_ticket: u64,
}

impl Watched {
    fn new() -> Self {
        let params = Params { pow_bits: 0, ..devnet() };
        let mut engine = Engine::new(params.clone(), Keys::new([1; 32], [2; 32]));
        engine.handle(BEGIN_MS, Input::Started { records: Vec::new(), salt: [3; 32] });
        Self { engine, params, calls: BTreeMap::new(), accepted: 0, next_ticket: 0 }
    }

    /// One call, and everything that follows from it.
    fn handle(&mut self, now_ms: u64, kind: &'static str, input: Input) {
        let clock = Instant::now();
        self.engine.handle(now_ms, input);
        let took = clock.elapsed();
        self.calls.entry(kind).or_default().push(took);
        self.perform(now_ms);
    }

    fn perform(&mut self, now_ms: u64) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Verify { peer, ticket, candidates } => {
                    let checked = candidates.verify().map_err(Unchecked::Invalid);
                    self.handle(now_ms, "Checked", Input::Checked { peer, ticket, checked });
                }
                Effect::Match { epoch, set } => {
                    let result = Computed::new(epoch, &set, &self.params).map(Arc::new);
                    drop(set);
                    self.handle(now_ms, "Matched", Input::Matched { epoch, result });
                }
                Effect::Verdict { verdict: Verdict::Accept, .. } => self.accepted += 1,
                _ => {}
            }
        }
    }

    fn gossip(&mut self, now_ms: u64, kind: &'static str, topic: Topic, bytes: Vec<u8>) {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        self.handle(now_ms, kind, Input::Gossip { peer: PEER, topic, bytes, ticket });
    }

    /// One epoch from its first order to its result.
    fn epoch(&mut self, epoch: u64, orders: usize, messages: &[Vec<u8>]) {
        let params = self.params.clone();
        let (all, half) = (messages.len(), messages.len() / 2);
        let before = self.accepted;
        for (at, bytes) in messages.iter().enumerate() {
            let now_ms =
                opens_at_ms(epoch, &params) + params.epoch.open_ms * at as u64 / all as u64;
            if self.engine.poll_timeout(now_ms).0 <= now_ms {
                self.handle(now_ms, "Tick", Input::Tick);
            }
            self.gossip(now_ms, "Gossip of orders", Topic::Orders, bytes.clone());
            if at == half {
                // A trader whose clock is ahead: the set has no root yet.
                self.gossip(now_ms, "Gossip of an early root", Topic::Roots, root(epoch, &params));
            }
        }
        assert_eq!(self.accepted - before, all + 1, "all orders and the root are taken");
        self.handle(root_at_ms(epoch, &params), "Tick, vote", Input::Tick);
        self.handle(computed_at_ms(epoch, &params), "Tick, end of the epoch", Input::Tick);
        let view = self.engine.market().epochs.get(epoch).unwrap();
        assert_eq!(view.set.len(), orders);
        assert!(view.result.is_some());
    }
}

fn owner(number: usize) -> Keys {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    Keys::new(secret, [0; 32])
}

/// Orders for one slot, every second owner bids, with limits from 50,000 to 150,000 sat.
fn messages(epoch: u64, orders: usize, params: &Params) -> Vec<Vec<u8>> {
    let first = params.first_slot(epoch);
    let mut messages = Vec::new();
    for number in 0..orders / PER_OWNER {
        let keys = owner(number);
        let side = if number % 2 == 0 { Side::Buy } else { Side::Sell };
        let signed: Vec<_> = (0..PER_OWNER)
            .map(|at| {
                let nonce = (number * PER_OWNER + at) as u64;
                let spread = nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                let order = Order {
                    v: VERSION,
                    epoch,
                    side,
                    owner: keys.public(),
                    nonce,
                    alts: vec![Alternative {
                        class: 1,
                        limit_msat: 50_000_000 + spread % 100_000_000,
                    }],
                    qty: 1 + u32::try_from(spread % 10).unwrap(),
                    min_qty: 1,
                    mode: Mode::Sticky,
                    window: Window::new(first, first + 1).unwrap(),
                    slots: u16::from(side == Side::Buy),
                    features: 0,
                    allow: Vec::new(),
                    deny: Vec::new(),
                    min_run: u16::from(side == Side::Sell),
                    source: Source::Primary,
                    created_ms: 0,
                    backing: None,
                    pow_nonce: 0,
                };
                keys.sign(order, params)
            })
            .collect();
        messages.extend(pack(&signed));
    }
    messages
}

/// The root of somebody who has an order in the epoch.
fn root(epoch: u64, params: &Params) -> Vec<u8> {
    let root = Root { v: VERSION, epoch, root: [9; 32], count: 1 };
    encode(owner(0).sign(root, params).envelope())
}

/// The same calls in two lives. Of each the shorter time counts: what else the machine did
/// in between seldom meets the same call twice.
fn watch(orders: usize) -> BTreeMap<&'static str, Vec<Duration>> {
    let mut lives = [Watched::new(), Watched::new()];
    let first = epoch_at(BEGIN_MS, &lives[0].params) + 1;
    for epoch in first..first + EPOCHS {
        let messages = messages(epoch, orders, &lives[0].params);
        lives.iter_mut().for_each(|life| life.epoch(epoch, orders, &messages));
    }
    let [mut shorter, other] = lives.map(|life| life.calls);
    for (kind, all) in &mut shorter {
        assert_eq!(all.len(), other[kind].len());
        all.iter_mut().zip(&other[kind]).for_each(|(took, again)| *took = (*took).min(*again));
    }
    shorter
}

/// The tick that signs 100 standing bids again, 16 an epoch, in an epoch after the first.
fn sign_own() -> Vec<Duration> {
    let params = Params { pow_bits: 0, ..devnet() };
    let keys = Keys::new([1; 32], [2; 32]);
    let me = keys.public();
    let mut engine = Engine::new(params.clone(), keys);
    engine.handle(BEGIN_MS, Input::Started { records: Vec::new(), salt: [3; 32] });
    engine.handle(BEGIN_MS, Input::ChainSource { up: true });
    let facts = ChainFacts { height: 200, feerates: vec![(2, 1000)], ..ChainFacts::default() };
    engine.handle(BEGIN_MS, Input::Chain(facts));
    let wallet = WalletFacts { spendable_sat: u64::MAX, ..WalletFacts::default() };
    engine.handle(BEGIN_MS, Input::Wallet(wallet));
    let first = epoch_at(BEGIN_MS, &params) + 1;
    let slot = params.first_slot(first + EPOCHS);
    for number in 0..100 {
        let spec = OrderSpec {
            side: Side::Buy,
            alts: vec![Alternative { class: 1, limit_msat: 10_000_000 }],
            qty: 4,
            min_qty: 1,
            mode: Mode::Sticky,
            window: Window::new(slot, slot + 40).unwrap(),
            slots: 2,
            features: 0,
            allow: Vec::new(),
            deny: Vec::new(),
            min_run: 0,
            time_in_force: TimeInForce::GoodTillCancelled,
            beneficiary: None,
            fees: FeeLimit::default(),
        };
        let command = MarketCommand::Place(Box::new(spec)).into();
        engine.handle(BEGIN_MS, Input::Command { id: number, command });
    }
    let mut took = Vec::new();
    for epoch in first..first + EPOCHS {
        engine.handle(opens_at_ms(epoch, &params), Input::Tick);
        loop {
            let match_of = |effect| match effect {
                Effect::Match { epoch, set } => Some((epoch, set)),
                _ => None,
            };
            let found = std::iter::from_fn(|| engine.poll_effect()).find_map(match_of);
            let Some((epoch, set)) = found else { break };
            let result = Computed::new(epoch, &set, &params).map(Arc::new);
            engine.handle(opens_at_ms(epoch + 1, &params), Input::Matched { epoch, result });
        }
        let clock = Instant::now();
        engine.handle(signs_at_ms(me, epoch, &params), Input::Tick);
        took.push(clock.elapsed());
        assert_eq!(engine.market().signed_for(epoch).count(), PER_OWNER);
    }
    took
}

fn main() {
    let mut took = sign_own();
    took.sort_unstable();
    let longest_ms = took[took.len() - 1].as_secs_f64() * 1e3;
    println!("signing 16 of 100 standing bids again: longest {longest_ms:.3} ms");
    for orders in [10_000, 100_000] {
        println!("{orders} orders, {EPOCHS} epochs, ms:");
        for (kind, mut took) in watch(orders) {
            took.sort_unstable();
            let ms = |took: Duration| took.as_secs_f64() * 1e3;
            let (longest, median) = (ms(took[took.len() - 1]), ms(took[took.len() / 2]));
            println!("  {kind}: longest {longest:.3}, median {median:.3} of {}", took.len());
        }
    }
}
