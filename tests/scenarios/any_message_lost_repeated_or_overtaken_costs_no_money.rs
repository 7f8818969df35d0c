//! Each message of a settlement is lost, comes twice, or comes after its successors.

use capex::sim::Mishap;

use super::troubles::{BUYER, End, Moment, SELLER, assert_end, world_at};

const SEED: u64 = 51;
/// Longer than the deadline of terms, and of a funding.
const AGES_MS: u64 = 4_000;

#[test]
fn whichever_it_is() {
    every_message_from((BUYER, "draft"), 6);
}

/// Quittance, Transfer, Activation and key, and what asks for them again.
#[test]
fn nor_one_of_a_sale_that_is_called_paid() {
    every_message_from((SELLER, "quitting"), 5);
}

fn every_message_from(moment: Moment, least: u64) {
    let begin = || world_at(SEED, moment);
    let mut world = begin();
    let first = world.settling.sent();
    assert_end(&mut world, "no mishap", End::Settled);
    let last = world.settling.sent();
    assert!(last >= first + least, "{first} to {last}");
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
