//! What all components of the engine stand on, through its public doors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::Secp256k1;
use capex_core::engine::io::{Topic, Verdict};
use capex_core::engine::kernel::{
    Cause, ChainView, Conduct, Context, CounterV1, Counters, Denial, Miss, Outbox, Pace, Payout,
    Record, Retry, Stored, Subject, Table, Timer, Treasury, WalletView, remote_code,
};
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::{Command, Effect, Engine, Input, Keys};
use capex_core::ids::{Key, TradeId};
use capex_core::limits::{CODE_MAX_BYTES, GOSSIP_MAX_BYTES};
use capex_core::reasons::Reason;
use capex_core::settlement::Deadline;
use capex_core::test_support::devnet;

const NOW_MS: u64 = 1_800_000_000_000;
const EPOCH_MS: u64 = 2_000;
const STRANGER: Key = Key([7; 32]);

/// Acts with a context over these counters; returns what went to disk too.
fn with<R>(
    counters: &mut Counters,
    conduct: &mut Conduct,
    act: impl FnOnce(&mut Context<'_>) -> R,
) -> (R, Vec<Record>) {
    let mut out = Outbox::default();
    let result = act(&mut Context {
        now_ms: NOW_MS,
        params: &devnet(),
        keys: &Keys::new([1; 32], [2; 32]),
        secp: &Secp256k1::new(),
        chain: &ChainView::default(),
        wallet: &mut WalletView::default(),
        treasury: &mut Treasury::default(),
        conduct,
        counters,
        out: &mut out,
    });
    (result, written(&mut out))
}

fn written(out: &mut Outbox) -> Vec<Record> {
    out.flush();
    let mut records = Vec::new();
    while let Some(effect) = out.poll() {
        if let Effect::Persist { records: more, .. } = effect {
            records.extend(more);
        }
    }
    records
}

#[test]
fn an_index_counts_within_its_life_and_never_into_the_next() {
    let mut counters = Counters::load(&[], [7; 32]).unwrap();
    let (indices, records) =
        with(&mut counters, &mut Conduct::default(), |ctx| [(); 3].map(|()| ctx.next_index("key")));
    assert_eq!(indices, [1, 2, 3]);
    let full = Record::store(b"key", &CounterV1((1 << 40) - 2)).unwrap();
    let salts = records.into_iter().filter(|record| record.table == Table::Salt.number());
    let journal: Vec<Record> = salts.chain([full]).collect();
    let mut counters = Counters::load(&journal, [8; 32]).unwrap();
    let (indices, _) =
        with(&mut counters, &mut Conduct::default(), |ctx| [(); 3].map(|()| ctx.next_index("key")));
    assert_eq!(indices, [(2 << 40) - 1, 1 << 40, (1 << 40) + 1]);
}

#[test]
fn a_counter_keeps_what_it_is_set_to() {
    let mut counters = Counters::default();
    let (values, records) = with(&mut counters, &mut Conduct::default(), |ctx| {
        let before = ctx.counter("order.nonce");
        ctx.set_counter("order.nonce", 7);
        (before, ctx.counter("order.nonce"), ctx.counter("another"))
    });
    assert_eq!(values, (0, 7, 0));
    assert_eq!(records, [Record::store(b"order.nonce", &CounterV1(7)).unwrap()]);
}

#[test]
fn what_somebody_failed_to_do_is_counted_and_a_kept_promise_takes_it_off() {
    let mut conduct = Conduct::default();
    with(&mut Counters::default(), &mut conduct, |ctx| {
        ctx.missed(Subject::Key(STRANGER), Miss::Funding);
        let counts = BTreeMap::from([(Miss::Funding, 1)]);
        assert_eq!(ctx.conduct.misses(&STRANGER), Some(&counts));
        assert_eq!(ctx.conduct.misses(&Key([8; 32])), None);
        ctx.kept(STRANGER);
        assert_eq!(ctx.conduct.misses(&STRANGER), Some(&counts), "two points, less one");
        ctx.kept(STRANGER);
    });
    assert_eq!(conduct.misses(&STRANGER), None);
}

#[test]
fn what_time_has_forgiven_is_dropped_from_the_store_too() {
    let (mut conduct, mut out) = (Conduct::default(), Outbox::default());
    conduct.miss(&mut out, NOW_MS, EPOCH_MS, (Subject::Key(STRANGER), None), Miss::Terms);
    let until_ms = NOW_MS + 2 * EPOCH_MS;
    assert_eq!(conduct.denial(NOW_MS, &STRANGER), Some(Denial::Until(until_ms)));
    written(&mut out);
    let day_ms = 144 * EPOCH_MS;
    conduct.fade(&mut out, until_ms + day_ms - 1, until_ms + day_ms - 1, EPOCH_MS);
    assert_eq!((conduct.keys().count(), written(&mut out)), (1, Vec::new()));
    conduct.fade(&mut out, until_ms + day_ms, until_ms + day_ms, EPOCH_MS);
    let gone = [Record::delete(Table::Conduct, &STRANGER.0)];
    assert_eq!((conduct.keys().count(), written(&mut out)), (0, gone.to_vec()));
}

#[test]
fn every_kind_of_miss_and_every_timer_has_a_name_of_its_own() {
    let misses = Miss::ALL.map(Miss::name);
    let all = ["terms", "lock", "acknowledgement", "funding", "claim", "default", "split"];
    assert_eq!(misses, all);
    let timers = [
        Timer::EpochEnd,
        Timer::SignOrders,
        Timer::SignRoot,
        Timer::Trade(Deadline::Terms),
        Timer::Trade(Deadline::Accept),
        Timer::Trade(Deadline::Funding),
        Timer::Trade(Deadline::Quiet),
        Timer::Trade(Deadline::DeliveryStarts),
        Timer::Trade(Deadline::DeliveryEnds),
        Timer::TradeRetry,
        Timer::TradeResume,
        Timer::Register,
        Timer::Holdings,
        Timer::Leases,
        Timer::Pools,
        Timer::Contact,
        Timer::Clocks,
    ];
    let names: BTreeSet<&str> = timers.iter().map(|timer| timer.name()).collect();
    assert_eq!(names.len(), timers.len());
    assert!(names.iter().all(|name| remote_code(name) == *name), "{names:?}");
}

#[test]
fn a_code_of_a_peer_goes_no_further_unless_it_is_one() {
    let longest = "a".repeat(CODE_MAX_BYTES);
    for good in ["gift.stale_seq", "a", "0_9.z", &longest] {
        assert_eq!(remote_code(good), good);
    }
    let long = "a".repeat(CODE_MAX_BYTES + 1);
    for bad in ["", "Gift", "gift locked", "gift-locked", "<b>", "gift.\u{e4}", &long] {
        assert_eq!(remote_code(bad), "peer.bad_code", "{bad}");
    }
}

#[test]
fn a_refusal_says_what_the_table_of_reasons_says() {
    let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
    engine.handle(NOW_MS, Input::Started { records: Vec::new(), salt: [3; 32] });
    let command = Command::Register(RegisterCommand::SetCapacity(vec![(99, 1)]));
    engine.handle(NOW_MS, Input::Command { id: 4, command });
    let told = std::iter::from_fn(|| engine.poll_effect()).find_map(|effect| match effect {
        Effect::CommandDone { id: 4, result: Err(refusal) } => Some(refusal),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(told.message, Reason::find("capacity.unknown_class").unwrap().sentence());
    assert!(!told.message.is_empty());
}

#[test]
fn gossip_is_as_long_as_its_limit_and_no_longer() {
    let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
    engine.handle(NOW_MS, Input::Started { records: Vec::new(), salt: [3; 32] });
    for topic in [Topic::Contacts, Topic::Roots] {
        for (bytes, expected) in [
            (GOSSIP_MAX_BYTES - 1, "wire.not_canonical"),
            (GOSSIP_MAX_BYTES, "wire.not_canonical"),
            (GOSSIP_MAX_BYTES + 1, "wire.oversize"),
            (2 * GOSSIP_MAX_BYTES, "wire.oversize"),
        ] {
            let gossip = Input::Gossip { peer: STRANGER, topic, bytes: vec![0; bytes], ticket: 5 };
            engine.handle(NOW_MS, gossip);
            let judged = std::iter::from_fn(|| engine.poll_effect()).find_map(|effect| {
                let Effect::Verdict { verdict, code, .. } = effect else { return None };
                Some((verdict, code))
            });
            assert_eq!(
                judged,
                Some((Verdict::Reject, Some(expected.to_owned()))),
                "{topic:?}, {bytes} bytes"
            );
        }
    }
}

#[test]
fn what_is_further_away_than_any_wait_is_due_at_once() {
    let retry = Retry::new(Pace::between(10, 640), 100_000);
    // now, whether it is due
    let table = [
        (100_000 - 641, true),
        (100_000 - 640, false),
        (100_000 - 639, false),
        (99_999, false),
        (100_000, true),
        (100_001, true),
        (0, true),
    ];
    for (now_ms, is_due) in table {
        assert_eq!(retry.is_due(now_ms), is_due, "at {now_ms}");
    }
}

#[test]
fn a_trade_that_needs_nothing_more_leaves_nothing_in_the_account() {
    let mut treasury = Treasury::default();
    treasury.commit(TradeId([1; 32]), 5);
    treasury.commit(TradeId([1; 32]), 0);
    treasury.commit(TradeId([2; 32]), 0);
    assert_eq!(treasury, Treasury::default());
}

#[test]
fn what_was_encoded_elsewhere_is_on_disk_before_the_effects_of_its_step() {
    let mut out = Outbox::default();
    let record = Record::store(b"a", &CounterV1(1)).unwrap();
    out.push(Effect::Reply { id: 1, bytes: Vec::new() });
    out.extend(vec![record.clone()]);
    assert_eq!(out.poll(), Some(Effect::Persist { seq: 1, records: vec![record] }));
    assert_eq!(out.poll(), Some(Effect::Reply { id: 1, bytes: Vec::new() }));
}

#[test]
fn a_record_that_ends_the_engine_has_its_code_and_says_what_to_do() {
    let of = |value: &[u8]| Record {
        table: CounterV1::TABLE.number(),
        key: b"k".to_vec(),
        value: Some(value.to_vec()),
    };
    let table = [
        (of(&[9, 1]), Cause::Version { found: 9, known: 1 }, "later release"),
        (of(&[1, 1]), Cause::Malformed, "capex db check"),
    ];
    for (record, cause, hint) in table {
        let unreadable = record.load::<CounterV1>().unwrap_err();
        assert_eq!(unreadable.cause, cause);
        assert!(unreadable.hint().contains(hint), "{}", unreadable.hint());
        let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
        engine.handle(NOW_MS, Input::Started { records: vec![record], salt: [3; 32] });
        let Some(Effect::Halt { fault }) = engine.poll_effect() else { panic!("goes on") };
        assert_eq!((fault.code(), fault.hint()), ("record.unreadable", unreadable.hint()));
    }
    let mut out = Outbox::default();
    out.store(b"b", &Bytes(vec![0; capex_core::limits::RECORD_MAX_BYTES]));
    out.flush();
    let Some(Effect::Halt { fault }) = out.poll() else { panic!("goes on") };
    assert_eq!(fault.code(), "record.too_large");
    assert!(fault.hint().contains("a restart is safe"), "{}", fault.hint());
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Bytes(Vec<u8>);

impl Stored for Bytes {
    const TABLE: Table = Table::Epoch;
}

#[test]
fn a_sale_is_paid_out_where_the_owner_says_and_fresh_places_serve_once() {
    let spk = |n: u8| ScriptBuf::from_bytes(vec![0x51, n]);
    let fresh = |places: &[u8]| Payout::Fresh(places.iter().map(|n| spk(*n)).collect());
    // What the wallet says, one after the other; where the next three sales are paid out
    let table: Vec<(Vec<Payout>, [Option<u8>; 3])> = vec![
        (vec![], [Some(1), Some(2), None]),
        (vec![Payout::Fixed(spk(7))], [Some(7); 3]),
        (vec![fresh(&[8, 9])], [Some(8), Some(9), None]),
        (vec![fresh(&[8]), fresh(&[9])], [Some(8), Some(9), None]),
        (vec![fresh(&[8]), Payout::Fixed(spk(7))], [Some(7); 3]),
        (vec![Payout::Fixed(spk(7)), Payout::Wallet], [Some(1), Some(2), None]),
    ];
    for (said, expected) in table {
        let mut wallet = WalletView { fresh_spks: [spk(1), spk(2)].into(), ..Default::default() };
        for payout in said.clone() {
            wallet.pay_out_to(payout);
        }
        let paid = [(); 3].map(|()| {
            let next = wallet.next_payout().cloned();
            wallet.use_payout();
            next
        });
        assert_eq!(paid, expected.map(|place| place.map(spk)), "{said:?}");
    }
}
