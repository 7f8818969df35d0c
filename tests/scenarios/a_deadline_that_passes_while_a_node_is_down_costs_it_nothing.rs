//! A node goes down at each moment of a settlement and comes back behind each deadline.

use super::troubles::{BUYER, End, MOMENTS, SELLER, assert_end, be_away, world_at};

/// Behind the deadlines of messages, of the funding, of the lock, of the reveal, of the
/// refund, and of the delivery, ms from the terms.
const DEADLINES_MS: [u64; 6] = [3_500, 6_500, 8_500, 12_500, 15_500, DELIVERY_OVER_MS];
const DELIVERY_OVER_MS: u64 = 60_000;

#[test]
fn nor_the_other() {
    for moment in MOMENTS {
        for node in [BUYER, SELLER] {
            for deadline_ms in DEADLINES_MS {
                let mut world = world_at(81, moment);
                be_away(&mut world, node, deadline_ms);
                let label = format!("{moment:?}: node {node} is down for {deadline_ms} ms");
                // A provider that is away until the delivery is over has not delivered.
                let is_over = node == SELLER && deadline_ms == DELIVERY_OVER_MS;
                let end = if is_over { End::EitherOrDefaulted } else { End::Either };
                assert_end(&mut world, &label, end);
            }
        }
    }
}

#[test]
fn both_at_once() {
    for moment in MOMENTS {
        for deadline_ms in DEADLINES_MS {
            let mut world = world_at(82, moment);
            world.crash(BUYER);
            be_away(&mut world, SELLER, deadline_ms);
            world.start(BUYER);
            let label = format!("{moment:?}: both are down for {deadline_ms} ms");
            assert_end(&mut world, &label, End::Either);
        }
    }
}
