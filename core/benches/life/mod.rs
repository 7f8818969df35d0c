//! The life of an engine through some epochs of many orders, as gossip brings them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capex_core::bundle::pack;
use capex_core::engine::market::{Computed, Frozen};
use capex_core::engine::{Effect, Engine, Input, Keys, Topic, Unchecked, Verdict};
use capex_core::epoch::{Root, computed_at_ms, opens_at_ms, root_at_ms};
use capex_core::ids::Key;
use capex_core::limits::EPOCHS_IN_MEMORY;
use capex_core::order::{Alternative, Mode, Order, Side, Source};
use capex_core::params::Params;
use capex_core::test_support::devnet;
use capex_core::units::Window;
use capex_core::wire::{VERSION, encode};

/// An epoch begins then on a devnet, unix ms.
pub(crate) const BEGIN_MS: u64 = 1_800_000_000_000;
/// Orders of one owner, which are two messages or three.
pub(crate) const PER_OWNER: usize = 16;
/// So many that the oldest leaves memory.
pub(crate) const EPOCHS: u64 = EPOCHS_IN_MEMORY as u64 + 2;
/// Who hands over all messages.
const PEER: Key = Key([7; 32]);

/// An engine, and how long its calls took.
pub(crate) struct Watched {
    pub(crate) engine: Engine,
    pub(crate) params: Params,
    pub(crate) calls: BTreeMap<&'static str, Vec<Duration>>,
    accepted: usize,
    next_ticket: u64,
}

impl Watched {
    pub(crate) fn new() -> Self {
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
                Effect::Freeze { job, epoch, set, own } => {
                    let frozen = Frozen::new(epoch, &set, &own);
                    drop(set);
                    self.handle(now_ms, "Frozen", Input::Frozen { job, frozen });
                }
                Effect::Match { job, epoch, set } => {
                    let result = Computed::new(epoch, &set, &self.params).map(Arc::new);
                    drop(set);
                    self.handle(now_ms, "Matched", Input::Matched { job, result });
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
    pub(crate) fn epoch(&mut self, epoch: u64, orders: usize, messages: &[Vec<u8>]) {
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
pub(crate) fn messages(epoch: u64, orders: usize, params: &Params) -> Vec<Vec<u8>> {
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
