//! One of two that pay together remembers that a provider has failed it. What a holder resells of
//! that provider it does not pay for, though its creator would.

use capex::sim::{NodeId, World};
use capex_core::engine::Done;
use capex_core::engine::kernel::{Record, Table};
use capex_core::engine::pools::{Pool, PoolCommand, read_invitation};
use capex_core::ids::{Key, PoolId};
use capex_core::settlement::fees::FeeLimit;
use capex_core::wire::VERSION;

use super::kit::{assert_sound, reach, rest, story, trades};
use super::resale::{PROVIDER, QTY, RESELLER, facts, held_from, offer};

const CREATOR: NodeId = 2;
const MEMBER: NodeId = 3;
const SHARE_SAT: u64 = 4_000;
const FEES: FeeLimit = FeeLimit { share_percent: 100, cap_sat: None };

/// What a node keeps of a key that has once not delivered, long ago.
fn miss(key: Key, until_ms: u64) -> Record {
    let until_ms = until_ms.to_be_bytes();
    let one = 1_u64.to_be_bytes();
    let parts: [&[u8]; 7] = [&[1], &until_ms, &[2], &one, &[0; 4], &[0, 0, 0, 1], &[0; 8]];
    let value = Some(parts.concat());
    Record { table: Table::Conduct.number(), key: key.0.to_vec(), value }
}

/// Two have pledged for what the holder offers.
fn pooled(denied: Option<NodeId>) -> (World, PoolId) {
    let (mut world, cert) = held_from(58, 4, 40);
    if let Some(denied) = denied {
        world.crash(MEMBER);
        let record = miss(world.nodes[denied].key, world.now_ms + 100_000);
        world.nodes[MEMBER].disk.write(&[record]).unwrap();
        world.start(MEMBER);
        world.run_for(500);
    }
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let pool = Pool {
        v: VERSION,
        creator: Key::default(),
        to: world.nodes[CREATOR].key,
        class: 1,
        features: 0,
        qty: QTY,
        window,
        slots: u16::try_from(window.len()).unwrap(),
        limit_msat: 1_000_000,
        until_ms: world.now_ms + 40_000,
        invited: Vec::new(),
        all_or_nothing: false,
        nonce16: [0; 16],
    };
    let create = PoolCommand::Create { pool: Box::new(pool), share_sat: SHARE_SAT, fees: FEES };
    let create = world.command(CREATOR, create);
    let Some(Ok(Done::Pool(id))) = world.answer(CREATOR, create) else { panic!("no pool") };
    let id = *id;
    let engine = world.engine(CREATOR).unwrap();
    let invitation = engine.pools().views(engine.me(), engine.params()).next().unwrap().invitation;
    let pool = Box::new(read_invitation(&invitation, world.params()).unwrap());
    world.command(MEMBER, PoolCommand::Join { pool, share_sat: SHARE_SAT, fees: FEES });
    offer(&mut world, cert);
    (world, id)
}

fn end(world: &World, node: NodeId) -> Option<String> {
    let engine = world.engine(node).unwrap();
    engine.pools().views(engine.me(), engine.params()).next().unwrap().code
}

#[test]
fn nor_of_a_holder_that_has_failed_it() {
    for denied in [PROVIDER, RESELLER] {
        let (mut world, _) = pooled(Some(denied));
        let ended = |world: &World| end(world, CREATOR).is_some();
        assert!(world.run_until(30_000, ended), "{}", story(&world));
        assert_eq!(end(&world, CREATOR).as_deref(), Some("pool.not_agreed"), "{denied}");
        assert!(trades(&world, MEMBER).is_empty(), "{denied}: it has signed nothing");
        let counts = world.engine(MEMBER).unwrap().refused();
        assert!(counts.contains_key("pool.denied"), "{counts:?}");
        rest(&mut world);
        assert_sound(&world);
    }
}

#[test]
fn and_without_a_denial_both_pay() {
    let (mut world, _) = pooled(None);
    for payer in [CREATOR, MEMBER] {
        reach(&mut world, payer, "active");
    }
    rest(&mut world);
    assert_sound(&world);
}
