//! Records that outlive versions: what cannot be read stops the engine.

#![allow(clippy::unwrap_used, reason = "a broken fixture should end the test")]

use std::fs;
use std::path::Path;

use capex_core::engine::kernel::{Cause, Halt, Record, Table, Unreadable};
use capex_core::engine::register::RegisterCommand;
use capex_core::engine::stored::reread;
use capex_core::engine::{Effect, Engine, Input, Keys};
use capex_core::ids::from_hex;
use capex_core::test_support::devnet;

const NOW_MS: u64 = 1_800_000_000_000;

fn effects(engine: &mut Engine) -> Vec<Effect> {
    std::iter::from_fn(|| engine.poll_effect()).collect()
}

#[test]
fn an_unreadable_record_halts_the_engine_for_good() {
    let of = |table: u8, key: &[u8], value: &[u8]| Record {
        table,
        key: key.to_vec(),
        value: Some(value.to_vec()),
    };
    let version = |known| Cause::Version { found: 0xee, known };
    let id = [7; 32];
    let mut order_key = 5_u64.to_be_bytes().to_vec();
    order_key.extend_from_slice(&id);
    let table = [
        (of(Table::Counter.number(), b"key", &[0xee, 1]), version(1)),
        (of(Table::Counter.number(), b"key", &[1, 1]), Cause::Malformed),
        (of(Table::Counter.number(), &[0xff], &[1, 0, 0, 0, 0, 0, 0, 0, 1]), Cause::Key),
        (of(Table::Standing.number(), &id, &[0xee]), version(2)),
        (of(Table::Standing.number(), &id, &[1, 0]), Cause::Malformed),
        (of(Table::Order.number(), &order_key, &[0xee]), version(1)),
        (of(Table::Order.number(), &order_key, &[1]), Cause::Malformed),
        (of(Table::Epoch.number(), &[1; 8], &[0xee]), version(1)),
        (of(Table::EpochPart.number(), &[1; 12], &[1; 3]), Cause::Content),
        (of(Table::EpochOrders.number(), &[1; 11], &[1; 3]), Cause::Key),
        (of(Table::Issued.number(), &id, &[0xee]), version(1)),
        (of(Table::Issued.number(), &id, &[1]), Cause::Malformed),
        (of(Table::Held.number(), &id, &[0xee]), version(1)),
        (of(Table::Lease.number(), &id, &[0xee]), version(2)),
        (of(Table::Lease.number(), &id, &[1]), Cause::Malformed),
        (of(Table::Maintenance.number(), &[0; 4], &[0xee]), version(1)),
        (
            of(
                Table::Maintenance.number(),
                &[0],
                &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            Cause::Key,
        ),
        (of(Table::HeldLease.number(), &id, &[0xee]), version(2)),
        (of(Table::HeldLease.number(), &id, &[1]), Cause::Malformed),
        (of(Table::Attached.number(), &id, &[0xee]), version(1)),
        (of(Table::Pool.number(), &id, &[0xee]), version(1)),
        (of(Table::Proof.number(), &id, &[0xee]), version(1)),
        (of(Table::Horizon.number(), b"register", &[0xee]), version(1)),
        (of(Table::Capacity.number(), &[0, 1], &[0xee]), version(1)),
        (of(Table::Capacity.number(), &[0], &[1, 0, 0, 0, 9]), Cause::Key),
        (of(Table::Capacity.number(), &[0, 1], &[1, 0xff, 0xff, 0xff, 0xff]), Cause::Content),
        (of(0x7f, b"later", &[1]), Cause::Table),
    ];
    for (record, cause) in table {
        let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
        let fault = Unreadable { table: record.table, key: record.key.clone(), cause };
        engine.handle(NOW_MS, Input::Started { records: vec![record], salt: [3; 32] });
        match &effects(&mut engine)[..] {
            [Effect::Halt { fault: Halt::Unreadable(found) }] => assert_eq!(*found, fault),
            other => panic!("{fault}: {other:?}"),
        }
        assert!(!fault.hint().is_empty());
        engine.handle(NOW_MS, Input::Tick);
        engine.handle(
            NOW_MS,
            Input::Command { id: 1, command: RegisterCommand::SetCapacity(vec![(1, 5)]).into() },
        );
        assert!(effects(&mut engine).is_empty(), "a halted engine does nothing: {fault}");
    }
}

#[test]
fn records_of_the_shell_are_passed_over() {
    let mut engine = Engine::new(devnet(), Keys::new([1; 32], [2; 32]));
    let record = Record { table: 0xe0, key: b"d".to_vec(), value: Some(b"{}".to_vec()) };
    engine.handle(NOW_MS, Input::Started { records: vec![record], salt: [3; 32] });
    assert!(!effects(&mut engine).iter().any(|effect| matches!(effect, Effect::Halt { .. })));
}

/// The frozen record of a table.
fn frozen(table: Table) -> Record {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/records");
    let path = folder.join(format!("{}.hex", table.name()));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let bytes = |word: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap();
        from_hex(line.trim()).unwrap()
    };
    Record { table: table.number(), key: bytes("key "), value: Some(bytes("value ")) }
}

#[test]
fn each_table_has_a_frozen_record_that_is_written_again_byte_for_byte() {
    for table in Table::ALL {
        let record = frozen(table);
        assert_eq!(reread(&record), Ok(record.clone()), "{table:?}");
        let value = record.value.clone().unwrap();
        let damaged = |value: Vec<u8>| Record { value: Some(value), ..record.clone() };
        let later = [&[0xee], &value[1..]].concat();
        let longer = [&value[..], &[0]].concat();
        let unknown = Cause::Version { found: 0xee, known: value[0] };
        let cases = [
            (damaged(later), unknown),
            (damaged(value[..value.len() - 1].to_vec()), Cause::Malformed),
            (damaged(longer), Cause::Malformed),
            (damaged(Vec::new()), Cause::Malformed),
            (Record { key: [&record.key[..], &[0xff]].concat(), ..record.clone() }, Cause::Key),
        ];
        for (bad, cause) in cases {
            assert_eq!(reread(&bad), Err(bad.unreadable(cause)), "{table:?}");
        }
    }
    let foreign = Record { table: 0x7f, ..frozen(Table::Counter) };
    assert_eq!(reread(&foreign), Err(foreign.unreadable(Cause::Table)));
}
