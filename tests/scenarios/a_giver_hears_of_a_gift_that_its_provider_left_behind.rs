//! The answer to a gift is lost with its giver's life. Before that is back, the certificate has
//! changed hands so often that the gift lies before a checkpoint.

use capex::sim::{Links, NodeId, World};
use capex_core::certificate::Certificate;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::messages::{SettleReply, SettleRequest};
use capex_core::engine::register::{RegisterReply, RegisterRequest};
use capex_core::engine::{Done, Protocol};
use capex_core::ids::CertId;
use capex_core::wire::{decode_record, encode};

use super::kit::{ask, assert_sound, bid, bought_cert, place, reach, rest, story, window, world};
use super::troubles::halt_orders;

const PROVIDER: NodeId = 0;
const GIVER: NodeId = 1;
const FRIENDS: [NodeId; 2] = [2, 3];
/// With the sale and the lost gift, as many hops as a checkpoint takes.
const FURTHER_GIFTS: usize = 14;
const ANSWER_MS: u64 = 4_000;

fn give(world: &mut World, from: NodeId, cert: CertId, to: NodeId) -> Result<Done, String> {
    let to = world.nodes[to].key;
    let command = world.command(from, HoldingsCommand::Gift { cert, to });
    let answered = |world: &World| world.answer(from, command).is_some();
    assert!(world.run_until(ANSWER_MS, answered), "{}", story(world));
    let answer = world.answer(from, command).cloned().unwrap();
    answer.map_err(|refusal| refusal.code)
}

fn is_held_by(world: &World, at: NodeId, cert: CertId, holder: NodeId) -> bool {
    let held = world.engine(at).and_then(|engine| engine.holdings().held(&cert));
    held.is_some_and(|facts| facts.holder == world.nodes[holder].key)
}

fn state(world: &World, node: NodeId, cert: CertId) -> Option<&'static str> {
    let engine = world.engine(node)?;
    let slot = world.params().slot_at(world.now_ms);
    let mut views = engine.holdings().views(engine.me(), slot);
    views.find(|view| view.facts.cert_id == cert).map(|view| view.state)
}

fn checkpoint(world: &mut World, holder: NodeId, cert: CertId) -> Certificate {
    let request = encode(&SettleRequest::from(RegisterRequest::Checkpoint(cert)));
    let peer = world.nodes[holder].key;
    let reply = world.ask_from(peer, PROVIDER, Protocol::Settle, &request).unwrap();
    match decode_record(&reply).unwrap() {
        SettleReply::Register(RegisterReply::Certificate(certificate)) => certificate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn and_its_record_says_that_it_holds_it_no_more() {
    let mut world = world(58, 4, Links::GOOD);
    world.set_capacity(PROVIDER, &[(1, 4)]);
    let when = window(25, 37);
    place(&mut world, PROVIDER, ask(1, 500, 4, when));
    place(&mut world, GIVER, bid(1, 1000, 2, when, 3));
    reach(&mut world, GIVER, "active");
    halt_orders(&mut world);
    world.run_for(1_000);
    let cert = bought_cert(&world, GIVER);

    let to = world.nodes[FRIENDS[0]].key;
    world.command(GIVER, HoldingsCommand::Gift { cert, to });
    let has_moved = |world: &World| {
        let issued = world.engine(PROVIDER).and_then(|engine| engine.register().issued(&cert));
        issued.is_some_and(|facts| facts.holder == to)
    };
    assert!(world.run_until(ANSWER_MS, has_moved), "{}", story(&world));
    world.crash(GIVER);
    for number in 0..FURTHER_GIFTS {
        let (from, to) = (FRIENDS[number % 2], FRIENDS[(number + 1) % 2]);
        assert!(world.run_until(ANSWER_MS, |world| is_held_by(world, from, cert, from)));
        give(&mut world, from, cert, to).unwrap();
    }
    let holder = FRIENDS[FURTHER_GIFTS % 2];
    assert!(world.run_until(ANSWER_MS, |world| is_held_by(world, holder, cert, holder)));
    assert_eq!(checkpoint(&mut world, holder, cert).hops.len(), 0);

    world.start(GIVER);
    assert_eq!(state(&world, GIVER, cert), Some("active"), "nobody has told it");
    let is_given = |world: &World| state(world, GIVER, cert) == Some("given");
    assert!(world.run_until(10_000, is_given), "{:?}", state(&world, GIVER, cert));
    assert!(is_held_by(&world, GIVER, cert, holder));
    let again = give(&mut world, GIVER, cert, FRIENDS[1]);
    assert_eq!(again, Err("gift.not_holder".to_owned()));
    rest(&mut world);
    assert_sound(&world);
}
