//! Each of the three dies at each of its writes, from when a part of a certificate is on offer
//! until its buyer holds it.

use capex::sim::{Kill, NodeId, World};

use super::kit::{assert_sound_after, rest, story};
use super::resale::{BUYER, PROVIDER, QTY, RESELLER, facts, held_from, holds, offer, want};

const SEED: u64 = 71;

fn begin() -> World {
    let (mut world, cert) = held_from(SEED, 3, 60);
    let window = facts(&world, RESELLER, cert).unwrap().window;
    offer(&mut world, cert);
    want(&mut world, BUYER, 1, window);
    world
}

fn is_bought(world: &World) -> bool {
    world.engine(BUYER).is_some() && !holds(world, BUYER).is_empty()
}

/// Blocks of a slot that are somebody's.
fn units(world: &World) -> u32 {
    let of = |node| holds(world, node).iter().map(|(_, qty, _)| qty).sum::<u32>();
    of(RESELLER) + of(BUYER)
}

fn writes(node: NodeId) -> std::ops::RangeInclusive<u64> {
    let mut world = begin();
    let before = world.nodes[node].disk.writes();
    assert!(world.run_until(45_000, is_bought), "{}", story(&world));
    world.run_for(3_000);
    before + 1..=world.nodes[node].disk.writes()
}

fn crash_at_each(node: NodeId) {
    for write in writes(node) {
        for side in [Kill::Before, Kill::After] {
            let mut world = begin();
            world.nodes[node].disk.kill_at(write, side);
            for _ in 0..30 {
                world.run_for(1_500);
                if world.engine(node).is_none() && world.nodes[node].disk.is_dead() {
                    world.start(node);
                }
                if is_bought(&world) {
                    break;
                }
            }
            let label = format!("node {node} dies {side:?} write {write}");
            assert!(is_bought(&world), "{label}: {}", story(&world));
            rest(&mut world);
            world.start(node);
            rest(&mut world);
            assert_sound_after(&label, &world);
            assert_eq!(units(&world), QTY, "{label}: {}", story(&world));
        }
    }
}

#[test]
fn of_the_holder() {
    crash_at_each(RESELLER);
}

#[test]
fn of_the_provider() {
    crash_at_each(PROVIDER);
}

#[test]
fn of_the_buyer() {
    crash_at_each(BUYER);
}
