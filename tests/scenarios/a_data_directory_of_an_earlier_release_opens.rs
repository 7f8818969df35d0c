//! Frozen data directories, and a frozen record of each table.
//!
//! `tests/vectors/datadir` holds for each form of the records, `v1` the first, the journals of a
//! provider, a buyer that gave its
//! certificate away and a holder that redeemed it, with what an engine must find in them;
//! `tests/vectors/records` one record of each table in the last of them, and seven that
//! need a counterparty that cheats or fails, a store that was restored, a node that ended within a
//! moment, a register that has been there for long, or a host that is maintained. This release has
//! to read them, and so has every later one: a new form of a record gets a new version and a
//! directory, and those before stay. Where nothing was released yet the last may be made anew:
//!
//! ```text
//! CAPEX_BLESS=1 cargo test --test sim earlier_release
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::kit::{bid, bought_cert, devnet, pair, place, reach, story, trades, window};
use capex::sim::World;
use capex::store::{Meta, Store};
use capex::wallet;
use capex_core::certificate::equivocation::{Statement, prove};
use capex_core::certificate::objects::{RedeemGrant, StatementKind};
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::kernel::{Cause, Halt, Record, Table, Unreadable};
use capex_core::engine::leases::LeaseCommand;
use capex_core::engine::pools::{Pool, PoolCommand};
use capex_core::engine::register::RestoredV1;
use capex_core::engine::{Command, Done, Effect, Engine, Input, Keys};
use capex_core::epoch::epoch_at;
use capex_core::ids::{CertId, Digest, Key, LeaseId, from_hex, to_hex};
use capex_core::lease::objects::Workload;
use capex_core::settlement::fees::FeeLimit;
use capex_core::wire::{VERSION, encode, sha256, sign};
use ed25519_dalek::SigningKey;

const SEED: u64 = 23;
const NODES: [&str; 3] = ["provider", "giver", "holder"];
/// As this release writes it.
const LAST: &str = "datadir/v2";
const ALL: [&str; 2] = ["datadir/v1", LAST];

fn vectors(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder)
}

fn meta() -> Meta {
    let params = devnet();
    Meta { network: params.name, magic: params.magic }
}

fn secret(number: u64) -> [u8; 32] {
    sha256(&[b"sim node", &SEED.to_be_bytes(), &number.to_be_bytes()])
}

fn engine(number: usize) -> Engine {
    let secret = secret(number as u64);
    let params = devnet();
    let wallet = wallet::Keys::from_seed(&secret, params.chain.network).unwrap();
    Engine::new(params, Keys::new(secret, wallet.settlement_secret().unwrap()))
}

fn started(number: usize, now_ms: u64, records: Vec<Record>) -> (Engine, Option<Unreadable>) {
    let mut engine = engine(number);
    engine.handle(now_ms, Input::Started { records, salt: [9; 32] });
    let mut halt = None;
    while let Some(effect) = engine.poll_effect() {
        if let Effect::Halt { fault: Halt::Unreadable(fault) } = effect {
            halt = Some(fault);
        }
    }
    (engine, halt)
}

/// What an engine knows, in lines.
fn known(engine: &Engine, now_ms: u64) -> String {
    let mut text = String::new();
    for order in engine.market().standing() {
        let (state, filled) = (order.state.name(), order.filled);
        writeln!(text, "order {} {state} filled {filled}", order.id).unwrap();
    }
    for (epoch, view) in engine.market().epochs.iter() {
        let result = view.result.as_ref().map(|result| to_hex(&result.result_root));
        let result = result.unwrap_or_default();
        writeln!(text, "epoch {epoch} {} orders {result}", view.set.len()).unwrap();
    }
    for trade in engine.trades().views() {
        writeln!(text, "trade {} {:?} {}", trade.trade, trade.role, trade.state).unwrap();
    }
    for held in engine.certificates(devnet().slot_at(now_ms)) {
        let facts = &held.facts;
        writeln!(text, "certificate {} {:?} {}", facts.cert_id, held.role, held.state).unwrap();
    }
    for lease in engine.leases().views(engine.me(), 0) {
        writeln!(text, "lease {} {:?} {}", lease.lease_id, lease.role, lease.phase).unwrap();
    }
    text
}

/// A trade, a gift of what was bought, a redemption, and an order that still stands.
fn tell() -> World {
    let mut world = pair(SEED, NODES.len());
    reach(&mut world, 1, "active");
    let cert = bought_cert(&world, 1);
    let to = world.nodes[2].key;
    let gift = world.command(1, HoldingsCommand::Gift { cert, to });
    let received = |world: &World| {
        world.engine(2).is_some_and(|engine| engine.holdings().held(&cert).is_some())
            && world.answer(1, gift).is_some()
    };
    assert!(world.run_until(10_000, received), "{}", story(&world));
    let workload =
        Workload { command: vec!["a".to_owned()], ..Workload::wasm(Digest([7; 32]), 100) };
    let redeem = LeaseCommand::Redeem { cert, workload: Box::new(workload) };
    let redeem = world.command(2, redeem);
    assert!(world.run_until(10_000, |world| world.answer(2, redeem).is_some()));
    assert!(matches!(world.answer(2, redeem), Some(Ok(Done::Redeemed { .. }))));
    let bids = Box::new(bid(1, 1000, 1, window(60, 70), 2));
    let workload = Box::new(Workload::wasm(Digest([7; 32]), 100));
    let brought = world.command(1, Command::Buy { spec: bids, workload });
    assert!(matches!(world.answer(1, brought), Some(Ok(Done::Placed(_)))));
    place(&mut world, 2, bid(1, 1000, 1, window(12, 20), 2));
    found_pool(&mut world);
    let is_open = |world: &World, node| trades(world, node).iter().any(|trade| !trade.done);
    let has_signed = |world: &World| {
        let epoch = epoch_at(world.now_ms, &devnet());
        world.engine(1).is_some_and(|engine| engine.market().signed_for(epoch).count() > 0)
    };
    let is_settling = |world: &World| is_open(world, 0) && is_open(world, 2) && has_signed(world);
    assert!(world.run_until(10_000, is_settling), "{}", story(&world));
    world
}

/// A pool that waits for others.
fn found_pool(world: &mut World) {
    let pool = Pool {
        v: VERSION,
        creator: Key::default(),
        to: world.nodes[2].key,
        class: 1,
        features: 0,
        qty: 1,
        window: window(60, 70),
        slots: 2,
        limit_msat: 5_000_000,
        until_ms: world.now_ms + 100_000,
        invited: Vec::new(),
        all_or_nothing: false,
        nonce16: [0; 16],
    };
    let fees = FeeLimit { share_percent: 100, cap_sat: None };
    let create = PoolCommand::Create { pool: Box::new(pool), share_sat: 6_000, fees };
    let create = world.command(1, create);
    assert!(matches!(world.answer(1, create), Some(Ok(Done::Pool(_)))));
}

/// Once, before anything is read.
fn bless_if_asked() {
    static BLESSED: Once = Once::new();
    if std::env::var_os("CAPEX_BLESS").is_some() {
        BLESSED.call_once(bless);
    }
}

fn bless() {
    assert!(std::env::var_os("CI").is_none(), "vectors are never written in CI");
    let world = tell();
    let _ = fs::remove_dir_all(vectors(LAST));
    let _ = fs::remove_dir_all(vectors("records"));
    let mut tables = BTreeMap::new();
    for (number, name) in NODES.iter().enumerate() {
        let all = world.nodes[number].disk.records();
        let of_engine = |record: &Record| record.table < Table::FIRST_OF_SHELL;
        let records: Vec<Record> = all.into_iter().filter(of_engine).collect();
        let dir = vectors(LAST).join(name);
        Store::open(&dir, &meta()).unwrap().0.persist(&records).unwrap();
        // The index is made of the journal, and the lock is no record.
        fs::remove_dir_all(dir.join("index")).unwrap();
        fs::remove_file(dir.join("lock")).unwrap();
        let (engine, halt) = started(number, world.now_ms, records.clone());
        assert_eq!(halt, None);
        let text = format!("now_ms {}\n{}", world.now_ms, known(&engine, world.now_ms));
        fs::write(dir.join("known.txt"), text).unwrap();
        for record in records {
            tables.entry(record.table).or_insert((number, record));
        }
    }
    for record in samples() {
        tables.insert(record.table, (2, record));
    }
    fs::create_dir_all(vectors("records")).unwrap();
    for (table, (number, record)) in tables {
        let name = Table::with_number(table).unwrap().name();
        let (node, key) = (NODES[number], to_hex(&record.key));
        let value = to_hex(&record.value.unwrap());
        let text = format!("node {node}\nkey {key}\nvalue {value}\n");
        fs::write(vectors("records").join(format!("{name}.hex")), text).unwrap();
    }
}

/// A redemption by a provider of its own key.
fn grant(redeem_hash: [u8; 32]) -> Statement {
    let provider = SigningKey::from_bytes(&[5; 32]);
    let grant = RedeemGrant {
        v: VERSION,
        provider: Key(provider.verifying_key().to_bytes()),
        cert_id: CertId([6; 32]),
        seq: 1,
        attempt: 0,
        redeem_hash: LeaseId(redeem_hash),
        p_height: 200,
    };
    let magic = devnet().magic;
    let signed = sign(grant, magic, &provider);
    Statement::verify(StatementKind::RedeemGrant, signed.envelope(), magic).unwrap()
}

/// What a node keeps of a provider that let two leases have one certificate.
fn proof() -> Record {
    let proof = prove(&grant([1; 32]), &grant([2; 32])).unwrap();
    let provider = proof.a.1.key.to_vec();
    let value = [&[1], encode(&proof).as_slice(), &7_u32.to_be_bytes()].concat();
    Record { table: Table::Proof.number(), key: provider, value: Some(value) }
}

/// What a register keeps of a statement of its own that it does not know.
fn behind() -> Record {
    let said = grant([1; 32]);
    let value = [&[1], encode(&(said.kind(), said.envelope())).as_slice()].concat();
    Record { table: Table::Behind.number(), key: RestoredV1::KEY.to_vec(), value: Some(value) }
}

/// What a node keeps of an epoch that ended, here without any order.
fn frozen_epoch() -> Record {
    let value = [[1].as_slice(), &[0; 12]].concat();
    Record { table: Table::Frozen.number(), key: 7_u64.to_be_bytes().to_vec(), value: Some(value) }
}

fn samples() -> [Record; 7] {
    [proof(), conduct(), behind(), restored(), frozen_epoch(), horizon(), maintenance()]
}

/// What a provider keeps of a maintenance that it has announced.
fn maintenance() -> Record {
    let announced = (1_800_000_000_000_u64, 1_800_000_004_000_u64, "new disks".to_owned());
    let value = [&[1], encode(&announced).as_slice()].concat();
    let key = 1_u32.to_be_bytes().to_vec();
    Record { table: Table::Maintenance.number(), key, value: Some(value) }
}

/// How high the chain was for a register in two slots.
fn horizon() -> Record {
    let notes: Vec<(u32, u32)> = vec![(450_000_000, 100), (450_000_021, 240)];
    let value = [&[1], encode(&notes).as_slice()].concat();
    Record { table: Table::Horizon.number(), key: RestoredV1::KEY.to_vec(), value: Some(value) }
}

/// What stands in a store that was restored from a copy.
fn restored() -> Record {
    let marker = RestoredV1 { at_ms: 1_800_000_000_000 };
    Record::store(RestoredV1::KEY, &marker).unwrap()
}

/// What a node keeps of a key that signed no terms three times.
fn conduct() -> Record {
    let until_ms = 1_800_000_000_000_u64.to_be_bytes();
    let parts: [&[u8]; 7] =
        [&[1], &until_ms, &[2], &[0, 0, 0, 0, 0, 0, 0, 1], &[0; 4], &[0, 0, 0, 3], &[0; 8]];
    Record { table: Table::Conduct.number(), key: vec![7; 32], value: Some(parts.concat()) }
}

/// Opens a copy of a frozen directory: its records, when it was written, what it must show.
fn opened(of: &str, name: &str) -> (Vec<Record>, u64, String) {
    let from = vectors(of).join(name);
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    for file in fs::read_dir(from.join("journal")).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, dir.path().join("journal").join(path.file_name().unwrap())).unwrap();
    }
    let (store, report) = Store::open(dir.path(), &meta()).unwrap();
    assert_eq!((report.quarantined, report.truncated_bytes), (None, 0));
    let records = store.load().unwrap();
    let text = fs::read_to_string(from.join("known.txt")).unwrap();
    let (now_ms, known) = text.split_once('\n').unwrap();
    (records, now_ms.strip_prefix("now_ms ").unwrap().parse().unwrap(), known.to_owned())
}

fn frozen(table: Table) -> (usize, Record) {
    let path = vectors("records").join(format!("{}.hex", table.name()));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let value = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap();
        line.trim().to_owned()
    };
    let number = NODES.iter().position(|node| *node == value("node")).unwrap();
    let (key, value) = (from_hex(&value("key")).unwrap(), from_hex(&value("value")).unwrap());
    (number, Record { table: table.number(), key, value: Some(value) })
}

#[test]
fn its_orders_trades_certificates_and_leases_are_all_there() {
    bless_if_asked();
    for of in ALL {
        let mut all = String::new();
        for (number, name) in NODES.iter().enumerate() {
            let (records, now_ms, expected) = opened(of, name);
            let (engine, halt) = started(number, now_ms, records);
            assert_eq!(halt, None, "{of}: {name}");
            assert_eq!(known(&engine, now_ms), expected, "{of}: {name}");
            all += &expected;
        }
        for word in ["order ", "epoch ", "trade ", "certificate ", "lease "] {
            assert!(all.lines().any(|line| line.starts_with(word)), "{of}: {word}");
        }
    }
}

#[test]
fn each_table_has_a_frozen_record_and_a_damaged_one_is_named() {
    bless_if_asked();
    let bytes = |record: &Record| record.value.clone().unwrap();
    for table in Table::ALL {
        let (number, record) = frozen(table);
        let (mut records, now_ms, _) = opened(LAST, NODES[number]);
        let samples = samples();
        if let Some(sample) = samples.iter().find(|other| other.table == record.table) {
            assert_eq!(record, *sample);
            records.push(record.clone());
        }
        assert!(records.contains(&record), "{table:?} is in the directory as it is in the file");
        let version = bytes(&record)[0];
        let mut later = bytes(&record);
        later[0] = 0xee;
        let mut shorter = bytes(&record);
        shorter.pop();
        let mut longer = bytes(&record);
        longer.push(0);
        let unknown = Cause::Version { found: 0xee, known: version };
        for (value, cause) in
            [(later, unknown), (shorter, Cause::Malformed), (longer, Cause::Malformed)]
        {
            let mut damaged = records.clone();
            let place = damaged.iter().position(|other| *other == record).unwrap();
            damaged[place].value = Some(value);
            let (_, halt) = started(number, now_ms, damaged);
            let expected = Unreadable { table: table.number(), key: record.key.clone(), cause };
            assert_eq!(halt, Some(expected), "{table:?}");
        }
    }
}
