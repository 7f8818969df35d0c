//! Each message of a settlement is lost, comes twice, or comes after its successors.

use capex::sim::Mishap;

use super::troubles::{BUYER, End, assert_end, world_at};

const SEED: u64 = 51;
/// Longer than the deadline of terms, and of a funding.
const AGES_MS: u64 = 4_000;

#[test]
fn whichever_it_is() {
    let begin = || world_at(SEED, (BUYER, "draft"));
    let mut world = begin();
    let first = world.settling.sent();
    assert_end(&mut world, "no mishap", End::Settled);
    let last = world.settling.sent();
    assert!(last > first + 6, "{first} to {last}");
    let mishaps = [
        Mishap::Lost,
        Mishap::Again(40),
        Mishap::Again(AGES_MS),
        Mishap::Late(200),
        Mishap::Late(AGES_MS),
    ];
    for number in first + 1..=last {
        for mishap in mishaps {
            let mut world = begin();
            world.settling.choose(number, mishap);
            // One message is asked for again in time, so that it costs not even the trade.
            let label = format!("message {number} of {first} to {last}: {mishap:?}");
            assert_end(&mut world, &label, End::Settled);
        }
    }
}
