//! One party vanishes after each step of a settlement, for good or for a while.

use capex::sim::{NodeId, World};

use super::troubles::End::{Defaulted, Either, EitherOrDefaulted, Settled, Undone};
use super::troubles::{
    BLOCK_MS, BUYER, End, Moment, PAST_REFUND_MS, PAST_RELEASE_MS, SELLER, assert_end, be_away,
    world_at, world_by_script_at,
};

/// How long somebody is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    ForGood,
    /// No longer than a message may take.
    Shortly,
    /// Until the buyer can have its coins back.
    PastRefund,
}

/// Whether miners take transactions while somebody is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Miners {
    Mine,
    /// They take none from the moment on, for so long, ms.
    Wait(u64),
}

type Cell = (&'static str, Moment, Miners, NodeId, [End; 3]);

/// Ends when somebody vanishes for good, comes back shortly, or past the refund height. The
/// seller is the provider too: with it the register is gone.
const TABLE: [Cell; 12] = {
    use Miners::{Mine, Wait};
    const SOON: Miners = Wait(2 * BLOCK_MS);
    const LATE: Miners = Wait(PAST_RELEASE_MS);
    [
        ("terms", (SELLER, "terms_signed"), Mine, BUYER, [Undone, Either, Undone]),
        ("terms", (BUYER, "terms_signed"), Mine, SELLER, [Undone, Either, Undone]),
        ("lock", (SELLER, "lock_granted"), Mine, BUYER, [Undone, Either, Undone]),
        ("lock", (BUYER, "locked"), Mine, SELLER, [Undone, Either, Undone]),
        ("funding waits", (SELLER, "fund_seen"), SOON, BUYER, [Settled; 3]),
        ("funding waits", (BUYER, "fund_sent"), SOON, SELLER, [Undone, Settled, Undone]),
        ("funding waits for long", (SELLER, "fund_seen"), LATE, BUYER, [Either; 3]),
        ("funding waits for long", (BUYER, "fund_sent"), LATE, SELLER, [Undone; 3]),
        ("funding is in a block", (BUYER, "fund_confirmed"), Mine, BUYER, [Settled; 3]),
        (
            "funding is in a block",
            (BUYER, "fund_confirmed"),
            Mine,
            SELLER,
            [EitherOrDefaulted, Either, Either],
        ),
        // Nobody but the buyer has heard of it, if that: there was no sale.
        ("sale is called paid", (SELLER, "quitting"), Mine, BUYER, [Settled; 3]),
        ("sale is called paid", (SELLER, "quitting"), Mine, SELLER, [Undone, Settled, Undone]),
    ]
};

/// Once the certificate has moved. With the buyer's key the seller spends alone; for a buyer that
/// is away it claims by script, and where it is away itself the buyer takes nothing back.
const MOVED: [Cell; 4] = {
    use Miners::Mine;
    [
        ("the buyer asks the provider", (BUYER, "preimage_known"), Mine, BUYER, [Settled; 3]),
        (
            "the buyer asks the provider",
            (BUYER, "preimage_known"),
            Mine,
            SELLER,
            [Undone, Settled, Undone],
        ),
        ("certificate is there", (BUYER, "active"), Mine, BUYER, [Settled; 3]),
        ("certificate is there", (BUYER, "active"), Mine, SELLER, [Settled; 3]),
    ]
};

/// Its spend is on its way, with the key and by script.
const SPENT: [Cell; 6] = {
    use Miners::{Mine, Wait};
    const SOON: Miners = Wait(2 * BLOCK_MS);
    const LATE: Miners = Wait(PAST_RELEASE_MS);
    [
        ("claim waits", (SELLER, "claim_sent"), SOON, BUYER, [Settled; 3]),
        ("claim waits", (SELLER, "claim_sent"), SOON, SELLER, [Defaulted, Settled, Settled]),
        ("claim waits for long", (SELLER, "claim_sent"), LATE, BUYER, [Settled; 3]),
        (
            "claim waits for long",
            (SELLER, "claim_sent"),
            LATE,
            SELLER,
            [Defaulted, Settled, Settled],
        ),
        ("claim is in a block", (SELLER, "claimed"), Mine, BUYER, [Settled; 3]),
        ("claim is in a block", (SELLER, "claimed"), Mine, SELLER, [Defaulted, Settled, Settled]),
    ]
};

fn play(mut world: World, cell: &Cell, away: Away, end: End) {
    let (step, _, miners, who, _) = cell;
    if *miners != Miners::Mine {
        world.set_mined_feerate(u64::MAX);
    }
    world.crash(*who);
    if let Miners::Wait(ms) = miners {
        world.run_for(*ms);
        world.set_mined_feerate(0);
    }
    match away {
        Away::ForGood => {}
        Away::Shortly => be_away(&mut world, *who, 2 * BLOCK_MS),
        Away::PastRefund => be_away(&mut world, *who, PAST_REFUND_MS),
    }
    assert_end(&mut world, &format!("{step}: node {who} is away {away:?}, {miners:?}"), end);
}

fn all(column: usize, away: Away) {
    for (seed, cell) in (31..).zip(TABLE.iter().chain(&MOVED)) {
        play(world_at(seed, cell.1), cell, away, cell.4[column]);
    }
    for (seed, cell) in (131..).zip(&SPENT) {
        play(world_by_script_at(seed, cell.1), cell, away, cell.4[column]);
        // A certificate that moved ahead of its spend is there already.
        let end = if cell.4[column] == Defaulted { Settled } else { cell.4[column] };
        play(world_at(seed, cell.1), cell, away, end);
    }
}

#[test]
fn for_good() {
    all(0, Away::ForGood);
}

/// Nobody is left who could lose, and their coins stay where they are.
#[test]
fn both_for_good() {
    for (seed, moment) in [(47, (BUYER, "fund_sent")), (48, (BUYER, "fund_confirmed"))] {
        let mut world = world_at(seed, moment);
        world.crash(SELLER);
        world.crash(BUYER);
        assert_end(&mut world, &format!("both are gone after {moment:?}"), Either);
    }
}

#[test]
fn for_a_moment() {
    all(1, Away::Shortly);
}

#[test]
fn until_the_refund_is_due() {
    all(2, Away::PastRefund);
}
