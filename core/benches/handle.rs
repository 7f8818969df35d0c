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

mod life;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capex_core::engine::io::WalletFacts;
use capex_core::engine::market::signing::signs_at_ms;
use capex_core::engine::market::{Computed, Frozen, MarketCommand, OrderSpec, TimeInForce};
use capex_core::engine::{Effect, Engine, Input, Keys};
use capex_core::epoch::{epoch_at, opens_at_ms};
use capex_core::order::{Alternative, Mode, Side};
use capex_core::params::Params;
use capex_core::settlement::facts::ChainFacts;
use capex_core::settlement::fees::FeeLimit;
use capex_core::test_support::devnet;
use capex_core::units::Window;
use life::{BEGIN_MS, EPOCHS, PER_OWNER, Watched, messages};

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
            use_by: None,
            is_recallable: false,
            pool: None,
            fees: FeeLimit::default(),
            cert: None,
            is_spare: false,
        };
        let command = MarketCommand::Place(Box::new(spec)).into();
        engine.handle(BEGIN_MS, Input::Command { id: number, command });
    }
    let mut took = Vec::new();
    for epoch in first..first + EPOCHS {
        engine.handle(opens_at_ms(epoch, &params), Input::Tick);
        while let Some(effect) = engine.poll_effect() {
            let input = match effect {
                Effect::Freeze { job, epoch, set, own } => {
                    Input::Frozen { job, frozen: Frozen::new(epoch, &set, &own) }
                }
                Effect::Match { job, epoch, set } => {
                    let result = Computed::new(epoch, &set, &params).map(Arc::new);
                    Input::Matched { job, result }
                }
                _ => continue,
            };
            engine.handle(opens_at_ms(epoch, &params), input);
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
