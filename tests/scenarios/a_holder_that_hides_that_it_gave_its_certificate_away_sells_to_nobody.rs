//! A dishonest holder offers what it has given away: its ask shows an Activation that once was the
//! last. The provider locks nothing for it, so nobody pays.

use std::collections::BTreeMap;

use capex::sim::World;
use capex_core::engine::holdings::HoldingsCommand;
use capex_core::engine::kernel::{Miss, Record};
use capex_core::engine::messages::SettleRequest;
use capex_core::engine::register::RegisterRequest;

use super::kit::{rest, story, trades};
use super::resale::{BUYER, PROVIDER, QTY, RESELLER, facts, held_from, holds, offer, want};

const FRIEND: usize = 3;

/// It does not ask what became of the certificate, or it would know.
fn is_question(said: &SettleRequest) -> bool {
    use RegisterRequest::{Checkpoint, Get, Held};
    matches!(said, SettleRequest::Register(Get(_) | Held { .. } | Checkpoint(_)))
}

#[test]
fn and_what_it_costs_is_the_row_of_an_epoch() {
    let (mut world, cert) = held_from(57, 4, 40);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    let disk = &world.nodes[RESELLER].disk;
    let copy = disk.records();
    let to = world.nodes[FRIEND].key;
    world.command(RESELLER, HoldingsCommand::Gift { cert, to });
    assert!(world.run_until(5_000, |world| !holds(world, FRIEND).is_empty()));
    world.crash(RESELLER);
    world.run_for(7_000);
    let disk = &world.nodes[RESELLER].disk;
    let gone = disk.records().into_iter().map(|record| Record { value: None, ..record });
    disk.write(&gone.chain(copy).collect::<Vec<_>>()).unwrap();
    world.nodes[RESELLER].withholds = Some((PROVIDER, is_question));
    world.start(RESELLER);
    assert_eq!(holds(&world, RESELLER), [(cert, QTY, window)], "so it says");
    offer(&mut world, cert);
    want(&mut world, BUYER, QTY, window);
    let ended = |world: &World| trades(world, BUYER).iter().any(|trade| trade.done);
    assert!(world.run_until(20_000, ended), "{}", story(&world));
    let codes: Vec<_> = trades(&world, BUYER).into_iter().filter_map(|trade| trade.code).collect();
    assert_eq!(codes.first().map(String::as_str), Some("lock.not_holder"));
    rest(&mut world);
    assert!(trades(&world, BUYER).iter().all(|trade| trade.fund.is_none()), "{}", story(&world));
    assert_eq!(holds(&world, FRIEND), [(cert, QTY, window)]);
    // It is the holder's fault, and none of the provider.
    let conduct = world.engine(BUYER).unwrap().conduct();
    let misses = |node: usize| conduct.misses(&world.nodes[node].key).cloned();
    assert_eq!(misses(PROVIDER), None);
    let times = u32::try_from(codes.len()).unwrap();
    assert_eq!(misses(RESELLER), Some(BTreeMap::from([(Miss::Terms, times)])));
    // All that is wrong is what it says of itself.
    let faults = world.faults_at_rest();
    let its = format!("node {RESELLER} calls {cert} its own, ");
    assert!(faults.iter().all(|fault| fault.starts_with(&its)), "{faults:?}");
}
