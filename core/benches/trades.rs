//! What past trades cost: the time of an input after 10,000 of them, beside that of an engine
//! without any, in one run.
//!
//! `cargo bench -p capex-core --bench trades`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a command that prints, and a broken benchmark should end"
)]

use std::time::Instant;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};
use capex_core::engine::kernel::{Record, Table};
use capex_core::engine::trades::{PastTradeV1, past_key_prefix};
use capex_core::engine::{Effect, Engine, Input, Keys, Topic};
use capex_core::ids::{Key, TradeId, from_hex};
use capex_core::settlement::facts::{ChainFacts, Sighting};
use capex_core::settlement::transaction::KnownTx;
use capex_core::test_support::devnet;

const NOW_MS: u64 = 1_800_000_000_000;
const PAST: u64 = 10_000;
/// Inputs of each kind.
const INPUTS: u64 = 2_000;
/// Runs, of which the fastest counts.
const RUNS: usize = 15;
/// Transactions that a chain block or a mempool brings and that concern nobody here.
const STRANGE_TXS: u64 = 20;

/// Sales that ended, one an epoch.
fn past() -> Vec<Record> {
    let text = include_str!("../../tests/vectors/records/past_trade.hex");
    let value = text.lines().find_map(|line| line.strip_prefix("value ")).unwrap();
    let value = Some(from_hex(value).unwrap());
    let frozen = Record { table: Table::PastTrade.number(), key: vec![0; 41], value };
    let PastTradeV1::Seller(seller) = frozen.load().unwrap() else { panic!("a sale") };
    let sale = |epoch: u64| {
        let mut seller = seller.clone();
        let mut trade = [0; 32];
        trade[..8].copy_from_slice(&epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        (seller.row.epoch, seller.trade) = (epoch, TradeId(trade));
        let key = [past_key_prefix(epoch, seller.trade).as_slice(), &[2]].concat();
        Record::store(&key, &PastTradeV1::Seller(seller)).unwrap()
    };
    (1..=PAST).map(sale).collect()
}

fn engine(records: Vec<Record>) -> Engine {
    let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
    engine.handle(NOW_MS, Input::Started { records, salt: [3; 32] });
    drain(&mut engine);
    engine
}

fn drain(engine: &mut Engine) {
    while let Some(effect) = engine.poll_effect() {
        assert!(!matches!(effect, Effect::Halt { .. }), "{effect:?}");
    }
}

fn strange_tx(number: u64) -> Transaction {
    let mut txid = [0; 32];
    txid[..8].copy_from_slice(&number.to_be_bytes());
    let previous_output = OutPoint::new(Txid::from_byte_array(txid), 0);
    let input = TxIn { previous_output, ..TxIn::default() };
    let output = TxOut { value: Amount::from_sat(number), script_pubkey: ScriptBuf::new() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

fn tick(_: u64) -> Input {
    Input::Tick
}

/// A chain block, a second after the last.
fn block(number: u64) -> Input {
    let height = 300 + number as u32;
    let seen = (0..STRANGE_TXS).map(|n| Sighting {
        tx: KnownTx::new(strange_tx(number * STRANGE_TXS + n)),
        height: Some(height),
    });
    Input::Chain(ChainFacts {
        height,
        median_time_past_s: (NOW_MS / 1000 + number) as u32,
        feerates: vec![(3, 1_000)],
        seen: seen.collect(),
        ..ChainFacts::default()
    })
}

/// A message that is none.
fn gossip(number: u64) -> Input {
    let bytes = number.to_be_bytes().to_vec();
    Input::Gossip { peer: Key([7; 32]), topic: Topic::Contacts, bytes, ticket: number }
}

/// Time of one input, in ns.
fn cost(engine: &mut Engine, make: fn(u64) -> Input) -> f64 {
    let inputs: Vec<Input> = (0..INPUTS).map(make).collect();
    let clock = Instant::now();
    for (number, input) in (0..).zip(inputs) {
        engine.handle(NOW_MS + number, input);
        drain(engine);
        std::hint::black_box(engine.poll_timeout(NOW_MS + number));
    }
    clock.elapsed().as_nanos() as f64 / INPUTS as f64
}

/// Name of an input, and the input of a round.
type Kind = (&'static str, fn(u64) -> Input);

fn main() {
    let records = past();
    println!("ns an input: without past trades, after {PAST}, ratio");
    let kinds: [Kind; 3] =
        [("tick", tick), ("chain block", block), ("gossip that is refused", gossip)];
    for (name, make) in kinds {
        let (mut empty, mut full) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            empty = empty.min(cost(&mut engine(Vec::new()), make));
            full = full.min(cost(&mut engine(records.clone()), make));
        }
        println!("  {name}: {empty:.0}, {full:.0}, {:.2}", full / empty);
    }
}
